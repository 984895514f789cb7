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
    made = serving.admin.post("/api/v1/api-keys", {"name": "openai"}).created()
    key = made["key"]
    done = subprocess.run(["node", client, "tiny"], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "OPENAI_BASE_URL": serving.url + "/v1", "OPENAI_API_KEY": key})
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["models"] == ["tiny"]
    assert got["chat"] == "Hello, you said: hi"
    assert got["stream"]["text"] == "Hello, you said: stream"
    assert got["stream"]["usage"]["total_tokens"] == 160
    assert got["stream"]["pauses"] >= 1, "the words come as they are made"
    assert got["completion"] == "p!" and got["embedding"] == [0.25, -1.5]
    assert got["unknown"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found",
                              "type": "invalid_request_error", "param": "model"}
    assert got["unauthorized"]["kind"] == "AuthenticationError"
    assert got["failed"] == {"kind": "InternalServerError", "status": 500, "code": None, "type": "server_error", "param": None}
    assert got["left"] is True
    # Everything that reached the service: chat, stream, completion, embedding, failure, the stream left.
    used = serving.admin.get("/api/v1/usage", query={"keyId": made["id"]}).ok()["items"]
    assert [(u["requests"], u["promptTokens"], u["completionTokens"]) for u in used] == [(6, 119, 67)]
    stranger = serving.new_user()
    assert stranger.get("/api/v1/usage").ok()["items"] == []
    assert stranger.get("/api/v1/usage", query={"userId": serving.admin.id}).status == 403


def test_tokens_are_counted_by_replica(serving):
    before = tokens(serving)
    answer = serving.admin.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]})
    assert answer.status == 200
    assert [after - b for after, b in zip(tokens(serving), before)] == [10, 6]


def tokens(server):
    text = server.admin.get("/metrics").text
    return [sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))
            for name in ("lathe_gateway_prompt_tokens_total", "lathe_gateway_completion_tokens_total")]
