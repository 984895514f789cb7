"""Runs the real server for tests, and talks to it. Python's standard library only.

    with Server() as server:
        server.admin.post("/api/v1/users", {"userName": "li", "password": "correct horse"}).created()
        li = server.client().log_in("li", "correct horse")
        answer = li.post("/api/system/config/getRemainResource", {"userId": ""})
        assert answer.payload["remainCpu"] > 0

Every server has a data directory, a port and a log of its own, so that tests run side by side.
"""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADMIN_PASSWORD = "the administrator's password"
USER_PASSWORD = "a user's password"


def binary():
    """The program under test: LATHE_BINARY, or the newer of the release and the dev build."""
    named = os.environ.get("LATHE_BINARY")
    if named:
        return os.path.abspath(named)
    built = [p for p in (ROOT / "build/release/lathe", ROOT / "build/dev/lathe") if p.exists()]
    if not built:
        raise RuntimeError("no lathe binary: run ./dev build, or set LATHE_BINARY")
    return str(max(built, key=lambda p: p.stat().st_mtime))


def files_below(folder):
    """The files in a tree that a server may be changing: folders that go meanwhile are passed over."""
    return [pathlib.Path(parent) / name for parent, _, names in os.walk(folder) for name in names]


def wait_until(condition, timeout=30, what="the condition"):
    """Polls until `condition()` gives something true, and gives that back."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def end_processes_of(folder):
    """Ends what runs on below a folder when its server or daemon is gone, as it should for everybody but a test:
    whoever works in it (a run's supervisor, whose ranks end with it) or names it (a container's shim), and their
    children."""
    mark, parents, condemned = str(folder) + "/", {}, set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        process = pathlib.Path("/proc", entry)
        try:
            parents[int(entry)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if mark in os.readlink(process / "cwd") or any(mark in word for word in words):
                condemned.add(int(entry))
        except OSError:
            continue  # it has ended
    while more := {child for child, parent in parents.items() if parent in condemned} - condemned:
        condemned |= more
    for process in condemned - {os.getpid()}:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Answer:
    """What came back: `status`, `headers` (case-insensitive, by get), `body` in bytes."""

    def __init__(self, status, headers, body, request=""):
        self.status = status
        self.headers = headers
        self.body = body
        self.request = request

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def payload(self):
        """Of a documented call: the `result` or `data` of a success."""
        answer = self.json
        assert self.status == 200 and answer["success"] is True, self
        return answer["result"] if "result" in answer else answer["data"]

    @property
    def fields(self):
        """The fields that a problem (application/problem+json) names."""
        return [violation["field"] for violation in self.json["violations"]]

    def expect(self, status):
        """Fails with everything there is to know unless the status is this one; else the JSON body."""
        assert self.status == status, self
        return self.json if self.body else None

    def ok(self):
        return self.expect(200)

    def created(self):
        return self.expect(201)

    def gone(self):
        return self.expect(204)

    def __repr__(self):
        return f"<{self.request} → {self.status} {self.body[:2000].decode(errors='replace')}>"


class Client:
    """One caller. Knows its token; every request is a connection of its own, so threads may share it. `authority`:
    the PEM file that an HTTPS server's certificate is checked with."""

    def __init__(self, url, token=None, language="en", authority=None):
        parts = urllib.parse.urlsplit(url)
        self.url = url
        self.authority = authority
        self.host, self.port = parts.hostname, parts.port
        self.token = token
        self.language = language
        self.id = self.name = self.role = None

    def log_in(self, name, password):
        answer = self.post("/api/v1/sessions", {"userName": name, "password": password}).created()
        self.token = answer["token"]
        self.id, self.name, self.role = answer["user"]["id"], answer["user"]["userName"], answer["user"]["role"]
        return self

    def with_token(self, token):
        return Client(self.url, token, self.language, self.authority)

    def connection(self, timeout):
        if self.authority:
            context = ssl.create_default_context(cafile=self.authority)
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, query=None, timeout=60):
        """`body`: bytes, str, a file, an iterable of bytes (chunked), or None."""
        sent = {"Accept-Language": self.language} if self.language else {}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        sent.update(headers or {})
        if query:
            path += ("&" if "?" in path else "?") + urllib.parse.urlencode(query)
        if isinstance(body, str):
            body = body.encode()
        connection = self.connection(timeout)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read(), f"{method} {path}")
        finally:
            connection.close()

    def stream(self, method, path, body=None, headers=None, timeout=60):
        """The connection and the answer with its body still to read; the caller closes the connection."""
        sent = {**({"Accept-Language": self.language} if self.language else {}), **(headers or {})}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        connection = self.connection(timeout)
        connection.request(method, path, body, sent)
        return connection, connection.getresponse()

    def send(self, method, path, value=None, **options):
        """`value` goes as JSON."""
        if value is None:
            return self.request(method, path, **options)
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return self.request(method, path, json.dumps(value, ensure_ascii=False), headers, **options)

    def get(self, path, **options):
        return self.send("GET", path, **options)

    def post(self, path, value=None, **options):
        return self.send("POST", path, value, **options)

    def put(self, path, value=None, **options):
        return self.send("PUT", path, value, **options)

    def patch(self, path, value=None, **options):
        return self.send("PATCH", path, value, **options)

    def delete(self, path, value=None, **options):
        return self.send("DELETE", path, value, **options)

    def multipart(self, path, fields=(), files=(), **options):
        """`fields`: (name, text) pairs or a dict; `files`: (name, file name, bytes) triples."""
        boundary = uuid.uuid4().hex
        pairs = fields.items() if isinstance(fields, dict) else fields
        parts = []
        for name, text in pairs:
            parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode())
        for name, file_name, content in files:
            head = (f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
                    "Content-Type: application/octet-stream\r\n\r\n")
            parts.append(head.encode() + content + b"\r\n")
        parts.append(f"--{boundary}--\r\n".encode())
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", **options.pop("headers", {})}
        return self.request("POST", path, b"".join(parts), headers, **options)

    def items(self, path, size=None, **query):
        """Every item of a list of the project's own API, slice after slice."""
        found, cursor = [], None
        while True:
            asked = dict(query, **({"pageSize": size} if size else {}), **({"cursor": cursor} if cursor else {}))
            answer = self.get(path, query=asked).ok()
            found += answer["items"]
            cursor = answer["nextCursor"]
            if not cursor:
                return found

    def raw(self, data, timeout=10):
        """Sends bytes as they are and gives back all that comes until the server closes or `timeout` passes."""
        with socket.create_connection((self.host, self.port), timeout=timeout) as connection:
            connection.sendall(data)
            out = b""
            try:
                while True:
                    piece = connection.recv(65536)
                    if not piece:
                        return out
                    out += piece
            except (TimeoutError, ConnectionResetError):
                return out


class Server:
    """`lathe serve` on a free port with a temporary data directory.

    `config` is a dictionary for --config, `arguments` more words for the command line, `environment` more
    variables. `data` keeps an existing directory, which is then not removed. `uid`: whom it runs as, where the
    tests run as root.
    """

    def __init__(self, data=None, config=None, arguments=(), environment=None, admin_password=ADMIN_PASSWORD,
                 uid=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-test-"))
        self.data = pathlib.Path(data) if data else self.folder / "data"
        self.config = config
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self.admin_password = admin_password
        self.identity = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        self.program = binary()
        if uid is not None:
            # Somewhere that user can reach.
            self.program = shutil.copy(self.program, self.folder / "lathe")
            os.chown(self.folder, uid, uid)
        self.log = self.folder / "log"
        self.process = None
        self.url = None
        self._admin = None

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        crashed = self.process and self.process.poll() not in (None, 0)
        if kind is not None or crashed:
            print(f"--- the server's log, {self.log}\n{self.log_text()[-8000:]}")
        code = self.stop()
        self.remove()
        if kind is None and code not in (0, None):
            raise AssertionError(f"the server ended with {code}")

    def start(self, timeout=30):
        """Returns once it answers."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        command = [self.program, "serve", "--data", str(self.data), "--listen", "127.0.0.1:0", "--ready-file", str(ready)]
        if self.config is not None:
            (self.folder / "config.json").write_text(json.dumps(self.config))
            command += ["--config", str(self.folder / "config.json")]
        environment = {**os.environ, **self.environment}
        if self.admin_password is not None:
            environment["LATHE_ADMIN_PASSWORD"] = self.admin_password
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command + self.arguments, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=environment, cwd=self.folder, **self.identity)
        wait_until(lambda: ready.exists() or self.process.poll() is not None, timeout, "the server's start")
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode} at start:\n{self.log_text()}")
        self.url = ready.read_text().strip()
        if self._admin:
            # The session outlives the server; only the port is new.
            self._admin.__dict__.update(self.client(self._admin.token).__dict__,
                                        id=self._admin.id, name=self._admin.name, role=self._admin.role)
        return self

    def stop(self, timeout=60):
        """SIGTERM; the exit status, or None if it did not run."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self):
        """SIGKILL: the process is gone when this returns."""
        return self._end(signal.SIGKILL, 30)

    def restart(self, kill=False):
        self.kill() if kill else self.stop()
        return self.start()

    def _end(self, number, timeout):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
            raise AssertionError(f"the server did not end within {timeout} s:\n{self.log_text()[-4000:]}") from None
        self.process = None
        return code

    def remove(self):
        end_processes_of(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def client(self, token=None):
        """A caller that is not logged in (or has this token)."""
        return Client(self.url, token, authority=(self.config or {}).get("tls", {}).get("certificate"))

    @property
    def admin(self):
        """The first administrator, logged in."""
        if self._admin is None:
            self._admin = self.client().log_in("admin", self.admin_password)
        return self._admin

    def new_user(self, name=None, role="user", password=USER_PASSWORD):
        """A user of their own, logged in: a Client with `id`, `name` and `role`."""
        name = name or "user-" + uuid.uuid4().hex[:12]
        self.admin.post("/api/v1/users", {"userName": name, "password": password, "role": role}).created()
        return self.client().log_in(name, password)
