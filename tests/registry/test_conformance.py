"""The OCI distribution specification 1.1, requirement by requirement, in the order of the public conformance
suite: pull, push, content discovery, content management."""

import contextlib
import hashlib
import json
import os
import re

import pytest

import lathe
import registry
from registry import CONFIG, EMPTY, INDEX, LAYER, MANIFEST, Image, described, digest, error_codes

NOWHERE = digest(b"nobody pushed this")


@pytest.fixture(scope="module")
def repository(server):
    return registry.Repository(server, server.new_user(), "conformance/main")


@pytest.fixture(scope="module")
def image(repository):
    made = Image.make()
    repository.push(made, "v1")
    return made


# Determining support.

def test_the_base_says_that_the_specification_is_supported(repository):
    answer = repository.request("GET", "/v2/")
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_an_address_that_does_not_exist_is_answered_in_the_form_of_errors(repository):
    assert repository.request("GET", "/v2/a/b/c").status == 404
    answer = repository.request("POST", repository.at("manifests/v1"))
    assert answer.status == 405 and "PUT" in answer.headers["Allow"]
    assert error_codes(answer) == ["UNSUPPORTED"]


# Pull.

@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("by", ["tag", "digest"])
def test_manifests(repository, image, method, by):
    answer = repository.get_manifest("v1" if by == "tag" else image.digest, method)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == MANIFEST
    assert answer.headers["Docker-Content-Digest"] == image.digest
    assert int(answer.headers["Content-Length"]) == len(image.manifest)
    assert answer.body == (image.manifest if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_blobs(repository, image, method):
    for blob in image.blobs:
        answer = repository.request(method, repository.at(f"blobs/{digest(blob)}"))
        assert answer.status == 200
        assert answer.headers["Docker-Content-Digest"] == digest(blob)
        assert int(answer.headers["Content-Length"]) == len(blob)
        assert answer.body == (blob if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path, code", [
    (f"manifests/{NOWHERE}", "MANIFEST_UNKNOWN"), ("manifests/none", "MANIFEST_UNKNOWN"),
    (f"blobs/{NOWHERE}", "BLOB_UNKNOWN")])
def test_what_is_not_there_is_404(repository, image, method, path, code):
    answer = repository.request(method, repository.at(path))
    assert answer.status == 404
    if method == "GET":
        assert error_codes(answer) == [code]


@pytest.mark.parametrize("asked, status, part", [
    ("bytes=0-9", 206, slice(0, 10)), ("bytes=5-", 206, slice(5, None)), ("bytes=-7", 206, slice(-7, None)),
    ("bytes=10-99999999", 206, slice(10, None)), ("bytes=99999999-", 416, None), ("bytes=-0", 416, None),
    ("bytes=9-3", 200, slice(None)), ("lines=1-2", 200, slice(None)), ("bytes=0-1,4-5", 200, slice(None))])
def test_parts_of_blobs(repository, image, asked, status, part):
    blob = image.layers[0]
    answer = repository.get_blob(digest(blob), headers={"Range": asked})
    assert answer.status == status, answer
    if part is None:
        assert answer.headers["Content-Range"] == f"bytes */{len(blob)}"
        return
    assert answer.body == blob[part]
    if status == 206:
        first = part.indices(len(blob))[0]
        assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(blob)}"


def test_a_blob_that_the_client_has_is_not_sent(repository, image):
    answer = repository.get_blob(digest(image.config), headers={"If-None-Match": f'"{digest(image.config)}"'})
    assert (answer.status, answer.body) == (304, b"")


@pytest.mark.parametrize("path", ["blobs/sha256:123", "blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
                                  "blobs/sha256:" + "A" * 64, "manifests/sha256:12", "referrers/sha256:12"])
def test_wrong_digests(repository, image, path):
    answer = repository.request("GET", repository.at(path))
    assert answer.status == 400
    assert error_codes(answer) == ["DIGEST_INVALID"]


def test_wrong_names(repository):
    for name in ("UPPER/case", "a/..b", "-a/b", "a/b_", "a/" + "x" * 300):
        answer = repository.request("GET", f"/v2/{name}/tags/list")
        assert answer.status == 400 and error_codes(answer) == ["NAME_INVALID"], name


def test_names_may_hold_the_words_of_the_addresses(server):
    owner = server.new_user()
    odd = registry.Repository(server, owner, "blobs/uploads/tags/manifests")
    made = Image.make(layers=1)
    odd.push(made, "list")
    assert odd.tags() == ["list"]
    assert set(odd.pull("list")) == {made.digest, *map(digest, made.blobs)}


# Push.

def test_a_blob_in_one_request(repository):
    data = os.urandom(5000)
    answer = repository.request("POST", repository.at("blobs/uploads/"), data,
                                {"Content-Type": "application/octet-stream"}, query={"digest": digest(data)})
    assert answer.status == 201
    assert repository.request("GET", repository.location(answer)).body == data


def test_a_blob_in_two_requests(repository):
    data = os.urandom(5000)
    answer = repository.push_blob(data)
    assert answer.headers["Docker-Content-Digest"] == digest(data)
    assert repository.request("GET", repository.location(answer)).body == data


def test_a_blob_as_a_stream(repository):
    data = [os.urandom(1000) for _ in range(20)]
    answer = repository.request("PATCH", repository.begin(), iter(data), {"Content-Type": "application/octet-stream"})
    assert answer.status == 202
    assert answer.headers["Range"] == "0-19999"
    whole = b"".join(data)
    closed = repository.request("PUT", repository.location(answer), query={"digest": digest(whole)})
    assert closed.status == 201
    assert repository.get_blob(digest(whole)).body == whole


def test_a_blob_in_chunks(repository):
    data = os.urandom(10_000)
    where, sent = repository.begin(), 0
    for end in (4000, 4001, 9000):
        answer = repository.request("PATCH", where, data[sent:end], {"Content-Range": f"{sent}-{end - 1}"})
        assert answer.status == 202, answer
        assert answer.headers["Range"] == f"0-{end - 1}"
        where, sent = repository.location(answer), end
        state = repository.request("GET", where)
        assert (state.status, state.headers["Range"]) == (204, f"0-{end - 1}")
    last = repository.request("PUT", where, data[sent:], {"Content-Range": f"{sent}-9999"},
                              query={"digest": digest(data)})
    assert last.status == 201
    assert repository.get_blob(digest(data)).body == data
    assert repository.request("GET", where).status == 404


@pytest.mark.parametrize("first, last", [(5, 14), (0, 9), (100, 109)])
def test_a_chunk_out_of_order_is_416_and_changes_nothing(repository, first, last):
    where = repository.begin()
    assert repository.request("PATCH", where, b"abc", {"Content-Range": "0-2"}).status == 202
    answer = repository.request("PATCH", where, b"x" * 10, {"Content-Range": f"{first}-{last}"})
    assert answer.status == 416
    assert answer.headers["Range"] == "0-2"
    assert repository.location(answer) == where
    final = repository.request("PUT", where, b"x" * 10, {"Content-Range": f"{first}-{last}"},
                               query={"digest": digest(b"abc" + b"x" * 10)})
    assert final.status == 416
    assert repository.request("PUT", where, query={"digest": digest(b"abc")}).status == 201


def test_a_chunk_must_fit_its_range(repository):
    answer = repository.request("PATCH", repository.begin(), b"abc", {"Content-Range": "0-9"})
    assert answer.status == 400 and error_codes(answer) == ["SIZE_INVALID"]
    answer = repository.request("PATCH", repository.begin(), b"abc", {"Content-Range": "what"})
    assert answer.status == 400


def test_a_blob_that_is_not_what_its_digest_says_is_refused(repository):
    answer = repository.request("PUT", repository.begin(), b"unlike", query={"digest": NOWHERE})
    assert answer.status == 400 and error_codes(answer) == ["DIGEST_INVALID"]
    assert not repository.has_blob(digest(b"unlike"))
    assert not repository.has_blob(NOWHERE)
    for wrong in ("", "sha256:1", "md5:" + hashlib.md5(b"abc").hexdigest()):
        assert repository.request("PUT", repository.begin(), b"abc", query={"digest": wrong}).status == 400
    assert repository.request("PUT", repository.begin(), b"abc").status == 400


def test_an_upload_can_be_cancelled(repository):
    where = repository.begin()
    assert repository.request("DELETE", where).status == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = repository.request(method, where, query={"digest": NOWHERE})
        assert answer.status == 404, method
    assert error_codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]


def open_files(pid):
    """What a process holds open; a descriptor may be closed meanwhile."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def test_uploads_that_nobody_ends_are_limited(server):
    made = registry.Repository(server, server.new_user(), "many")
    made.authorization = "Bearer " + server.client().log_in(made.name.split("/")[0], lathe.USER_PASSWORD).token
    where = [made.begin() for _ in range(1000)]
    answer = made.request("POST", made.at("blobs/uploads/"))
    assert answer.status == 429 and error_codes(answer) == ["TOOMANYREQUESTS"]
    assert made.request("DELETE", where[0]).status == 204
    made.push_blob(b"one more")
    # None of them holds a file open.
    assert not [link for link in open_files(server.process.pid) if "/.uploads/" in link]


def test_the_empty_blob(repository):
    repository.push_blob(b"")
    assert repository.get_blob(digest(b"")).body == b""


def test_a_blob_is_mounted_from_another_repository(server, repository, image):
    other = registry.Repository(server, server.admin, "x", owner=repository.name.split("/")[0])
    other.authorization = repository.authorization
    wanted = digest(image.layers[0])
    answer = other.request("POST", other.at("blobs/uploads/"), query={"mount": wanted, "from": repository.name})
    assert answer.status == 201
    assert other.request("GET", other.location(answer)).body == image.layers[0]
    # What cannot be mounted is uploaded.
    for query in ({"mount": NOWHERE, "from": repository.name}, {"mount": wanted, "from": "nobody/nothing"},
                  {"mount": digest(image.config)}):
        answer = other.request("POST", other.at("blobs/uploads/"), query=query)
        assert answer.status == 202
        assert repository.location(answer).startswith(other.at("blobs/uploads/"))


def test_manifests_by_tag_and_by_digest(repository, image):
    for tag in ("test0", "test1", "a" * 128, "_A.b-9"):
        answer = repository.put_manifest(image.manifest, tag)
        assert answer.status == 201
        assert repository.request("GET", repository.location(answer)).body == image.manifest
    other = Image.make()
    for blob in other.blobs:
        repository.push_blob(blob)
    answer = repository.put_manifest(other.manifest)
    assert answer.status == 201
    assert answer.headers["Docker-Content-Digest"] == other.digest
    assert set(repository.pull(other.digest)) == {other.digest, *map(digest, other.blobs)}


def test_a_manifest_is_kept_byte_for_byte(repository, image):
    odd = json.dumps({**json.loads(image.manifest), "annotations": {"a": "ü", "z": ""}, "unknown": [1.5e3, None]},
                     indent=3, ensure_ascii=False).encode() + b"\n\n"
    assert repository.put_manifest(odd, "odd").status == 201
    assert repository.get_manifest("odd").body == odd


def test_a_manifest_without_layers(repository, image):
    bare = Image([])
    repository.push(bare, "bare")
    assert set(repository.pull("bare")) == {bare.digest, digest(bare.config)}


def test_a_large_manifest(repository, image):
    document = json.dumps({**json.loads(image.manifest), "annotations": {"x": "y" * (4 << 20)}}).encode()
    fits = json.dumps({**json.loads(image.manifest), "annotations": {"x": "y" * 4_000_000}}).encode()
    assert repository.put_manifest(fits, "large").status == 201
    answer = repository.put_manifest(document, "larger")
    assert answer.status == 413 and error_codes(answer) == ["SIZE_INVALID"]


@pytest.mark.parametrize("change, code", [
    ({"layers": [described(b"never pushed", LAYER)]}, "MANIFEST_BLOB_UNKNOWN"),
    ({"config": described(b"never pushed", CONFIG)}, "MANIFEST_BLOB_UNKNOWN"),
    ({"config": None}, "MANIFEST_INVALID"),
    ({"schemaVersion": 1}, "MANIFEST_INVALID"),
    ({"mediaType": INDEX}, "MANIFEST_INVALID"),
    ({"layers": [{"mediaType": LAYER, "digest": "sha256:1", "size": 1}]}, "MANIFEST_INVALID"),
    ({"layers": "none"}, "MANIFEST_INVALID")])
def test_wrong_manifests(repository, image, change, code):
    document = json.dumps({**json.loads(image.manifest), **change}).encode()
    answer = repository.put_manifest(document, "wrong")
    assert answer.status in (400, 404) and error_codes(answer) == [code], answer
    assert repository.get_manifest("wrong").status == 404


def test_wrong_sizes_documents_types_and_references(repository, image):
    sized = json.loads(image.manifest)
    sized["layers"][0]["size"] += 1
    cases = [(json.dumps(sized).encode(), "w", MANIFEST), (b"{", "w", MANIFEST), (b"", "w", MANIFEST),
             (image.manifest, "w", "application/vnd.docker.distribution.manifest.v1+json"),
             (image.manifest, "-w", MANIFEST), (image.manifest, "w" * 129, MANIFEST)]
    for document, reference, kind in cases:
        answer = repository.put_manifest(document, reference, kind)
        assert answer.status == 400 and error_codes(answer) == ["MANIFEST_INVALID"], (answer, reference)
    answer = repository.put_manifest(image.manifest, NOWHERE)
    assert answer.status == 400 and error_codes(answer) == ["DIGEST_INVALID"]


def test_layers_that_are_to_be_fetched_elsewhere_need_not_be_there(repository, image):
    foreign = described(b"far away", "application/vnd.oci.image.layer.nondistributable.v1.tar",
                        urls=["https://example.org/layer"])
    document = json.dumps({**json.loads(image.manifest), "layers": [foreign]}).encode()
    assert repository.put_manifest(document, "foreign").status == 201


def test_an_index_of_images(repository):
    images = [Image.make(architecture="amd64"), Image.make(architecture="arm64")]
    for one in images:
        repository.push(one)
    children = [described(one.manifest, MANIFEST, platform={"os": "linux", "architecture": arch})
                for one, arch in zip(images, ("amd64", "arm64"))]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
    assert repository.put_manifest(index, "multi", INDEX).status == 201
    expected = {digest(index)} | {d for one in images for d in (one.digest, *map(digest, one.blobs))}
    assert set(repository.pull("multi")) == expected
    absent = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described(b"{}", MANIFEST)]}).encode()
    answer = repository.put_manifest(absent, "multi", INDEX)
    assert answer.status == 404 and error_codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]


# Content discovery.

@pytest.fixture(scope="module")
def tagged(server):
    made = registry.Repository(server, server.new_user(), "tags")
    made.push(Image.make(layers=1), "b")
    document = made.get_manifest("b").body
    for tag in ("C", "a", "d", "E", "1"):
        assert made.put_manifest(document, tag).status == 201
    return made


def test_tags_are_listed_in_order(tagged):
    assert tagged.tags() == ["1", "a", "b", "C", "d", "E"]
    assert tagged.tags(last="b") == ["C", "d", "E"]
    assert tagged.tags(n=2) == ["1", "a"]
    assert tagged.tags(n=2, last="a") == ["b", "C"]
    assert tagged.tags(n=0) == []
    assert tagged.tags(n=100) == ["1", "a", "b", "C", "d", "E"]
    assert tagged.tags(last="z") == []


def test_pages_of_tags_lead_on(tagged):
    path, found = tagged.at("tags/list?n=4"), []
    while path:
        answer = tagged.request("GET", path)
        assert answer.json["name"] == tagged.name
        found += answer.json["tags"]
        link = answer.headers.get("Link")
        path = re.fullmatch(r'<(.*)>; rel="next"', link)[1] if link else None
    assert found == ["1", "a", "b", "C", "d", "E"]
    assert "Link" not in tagged.request("GET", tagged.at("tags/list?n=6")).headers


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "99999999999999999999"])
def test_wrong_page_sizes(tagged, n):
    assert tagged.request("GET", tagged.at("tags/list"), query={"n": n}).status == 400


def test_tags_of_a_repository_that_does_not_exist(repository):
    answer = repository.request("GET", f"/v2/{repository.name}-none/tags/list")
    assert answer.status == 404 and error_codes(answer) == ["NAME_UNKNOWN"]


@pytest.fixture(scope="module")
def referred(server):
    """A repository with a subject and what refers to it, some of which came before it."""
    made = registry.Repository(server, server.new_user(), "referrers")
    subject = Image.make(layers=1)
    made.push_blob(b"{}")
    documents = {}

    def refer(name, to, kind=MANIFEST, **more):
        base = ({"manifests": []} if kind == INDEX else
                {"config": described(b"{}", more.pop("config", EMPTY)), "layers": [described(b"{}", EMPTY)]})
        document = json.dumps({"schemaVersion": 2, "mediaType": kind, **base, "subject": described(to, MANIFEST),
                               "annotations": {"name": name}, **more}).encode()
        answer = made.put_manifest(document, None, kind)
        assert answer.status == 201
        assert answer.headers["OCI-Subject"] == digest(to)
        documents[name] = document

    refer("before", subject.manifest, artifactType="application/x.sbom")
    refer("by-config", subject.manifest, config="application/x.signature")
    made.push(subject, "subject")
    refer("after", subject.manifest, artifactType="application/x.sbom")
    refer("index", subject.manifest, INDEX, artifactType="application/x.index")
    refer("orphan", b"nothing of that kind", artifactType="application/x.sbom")
    made.subject, made.documents = subject, documents
    return made


def test_referrers(referred):
    answer = referred.referrers(referred.subject.digest)
    assert answer.headers["Content-Type"] == INDEX
    assert answer.json["schemaVersion"] == 2 and answer.json["mediaType"] == INDEX
    found = {one["annotations"]["name"]: one for one in answer.json["manifests"]}
    assert set(found) == {"before", "by-config", "after", "index"}
    for name, one in found.items():
        document = referred.documents[name]
        assert (one["digest"], one["size"]) == (digest(document), len(document))
        assert one["mediaType"] == (INDEX if name == "index" else MANIFEST)
    assert found["before"]["artifactType"] == "application/x.sbom"
    assert found["by-config"]["artifactType"] == "application/x.signature"


def test_referrers_of_one_kind(referred):
    answer = referred.referrers(referred.subject.digest, artifactType="application/x.sbom")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert {one["annotations"]["name"] for one in answer.json["manifests"]} == {"before", "after"}
    assert referred.referrers(referred.subject.digest, artifactType="other").json["manifests"] == []
    assert "OCI-Filters-Applied" not in referred.referrers(referred.subject.digest).headers


def test_referrers_of_what_is_not_there(referred):
    orphans = referred.referrers(digest(b"nothing of that kind")).json["manifests"]
    assert [one["annotations"]["name"] for one in orphans] == ["orphan"]
    assert referred.referrers(NOWHERE).json["manifests"] == []


def test_a_deleted_referrer_is_not_listed(referred):
    gone = digest(referred.documents["index"])
    assert referred.request("DELETE", referred.at(f"manifests/{gone}")).status == 202
    names = {one["annotations"]["name"] for one in referred.referrers(referred.subject.digest).json["manifests"]}
    assert "index" not in names and "before" in names


# Content management.

def test_deleting_a_tag_leaves_the_manifest(server):
    made = registry.Repository(server, server.new_user(), "manage")
    image = Image.make()
    made.push(image, "one")
    made.put_manifest(image.manifest, "two")
    assert made.request("DELETE", made.at("manifests/one")).status == 202
    assert made.get_manifest("one").status == 404
    assert made.tags() == ["two"]
    assert made.request("DELETE", made.at("manifests/two")).status == 202
    assert made.tags() == []
    assert made.get_manifest(image.digest).status == 200
    assert made.request("DELETE", made.at("manifests/two")).status == 404


def test_deleting_a_manifest_takes_its_tags_along(server):
    made = registry.Repository(server, server.new_user(), "manage")
    image = Image.make()
    made.push(image, "one")
    made.put_manifest(image.manifest, "two")
    # A blob that a manifest needs is not for deletion.
    answer = made.request("DELETE", made.at(f"blobs/{digest(image.config)}"))
    assert answer.status == 405 and error_codes(answer) == ["UNSUPPORTED"]
    assert made.request("DELETE", made.at(f"manifests/{image.digest}")).status == 202
    for reference in ("one", "two", image.digest):
        assert made.get_manifest(reference).status == 404
    assert made.tags() == []
    for blob in image.blobs:
        assert made.request("DELETE", made.at(f"blobs/{digest(blob)}")).status == 202
        assert made.get_blob(digest(blob)).status == 404
        assert made.request("DELETE", made.at(f"blobs/{digest(blob)}")).status == 404


@pytest.mark.parametrize("path, code", [(f"manifests/{NOWHERE}", "MANIFEST_UNKNOWN"), ("manifests/none", "MANIFEST_UNKNOWN"),
                                        (f"blobs/{NOWHERE}", "BLOB_UNKNOWN")])
def test_deleting_what_is_not_there(repository, image, path, code):
    answer = repository.request("DELETE", repository.at(path))
    assert answer.status == 404 and error_codes(answer) == [code]
