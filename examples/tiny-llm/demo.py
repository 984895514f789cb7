"""The main job from end to end, through the documented HTTP API and nothing else.

Starts a server of its own on a fresh data directory (or uses --url), then: logs in, uploads texts, code and
config.json, imports an image tar, registers a model, pre-trains it, tunes it with LoRA, evaluates the base and the
tuned model on held-out text, registers the tuned model, serves it and streams a completion. Every call is shown as
the curl command that does the same; one that is repeated until something has come true, the first time. Training takes a GPU, or a slice of one, where the server has one to give. Ends
with 0 only if the tuned model is better than the base, and only if what was given a GPU computed on it.
"""

import argparse
import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOLD, DIM, GREEN, RED, OFF = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else [""] * 5


class Refused(Exception):
    """The server said no."""


class Api:
    """A client that shows what it sends."""

    def __init__(self, url, quiet=False):
        self.url = urllib.parse.urlsplit(url)
        self.token = None
        self.quiet = quiet
        self.looks = set()  # the calls that look how far something has come, and have been shown

    def _connect(self):
        return http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=120)

    def show(self, method, path, body=None, parts=()):
        if self.quiet:
            return
        words = ["curl", "-s"] + ([] if method == "GET" else ["-X", method]) + [f'"$LATHE{path}"' if "?" in path else f"$LATHE{path}"]
        if self.token:
            words += ["-H", '"Authorization: Bearer $TOKEN"']
        if body is not None:
            words += ["-d", "'" + json.dumps(body, ensure_ascii=False) + "'"]
        for part in parts:
            words += ["-F", part]
        print(f"  {DIM}{' '.join(words)}{OFF}", flush=True)

    def send(self, method, path, body=None, headers=None, look=False):
        """One exchange; the parsed JSON answer, or Refused with the server's own words."""
        if not look or (method, path) not in self.looks:
            self.show(method, path, body)
        if look:
            self.looks.add((method, path))
        headers = {"Accept-Language": "en", **(headers or {})}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = self._connect()
        try:
            connection.request(method, path, data, headers)
            return self._answer(connection.getresponse(), method, path)
        finally:
            connection.close()

    @staticmethod
    def _answer(response, method, path):
        text = response.read().decode()
        answer = json.loads(text) if text else None
        if response.status >= 400:
            reason = (answer or {}).get("message") or (answer or {}).get("detail") or text
            raise Refused(f"{method} {path}: {response.status} {reason}")
        return answer

    def post(self, path, body, look=False):
        """A documented call: gives what the envelope holds."""
        answer = self.send("POST", path, body, look=look)
        return answer["data"] if "data" in answer else answer["result"]

    def upload(self, folder, files):
        """1.1: a whole folder in one request. `files` are (name in the folder, where it is here)."""
        self.show("POST", "/api/file/file/uploadFolder",
                  parts=[f"currentPath={folder}"] + [f"'file=@{os.path.relpath(path)};filename={name}'" for name, path in files])
        boundary = "lathe-demo-" + os.urandom(8).hex()
        body = io.BytesIO()
        body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="currentPath"\r\n\r\n{folder}\r\n'.encode())
        for name, path in files:
            body.write(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
                       "Content-Type: application/octet-stream\r\n\r\n".encode())
            body.write(path.read_bytes() + b"\r\n")
        body.write(f"--{boundary}--\r\n".encode())
        connection = self._connect()
        try:
            connection.request("POST", "/api/file/file/uploadFolder", body.getvalue(), {
                "Authorization": f"Bearer {self.token}",
                "Content-Type": f"multipart/form-data; boundary={boundary}"})
            return self._answer(connection.getresponse(), "POST", "/api/file/file/uploadFolder")
        finally:
            connection.close()

    def stream(self, path, body):
        """Yields the data of every server-sent event until [DONE]."""
        self.show("POST", path, body)
        connection = self._connect()
        try:
            connection.request("POST", path, json.dumps(body), {
                "Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise Refused(f"POST {path}: {response.status} {response.read().decode()}")
            for line in response:
                if line.startswith(b"data: "):
                    data = line[6:].strip()
                    if data == b"[DONE]":
                        return
                    yield json.loads(data)
        finally:
            connection.close()


class Steps:
    """Says what is being done, and keeps how long it took for the table at the end."""

    def __init__(self):
        self.rows = []

    def run(self, title, work):
        print(f"{BOLD}{len(self.rows) + 1}. {title}{OFF}", flush=True)
        begin = time.monotonic()
        where = work()
        self.rows.append((title, time.monotonic() - begin, where or ""))

    def table(self):
        width = max(len(title) for title, _, _ in self.rows)
        for title, seconds, where in self.rows:
            print(f"  {title:<{width}}  {seconds:6.1f} s  {where}")


def wait_for(what, probe, timeout=600):
    """Calls probe until it gives (done, note); shows a note when it changes."""
    deadline, shown = time.monotonic() + timeout, None
    while True:
        done, note = probe()
        if note != shown and note:
            print(f"  {what}: {note}", flush=True)
            shown = note
        if done:
            return
        if time.monotonic() > deadline:
            raise Refused(f"{what} took more than {timeout} s; last: {note}")
        time.sleep(0.2)


def reason(row):
    """Why a task waits, or how it ended: the code, and the server's words."""
    return f"{row.get('statusReason')}: {row.get('statusMessage')}"


def folder(root, keep=lambda path: True):
    """The files below `root` as (relative name, path)."""
    return [(str(p.relative_to(root)), p) for p in sorted(root.rglob("*")) if p.is_file() and keep(p)]


def busybox_image():
    """A small real image as `docker save` writes it: one layer with Debian's static busybox."""
    def tar(entries):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content, mode in entries:
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), mode
                archive.addfile(info, io.BytesIO(content))
        return out.getvalue()

    import hashlib
    layer = tar([("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)])
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/busybox", "sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": ["demo/busybox:1.0"], "Layers": ["layer.tar"]}]).encode()
    return tar([(config_name, config, 0o644), ("layer.tar", layer, 0o644), ("manifest.json", manifest, 0o644)])


def accelerator(left):
    """What a training task asks for, by what is left for its user (9.1): a GPU, else a MIG slice, else neither."""
    if left["remainGpu"] > 0:
        return {"gpuNum": 1, "gpuShare": "none"}
    if left["remainMig"] > 0:
        return {"gpuNum": 1, "gpuShare": "mig", "migRes": ""}
    return {"gpuNum": 0, "gpuShare": "none"}


def trained_on(log):
    """The device that trainer.py names in a job's output."""
    named = re.search(r"^device: (.+)$", log, re.MULTILINE)
    return named[1] if named else "?"


class Demo:
    """The steps. Each method is one; it returns where a person can look at the outcome."""

    cores = 1  # a model this small gains nothing from a second one

    def __init__(self, api, password, files, cpu=False):
        self.api, self.password, self.cpu = api, password, cpu
        self.files = files  # a folder for what is uploaded and made here
        self.service_id = None
        self.wasted = []  # tasks that were given a GPU and trained on the CPU
        self.tag = os.urandom(3).hex()  # so that the demo can be repeated against one server
        self.perplexity = {}

    def log_in(self):
        api = self.api
        api.token = self.session("admin")["token"]
        name = f"demo-{self.tag}"
        api.send("POST", "/api/v1/users", {"userName": name, "password": self.password, "role": "user"})
        session = self.session(name)
        api.token, self.user = session["token"], session["user"]
        return f"user {name}, id {self.user['id']}"

    def session(self, name):
        self.api.token = None
        body = {"userName": name, "password": self.password}
        print(f"  {DIM}TOKEN=$(curl -s $LATHE/api/v1/sessions -d '{json.dumps(body)}' |"
              f" sed 's/.*\"token\":\"\\([^\"]*\\).*/\\1/'){OFF}")
        self.api.looks.add(("POST", "/api/v1/sessions"))
        return self.api.send("POST", "/api/v1/sessions", body, look=True)

    def made(self, name, content):
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def upload(self):
        self.api.upload("/", [("data/" + name, path) for name, path in folder(HERE / "data", lambda p: p.suffix == ".txt")])
        self.api.upload("/code", folder(HERE, lambda p: p.suffix == ".py" and p.parent == HERE and p.name != "demo.py"))
        self.api.upload("/config", folder(HERE / "configs"))
        return "/data, /code, /config"

    def import_image(self):
        api = self.api
        api.upload("/image", [("busybox.tar", self.made("busybox.tar", busybox_image()))])
        api.post("/docker/image/upload", {"imageName": "demo/busybox", "imageLabel": [], "userId": self.user["id"]})
        query = {"pageNum": 1, "pageSize": 10, "imageName": "demo/busybox", "userId": self.user["id"]}
        image = api.post("/docker/image/findListSort", query)["rows"][0]
        api.post("/docker/image/uploadOld", {"userId": self.user["id"], "imageId": image["id"], "imageTag": "1.0",
                                             "fileUrl": "image/busybox.tar"})

        def probe():
            row = api.post("/docker/image/findListSort", query, look=True)["rows"][0]
            if row["imageStatus"] == 3:
                raise Refused(f"the import failed: {row}")
            return row["imageStatus"] == 1, f"{row['statusName']} {row.get('imageSize') or ''}"
        wait_for("image", probe)
        return "demo/busybox:1.0"

    def register(self, version, source, **origin):
        """3.1, then waits for the copy into the registry."""
        api = self.api
        made = api.post("/model/aiApplication/createAiApplication", {
            "application": {"name": "tiny-llama", "createUser": self.user["id"], "type": "LLM"},
            "aiApplicationVersionList": [{"applicationName": "tiny-llama", "version": version, "source": source,
                                          "saveType": 2, **origin}],
            "hyperParameterList": []})
        version_id = made["aiApplicationVersionList"][0]["id"]
        path = f"/model/aiApplicationVersion/getAiApplicationVersionDetail?aiApplicationVersionId={version_id}"

        def probe():
            row = api.send("GET", path, look=True)["data"]
            if row["status"] == 3:
                raise Refused(f"the import of {version} failed: {row}")
            return row["status"] == 2, f"{row['size']} KB, {row.get('scale') or '?'} parameters" if row["status"] == 2 else "copying"
        wait_for(f"tiny-llama {version}", probe)
        return version_id

    def register_architecture(self):
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96,
                  "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 257,
                  "max_position_embeddings": 128, "torch_dtype": "float32"}
        self.api.upload("/model", [("config.json", self.made("model/config.json", json.dumps(config, indent=2).encode()))])
        self.register("0.0.1", 3, savePath="/model")
        return "tiny-llama 0.0.1 (the architecture)"

    def task(self, path, body, detail):
        """Creates a task and follows it to its end; gives its id."""
        gpu = self.gpu_resource()
        resource = [{"cpuNumber": self.cores, "memory": 4, "nodeType": "master", "numbers": 1, "gpuResource": gpu}]
        task_id = self.api.post(path, {"resource": resource, **body})["id"]
        self.follow(body["name"], lambda: detail(task_id))
        device = trained_on(self.log(task_id))
        print(f"  {body['name']}: trained on {device}", flush=True)
        if gpu["gpuNum"] > 0 and not device.startswith("cuda"):
            self.wasted.append(body["name"])
            print(f"  {RED}{BOLD}{body['name']} was given a GPU and did not compute on it: the PyTorch of the machine's "
                  f"python3 cannot use it{OFF}", flush=True)
        return task_id

    def follow(self, name, look):
        def probe():
            row = look()
            # An engine that this machine cannot have does not come by waiting.
            if row["status"] in ("Failed", "Stopped") or row.get("statusReason") == "WaitingForEngine":
                raise Refused(f"{name} {row['status']}: {reason(row)}\n{self.log(row['id'], '?tail=30')}")
            done = f" {round(100 * row['progress'])} %" if row["status"] == "Running" else ""
            waits = f" ({reason(row)})" if row["status"] == "Pending" and row.get("statusReason") else ""
            return row["status"] == "Succeeded", row["status"] + done + waits
        wait_for(name, probe)

    def log(self, job_id, query=""):
        self.api.show("GET", f"/api/v1/jobs/{job_id}/logs{query}")
        connection = self.api._connect()
        connection.request("GET", f"/api/v1/jobs/{job_id}/logs{query}", headers={"Authorization": f"Bearer {self.api.token}"})
        return connection.getresponse().read().decode(errors="replace")

    def gpu_resource(self):
        """What of the machine's GPUs a training task asks for."""
        left = self.api.post("/api/system/config/getRemainResource", {"userId": self.user["id"]}, look=True)
        return accelerator({"remainGpu": 0, "remainMig": 0} if self.cpu else left)

    def fine_tune_detail(self, task_id):
        return self.api.send("POST", f"/kernel/fineTune/queryLlmFineTuneTaskDetail?taskId={task_id}", look=True)["data"]

    def pretrain(self):
        self.base_task = self.task("/kernel/fineTune/createLlmFineTuneTask", {
            "name": f"pretrain-{self.tag}", "isPretrain": 1, "createWay": "custom", "type": "PyTorch",
            "command": "python3 pretrain.py --input_dir ${input_dir} --output_dir ${output_dir}"
                       " --checkpoint_dir ${checkpoint_dir}",
            "workingDir": "/code", "inputType": "local", "inputDir": "/data/pretrain", "outputDir": "/out/base",
            "checkPointDir": "/out/base-checkpoints", "profilePath": "/config/pretrain.json"}, self.fine_tune_detail)
        self.base_version = self.register("0.1.0", 1, llmFineTuneTaskId=self.base_task)
        return f"/out/base, tiny-llama 0.1.0, job {self.base_task}"

    def tune(self):
        self.tuned_task = self.task("/kernel/fineTune/createLlmFineTuneTask", {
            "name": f"lora-{self.tag}", "isPretrain": 0, "createWay": "custom", "type": "PyTorch",
            "fineTuneStrategy": "LoRA", "modelVersionId": self.base_version,
            "command": "python3 finetune.py --model_dir ${model_dir} --input_dir ${input_dir}"
                       " --output_dir ${output_dir} --checkpoint_dir ${checkpoint_dir} --fine_tune_strategy LoRA",
            "workingDir": "/code", "inputType": "local", "inputDir": "/data/tune", "outputDir": "/out/tuned",
            "checkPointDir": "/out/tuned-checkpoints", "profilePath": "/config/LoRA/config.json"}, self.fine_tune_detail)
        self.tuned_version = self.register("0.2.0", 1, llmFineTuneTaskId=self.tuned_task)
        return f"/out/tuned, tiny-llama 0.2.0, job {self.tuned_task}"

    def evaluate(self, which, version_id):
        name = f"eval-{which}-{self.tag}"
        self.api.post("/model/evaluation/task/create", {
            "userId": self.user["id"], "name": name, "resourceGroupId": "", "resourceGroupName": "",
            "resourceGroupKey": "", "image": "host",
            "command": "python3 evaluate.py --model_dir ${model_dir} --input_dir ${input_dir} --output_dir ${output_dir}",
            "inputType": "local", "inputDir": "/data/tune", "modelType": "aiApp", "aiAppVersionId": version_id,
            "outputDir": f"/out/eval-{which}", "workDir": "/code",
            "resource": {"cpuNumber": 1, "memory": 2, "gpuResource": {"gpuNum": 0, "gpuShare": "none"}},
            "env": [], "description": ""})
        page = self.api.post("/model/evaluation/task/page", {"userId": "", "status": "", "taskName": name})
        task_id = page["rows"][0]["id"]
        self.follow(name, lambda: self.api.send("GET", f"/api/model/evaluation/task/detail/{task_id}", look=True)["data"])
        metrics = self.api.send("GET", f"/api/v1/jobs/{task_id.replace('-', '')}/metrics", look=True)
        rows = metrics["items"] if isinstance(metrics, dict) else metrics
        self.perplexity[which] = next(m["value"] for m in rows if m["key"] == "perplexity")
        return f"perplexity {self.perplexity[which]:.2f}"

    def serve(self):
        api, name = self.api, f"tiny-{self.tag}"
        self.service_id = service_id = api.post("/model/modelServer/createModelInferenceServer", {
            "modelServer": {"name": name, "description": "", "createUser": self.user["id"], "path": ""},
            "modelServerVersions": [{
                "cpu": 1, "memory": 2, "command": "python3 serve.py --model_dir ${model_dir} --port ${port}",
                "imagePorts": "8000", "envs": "[]", "rate": 100, "aiApplicationVersionId": self.tuned_version,
                "reqMethod": "rest", "gpuShare": "none", "gpu": 0, "predictMinReplicas": 1, "predictMaxReplicas": 1,
                "metric": 1, "monitorThreshold": "100", "volumes": json.dumps([{"src": "/code", "dst": "/workspace/code"}]),
                "hyperParameterList": "null"}]})["id"]

        def probe():
            row = api.post("/model/modelServer/findModelServerById", {"id": service_id}, look=True)
            replicas = [r for v in row["modelServerVersions"] for r in v["replicas"]]
            ready = sum(r["state"] == "ready" for r in replicas)
            return ready > 0, f"{ready} of {len(replicas)} replicas ready"
        wait_for(name, probe, 60)
        pieces = 0
        for event in api.stream("/v1/completions", {"model": name, "prompt": "LOVE, n. ", "max_tokens": 120,
                                                     "temperature": 0.7, "seed": 7, "stream": True}):
            text = event["choices"][0].get("text", "") if event.get("choices") else ""
            print(("" if pieces else "  ") + text.replace("\n", "\n  "), end="", flush=True)
            pieces += bool(text)
        print()
        if pieces < 2:
            raise Refused("the completion did not come as a stream")
        return f"/serve/{name}/, model \"{name}\" at /v1/completions, {pieces} pieces streamed"


    def stop_serving(self):
        """Replicas outlive the server, as jobs do: who is done with a service stops it."""
        service_id, self.service_id = self.service_id, None
        self.api.send("POST", f"/api/v1/deployments/{service_id}/stop", {})
        
        def probe():
            live = sum(r["state"] != "ended" for r in self.api.send(
                "GET", f"/api/v1/deployments/{service_id}/replicas", look=True)["items"])
            return live == 0, f"{live} still stopping"
        wait_for("replicas", probe, 60)
        return "its log is kept"


def start_server(binary, data):
    """Starts `lathe serve` on a free port and gives (process, url, admin's password)."""
    password = "demo-" + os.urandom(6).hex()
    ready = Path(tempfile.mkdtemp()) / "ready"
    process = subprocess.Popen(
        [binary, "serve", "--data", str(data), "--listen", "127.0.0.1:0", "--ready-file", str(ready)],
        env={**os.environ, "LATHE_ADMIN_PASSWORD": password}, stdout=subprocess.DEVNULL,
        stderr=open(data.parent / (data.name + ".log"), "w"), start_new_session=True)
    deadline = time.monotonic() + 10
    while not ready.exists() or not ready.read_text().strip():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the server did not start; its log: {data}.log")
        time.sleep(0.01)
    return process, ready.read_text().strip(), password


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lathe", default="build/release/lathe", help="the binary to start")
    parser.add_argument("--data", type=Path, default=Path("build/demo"), help="data directory, made anew")
    parser.add_argument("--url", help="use this server instead; LATHE_ADMIN_PASSWORD is its administrator's password")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU even where there is a GPU")
    parser.add_argument("--keep", action="store_true", help="leave the server running at the end")
    options = parser.parse_args()

    process = None
    if options.url:
        url, password = options.url, os.environ["LATHE_ADMIN_PASSWORD"]
    else:
        data = options.data.resolve()
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        process, url, password = start_server(options.lathe, data)
    begin = time.monotonic()
    files = options.data.resolve().with_name(options.data.name + "-files")
    steps, demo = Steps(), Demo(Api(url), password, files, options.cpu)
    print(f"{BOLD}LATHE={url}{OFF}")
    try:
        steps.run("Log in", demo.log_in)
        steps.run("Upload texts, code and config.json", demo.upload)
        steps.run("Import an image", demo.import_image)
        steps.run("Register a model", demo.register_architecture)
        steps.run("Pre-train", demo.pretrain)
        steps.run("Tune with LoRA", demo.tune)
        steps.run("Evaluate the base", lambda: demo.evaluate("base", demo.base_version))
        steps.run("Evaluate the tuned", lambda: demo.evaluate("tuned", demo.tuned_version))
        steps.run("Serve and stream", demo.serve)
        if process and not options.keep:
            steps.run("Stop the service", demo.stop_serving)
    except (Refused, OSError) as failure:
        print(f"{RED}{failure}{OFF}")
        if demo.service_id and not options.keep:
            with contextlib.suppress(Refused, OSError):
                demo.stop_serving()
        return 1
    finally:
        if process and not options.keep:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    print(f"\n{BOLD}What ran{OFF} ({time.monotonic() - begin:.1f} s)")
    steps.table()
    base, tuned = demo.perplexity["base"], demo.perplexity["tuned"]
    better = tuned < base
    print(f"\nByte perplexity on held-out text: base {base:.2f}, tuned {tuned:.2f}")
    print(f"{GREEN}The tuned model is better.{OFF}" if better else f"{RED}The tuned model is not better.{OFF}")
    if demo.wasted:
        print(f"{RED}{BOLD}{' and '.join(demo.wasted)} held a GPU and trained on the CPU.{OFF} Install a PyTorch with CUDA "
              "for the machine's python3, or say --cpu.")
    if process and not options.keep:
        print(f"The server has been stopped; look again with: {options.lathe} serve --data {options.data}")
    else:
        print(f"The server is at {url}; API at {url}/docs")
    return 0 if better and not demo.wasted else 1


if __name__ == "__main__":
    sys.exit(main())
