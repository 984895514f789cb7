"""Connections that are cut at any point: uploads, resumed uploads, imports' files, followed logs.

What must hold: a broken upload leaves nothing behind, one that was acknowledged is whole, a resumed one continues
at the byte the server names, and the server loses neither threads nor memory over it.
"""

import hashlib
import os
import random
import socket
import struct
import time

import lathe

CUTS = 150


def cut(connection):
    """A reset, as of a client that lost its network, and not the polite end of a stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def multipart(name, content):
    boundary = "----cut"
    return boundary, (f'--{boundary}\r\nContent-Disposition: form-data; name="currentPath"\r\n\r\n/\r\n--{boundary}\r\n'
                      f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n').encode() + content + \
        f"\r\n--{boundary}--\r\n".encode()


def request(user, method, path, headers, body):
    lines = [f"{method} {path} HTTP/1.1", "Host: lathe", f"Authorization: Bearer {user.token}",
             f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def staged(server):
    return lathe.files_below(server.data / "users" / ".staging")


def threads(server):
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


def sockets(server):
    folder = f"/proc/{server.process.pid}/fd"
    count = 0
    for entry in os.listdir(folder):
        try:
            count += os.readlink(f"{folder}/{entry}").startswith("socket:")
        except OSError:
            pass
    return count


def test_uploads_cut_at_random_bytes_leave_nothing_or_everything(own_server):
    chance = random.Random(11)
    user = own_server.new_user()
    before = sockets(own_server)
    contents = {}
    for number in range(CUTS):
        name = f"{number}.bin"
        content = chance.randbytes(chance.choice([100, 20_000, 1_500_000]))
        contents[name] = hashlib.sha256(content).hexdigest()
        boundary, body = multipart(name, content)
        whole = request(user, "POST", "/file/file/uploadFolder",
                        {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body)
        until = chance.randrange(1, len(whole) + 1)
        connection = socket.create_connection((own_server.admin.host, own_server.admin.port))
        connection.sendall(whole[:until])
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0, 0.02))
        cut(connection)
    lathe.wait_until(lambda: not staged(own_server), 30, "the end of the broken uploads")
    lathe.wait_until(lambda: sockets(own_server) <= before, 30, "the end of their connections")
    root = own_server.data / "users" / user.id / "private"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*.bin")}
    for name, digest in found.items():
        assert digest == contents[name], f"{name} is not whole"
    assert {item["name"] for item in user.get("/api/v1/files", query={"path": "/"}).ok()["items"]} >= set(found)


def test_a_resumed_upload_goes_on_where_the_server_says_however_often_it_is_cut(own_server):
    chance = random.Random(12)
    user = own_server.new_user()
    content = chance.randbytes(3_000_000)
    made = user.request("POST", "/api/v1/uploads", None, {
        "Tus-Resumable": "1.0.0", "Upload-Length": str(len(content)),
        "Upload-Metadata": "path L2N1dC5iaW4="})
    assert made.status == 201, made
    place = made.headers["Location"]
    offset = cuts = 0
    while offset < len(content):
        part = content[offset:offset + chance.randrange(1, 400_000)]
        head = {"Tus-Resumable": "1.0.0", "Upload-Offset": str(offset),
                "Content-Type": "application/offset+octet-stream"}
        whole = request(user, "PATCH", place, head, part)
        connection = socket.create_connection((own_server.admin.host, own_server.admin.port))
        connection.sendall(whole[:len(whole) - chance.randrange(0, len(part) + 1)])
        # A reset throws away what the other side has not read yet.
        time.sleep(chance.uniform(0, 0.1))
        cut(connection)
        cuts += 1

        def known():
            answer = user.request("HEAD", place, None, {"Tus-Resumable": "1.0.0"})
            # 423: the one that was cut is still being put away.
            return answer if answer.status != 423 else None
        answer = lathe.wait_until(known, 30, "the offset")
        if answer.status in (404, 410):
            break  # the last piece was whole: it is a file now
        assert answer.status in (200, 204), answer
        now = int(answer.headers["Upload-Offset"])
        # What the server had taken in of an earlier piece may have been put away since.
        assert offset <= now <= len(content)
        offset = now
        assert cuts < 2000
    got = lathe.wait_until(lambda: (a := user.get("/api/v1/files/content", query={"path": "/cut.bin"})).status == 200 and a,
                           30, "the file")
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(content).digest()
    assert cuts > 5


def test_followers_that_vanish_cost_nothing(own_server):
    user = own_server.new_user()
    job = user.post("/kernel/trainOperator/createTask", {
        "name": "talks", "createWay": "custom", "command": "while true; do echo line; sleep 0.01; done",
        "resource": [{"cpuNumber": 1, "memory": 1, "nodeType": "master", "numbers": 1}]}).payload["id"]
    lathe.wait_until(lambda: "line" in user.get(f"/api/v1/jobs/{job}/logs").text, what="the first line")
    before = sockets(own_server)
    for _ in range(30):
        connection = socket.create_connection((own_server.admin.host, own_server.admin.port))
        connection.sendall(request(user, "GET", f"/api/v1/jobs/{job}/logs?follow=true", {}, b""))
        connection.recv(200)
        cut(connection)
    lathe.wait_until(lambda: sockets(own_server) <= before, 30, "the end of the followers")
    settled = threads(own_server)
    assert settled < 80, f"{settled} threads"
    user.post(f"/api/v1/jobs/{job}/stop")
