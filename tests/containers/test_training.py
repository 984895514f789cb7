"""The demo's pre-training, run in an image with PyTorch by the docker engine."""

import shutil

import pytest

import daemons
import torch_image
from lathe import ROOT, Server, wait_until

EXAMPLE = ROOT / "examples/tiny-llm"


def put(user, folder, paths):
    user.multipart("/api/file/file/uploadFolder", {"currentPath": folder},
                   [("file", path.name, path.read_bytes()) for path in paths]).ok()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_demos_training_runs_in_an_image_with_pytorch():
    archive = torch_image.archive()
    with daemons.Daemon("docker") as daemon, Server(arguments=["--docker-socket", daemon.socket]) as server:
        user = server.new_user()
        put(user, "/code", EXAMPLE.glob("*.py"))
        put(user, "/config", (EXAMPLE / "configs").glob("*.json"))
        for folder in ("train", "validate"):
            put(user, f"/data/pretrain/{folder}", (EXAMPLE / "data/pretrain" / folder).glob("*.txt"))
        # As if it had been uploaded: a gigabyte through a test's client takes longer than the training.
        shutil.copy(archive, server.data / "users" / user.id / "private" / "torch.tar")
        image = daemons.import_image(user, "team/pytorch", "torch.tar")
        id = user.post("/kernel/fineTune/createLlmFineTuneTask", {
            "name": "pretrain", "isPretrain": 1, "createWay": "custom", "type": "PyTorch", "image": image,
            "command": "python3 pretrain.py --input_dir ${input_dir} --output_dir ${output_dir}",
            "workingDir": "/code", "inputType": "local", "inputDir": "/data/pretrain", "outputDir": "/out",
            "profilePath": "/config/pretrain.json",
            "resource": [{"cpuNumber": 1, "memory": 3, "numbers": 1}]}).payload["id"]
        job = f"/api/v1/jobs/{id.replace('-', '')}"
        wait_until(lambda: user.get(job).ok()["state"] in ("succeeded", "failed", "cancelled"), 900, "the training's end")
        log = user.get(job + "/logs", query={"rank": 0}).text
        assert user.get(job).ok()["state"] == "succeeded", log
        metrics = user.get(job + "/metrics").ok()
        rows = metrics["items"] if isinstance(metrics, dict) else metrics
        losses = [row["value"] for row in rows if row["key"] == "loss" and row.get("step")]  # by their steps
        assert losses and losses[-1] < losses[0], log
        assert user.get("/api/v1/files/content", query={"path": "/out/model.safetensors"}).status == 200
        assert "/image:" in str(daemon.get("/images/json")[1])
