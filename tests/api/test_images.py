"""Images: 2.1 to 2.3 and /api/v1/images, with archives as docker, podman and skopeo write them."""

import gzip
import json
import os
import tarfile

import pytest

import archives
import lathe
from archives import digest, tar

CREATE, IMPORT, LIST = "/docker/image/upload", "/docker/image/uploadOld", "/docker/image/findListSort"


LAYERS = [tar(("bin/sh", b"#!" * 1000)), tar(("etc/motd", os.urandom(50_000)))]


def config_of(layers):
    return archives.image_config(layers, "amd64", Entrypoint=["/bin/sh"], Env=["PATH=/bin"])


def docker_entries(layers=LAYERS, config=None):
    return archives.docker_entries(layers, config or config_of(layers), "demo:1.0")


def oci_entries(layers=LAYERS):
    config = config_of(layers)

    def described(data, kind):
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(data), "size": len(data)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": described(config, "config.v1+json"),
                           "layers": [described(layer, "layer.v1.tar") for layer in layers]}).encode()
    index = {"schemaVersion": 2, "manifests": [described(manifest, "manifest.v1+json")]}
    return ([("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", json.dumps(index).encode())]
            + [("blobs/sha256/" + digest(data)[7:], data) for data in [*layers, config, manifest]])


def row(user, name):
    rows = user.post(LIST, {"pageNum": 1, "pageSize": 10, "imageName": name, "userId": user.id}).payload["rows"]
    return next((r for r in rows if r["imageName"] == name), None)


def create(user, name):
    user.post(CREATE, {"imageName": name, "userId": user.id}).ok()
    return row(user, name)["id"]


def put(user, data, name="a.tar"):
    user.multipart("/api/file/file/uploadFolder", {}, [("file", name, data)]).ok()


def ended(user, name):
    return lathe.wait_until(lambda: (r := row(user, name))["imageStatus"] != 2 and r, what=f"the end of {name}'s import")


def imported(user, name, data, tag="1.0"):
    image = (row(user, name) or {}).get("id") or create(user, name)
    put(user, data)
    user.post(IMPORT, {"userId": user.id, "imageId": image, "imageTag": tag, "fileUrl": "a.tar"}).ok()
    return ended(user, name)


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_the_documented_examples(user, prefix):
    answer = user.post(prefix + CREATE, {"imageName": "dzq/45", "imageIcon": "", "imageOverView": "", "imageLabel": [],
                                         "imageDescribe": "", "userId": user.id})
    assert answer.ok() == {"success": True, "errorCode": 200, "message": "新增镜像成功", "result": None}
    image = row(user, "dzq/45")
    assert (image["imageStatus"], image["statusName"], image["tagNum"]) == (0, "待上传", 0)
    put(user, tar(*docker_entries()), "dzq/aios-busybox222.tar")
    answer = user.post(prefix + IMPORT, {"userId": user.id, "imageId": image["id"], "imageTag": "1.0",
                                         "fileUrl": "dzq/aios-busybox222.tar"})
    assert answer.ok() == {"success": True, "errorCode": 200, "message": "镜像开始上传", "result": None}
    image = ended(user, "dzq/45")
    page = user.post(prefix + LIST, {"pageNum": 1, "pageSize": 10, "imageName": "", "userId": user.id}).payload
    assert (page["pageNum"], page["pageSize"], page["totalPage"], page["total"]) == (1, 10, 1, 2)
    assert [r["imageName"] for r in page["rows"]] == ["dzq/45", "host"]
    types = {"imageName": str, "imageDescribe": str, "updateTime": str, "imageStatus": int, "imageOverView": str,
             "imageLabel": type(None), "tagNum": int, "createTime": str, "user_id": str, "imageIcon": str,
             "statusName": str, "id": str, "imageSize": str, "imageTag": str}
    assert {key: type(image[key]) for key in types} == types
    assert (image["imageStatus"], image["statusName"], image["tagNum"], image["imageTag"]) == (1, "成功", 1, "1.0")
    assert image["imageSize"].endswith("KB") and image["failReason"] is None


def test_an_import_by_name_gets_the_tag_latest(user):
    create(user, "by-name")
    put(user, tar(*docker_entries()))
    user.post(IMPORT, {"imageName": "by-name", "fileUrl": "/a.tar"}).ok()
    assert ended(user, "by-name")["imageTag"] == "latest"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("entries", [docker_entries, oci_entries])
def test_every_kind_of_archive(server, user, pack, entries):
    name = f"kind/{entries.__name__.split('_')[0]}-{pack.__name__}"
    assert imported(user, name, pack(tar(*entries())))["imageStatus"] == 1, row(user, name)
    image = user.get("/api/v1/images/" + row(user, name)["id"]).ok()
    blobs = server.data / "images/blobs/sha256"
    manifest = json.loads((blobs / image["tags"][0]["digest"][7:]).read_bytes())
    for described, data in zip(manifest["layers"], LAYERS):
        stored = (blobs / described["digest"][7:]).read_bytes()
        assert digest(stored) == described["digest"] and stored == data and described["size"] == len(data)
    assert image["imports"][0]["state"] == "succeeded"

    def in_index():
        index = json.loads((server.data / "images/index.json").read_bytes())
        return f"{user.id}/{name}:1.0" in [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
    lathe.wait_until(in_index, what="the index")


def changed(entries, name, data):
    return [(e[0], data) if e[0] == name else e for e in entries]


WHOLE = tar(*docker_entries())
BROKEN = {
    "cut off": (WHOLE[:30_000], "whole"),
    "no tar": (b"hello" * 1000, "whole"),
    "gzip cut off": (gzip.compress(WHOLE)[:20_000], "whole"),
    "climbs": (tar(("../../etc/passwd", b"x"), *docker_entries()), "leads out"),
    "absolute": (tar(("/etc/passwd", b"x"), *docker_entries()), "leads out"),
    "link out": (tar(("l", b"", tarfile.SYMTYPE, "../../../etc/passwd"), *docker_entries()), "leads out"),
    "hard link out": (tar(("l", b"", tarfile.LNKTYPE, "../../etc/passwd"), *docker_entries()), "leads out"),
    "device": (tar(("null", b"", tarfile.CHRTYPE), *docker_entries()), "device"),
    "no manifest": (tar(("a", b"b")), "manifest.json"),
    "manifest is no list": (tar(*changed(docker_entries(), "manifest.json", b"{}")), "manifest.json"),
    "layer missing": (tar(*docker_entries()[1:]), "layer0/layer.tar is missing"),
    "layer changed": (tar(*changed(docker_entries(), "layer1/layer.tar", b"other")), "digest"),
    "config changed": (tar(*[(e[0], b"{}" if e[0].endswith(".json") and "manifest" not in e[0] else e[1]) for e in docker_entries()]), "digest"),
    "blob changed": (tar(*[(e[0], e[1] + b"!" if e[1] == LAYERS[1] else e[1]) for e in oci_entries()]), "digest"),
    "traversing layer name": (tar(*changed(docker_entries(), "manifest.json", json.dumps(
        [{"Config": "../../x", "RepoTags": [], "Layers": []}]).encode())), "missing"),
    "too many entries": (tar(*[(f"f{i}", b"") for i in range(10_001)]), "entries"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_archive_is_refused_with_the_reason(server, user, case):
    data, reason = BROKEN[case]
    name = "bad/" + case.replace(" ", "-")
    image = imported(user, name, data)
    assert (image["imageStatus"], image["statusName"], image["tagNum"]) == (3, "失败", 0)
    assert reason in image["failReason"]
    assert list((server.data / "images/.staging").iterdir()) == []
    assert imported(user, name, WHOLE)["imageStatus"] == 1


def test_a_decompression_bomb_is_refused(own_server):
    user = own_server.new_user()
    info = tarfile.TarInfo("zeros")
    info.size = 4 << 30
    data = gzip.compress(info.tobuf()) + gzip.compress(bytes(16 << 20)) * 256
    assert len(data) < 5_000_000
    image = imported(user, "bomb", data)
    assert image["imageStatus"] == 3 and "bomb" in image["failReason"], image["failReason"]


@pytest.mark.parametrize("body, field", [
    ({}, "imageName"), ({"imageName": "x"}, "userId"), ({"imageName": "UPPER"}, "imageName"), ({"imageName": "a b"}, "imageName"),
    ({"imageName": "a;rm -rf /"}, "imageName"), ({"imageName": "../a"}, "imageName"), ({"imageName": "a" * 256}, "imageName"),
    ({"imageName": "$(id)"}, "imageName"), ({"imageName": {"a": 1}}, "imageName"), ({"imageName": "x", "imageLabel": "y"}, "imageLabel"),
])
def test_creation_names_the_wrong_field(user, body, field):
    if field != "userId":
        body = {**body, "userId": user.id}
    answer = user.post(CREATE, body).expect(400)
    assert (answer["success"], answer["errorCode"], answer["result"]) == (False, 701, None)
    assert field in answer["message"]
    assert user.post(LIST, {"pageNum": 1, "userId": user.id}).payload["total"] == 1


def test_import_names_the_wrong_field(user):
    image = create(user, "fields")
    put(user, b"x")
    good = {"userId": user.id, "imageId": image, "imageTag": "1", "fileUrl": "a.tar"}
    for change, field in (({"fileUrl": ""}, "fileUrl"), ({"fileUrl": "../../x"}, "fileUrl"), ({"imageTag": "a b"}, "imageTag"),
                          ({"imageTag": "-x"}, "imageTag"), ({"imageTag": "x" * 129}, "imageTag"), ({"imageId": ""}, "imageId")):
        answer = user.post(IMPORT, {**good, **change}).expect(400)
        assert answer["errorCode"] == 701 and field in answer["message"], answer
    assert "fileUrl" in user.post(IMPORT, {**good, "fileUrl": "none.tar"}).expect(404)["message"]
    assert "imageId" in user.post(IMPORT, {**good, "imageId": "0" * 31 + "1"}).expect(404)["message"]
    assert row(user, "fields")["imageStatus"] == 0


def test_images_belong_to_their_user(server, user, admin):
    other = server.new_user()
    image = create(user, "mine")
    put(user, WHOLE)
    put(other, WHOLE)
    assert other.post(CREATE, {"imageName": "x", "userId": user.id}).expect(403)["errorCode"] == 403
    assert other.post(IMPORT, {"imageId": image, "fileUrl": "a.tar"}).expect(404)["errorCode"] == 404
    other.post(LIST, {"pageNum": 1, "userId": user.id}).expect(403)
    other.get("/api/v1/images/" + image).expect(404)
    other.delete("/api/v1/images/" + image).expect(404)
    create(other, "mine")  # a name is unique for its user only
    assert user.post(CREATE, {"imageName": "mine", "userId": user.id}).expect(409)["errorCode"] == 409
    assert image in [r["id"] for r in admin.post(LIST, {"pageNum": 1, "pageSize": 500, "userId": ""}).payload["rows"]]


def test_a_repeated_creation_with_the_same_key_is_one(user):
    key = {"Idempotency-Key": "the-same"}
    for _ in range(2):
        user.post(CREATE, {"imageName": "once", "userId": user.id}, headers=key).ok()
    assert user.post(LIST, {"pageNum": 1, "imageName": "once", "userId": user.id}).payload["total"] == 1


def test_deletion_frees_what_nobody_needs(server, user):
    own_layer = tar(("only", os.urandom(1000)))
    imported(user, "keep", WHOLE)
    imported(user, "drop", tar(*docker_entries([LAYERS[0], own_layer])))
    blobs = server.data / "images/blobs/sha256"
    assert (blobs / digest(own_layer)[7:]).exists()
    user.delete("/api/v1/images/" + row(user, "drop")["id"]).gone()
    assert row(user, "drop") is None
    assert not (blobs / digest(own_layer)[7:]).exists()
    assert (blobs / digest(LAYERS[0])[7:]).exists()
    user.delete("/api/v1/images/" + "0" * 32).expect(404 if user.role == "user" else 403)


def test_an_import_survives_the_server(own_server):
    user = own_server.new_user()
    big = tar(("big", os.urandom(30_000_000)))
    archive = tar(*docker_entries([big]))
    put(user, archive)
    images = [create(user, f"survivor-{i}") for i in range(4)]
    for round, image in enumerate(images):
        user.post(IMPORT, {"imageId": image, "imageTag": "1", "fileUrl": "a.tar"}).ok()
        own_server.kill()
        own_server.start()
        user = own_server.client(user.token)
        user.id = own_server.admin.get("/api/v1/users").ok()["items"][0]["id"]
        done = ended(user, f"survivor-{round}")
        assert done["imageStatus"] == 1, done
    assert list((own_server.data / "images/.staging").iterdir()) == []
    assert len(list((own_server.data / "images/blobs/sha256").iterdir())) == 3
