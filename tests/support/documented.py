"""The examples of the documented API, tests/api/examples/SECTION.json, and what they need around them.

An example is a request as the document writes it (`json`, `query`, `form`, `path`, `multipart` with `files`),
`replaced` says which of its values become real ones, and `answer` describes what comes back:

    "integer" "number" "string" "boolean" "object" "array"     a JSON type; with "?" null is right, too
    "id" "uuid" "time" "duration" "state"                      a string of that form
    "=text", true, 200, null                                   exactly that
    {...}                                                      an object with at least these fields
    [x]                                                        a list of one or more, each of which is an x
    "#Name"                                                    the schema of that name in schemas.json
"""

import copy
import json
import pathlib
import re
import struct

import archives
import lathe

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "api/examples"
FORMS = {
    "id": r"[0-9a-f]{32}",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "time": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
    "duration": r"(\d+天)?(\d+小时)?(\d+分)?\d+秒",
    "state": r"Pending|Running|Succeeded|Failed|Stopped",
}
TYPES = {"string": str, "boolean": bool, "object": dict, "array": list}


def sections():
    """Every section in the order of the document."""
    files = [path for path in FOLDER.glob("*.json") if path.stem != "schemas"]
    return [json.loads(path.read_text()) for path in sorted(files, key=lambda p: tuple(map(int, p.stem.split("."))))]


def schemas():
    return json.loads((FOLDER / "schemas.json").read_text())


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def mismatches(want, got, named, at="answer"):
    """What of `got` is not as `want` describes it, one line each."""
    if isinstance(want, dict):
        if not isinstance(got, dict):
            return [f"{at} should be an object, is {got!r:.80}"]
        missing = [f"{at}.{name} is missing" for name in want if name not in got]
        return missing + [line for name in want if name in got
                          for line in mismatches(want[name], got[name], named, f"{at}.{name}")]
    if isinstance(want, list):
        if not isinstance(got, list) or not got:
            return [f"{at} should be a list of one or more, is {got!r:.80}"]
        return [line for i, item in enumerate(got) for line in mismatches(want[0], item, named, f"{at}[{i}]")]
    if not isinstance(want, str):
        return [] if got == want and type(got) is type(want) else [f"{at} should be {want!r}, is {got!r:.80}"]
    if want.startswith("#"):
        return mismatches(named[want[1:]], got, named, at)
    if want.startswith("="):
        return [] if got == want[1:] else [f"{at} should be {want[1:]!r}, is {got!r:.80}"]
    if want.endswith("?") and got is None:
        return []
    kind = want.rstrip("?")
    if kind == "integer":
        right = is_number(got) and isinstance(got, int)
    elif kind == "number":
        right = is_number(got)
    elif kind in FORMS:
        right = isinstance(got, str) and re.fullmatch(FORMS[kind], got)
        right = right or (kind == "duration" and want.endswith("?") and got == "")
    else:
        right = isinstance(got, TYPES[kind])
    return [] if right else [f"{at} should be {want}, is {got!r:.80}"]


def put(body, path, value):
    """put({"a": [{"b": 1}]}, "a[0].b", 2)"""
    *way, last = [int(word) if word.isdigit() else word for word in re.findall(r"\w+", path)]
    for step in way:
        body = body[step]
    assert last in body, f"the example has no {path} to replace"
    body[last] = value


def send(client, section, example, world, **options):
    """Sends an example of a section; the paths and ids are the world's."""
    example = copy.deepcopy(example)
    for path, name in example.get("replaced", {}).items():
        place = next(kind for kind in ("json", "query", "form", "multipart") if kind in example)
        put(example[place], path, world.value(name))
    path = section["path"].removeprefix("/api")
    for name, value in example.get("path", {}).items():
        path = path.replace("{" + name + "}", world.value(value) if "." in value else value)
    path = world.prefix + path
    if "multipart" in example:
        files = [("file", name, text.encode()) for name, text in example["files"].items()]
        return client.multipart(path, example["multipart"], files, **options)
    if "form" in example:
        body = "&".join(f"{name}={value}" for name, value in example["form"].items())
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return client.request(section["method"], path, body, headers, **options)
    return client.send(section["method"], path, example.get("json"), query=example.get("query"), **options)


def number_fields(path):
    """What the family of a path calls its number, and its payload."""
    path = path.removeprefix("/api")
    if path.startswith("/kernel/"):
        return ["returnCode"], "data"
    if path.startswith("/model/evaluation/"):
        return ["code", "status", "state"], "data"
    if path.startswith("/model/"):
        return ["code"], "data"
    return ["errorCode"], "result"


def failure(path, status, message):
    """The whole of a failed call's answer."""
    numbers, payload = number_fields(path)
    number = 701 if status == 400 and "/docker/image/" in path else status
    return {"success": False, **dict.fromkeys(numbers, number), "message": message, payload: None}


def model_files():
    """A model folder that can be read, though nothing was ever learnt by it."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 256, "torch_dtype": "float32",
              "max_position_embeddings": 32}
    header = json.dumps({"embed": {"dtype": "F32", "shape": [256, 8], "data_offsets": [0, 8192]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(8192)
    return {"config.json": json.dumps(config).encode(), "model.safetensors": weights}


TUNING_CONFIG = {
    "commonHyperParameters": [
        {"description": "学习率", "name": "learning_rate", "value": "1e-4"},
        {"description": "训练批次", "name": "per_device_train_batch_size", "value": "1"},
        {"description": "训练轮数", "name": "num_train_epochs", "value": "1"},
        {"description": "checkPoint必选参数,保存策略", "name": "save_strategy", "value": "steps"},
        {"description": "checkPoint必选参数,保存步数", "name": "save_steps", "value": "200"}],
    "fineTuneHyperParameters": [
        {"description": "LoRA微调的缩放系数", "name": "lora_alpha", "value": "16"},
        {"description": "LoRA微调的秩大小", "name": "lora_r", "value": "8"},
        {"description": "LoRA微调的dropout系数", "name": "lora_dropout", "value": "0.05"}],
    "fineTuneStrategy": "LoRA"}

EVALUATOR = b"""import json, sys
folder = sys.argv[sys.argv.index("-w") + 1]
json.dump({"accuracy": 0.5}, open(folder + "/metrics.json", "w"))
"""


class World:
    """A user `zjm` with the files the examples speak of, and everything else they name, made when it is asked
    for. `prefix` is "" or "/api": how the documented paths are written."""

    def __init__(self, server, prefix=""):
        self.prefix = prefix
        self.server = server
        self.user = server.new_user("zjm")
        self.other = server.new_user("dzq")
        self.user.language = ""
        self.made = {"user.id": self.user.id, "other.id": self.other.id}
        self.upload("/", {
            "dzq/aios-busybox222.tar": archives.docker_archive([archives.tar({"bin/hello": b"#!/bin/sh\necho hello\n"})], tag="zjm/a:1"),
            **{f"lightgbm/{name}": data for name, data in model_files().items()},
            **{f"llama2-13b/{name}": data for name, data in model_files().items()},
            "data/train/a.jsonl": b'{"text": "hello"}\n', "code/train.py": b"print('trained')\n",
            "config/LoRA/config.json": json.dumps(TUNING_CONFIG).encode(),
            "opencompass-0.1.2/run.py": EVALUATOR})

    def upload(self, folder, files):
        parts = [("file", name, data) for name, data in files.items()]
        self.user.multipart("/api/file/file/uploadFolder", {"currentPath": folder}, parts).ok()

    def call(self, path, body=None, method="POST", **options):
        return self.user.send(method, self.prefix + path, body, **options).payload

    def value(self, name):
        """The real value for a name such as "version.id"."""
        if name not in self.made:
            getattr(self, "make_" + name.split(".")[0].lower())()
        return self.made[name]

    def make_group(self):
        group = self.server.admin.post("/api/v1/resource-groups", {"name": "ai"}).created()
        self.made.update({"group.id": group["id"], "group.key": group["key"]})

    def make_image(self):
        self.call("/docker/image/upload", {"imageName": "zjm/a", "userId": self.user.id})
        listed = {"pageNum": 1, "imageName": "zjm/a"}
        image = self.call("/docker/image/findListSort", listed)["rows"][0]
        self.made.update({"image.id": image["id"], "image.name": "zjm/a"})
        self.call("/docker/image/uploadOld",
                  {"imageId": image["id"], "imageTag": "1", "fileUrl": "dzq/aios-busybox222.tar"})
        row = lathe.wait_until(
            lambda: next((row for row in self.call("/docker/image/findListSort", listed)["rows"]
                          if row["imageStatus"] in (1, 3)), None), what="the image's import")
        assert row["imageStatus"] == 1, row

    def make_model(self):
        data = self.call("/model/aiApplication/createAiApplication", {
            "application": {"name": "llama", "type": "LLM"},
            "aiApplicationVersionList": [{"version": "0.0.1", "source": 3, "savePath": "/lightgbm",
                                          "framework": 12, "configSaveType": 2}]})
        version = data["aiApplicationVersionList"][0]["id"]
        path = "/model/aiApplicationVersion/getAiApplicationVersionDetail"
        state = lathe.wait_until(
            lambda: next((s for s in [self.call(path, method="GET", query={"aiApplicationVersionId": version})]
                          if s["status"] != 1), None), what="the model's import")
        assert state["status"] == 2, state
        self.made.update({"model.id": data["application"]["id"], "version.id": version})

    make_version = make_model

    def make_task(self, create, detail, name, **body):
        task = {"name": name, "command": "echo done", "outputDir": "/output", "originModelDir": "/lightgbm",
                "resource": [{"cpuNumber": 1, "memory": 1, "nodeType": "master", "numbers": 1,
                              "gpuResource": {"gpuNum": 0}}],
                "commonHyperParameters": [{"description": "学习率", "name": "learning_rate", "value": "1e-4"}],
                "fineTuneHyperParameters": [{"description": "", "name": "lora_r", "value": "8"}], **body}
        task = self.call(create, task)["id"]
        self.made[name + ".id"] = task
        self.ended(lambda: detail(task), "Succeeded")

    def ended(self, show, status):
        state = lathe.wait_until(lambda: next((s for s in [show()] if s["endTime"]), None), 60, "the task's end")
        assert state["status"] == status, state

    def make_tune(self):
        self.make_task("/kernel/fineTune/createLlmFineTuneTask", self.tuning, "tune")

    def make_pretrain(self):
        self.make_task("/kernel/fineTune/createLlmFineTuneTask", self.tuning, "pretrain", isPretrain=1)

    def make_modelling(self):
        self.make_task("/kernel/trainOperator/createTask",
                       lambda task: self.call("/kernel/trainOperator/queryTaskInfo", {"taskId": task}), "modelling")

    def tuning(self, task):
        return self.call("/kernel/fineTune/queryLlmFineTuneTaskDetail", query={"taskId": task})

    def make_evaluation(self):
        example = next(s for s in sections() if s["section"] == "7.1")["examples"][0]
        section = {"path": "/model/evaluation/task/create", "method": "POST"}
        assert send(self.user, section, dict(example, json=dict(example["json"], name="world")), self).payload is None
        row = self.call("/model/evaluation/task/page", {"userId": "", "status": "", "taskName": "world"})["rows"][0]
        self.made["evaluation.id"] = row["id"]
        self.ended(lambda: self.call("/model/evaluation/task/detail/" + row["id"], method="GET"), "Succeeded")

    def make_service(self):
        data = self.call("/model/modelServer/createModelInferenceServer", {
            "modelServer": {"name": "world", "path": ""},
            "modelServerVersions": [{"command": "sleep 60", "imagePorts": "5051", "cpu": 1, "memory": 1, "predictMinReplicas": 1,
                                     "aiApplicationVersionId": self.value("version.id")}]})
        shown = lathe.wait_until(
            lambda: next((s for s in [self.call("/model/modelServer/findModelServerById", {"id": data["id"]})]
                          if s["modelServerVersions"][0]["replicas"]), None), what="the service's replica")
        self.made.update({"service.id": data["id"], "serviceVersion.id": shown["modelServerVersions"][0]["id"]})

    make_serviceversion = make_service

    def stop_services(self):
        """Their processes would outlive the server."""
        path = "/model/modelServer/findModelServerPageList"
        for service in self.call(path, {"pageSize": 500})["rows"]:
            self.user.delete("/api/v1/deployments/" + service["id"]).gone()
        lathe.wait_until(lambda: self.call(path, {})["total"] == 0, what="the services' end")
