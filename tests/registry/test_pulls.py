"""Images come from other registries: another Lathe, Debian's docker-registry, and ones that behave badly."""

import hashlib
import json
import os
import socket
import subprocess
import threading
import urllib.parse

import pytest

import lathe
import registry
from odd_registry import OddRegistry
from registry import Image, digest

PULLS = "/api/v1/images/pulls"
LOCAL = {"images": {"insecureRegistries": ["127.0.0.1:*"]}}


@pytest.fixture(scope="module")
def server():
    with lathe.Server(config=LOCAL) as running:
        yield running


def begin(user, reference, **more):
    return user.post(PULLS, {"reference": reference, **more}).expect(202)


def last_import(user, pull):
    return next(i for i in user.get(f"/api/v1/images/{pull['id']}").ok()["imports"] if i["id"] == pull["importId"])


def end_of(user, pull, timeout=60):
    def ended():
        found = last_import(user, pull)
        return found if found["state"] in ("succeeded", "failed") else None
    return lathe.wait_until(ended, timeout, "the pull's end")


def pull(user, reference, **more):
    begun = begin(user, reference, **more)
    ended = end_of(user, begun)
    assert ended["state"] == "succeeded", ended
    return begun, ended


def failure(user, reference, timeout=60, **more):
    ended = end_of(user, begin(user, reference, **more), timeout)
    assert ended["state"] == "failed", ended
    return ended["failReason"]


def pulled_bytes(server, user, name, tag="1.0"):
    return registry.Repository(server, user, name).pull(tag)


# Real registries

def test_from_another_lathe_with_tokens(server):
    with lathe.Server() as source:
        owner = source.new_user("owner")
        image = Image.make(layers=3, size=300_000)
        registry.Repository(source, owner, "team/app").push(image, "1.0")
        host = source.url.removeprefix("http://")
        user = server.new_user()
        begun, ended = pull(user, f"{host}/owner/team/app:1.0", username="owner", password=lathe.USER_PASSWORD)
        assert (begun["name"], begun["tag"]) == ("owner/team/app", "1.0")
        size = sum(len(blob) for blob in image.blobs)
        assert (ended["bytesDone"], ended["bytesTotal"], ended["file"]) == (size, size, "")
        assert ended["reference"] == f"{host}/owner/team/app:1.0"
        assert set(pulled_bytes(server, user, "owner/team/app")) == {digest(b) for b in (image.manifest, *image.blobs)}
        # By its digest, under a name of its own; nobody's password is in the log.
        pull(user, f"{host}/owner/team/app@{image.digest}", name="mine", tag="v2", username="owner",
             password=lathe.USER_PASSWORD)
        assert registry.Repository(server, user, "mine").tags() == ["v2"]
        reason = failure(user, f"{host}/owner/team/app:1.0", name="no", username="owner", password="wrong horse")
        assert "refuses with this user name and password" in reason
        assert "a user name and a password are needed" in failure(user, f"{host}/owner/team/app:1.0", name="nobody")
        assert "wrong horse" not in server.log_text() and lathe.USER_PASSWORD not in server.log_text()
        kept = b"".join(p.read_bytes() for p in server.data.glob("lathe.db*"))
        assert b"wrong horse" not in kept


def test_from_docker_registry(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "registry.yml").write_text(json.dumps({
        "version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "x"}}))
    with open(tmp_path / "log", "wb") as log:
        peer = subprocess.Popen(["docker-registry", "serve", tmp_path / "registry.yml"], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log)
    try:
        lathe.wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, what="docker-registry")
        image = Image.make(layers=2, size=400_000)
        client = lathe.Client(f"http://127.0.0.1:{port}", language=None)
        for blob in image.blobs:
            where = client.request("POST", "/v2/team/app/blobs/uploads/").headers["Location"]
            parts = urllib.parse.urlsplit(where)
            done = client.request("PUT", f"{parts.path}?{parts.query}&digest={digest(blob)}", blob,
                                  {"Content-Type": "application/octet-stream"})
            assert done.status == 201, done
        assert client.request("PUT", "/v2/team/app/manifests/1.0", image.manifest,
                              {"Content-Type": image.kind}).status == 201
        user = server.new_user()
        pull(user, f"127.0.0.1:{port}/team/app:1.0")
        assert len(pulled_bytes(server, user, "team/app")) == 4
        assert "has no team/app:2.0" in failure(user, f"127.0.0.1:{port}/team/app:2.0")
    finally:
        peer.terminate()
        peer.wait(20)


# What is taken, and what is not

def test_of_an_index_this_machines_image_is_taken(server):
    images = {arch: Image.make(architecture=arch) for arch in ("amd64", "arm64", "s390x")}
    index = json.dumps({"schemaVersion": 2, "mediaType": registry.INDEX, "manifests": [
        registry.described(one.manifest, one.kind, platform={"os": "linux", "architecture": arch})
        for arch, one in reversed(images.items())]}).encode()
    mine = images["amd64" if os.uname().machine == "x86_64" else "arm64"]
    user = server.new_user()
    with OddRegistry({digest(i.manifest): i for i in images.values()}, {"1.0": index}) as source:
        pull(user, f"{source.authority}/multi:1.0")
        assert set(pulled_bytes(server, user, "multi")) == {digest(b) for b in (mine.manifest, *mine.blobs)}
        foreign = json.dumps({"schemaVersion": 2, "mediaType": registry.INDEX, "manifests": [
            registry.described(images["s390x"].manifest, registry.MANIFEST,
                               platform={"os": "linux", "architecture": "s390x"})]}).encode()
        source.add("2.0", foreign, registry.INDEX)
        assert "no image for this machine" in failure(user, f"{source.authority}/multi:2.0")


def test_layers_that_the_user_has_are_not_fetched_and_those_of_others_are(server):
    first, other = Image.make(layers=2, size=200_000), Image.make(layers=1, size=5_000)
    second = Image([*first.layers, *other.layers])
    user, stranger = server.new_user(), server.new_user()
    with OddRegistry({"1": first, "2": second}) as source:
        pull(user, f"{source.authority}/app:1")
        pull(user, f"{source.authority}/app:2")
        shared = digest(first.layers[0])
        assert len(source.requests(f"blobs/{shared}")) == 1
        # Knowing a digest does not give the bytes: for somebody else they are fetched again.
        pull(stranger, f"{source.authority}/app:2")
        assert len(source.requests(f"blobs/{shared}")) == 2
        del source.blobs[shared]
        thief = server.new_user()
        assert "has no sha256:" in failure(thief, f"{source.authority}/app:2")


@pytest.mark.parametrize("document, reason", [
    ({"schemaVersion": 1}, "schemaVersion"),
    ({"schemaVersion": 2, "mediaType": registry.MANIFEST}, "has no config"),
    ({"schemaVersion": 2, "mediaType": registry.MANIFEST, "config": registry.described(b"{}", registry.EMPTY),
      "layers": []}, "not an image that can be run"),
    ({"schemaVersion": 2, "mediaType": registry.MANIFEST, "config": registry.described(b"{}", registry.CONFIG),
      "layers": [registry.described(b"x", registry.LAYER, urls=["http://127.0.0.1/x"])]}, "had from elsewhere"),
    ({"schemaVersion": 2, "mediaType": registry.MANIFEST, "config": registry.described(b"{}", registry.CONFIG),
      "layers": [{"mediaType": registry.LAYER, "digest": "sha256:../../x", "size": 1}]}, "not sha256"),
    ({"schemaVersion": 2, "mediaType": registry.MANIFEST, "config": registry.described(b"{}", registry.CONFIG),
      "layers": [{"mediaType": registry.LAYER, "digest": digest(b"y"), "size": 1 << 50}]}, "too large"),
    # Together they are 2^64.
    ({"schemaVersion": 2, "mediaType": registry.MANIFEST, "config": registry.described(b"{}", registry.CONFIG),
      "layers": [{"mediaType": registry.LAYER, "digest": digest(b), "size": (1 << 63) - 1} for b in (b"x", b"y")]},
     "image is too large"),
    ({"schemaVersion": 2, "mediaType": registry.MANIFEST, "config": registry.described(b"{}", registry.CONFIG),
      "layers": [{"mediaType": registry.LAYER, "digest": digest(b"y"), "size": 1}]}, "does not fit its manifest"),
])
def test_manifests_that_are_wrong_are_refused(server, user, document, reason):
    with OddRegistry({}) as source:
        source.blobs = {digest(b): b for b in (b"{}", b"x", b"y")}
        source.add("1", json.dumps(document).encode(), document.get("mediaType", registry.MANIFEST))
        assert reason in failure(user, f"{source.authority}/odd:1", name=f"odd{hash(reason) % 10**6}")


def test_huge_documents_and_wrong_bytes_are_refused(server):
    user = server.new_user()
    image = Image.make(layers=1, size=100_000)
    layer = digest(image.layers[0])
    with OddRegistry({"1": image}) as source:
        where = f"{source.authority}/bad:1"

        source.behave = lambda r: "manifests" in r.path and r.answer(200, b" " * (5 << 20), Content_Type=registry.MANIFEST)
        assert "manifest is too large" in failure(user, where)
        source.behave = lambda r: "manifests" in r.path and r.answer(
            200, image.manifest + b" ", Content_Type=registry.MANIFEST, Docker_Content_Digest=image.digest)
        assert "does not match its digest" in failure(user, where)
        source.behave = lambda r: "manifests" in r.path and r.answer(200, b"{}", **{f"X-{i}": "y" * 900 for i in range(90)})
        assert "headers of the answer are too large" in failure(user, where)

        source.behave = lambda r: layer in r.path and r.answer(200, b"x" * len(image.layers[0]))
        assert "does not match it" in failure(user, where)
        source.behave = lambda r: layer in r.path and r.answer(200, image.layers[0] + b"x")
        assert "not of the size it says" in failure(user, where)
        assert not registry.Repository(server, user, "bad").has_blob(layer)

        source.behave = lambda r: False
        pull(user, where)


def test_refusals_are_told(server):
    user = server.new_user()
    image = Image.make()
    with OddRegistry({"1": image}) as source:
        where = f"{source.authority}/team/app:1"
        source.behave = lambda r: r.refuse(403, message="not for you")
        assert failure(user, where) == (f"{source.authority}: refuses: a user name and a password are needed, or there is "
                                        "no such image (not for you)")
        assert "(not for you)" in failure(user, where, name="zh")
        source.behave = lambda r: r.refuse(404, message="evil\nline \x1b[31m" + "x" * 500)
        assert failure(user, where).endswith("has no team/app:1 (DENIED)")
        source.behave = lambda r: r.refuse(418)
        assert "answered with status 418" in failure(user, where)
        # What passes is waited for.
        states = iter([429, 503, 0])
        source.behave = lambda r: "manifests" in r.path and (s := next(states, 0)) and r.refuse(s)
        pull(user, where)


# Transfers that break

@pytest.mark.parametrize("ranges", [True, False])
def test_what_breaks_off_goes_on_where_it_was(server, ranges):
    user = server.new_user()
    image = Image.make(layers=1, size=3_000_000)
    layer = digest(image.layers[0])
    cuts = iter([1_000_000, 700_000] if ranges else [1_000_000])
    with OddRegistry({"1": image}) as source:
        def behave(request):
            if layer not in request.path:
                return False
            return request.right(ranges, next(cuts, None))
        source.behave = behave
        pull(user, f"{source.authority}/app:1")
        asked = [int(h.get("Range", "bytes=0-")[6:-1]) for h in source.requests(layer)]
        assert asked[0] == 0 and asked == sorted(asked) and len(asked) == (3 if ranges else 2)
        assert 0 < asked[1] <= 1_000_000


def test_a_failed_pull_goes_on_at_the_next_try(server):
    user = server.new_user()
    image = Image.make(layers=2, size=2_000_000)
    whole, cut = (digest(layer) for layer in image.layers)
    with OddRegistry({"1": image}) as source:
        first = []

        def behave(request):
            if cut not in request.path:
                return False
            first.append(1)
            return request.right(most=1_500_000) if len(first) == 1 else request.refuse(418)
        source.behave = behave
        assert "418" in failure(user, f"{source.authority}/app:1")
        source.behave = lambda request: False
        pull(user, f"{source.authority}/app:1")
        assert len(source.requests(whole)) == 1
        assert int(source.requests(cut)[-1]["Range"][6:-1]) > 0


def test_kill_9_in_the_middle_and_on_it_goes():
    image = Image.make(layers=2, size=4_000_000)
    first, second = (digest(layer) for layer in image.layers)
    reached, on = threading.Event(), threading.Event()
    with OddRegistry({"1": image}) as source, lathe.Server(config=LOCAL) as server:
        def behave(request):
            if second not in request.path or on.is_set():
                return False
            body = image.layers[1]
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body[:3_000_000])
            request.wfile.flush()
            reached.set()
            on.wait(60)
            request.close_connection = True
            return True
        source.behave = behave
        user = server.new_user()
        begun = begin(user, f"{source.authority}/app:1")
        assert reached.wait(30)
        lathe.wait_until(lambda: last_import(user, begun)["bytesDone"] > 6_000_000, what="the second layer's beginning")
        assert last_import(user, begun)["bytesTotal"] == sum(map(len, image.blobs))
        server.kill()
        on.set()
        server.start()
        user = server.client(user.token)
        assert end_of(user, begun)["state"] == "succeeded"
        assert len(source.requests(first)) == 1
        assert int(source.requests(second)[-1]["Range"][6:-1]) > 0


def test_after_a_restart_a_pull_with_credentials_says_that_it_needs_them():
    image = Image.make()
    reached, on = threading.Event(), threading.Event()
    with OddRegistry({"1": image}) as source, lathe.Server(config=LOCAL) as server:
        def behave(request):
            if request.basic() != "li:a horse of mine":
                return request.refuse(401, WWW_Authenticate='Basic realm="here"')
            if "blobs" in request.path:
                reached.set()
                on.wait(60)
            return False
        source.behave = behave
        user = server.new_user()
        begun = begin(user, f"{source.authority}/app:1", username="li", password="a horse of mine")
        assert reached.wait(30)
        server.kill()
        assert not any(b"horse of mine" in path.read_bytes() for path in server.data.glob("lathe.db*"))
        on.set()
        server.start()
        user = server.client(user.token)
        assert "does not have the user name and password any more" in end_of(user, begun)["failReason"]
        pull(user, f"{source.authority}/app:1", username="li", password="a horse of mine")


def test_a_registry_that_sends_crumbs_is_given_up(server, user):
    image = Image.make(layers=1, size=300_000)
    layer = digest(image.layers[0])
    with OddRegistry({"1": image}) as source:
        source.behave = lambda r: layer in r.path and r.right(most=1000)
        assert "connection broke" in failure(user, f"{source.authority}/crumbs:1", timeout=90)
        assert len(source.requests(layer)) == 6


def test_one_users_slow_pulls_do_not_keep_others_waiting(server):
    slow, other = server.new_user(), server.new_user()
    image, quick = Image.make(layers=1, size=50_000), Image.make(layers=1, size=50_000)
    on = threading.Event()
    with OddRegistry({"1": image}) as source, OddRegistry({"1": quick}) as prompt:
        source.behave = lambda r: "blobs" in r.path and on.wait(60) and False
        begun = [begin(slow, f"{source.authority}/slow{i}:1") for i in range(4)]
        pull(other, f"{prompt.authority}/quick:1")
        assert not on.is_set() and all(last_import(slow, one)["state"] not in ("succeeded", "failed") for one in begun)
        on.set()
        assert all(end_of(slow, one)["state"] == "succeeded" for one in begun)


def test_deleting_the_image_ends_its_pull(server):
    user = server.new_user()
    image = Image.make(layers=1, size=50_000)
    on = threading.Event()
    with OddRegistry({"1": image}) as source:
        source.behave = lambda r: digest(image.layers[0]) in r.path and on.wait(60) and False
        begun = begin(user, f"{source.authority}/gone:1")
        again = user.post(PULLS, {"reference": f"{source.authority}/gone:1"})
        assert again.expect(409) and "being imported already" in again.text
        user.delete(f"/api/v1/images/{begun['id']}").gone()
        on.set()
        user.get(f"/api/v1/images/{begun['id']}").expect(404)
        pull(user, f"{source.authority}/gone:1")


# Where it goes, and with what

def test_credentials_go_to_the_registry_and_nowhere_else(server):
    user = server.new_user()
    image = Image.make(layers=1)
    with OddRegistry({"1": image}) as source, OddRegistry({"1": image}) as mirror, OddRegistry({}) as tokens:
        def behave(request):
            if request.headers.get("Authorization") != "Bearer good":
                return request.refuse(401, WWW_Authenticate=f'Bearer realm="{tokens.url}/token?a=b",service="s e",'
                                                            'scope="repository:app:pull"')
            if "blobs" in request.path:
                return request.answer(307, Location=mirror.url + request.path)
            return False
        source.behave = behave
        tokens.behave = lambda r: (r.answer(200, b'{"access_token": "good"}') if r.basic() == "li:a horse of mine"
                                   else r.refuse(401))
        pull(user, f"{source.authority}/app:1", username="li", password="a horse of mine")
        path, _ = tokens.asked[0]
        assert path == "/token?a=b&scope=repository%3Aapp%3Apull&service=s%20e"
        assert all("Basic" not in h.get("Authorization", "") for _, h in source.asked)
        assert mirror.asked and all("Authorization" not in headers for _, headers in mirror.asked)
        assert "refuses with this user name and password" in failure(user, f"{source.authority}/app:1", username="li",
                                                                     password="wrong")


def test_the_challenge_of_another_host_is_not_answered(server, user):
    image = Image.make(layers=1)
    with OddRegistry({"1": image}) as source, OddRegistry({}) as mirror, OddRegistry({}) as thief:
        source.behave = lambda r: "blobs" in r.path and r.answer(307, Location=mirror.url + r.path)
        mirror.behave = lambda r: r.refuse(401, WWW_Authenticate=f'Bearer realm="{thief.url}/token"')
        thief.behave = lambda r: r.answer(200, b'{"token": "x"}')
        assert "refuses" in failure(user, f"{source.authority}/lured:1", username="li", password="a horse of mine")
        assert mirror.asked and thief.asked == []
        # Nor is one that asks for the password itself.
        mirror.behave = lambda r: r.refuse(401, WWW_Authenticate='Basic realm="x"')
        assert "refuses" in failure(user, f"{source.authority}/lured:1", username="li", password="a horse of mine")
        assert all("Authorization" not in headers for _, headers in source.asked + mirror.asked)


def test_redirects_are_bounded(server, user):
    with OddRegistry({}) as source:
        source.behave = lambda r: r.answer(302, Location=r.path)
        assert "redirects too often" in failure(user, f"{source.authority}/loop:1")
        assert len(source.asked) == 6
        for where in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://user@127.0.0.1/x", "http://127.0.0.1/a b", ""):
            source.behave = lambda r: r.answer(302, Location=where)
            assert "not an address that can be used" in failure(user, f"{source.authority}/away:1")
        source.behave = lambda r: r.answer(302, Location=f"http://localhost:{source.server.server_port}{r.path}")
        assert "does not use TLS" in failure(user, f"{source.authority}/plain:1")


@pytest.mark.parametrize("reference, field", [
    ("app:1", "reference"), ("team/app:1", "reference"), ("registry.example/App:1", "reference"),
    ("li:secret@registry.example/app", "reference"), ("registry.example/app:", "reference"),
    ("registry.example/app@sha256:12", "reference"), ("http://registry.example/app", "reference"),
    ("registry.example:x/app", "reference"), ("", "reference")])
def test_references_that_are_none(user, reference, field):
    answer = user.post(PULLS, {"reference": reference})
    answer.expect(400)
    assert answer.fields == [field]


def test_requests_that_are_wrong(user, anonymous):
    at = "registry.example/app:1"
    for wrong, field in (({"name": "A"}, "name"), ({"tag": "-"}, "tag"), ({"username": "li"}, "password"),
                         ({"password": "x"}, "username")):
        answer = user.post(PULLS, {"reference": at, **wrong})
        answer.expect(400)
        assert answer.fields == [field]
    user.post(PULLS, {"reference": at, "name": "host"}).expect(409)
    anonymous.post(PULLS, {"reference": at}).expect(401)


def test_private_addresses_are_refused_unless_listed():
    image = Image.make(layers=1)
    with OddRegistry({"1": image}) as source:
        port = source.server.server_port
        with lathe.Server() as server:
            user = server.new_user()
            for host in ("127.0.0.1", "localhost", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254"):
                reason = failure(user, f"{host}:{port}/app:1", name="app")
                assert "not a public one" in reason or "resolved" in reason, (host, reason)
            assert source.asked == []
        with lathe.Server(config={"images": {"registries": ["registry.example"]}}) as server:
            user = server.new_user()
            answer = user.post(PULLS, {"reference": "other.example/app"})
            assert answer.expect(403) and "does not allow" in answer.text
        # A listed registry does not open the way to others.
        with OddRegistry({"1": image}) as inner, \
                lathe.Server(config={"images": {"insecureRegistries": [source.authority]}}) as server:
            user = server.new_user()
            source.behave = lambda r: "blobs" in r.path and r.answer(307, Location=inner.url + r.path)
            assert "does not use TLS" in failure(user, f"{source.authority}/app:1")
            source.behave = lambda r: "blobs" in r.path and r.answer(
                307, Location=inner.url.replace("http:", "https:") + r.path)
            assert "not a public one" in failure(user, f"{source.authority}/app:1")
            assert inner.asked == []


def test_certificates_are_verified(server, tmp_path):
    import ssl
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", tmp_path / "key", "-out",
                    tmp_path / "cert"], check=True, capture_output=True)
    image = Image.make(layers=1)
    with OddRegistry({"1": image}) as source:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
        source.server.socket = context.wrap_socket(source.server.socket, server_side=True)
        config = {"images": {"registries": [source.authority]}}
        with lathe.Server(config=config) as strict:
            assert "certificate cannot be verified" in failure(strict.new_user(), f"{source.authority}/app:1")
        # The same with the machine's trust.
        with lathe.Server(config=config, environment={"SSL_CERT_FILE": str(tmp_path / "cert")}) as trusting:
            user = trusting.new_user()
            pull(user, f"{source.authority}/app:1")
            assert hashlib.sha256(pulled_bytes(trusting, user, "app", "1")[image.digest]).hexdigest() == image.digest[7:]
