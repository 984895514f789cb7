"""Trains a small language model of bytes from random weights, or from a given model's."""
from threads import set_threads  # before torch

import torch

from model import Config, LlamaForCausalLM, load_model
from trainer import Ranks, Trainer, argument_parser, positive

SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")


def parse_arguments(argv=None):
    parser = argument_parser(__doc__, learning_rate=4e-3, lr_scheduler_type="cosine", warmup_steps=50,
                             per_device_train_batch_size=8, max_steps=400)
    parser.add_argument("--model_dir", help="a model to start from; its shape counts, not the arguments below")
    for name in SHAPE:
        parser.add_argument(f"--{name}", type=positive(int), default=getattr(Config, name))
    parser.add_argument("--tie_word_embeddings", choices=("true", "false"), default="true")
    return parser.parse_args(argv)


def make_model(arguments):
    if arguments.model_dir:
        return load_model(arguments.model_dir)
    torch.manual_seed(arguments.seed)
    return LlamaForCausalLM(Config(tie_word_embeddings=arguments.tie_word_embeddings == "true",
                                   **{name: getattr(arguments, name) for name in SHAPE}))


def main(argv=None):
    arguments = parse_arguments(argv)
    set_threads()
    trainer = Trainer(make_model(arguments), arguments, Ranks())
    trainer.train()
    trainer.finish(trainer.model.save)


if __name__ == "__main__":
    main()
