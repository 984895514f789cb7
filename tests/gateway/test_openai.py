"""OpenAI's own client works unmodified, streaming included."""

import json
import os
import pathlib
import subprocess

import deployed
import pytest

import lathe

HERE = pathlib.Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def client():
    """The client, of exactly the version in package-lock.json."""
    installed = HERE / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        done = subprocess.run(["npm", "ci", "--no-progress"], cwd=HERE, capture_output=True, text=True, timeout=500)
        if done.returncode != 0 and not os.environ.get("CI"):
            pytest.skip("the client cannot be installed here: " + done.stderr[-300:])
        assert done.returncode == 0, done.stderr
        installed.touch()
    return HERE / "openai_client.mjs"


@pytest.fixture(scope="module")
def serving():
    with lathe.Server() as server:
        service, _ = deployed.deploy(server, "tiny", deployed.python_command("openai_upstream.py"))
        yield server
        deployed.stop(server, service)


def test_the_official_client(serving, client):
    key = serving.admin.post("/api/v1/api-keys", {"name": "openai"}).created()["key"]
    done = subprocess.run(["node", client, "tiny"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "OPENAI_BASE_URL": serving.url + "/v1", "OPENAI_API_KEY": key})
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["models"] == ["tiny"]
    assert got["chat"] == "Hello, you said: hi"
    assert got["stream"]["text"] == "Hello, you said: stream"
    assert got["stream"]["usage"]["total_tokens"] == 160
    assert got["stream"]["pauses"] >= 3, "the words come one by one"
    assert got["completion"] == "p!" and got["embedding"] == [0.25, -1.5]
    assert got["unknown"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found",
                              "type": "invalid_request_error", "param": "model"}
    assert got["unauthorized"]["kind"] == "AuthenticationError"
    assert got["failed"] == {"kind": "InternalServerError", "status": 500, "code": None, "type": "server_error", "param": None}
    assert got["left"] is True
    # 10 + 100 + 2 + 7 of prompts, 6 + 60 + 1 of completions.
    text = serving.admin.get("/metrics").text
    sums = {name: sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))
            for name in ("lathe_gateway_prompt_tokens_total", "lathe_gateway_completion_tokens_total")}
    assert list(sums.values()) == [119, 67]
