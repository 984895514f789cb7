"""No request hides in another, and no answer goes to the wrong one, whatever either side sends."""

import http.client
import io
import json
import socket
import time

import deployed
import pytest
from vectors import answers, vectors

import lathe


@pytest.fixture(scope="module")
def services():
    """The server, with two upstreams of different makes."""
    with lathe.Server(config={"log": {"access": False}}) as server:
        started = [deployed.deploy(server, "recorder", deployed.python_command("recorder.py"))[0],
                   deployed.deploy(server, "nginx", deployed.nginx_command("/dev/stdout"))[0]]
        yield server
        for service in started:
            deployed.stop(server, service)


class Unread(io.BytesIO):
    """What http.client reads an answer from; leaves the rest."""

    def makefile(self, _):
        return self

    def close(self):
        pass


def parse(data, count_max=10):
    """The whole answers at the front of `data`, and whether there is something else behind."""
    source, out = Unread(data), []
    while len(out) < count_max and source.tell() < len(data):
        answer = http.client.HTTPResponse(source, method="POST")
        try:
            answer.begin()
            out.append((answer.status, answer.read(), dict(answer.getheaders())))
        except (http.client.HTTPException, ValueError, OSError):
            return out, True
    return out, False


def talk(server, data, enough, timeout=8):
    """Sends and reads until `enough(answers)` or the end; tells whether the server closed."""
    with socket.create_connection((server.admin.host, server.admin.port), timeout=timeout) as connection:
        got, closed = b"", False
        connection.settimeout(0.02)
        view = memoryview(data)
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if view:
                try:
                    view = view[connection.send(view):]
                except TimeoutError:
                    pass
                except OSError:
                    view = view[:0]
            try:
                piece = connection.recv(1 << 16)
                if not piece:
                    closed = True
                    break
                got += piece
            except TimeoutError:
                if not view and enough(parse(got)[0]):
                    break
            except OSError:
                closed = True
                break
        return *parse(got), closed


def fill(server, name, data):
    head = f"Host: h\r\nAuthorization: Bearer {server.admin.token}\r\n".encode()
    return data.replace(b"{P}", b"/serve/" + name.encode()).replace(b"{H}", head)


@pytest.mark.parametrize("upstream", ["recorder", "nginx"])
def test_no_request_is_smuggled(services, upstream):
    corpus = vectors()
    assert len(corpus) >= 200
    wrong = []
    for number, (name, data, expect) in enumerate(corpus):
        wanted = {"two": 2, "continue": 1}.get(expect, 1)
        got, rest, closed = talk(services, fill(services, upstream, data),
                                 lambda a: expect not in ("refuse", "broken", "any") and len(a) >= wanted,
                                 timeout=1 if expect == "any" else 20)
        statuses = [status for status, _, _ in got]
        fits = {
            "refuse": closed and len(got) == 1 and 400 <= statuses[0] < 600 and not rest,
            # The head was in order: the upstream may have answered, or the connection just ends.
            "broken": closed and len(got) <= 1,
            "pass": statuses == [200],
            "two": statuses == [200, 200],
            "continue": statuses in ([200], [100, 200]),
            "any": True,
        }[expect]
        if not fits:
            wrong.append((name, expect, statuses, closed, rest))
        # Somebody else comes right behind, most likely on the same upstream connection.
        canary = f"/serve/{upstream}/canary-{number}"
        if f"/canary-{number}" not in services.admin.get(canary).text:
            wrong.append((name, "the next request got another's answer"))
    assert not wrong, "\n".join(map(str, wrong))
    if upstream == "recorder":
        seen = deployed.seen(services, "recorder")
        assert not [b for b in seen["breaches"] if not b.startswith("cut off")]
        assert not [s for s in seen["seen"] if "smuggled" in s["target"]]
        assert max(s["bytes"] for s in seen["seen"]) == 1_000_000
        for one in seen["seen"]:
            names = [name for name, _ in one["fields"]]
            assert names.count("content-length") + names.count("transfer-encoding") <= 1, one
            assert "authorization" not in names, one
    else:
        log = services.admin.get("/api/v1/deployments/" + service_id(services, "nginx") + "/logs").text
        assert "canary-0" in log and "smuggled" not in log


def service_id(server, name):
    rows = server.admin.post("/model/modelServer/findModelServerPageList", {"pageSize": 100}).payload["rows"]
    return next(row["id"] for row in rows if row["name"] == name)


def test_no_answer_is_split(services):
    wrong = []
    for number, (name, data, expect) in enumerate(answers()):
        expect, _, close = expect.partition("?")
        services.admin.request("POST", f"/serve/recorder/__answer/{number}", data).ok()
        ask = fill(services, "recorder", f"GET {{P}}/raw/{number}{'?close' if close else ''} HTTP/1.1\r\n{{H}}\r\n".encode())
        after = fill(services, "recorder", f"GET {{P}}/after-{number} HTTP/1.1\r\n{{H}}\r\n".encode())
        got, rest, closed = talk(services, ask + after, lambda a: len(a) >= 2)
        statuses = [status for status, _, _ in got]
        follows = len(got) == 2 and f"/after-{number}" in got[1][1].decode()
        body = got[0][1] if got else b""
        fits = {
            "same": statuses == [200, 200] and follows and (body == b"ok" or body == b"a" * 100_000),
            "empty": len(got) == 2 and body == b"" and follows,
            "bad": statuses == [503, 200] and follows,
            "cut": not statuses and closed,
        }[expect]
        if not fits:
            wrong.append((name, expect, statuses, closed, rest, body[:100]))
        if b"evil" in b"".join(body for _, body, _ in got):
            wrong.append((name, "bytes that belong to nobody"))
        if f"/canary-{number}" not in services.admin.get(f"/serve/recorder/canary-{number}").text:
            wrong.append((name, "the next request got another's answer"))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_websocket_is_a_tunnel(services):
    ask = fill(services, "recorder", b"GET {P}/ws HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: websocket\r\n"
                                     b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n")
    with socket.create_connection((services.admin.host, services.admin.port), timeout=10) as connection:
        connection.sendall(ask + b"first")  # at once, as some clients do
        got = b""
        while not got.endswith(b"first"):
            got += connection.recv(4096)
        assert got.startswith(b"HTTP/1.1 101") and b"upgrade: websocket" in got.lower()
        block = bytes(range(256)) * 2000
        connection.sendall(block)
        got = b""
        while len(got) < len(block):
            got += connection.recv(1 << 16)
        assert got == block
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_stream_is_not_held_back(services):
    connection, answer = services.admin.stream("GET", "/serve/recorder/stream")
    times = []
    for line in answer:
        if line.startswith(b"data:"):
            times.append(time.monotonic())
    connection.close()
    assert len(times) == 20 and times[-1] - times[0] > 0.1, "the events come as they are made, not all at the end"


def test_the_open_inference_protocol_passes_through(services):
    """Below /serve/NAME only: /v2/ belongs to the registry."""
    shown = json.loads(services.admin.post("/serve/recorder/v2/models/m/infer", {"inputs": []}).body)
    assert shown["target"] == "/v2/models/m/infer" and shown["method"] == "POST"
    assert json.loads(services.admin.get("/serve/recorder/v2/health/ready").body)["target"] == "/v2/health/ready"
