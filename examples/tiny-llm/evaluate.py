"""Measures how well a model predicts held-out text: perplexity per byte, the lower the better."""
from threads import set_threads  # before torch

import argparse
import json
from pathlib import Path

import torch

from model import load_model
from storage import write_json
from text import measure, read_folder


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--input_dir", required=True, help="text in its folder test/, or all its .txt files")
    parser.add_argument("--output_dir", required=True, help="gets metrics.json")
    arguments = parser.parse_args(argv)
    set_threads()
    test = Path(arguments.input_dir) / "test"
    data = read_folder(test if test.is_dir() else arguments.input_dir)
    model = load_model(arguments.model_dir).to("cuda" if torch.cuda.is_available() else "cpu")
    metrics = measure(model, data)
    write_json(Path(arguments.output_dir) / "metrics.json", metrics)
    print(json.dumps(metrics), flush=True)


if __name__ == "__main__":
    main()
