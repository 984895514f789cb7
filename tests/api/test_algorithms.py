"""Preset algorithms: listed, and run by jobs and services that name no command."""

import importlib.util
import pathlib

import pytest

from lathe import wait_until

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "tiny-llm"
TASK = "/kernel/fineTune/createLlmFineTuneTask"

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no PyTorch here")


def test_preset_algorithms_are_listed(user):
    rows = user.items("/api/v1/algorithms")
    ids = [row["id"] for row in rows]
    for known in ("tiny-llm-pretrain", "tiny-llm-finetune", "tiny-llm-evaluate", "tiny-llm-serve", "llama-factory-lora",
                  "hf-peft-lora", "torchtune-lora", "lm-evaluation-harness", "opencompass", "vllm", "sglang"):
        assert known in ids
    assert {row["kind"] for row in user.items("/api/v1/algorithms", kind="serving")} == {"serving"}
    one = user.get("/api/v1/algorithms/tiny-llm-finetune").ok()
    lora_r = next(p for p in one["parameters"] if p["name"] == "lora_r")
    assert (lora_r["default"], lora_r["type"], lora_r["group"]) == ("8", "integer", "tuning")
    assert set(one["name"]) == {"zh", "en"}
    user.get("/api/v1/algorithms/none").expect(404)


def upload(user, folder, files):
    assert user.multipart("/api/file/file/uploadFolder", {"currentPath": folder},
                          [("file", name, content) for name, content in files.items()]).status == 200


def texts(folder):
    """A few kilobytes of each of the folder's texts are enough here."""
    return {str(path.relative_to(folder)): path.read_bytes()[:4096] for path in folder.rglob("*.txt")}


def run(user, **task):
    """Creates a task without a command and waits for its end; its id."""
    made = user.post(TASK, {"createWay": "system", "type": "PyTorch", "inputType": "local", "resource": [
        {"cpuNumber": 1, "memory": 2, "nodeType": "master", "numbers": 1}], **task}).payload
    def ended():
        row = user.post(f"/kernel/fineTune/queryLlmFineTuneTaskDetail?taskId={made['id']}").payload
        return row["status"] not in ("Pending", "Running") and row
    row = wait_until(ended, timeout=120, what=task["name"])
    log = user.get(f"/api/v1/jobs/{made['id']}/logs").text
    assert row["status"] == "Succeeded", (row["status"], row["statusReason"], log[-2000:])
    return made["id"]


def register(user, version, job):
    made = user.post("/model/aiApplication/createAiApplication", {
        "application": {"name": "tiny", "type": "LLM"},
        "aiApplicationVersionList": [{"version": version, "source": 1, "llmFineTuneTaskId": job}]}).payload
    made = made["aiApplicationVersionList"][0]["id"]
    path = f"/model/aiApplicationVersion/getAiApplicationVersionDetail?aiApplicationVersionId={made}"
    row = wait_until(lambda: (now := user.get(path).payload)["status"] != 1 and now, what="the import")
    assert row["status"] == 2, row
    return row


@needs_torch
def test_a_model_is_trained_tuned_and_served_without_writing_a_command(server):
    user = server.new_user()
    upload(user, "/pretrain", texts(EXAMPLE / "data" / "pretrain"))
    upload(user, "/tune", texts(EXAMPLE / "data" / "tune"))
    upload(user, "/config", {"config.json": (EXAMPLE / "configs" / "LoRA" / "config.json").read_bytes()})

    base = run(user, name="base", isPretrain=1, algorithmId="tiny-llm-pretrain", inputDir="/pretrain",
               outputDir="/out/base", commonHyperParameters=[{"name": "max_steps", "value": "5"}])
    row = register(user, "1", base)
    assert (row["modelStructure"], row["format"], row["dtype"]) == ("LlamaForCausalLM", "safetensors", "F32")

    # With the document's own config.json.
    tuned = run(user, name="tuned", isPretrain=0, algorithmId="tiny-llm-finetune", fineTuneStrategy="LoRA",
                modelVersionId=row["id"], inputDir="/tune", outputDir="/out/tuned", profilePath="/config/config.json",
                commonHyperParameters=[{"name": "max_steps", "value": "5"}])
    row = register(user, "2", tuned)
    user.delete(f"/api/v1/model-versions/{row['id']}").gone()
    row = register(user, "2", tuned)

    service = user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": f"tiny-{user.id}"},
        "modelServerVersions": [{"cpu": 1, "memory": 2, "aiApplicationVersionId": row["id"], "rate": 100,
                                 "predictMinReplicas": 1, "predictMaxReplicas": 1}]}).payload["id"]
    def ready():
        found = user.post("/model/modelServer/findModelServerById", {"id": service}).payload
        return any(each["state"] == "ready" for v in found["modelServerVersions"] for each in v["replicas"])
    wait_until(ready, timeout=60, what="the service")
    answer = user.post("/v1/completions", {"model": f"tiny-{user.id}", "prompt": "a", "max_tokens": 4}).ok()
    assert answer["choices"]
    # What is served cannot be deleted.
    assert user.delete(f"/api/v1/model-versions/{row['id']}").expect(409)["code"] == "failed_precondition"


def test_what_is_wrong_with_an_algorithm_is_named(server):
    user = server.new_user()
    upload(user, "/data", {"train/a.txt": b"text"})
    task = {"name": "wrong", "createWay": "system", "isPretrain": 1, "inputType": "local", "inputDir": "/data",
            "resource": [{"cpuNumber": 1, "memory": 1, "nodeType": "master", "numbers": 1}]}
    def message(**more):
        return user.post(TASK, {**task, **more}).expect(400)["message"]
    assert "algorithmId" in message(algorithmId="none")
    assert "algorithmId" in message(algorithmId="tiny-llm-finetune")  # not for pre-training
    assert "rank" in message(algorithmId="tiny-llm-pretrain", commonHyperParameters=[{"name": "rank", "value": "1"}])
    assert "seed" in message(algorithmId="tiny-llm-pretrain", commonHyperParameters=[{"name": "seed", "value": "x"}])
