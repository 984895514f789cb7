"""Starting, stopping, and what every server answers."""

import http.client
import json
import os
import pathlib
import re
import socket
import stat
import subprocess
import threading
import time

import lathe
import pytest


def test_it_is_up_in_under_a_second_and_stops_cleanly():
    server = lathe.Server()
    try:
        started = time.monotonic()
        server.start()
        assert server.client().get("/healthz").status == 200
        assert time.monotonic() - started < 5  # a busy machine; a quiet one takes a tenth of a second
        assert server.stop() == 0
        assert "stopping" in server.log_text()
    finally:
        server.stop()
        server.remove()


def test_health_needs_no_token(anonymous):
    assert anonymous.get("/healthz").text == "ok\n"
    assert anonymous.get("/readyz").text == "ready\n"


def test_the_first_password_is_in_a_file_of_its_owner_and_not_in_the_log():
    with lathe.Server(admin_password=None) as server:
        path = server.data / "initial-admin-password"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        password = path.read_text().strip()
        assert len(password) >= 16
        assert str(path) in server.log_text() and password not in server.log_text()
        admin = server.client().log_in("admin", password)
        server.restart()
        assert path.read_text().strip() == password
        admin = server.client().log_in("admin", password)
        admin.post("/api/v1/me/password", {"currentPassword": password, "password": "a new password"}).gone()
        assert not path.exists()


def test_a_short_first_password_is_refused_at_start():
    server = lathe.Server(admin_password="short")
    try:
        with pytest.raises(AssertionError, match="LATHE_ADMIN_PASSWORD"):
            server.start()
    finally:
        server.remove()


def test_two_servers_cannot_share_a_data_directory(own_server):
    second = lathe.Server(data=own_server.data)
    try:
        with pytest.raises(AssertionError, match=f"in use by another server \\(process {own_server.process.pid}\\)"):
            second.start()
    finally:
        second.remove()
    assert own_server.client().get("/readyz").status == 200
    own_server.restart(kill=True)
    assert own_server.client().get("/readyz").status == 200


def test_the_data_directory_is_its_owners(own_server):
    assert stat.S_IMODE(own_server.data.stat().st_mode) == 0o700
    assert stat.S_IMODE((own_server.data / "lathe.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("config, words", [
    ({"listn": "x"}, "listn is not a setting"),
    ({"tls": {"certificate": "a", "kee": "b"}}, "tls.kee is not a setting"),
    ({"sessions": {"idle": "soon"}}, "sessions.idle must be a duration"),
    ({"limits": {"maxWorkers": 1}}, "limits.maxWorkers must be"),
    ({"timeZone": "Mars/Olympus"}, "no such time zone"),
    ({"timeZone": "../../etc/passwd"}, "no such time zone"),
])
def test_a_wrong_configuration_is_refused_by_key(config, words):
    server = lathe.Server(config=config)
    try:
        with pytest.raises(AssertionError, match=re.escape(words)):
            server.start()
    finally:
        server.remove()


def test_a_configuration_file_may_have_comments_and_flags_win(tmp_path):
    path = tmp_path / "lathe.json"
    path.write_text("""{
      // where
      "listen": "192.0.2.1:1", /* not here: the flag wins */
      "timeZone": "Asia/Shanghai",
      "log": {"access": false,},
    }""")
    with lathe.Server(arguments=["--config", str(path)]) as server:
        assert server.url.startswith("http://127.0.0.1:")
        server.admin.get("/api/v1/me").ok()
        created = server.admin.get("/api/v1/users/1").ok()["createdAt"]
        shown = server.admin.post("/api/system/config/getRemainResource", {}).payload["startTime"]
        utc = time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S")
        local = time.strptime(shown, "%Y-%m-%d %H:%M:%S")
        assert (time.mktime(local) - time.mktime(utc)) == 8 * 3600
        server.stop()
        assert "GET /api/v1/me" not in server.log_text()


def test_the_access_log_has_every_request_when_the_server_has_stopped():
    with lathe.Server() as server:
        for number in range(50):
            server.client().get(f"/healthz?{number}", headers={"X-Request-Id": f"request-{number}"})
        server.stop()
        lines = [line for line in server.log_text().splitlines() if " info GET /healthz 200 3 " in line]
        # Each of its threads writes its own lines together: between two threads there is no order.
        assert sorted(line.split()[-1] for line in lines) == sorted(f"request-{number}" for number in range(50))


@pytest.mark.parametrize("path, family", [
    ("/api/file/file/list", {"success", "errorCode", "message", "result"}),
    ("/docker/image/upload", {"success", "errorCode", "message", "result"}),
    ("/model/modelServer/list", {"success", "code", "message", "data"}),
    ("/kernel/any", {"success", "returnCode", "message", "data"}),
    ("/api/v1/me", {"type", "title", "status", "detail", "code", "violations", "requestId"}),
])
@pytest.mark.parametrize("rest, status, zh, en", [
    ("HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Host 多于一个", "more than one Host"),
    ("HTTP/1.1\r\nHost: a\r\nX: " + "x" * 40_000 + "\r\n\r\n", 431, "请求头过大", "the request's head is too large"),
    ("HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "只支持 chunked", "other than chunked"),
])
def test_what_is_malformed_is_answered_in_the_form_of_its_family(server, path, family, rest, status, zh, en):
    for language, words in (("zh", zh), ("en", en)):
        line, _, fields = rest.partition("\r\n")
        answer = raw(server, f"GET {path} {line}\r\nAccept-Language: {language}\r\n{fields}")
        assert answer.status == status
        body = json.loads(answer.read())
        assert set(body) == family
        assert words in body.get("message", body.get("detail"))
        number = 701 if path.startswith("/docker") and status == 400 else status
        assert [body[field] for field in ("errorCode", "code", "returnCode", "status") if field in body][-1] == number


def test_what_is_malformed_is_answered_after_a_file_too(server):
    """On one connection: a file, which a worker sends itself, then a head that is refused."""
    user = server.new_user()
    user.multipart("/api/file/file/uploadFolder", {"currentPath": "/"}, [("file", "a.bin", b"x" * 100_000)]).ok()
    with socket.create_connection((user.host, user.port), timeout=20) as connection:
        connection.sendall(f"GET /api/v1/files/content?path=/a.bin HTTP/1.1\r\nHost: a\r\n"
                           f"Authorization: Bearer {user.token}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.read() == b"x" * 100_000
        connection.sendall(b"GET /api/v1/me HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        refused = http.client.HTTPResponse(connection)
        refused.begin()
        assert (refused.status, json.loads(refused.read())["status"]) == (400, 400)


def raw(server, text):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(text.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "::1:80", ""])
def test_a_wrong_address_is_refused(listen, tmp_path):
    done = subprocess.run([lathe.binary(), "serve", "--data", tmp_path / "d", f"--listen={listen or ':'}"],
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "listen must be host:port" in done.stderr


def test_the_command_line_explains_itself(tmp_path):
    def run(*words):
        return subprocess.run([lathe.binary(), *words], capture_output=True, text=True, timeout=30, check=False)

    assert re.fullmatch(r"lathe \d+\.\d+\.\d+\n", run("version").stdout)
    assert "--data" in run("serve", "--help").stdout
    assert run().returncode != 0
    assert run("fly").returncode != 0
    assert "--data DIR" in run("serve", "--listen", "127.0.0.1:0").stderr


def test_a_started_process_inherits_neither_the_lock_nor_the_first_password(own_server):
    pid = own_server.process.pid
    lock = str(own_server.data / "lock")
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(fd) == lock:
            flags = int(pathlib.Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().split("flags:")[1].split()[0], 8)
            assert flags & os.O_CLOEXEC
            return
    raise AssertionError("the server holds no lock")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; all other tests run without root")
def test_it_runs_without_root():
    with lathe.Server(uid=65534) as server:
        server.new_user().post("/api/system/config/getRemainResource", {"userId": ""}).ok()
        assert server.data.stat().st_uid == 65534


def test_metrics_are_in_the_text_format(server, admin, anonymous):
    anonymous.get("/metrics").expect(401)
    admin.get("/api/v1/me").ok()
    answer = admin.get("/metrics")
    assert answer.headers.get("Content-Type").startswith("text/plain; version=0.0.4")
    sample = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? (\+Inf|NaN|[0-9.e+-]+)')
    seen = set()
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            seen.add(line.split()[2])
        elif not line.startswith("#"):
            assert sample.fullmatch(line), line
    assert {"lathe_http_requests_total", "lathe_http_request_duration_seconds", "process_resident_memory_bytes",
            "lathe_http_connections"} <= seen
    assert re.search(r'lathe_http_requests_total\{route="getMe",status="2xx"\} [1-9]', answer.text)


def test_the_openapi_document_names_every_route_and_the_page_reads_it(anonymous):
    document = anonymous.get("/api/v1/openapi.json").ok()
    assert document["openapi"].startswith("3.1")
    assert {"/api/v1/sessions", "/api/v1/users/{id}", "/healthz"} <= set(document["paths"])
    page = anonymous.get("/docs")
    assert page.headers.get("Content-Type") == "text/html; charset=utf-8"
    assert "/api/v1/openapi.json" in page.text
    assert not re.search(r'(src|href)="https?:', page.text), "the page loads something from elsewhere"
    assert "default-src 'none'" in page.headers.get("Content-Security-Policy")


def test_requests_under_way_end_before_the_server_does(own_server):
    # A login takes argon2id's time: it is under way when the signal comes.
    answers = []
    admin = own_server.admin
    scrapes, before = 0, received_requests(admin)

    def log_in():
        body = {"userName": "admin", "password": lathe.ADMIN_PASSWORD}
        answers.append(own_server.client().post("/api/v1/sessions", body).status)

    def all_received():
        nonlocal scrapes
        scrapes += 1
        return received_requests(admin) - before - scrapes >= 4

    threads = [threading.Thread(target=log_in) for _ in range(4)]
    for thread in threads:
        thread.start()
    lathe.wait_until(all_received, 10, "the server's receipt of four logins")
    assert own_server.stop() == 0
    for thread in threads:
        thread.join()
    assert answers == [201] * 4


def received_requests(admin):
    return int(re.search(r"^lathe_http_received_requests_total (\d+)", admin.get("/metrics").text, re.M).group(1))


def test_errors_are_in_the_language_asked_for(server):
    client = server.client()
    client.language = "zh-CN,zh;q=0.9"
    assert client.get("/api/v1/me").expect(401)["detail"].startswith("未登录")
    client.language = "en-GB"
    assert client.get("/api/v1/me").expect(401)["detail"].startswith("not logged in")
