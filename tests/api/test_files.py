"""Files: 1.1, 1.2, /api/v1/files, /api/v1/folders and resumable uploads (tus 1.0)."""

import base64
import hashlib
import os
import socket
import threading
import time
import urllib.parse

import pytest

import lathe

PRIVATE = "/api/file/file/uploadFolder"
PUBLIC = "/api/file/file/uploadPublicFolder"
UPLOADED = {"success": True, "errorCode": 200, "message": "文件上传成功", "result": None}


def upload(user, *files, path=PRIVATE, **fields):
    return user.multipart(path, fields, [("file", name, content) for name, content in files])


def content(user, path, **query):
    return user.get("/api/v1/files/content", query={"path": path, **query})


def names(user, path="", **query):
    return [item["name"] for item in user.items("/api/v1/files?path=" + urllib.parse.quote(path), **query)]


def part(name, file_name=None):
    end = f'; filename="{file_name}"' if file_name else ""
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{end}\r\n\r\n'.encode()


def staged(server):
    folder = server.data / "users/.staging"
    return list(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("path", [PRIVATE, PRIVATE.removeprefix("/api")])
def test_the_documented_example_of_a_private_upload(user, path):
    answer = upload(user, ("model.bin", b"weights"), path=path, currentPath="/upload/folder")
    assert answer.ok() == UPLOADED
    assert content(user, "upload/folder/model.bin").body == b"weights"


def test_the_documented_example_of_a_public_upload(server, user):
    other = server.new_user()
    assert upload(user, ("a.txt", b"for all"), path=PUBLIC, publicUserId=user.id, currentPath="/upload/folder").ok() == UPLOADED
    assert content(other, "upload/folder/a.txt", scope="public", userId=user.id).body == b"for all"
    answer = upload(other, ("a.txt", b"not mine"), path=PUBLIC, publicUserId=user.id).expect(403)
    assert (answer["success"], answer["errorCode"], answer["result"]) == (False, 403, None)
    content(other, "upload/folder/a.txt", userId=user.id).expect(403)
    content(other, "upload/folder/a.txt").expect(404)


def test_a_whole_folder_goes_in_one_request(user):
    files = [(f"data/{kind}/{i}.jsonl", f"{kind} {i}".encode()) for kind in ("train", "validate", "test") for i in range(5)]
    upload(user, *files).ok()
    assert names(user, "data") == ["test", "train", "validate"]
    assert content(user, "data/validate/3.jsonl").body == b"validate 3"


def test_fields_count_wherever_they_stand(user):
    file, path = ("file", "late.txt"), ("currentPath", None)
    for parts in ([(path, b"a/b"), (file, b"x")], [(file, b"x"), (path, b"a/b")]):
        body = b"".join(part(*head) + text + b"\r\n" for head, text in parts) + b"--B--\r\n"
        user.request("POST", PRIVATE, body, {"Content-Type": "multipart/form-data; boundary=B"}).ok()
        assert content(user, "a/b/late.txt").body == b"x"
        user.delete("/api/v1/files?path=a").gone()
    user.multipart(PRIVATE + "?currentPath=q/r", files=[("file", "x", b"y")]).ok()
    assert content(user, "q/r/x").body == b"y"


HOSTILE = ["..", "../x", "a/../../x", "a/..", "./x", ".", "a\x1fb", "a\x7f", "\u202etxt.exe", "\u0085", "x" * 256,
           "/".join(["y" * 200] * 25), "../../../../etc/passwd", "..\\x/../../y"]


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: ascii(path)[:20])
def test_hostile_paths_are_refused_wherever_a_path_can_be_sent(user, path):
    assert "currentPath" in upload(user, ("a", b"x"), currentPath=path).expect(400)["message"]
    assert upload(user, (path, b"x")).status == 400
    for method, url in (("get", "/api/v1/files"), ("get", "/api/v1/files/content"), ("delete", "/api/v1/files"),
                        ("post", "/api/v1/folders")):
        answer = getattr(user, method)(url, query={"path": path})
        answer.expect(400)
        assert answer.fields == ["path"], answer
    upload(user, ("a", b"x")).ok()
    answer = user.patch("/api/v1/files", {"path": "a", "newPath": path})
    answer.expect(400)
    assert answer.fields == ["newPath"]
    metadata = "path " + base64.b64encode(path.encode()).decode()
    assert user.post("/api/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": metadata}).status == 400
    assert names(user) == ["a"]


def test_percent_signs_are_decoded_once(user):
    # Once decoded, %252e%252e is a name of six characters, not a way up.
    assert user.get("/api/v1/files/content?path=%252e%252e/%252e%252e/etc/passwd").status == 404
    assert user.get("/api/v1/files/content?path=%2e%2e/%2e%2e/etc/passwd").status == 400
    assert user.get("/api/v1/files/content?path=a%00b").status == 400
    assert user.get("/api/v1/files/content?path=%ff").status == 400
    upload(user, ("%2e%2e%2fx", b"a name like any other")).ok()
    assert names(user) == ["%2e%2e%2fx"]


def test_links_planted_in_a_root_do_not_lead_out(server, user):
    victim = server.new_user()
    upload(victim, ("secret", b"secret")).ok()
    upload(user, ("here", b"x")).ok()
    root = server.data / "users" / user.id / "private"
    os.symlink("/etc", root / "etc")
    os.symlink(f"../../{victim.id}/private", root / "peer")
    os.symlink("here", root / "inside")
    for path in ("etc/hostname", "peer/secret"):
        content(user, path).expect(400)
        user.patch("/api/v1/files", {"path": path, "newPath": "stolen"}).expect(400)
        user.delete("/api/v1/files", query={"path": path}).expect(400)
    upload(user, ("peer/new", b"x")).expect(400)
    user.get("/api/v1/files", query={"path": "peer"}).expect(400)
    assert content(user, "inside").body == b"x"
    user.delete("/api/v1/files", query={"path": "peer"}).gone()
    assert names(victim) == ["secret"]


def test_both_spellings_of_an_accent_are_one_file(user):
    upload(user, ("cafe\u0301", b"decomposed")).ok()
    upload(user, ("caf\u00e9", b"composed")).ok()
    assert names(user) == ["caf\u00e9"]
    assert content(user, "cafe\u0301").body == b"composed"


def test_what_is_wrong_with_a_form_is_named(user):
    def message(*args, **kwargs):
        answer = user.multipart(*args, **kwargs).expect(400)
        assert answer["success"] is False and answer["result"] is None
        return answer["message"]
    assert "file" in message(PRIVATE, {"currentPath": "x"})
    assert "publicUserId" in message(PUBLIC, {}, [("file", "a", b"x")])
    assert "files" in message(PRIVATE, {}, [("files", "a", b"x")])
    assert "file" in message(PRIVATE, {"file": "not a file"})
    user.request("POST", PRIVATE, b"{}", {"Content-Type": "application/json"}).expect(400)
    assert names(user) == []


def test_no_one_uploads_without_a_token(anonymous):
    assert anonymous.multipart(PRIVATE, {}, [("file", "a", b"x")]).expect(401)["errorCode"] == 401


def test_a_broken_upload_leaves_nothing(server, user):
    upload(user, ("kept", b"before")).ok()
    body = part("file", "kept") + b"z" * 300_000
    head = (f"POST {PRIVATE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
            f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 900000\r\n\r\n").encode()
    connection = socket.create_connection((user.host, user.port))
    connection.sendall(head + body)
    lathe.wait_until(lambda: staged(server), what="a staged file")
    connection.close()
    lathe.wait_until(lambda: not staged(server), what="the end of the broken upload")
    assert content(user, "kept").body == b"before"
    assert names(user) == ["kept"]
    user.request("POST", PRIVATE, body, {"Content-Type": "multipart/form-data; boundary=B"}).expect(400)
    assert staged(server) == []


def test_the_end_of_the_server_leaves_whole_files_only(own_server):
    user = own_server.new_user()
    upload(user, ("a", b"old" * 1000), ("b", b"old" * 1000)).ok()
    acknowledged = {}

    def keep_uploading():
        for i in range(1000):
            text = f"{i:08}".encode() * 20_000
            try:
                upload(user, ("a", text), ("b", text), (f"new/{i}", text)).ok()
            except (OSError, AssertionError, lathe.http.client.HTTPException):
                return
            acknowledged[i] = text

    for round in range(3):
        acknowledged.clear()
        worker = threading.Thread(target=keep_uploading)
        worker.start()
        lathe.wait_until(lambda: len(acknowledged) > round + 1, what="a few uploads")
        time.sleep(0.003 * round)
        own_server.kill()
        worker.join()
        own_server.start()
        user = own_server.client(user.token)
        assert staged(own_server) == []
        a, b = content(user, "a").body, content(user, "b").body
        assert a == b, "one request's files are from two requests"
        assert int(a[:8]) >= max(acknowledged)
        for i, text in acknowledged.items():
            assert content(user, f"new/{i}").body == text


def test_the_quota_ends_an_upload_while_it_streams(server, admin, user):
    admin.put(f"/api/v1/users/{user.id}/quota", {"storageBytes": 100_000, "storageInodes": 10}).ok()
    sent = 0

    def endless():
        nonlocal sent
        yield part("file", "big")
        while sent < 500_000_000:
            sent += 100_000
            yield b"x" * 100_000

    try:
        answer = user.request("POST", PRIVATE, endless(), {"Content-Type": "multipart/form-data; boundary=B"})
        assert answer.expect(507)["errorCode"] == 507
    except OSError:
        pass  # the server had answered and closed while this side still sent
    assert sent < 100_000_000
    lathe.wait_until(lambda: not staged(server), what="the end of the refused upload")
    assert names(user) == []
    upload(user, ("fits", b"x" * 90_000)).ok()
    assert upload(user, ("more", b"x" * 20_000)).expect(507)["success"] is False
    user.delete("/api/v1/files?path=fits").gone()
    upload(user, ("more", b"x" * 20_000)).ok()
    assert upload(user, *[(f"f{i}", b"") for i in range(12)]).status == 507
    left = user.post("/resource/configRemake/getQuotaRemainResource", {"userId": user.id, "uId": "1000"}).payload
    assert left["inodeUsed"] == "1个", left


def test_folders_moves_and_deletions(user):
    upload(user, ("a/b/c.txt", b"c"), ("d.txt", b"d")).ok()
    folder = user.post("/api/v1/folders", {"path": "x/y"}).created()
    assert (folder["path"], folder["type"]) == ("x/y", "folder")
    user.post("/api/v1/folders", {"path": "x/y"}).expect(409)
    moved = user.patch("/api/v1/files", {"path": "a", "newPath": "x/y/a"}).ok()
    assert moved["path"] == "x/y/a"
    assert content(user, "x/y/a/b/c.txt").body == b"c"
    user.patch("/api/v1/files", {"path": "d.txt", "newPath": "x"}).expect(409)
    user.patch("/api/v1/files", {"path": "x", "newPath": "x/y/in"}).expect(400)
    upload(user, ("e.txt", b"e")).ok()
    user.patch("/api/v1/files", {"path": "e.txt", "newPath": "d.txt"}).expect(409)
    user.patch("/api/v1/files", {"path": "e.txt", "newPath": "d.txt", "replace": True}).ok()
    assert content(user, "d.txt").body == b"e"
    user.delete("/api/v1/files?path=x").gone()
    user.delete("/api/v1/files?path=x").expect(404)
    user.delete("/api/v1/files?path=").expect(400)
    entry = user.get("/api/v1/files?path=d.txt").ok()["entry"]
    assert (entry["type"], entry["size"]) == ("file", 1)
    assert upload(user, ("x", b"")).ok() and upload(user, ("x/below", b"")).status == 409


def test_lists_page_by_name(user):
    upload(user, *[(f"f{i:03}", b"") for i in range(25)]).ok()
    assert names(user, size=7) == [f"f{i:03}" for i in range(25)]


def test_downloads_in_parts(user):
    data = bytes(range(256)) * 100
    upload(user, ("报告.bin", data)).ok()
    url = "/api/v1/files/content?path=%E6%8A%A5%E5%91%8A.bin"
    whole = user.get(url)
    assert whole.body == data
    etag = whole.headers["ETag"]
    assert whole.headers["Content-Disposition"] == "attachment; filename=\"__.bin\"; filename*=UTF-8''%E6%8A%A5%E5%91%8A.bin"
    assert whole.headers["Accept-Ranges"] == "bytes"

    def ranged(text, **more):
        return user.get(url, headers={"Range": text, **more})
    for text, expected in (("bytes=0-9", data[:10]), ("bytes=25000-", data[25000:]), ("bytes=-5", data[-5:])):
        answer = ranged(text)
        assert (answer.status, answer.body) == (206, expected)
    assert ranged("bytes=0-9").headers["Content-Range"] == f"bytes 0-9/{len(data)}"
    answer = ranged("bytes=99999-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    assert ranged("bytes=5-1").body == data
    assert ranged("bytes=0-9", **{"If-Range": '"changed"'}).body == data
    assert ranged("bytes=0-9", **{"If-Range": etag}).status == 206
    several = ranged("bytes=0-1,10-11")
    assert several.status == 206 and several.headers["Content-Type"].startswith("multipart/byteranges")
    assert b"Content-Range: bytes 10-11/" in several.body
    unchanged = user.get(url, headers={"If-None-Match": etag})
    assert (unchanged.status, unchanged.body) == (304, b"")
    head = user.request("HEAD", url)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(data)), b"")


TUS = {"Tus-Resumable": "1.0.0"}


def metadata(**values):
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def begin(user, length, **values):
    answer = user.post("/api/v1/uploads", headers={**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(**values)})
    assert answer.status == 201, answer
    return answer.headers["Location"]


def send(user, url, offset, data, **headers):
    return user.request("PATCH", url, data, {**TUS, "Upload-Offset": str(offset),
                                             "Content-Type": "application/offset+octet-stream", **headers})


def offset_of(user, url):
    return int(user.request("HEAD", url, headers=TUS).headers["Upload-Offset"])


def test_a_resumable_upload_survives_the_server(own_server):
    user = own_server.new_user()
    data = os.urandom(3_000_000)
    url = begin(user, len(data), path="models/big.bin")
    assert send(user, url, 0, data[:1_000_000]).status == 204
    # Cut off in the middle of a piece, then the server dies.
    head = (f"PATCH {url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\nTus-Resumable: 1.0.0\r\n"
            "Upload-Offset: 1000000\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: 2000000\r\n\r\n")
    connection = socket.create_connection((user.host, user.port))
    connection.sendall(head.encode() + data[1_000_000:1_500_000])
    own_server.restart(kill=True)
    connection.close()
    user = own_server.client(user.token)
    offset = offset_of(user, url)
    assert 1_000_000 <= offset <= 1_500_000
    assert send(user, url, offset, data[offset:]).status == 204
    assert hashlib.sha256(content(user, "models/big.bin").body).digest() == hashlib.sha256(data).digest()
    assert staged(own_server) == []


def test_a_resumable_upload_keeps_what_came_before_the_line_broke(server, user):
    data = os.urandom(800_000)
    url = begin(user, len(data), path="x")
    head = (f"PATCH {url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\nTus-Resumable: 1.0.0\r\n"
            f"Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: {len(data)}\r\n\r\n")
    connection = socket.create_connection((user.host, user.port))
    connection.sendall(head.encode() + data[:300_000])
    connection.shutdown(socket.SHUT_WR)
    lathe.wait_until(lambda: offset_of(user, url) == 300_000, what="the bytes that came")
    connection.close()
    answer = lathe.wait_until(lambda: (a := send(user, url, 300_000, data[300_000:])).status != 423 and a, what="the turn")
    assert answer.status == 204
    assert content(user, "x").body == data


def test_tus_says_what_is_wrong(user):
    assert user.post("/api/v1/uploads", headers={"Upload-Length": "1"}).status == 412
    url = begin(user, 11, path="greeting")
    conflict = send(user, url, 5, b"x")
    assert (conflict.status, conflict.headers["Upload-Offset"]) == (409, "0")
    assert user.request("PATCH", url, b"x", {**TUS, "Upload-Offset": "0"}).status == 415
    assert send(user, url, 0, b"too many bytes").status == 413
    wrong = {"Upload-Checksum": "sha256 " + base64.b64encode(bytes(32)).decode()}
    assert send(user, url, 0, b"hello world", **wrong).status == 460
    assert offset_of(user, url) == 0
    right = {"Upload-Checksum": "sha256 " + base64.b64encode(hashlib.sha256(b"hello world").digest()).decode()}
    done = send(user, url, 0, b"hello world", **right)
    assert (done.status, done.headers["Tus-Resumable"], done.headers["Upload-Offset"]) == (204, "1.0.0", "11")
    assert content(user, "greeting").body == b"hello world"
    url = begin(user, 5, path="given-up")
    assert user.request("DELETE", url, headers=TUS).status == 204
    assert user.request("HEAD", url, headers=TUS).status == 404
    options = user.request("OPTIONS", "/api/v1/uploads")
    assert options.status == 204 and "checksum" in options.headers["Tus-Extension"]


def resident(server):
    for line in open(f"/proc/{server.process.pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_upload(own_server):
    user = own_server.new_user()
    size = int(os.environ.get("LATHE_UPLOAD_MB", "200"))
    piece = os.urandom(1 << 20)
    highest = 0

    def body():
        nonlocal highest
        yield part("file", "big.bin")
        for i in range(size):
            yield piece
            if i % 20 == 0:
                highest = max(highest, resident(own_server))
        yield b"\r\n--B--\r\n"

    before = resident(own_server)
    user.request("POST", PRIVATE, body(), {"Content-Type": "multipart/form-data; boundary=B"}, timeout=600).ok()
    assert highest - before < 8, f"{before} MiB before, {highest} MiB during the upload"
    assert user.get("/api/v1/files?path=big.bin").ok()["entry"]["size"] == size << 20
