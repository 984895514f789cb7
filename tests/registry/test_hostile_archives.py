"""Archives that are wrong, or meant to do harm, are refused with the reason, and leave nothing behind."""

import json
import tarfile
import zlib

import pytest

import lathe
import registry
from archives import entry, tar
from registry import Image, digest

IMAGE = Image.make()


def docker(image=IMAGE, layers=None, saved=None, config=None):
    """The entries of a docker-archive."""
    config = config or image.config
    layers = layers or image.layers
    names = [f"{n}/layer.tar" for n in range(len(layers))]
    saved = saved if saved is not None else [{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]
    return [*(entry(name, layer) for name, layer in zip(names, layers)), entry("config.json", config),
            entry("manifest.json", json.dumps(saved).encode() if not isinstance(saved, bytes) else saved)]


def oci(image=IMAGE, manifest=None, extra=(), skip=()):
    """The entries of an OCI archive. `extra` and `skip`: blobs by digest."""
    manifest = manifest or image.manifest
    index = {"schemaVersion": 2, "manifests": [registry.described(manifest, registry.MANIFEST)]}
    blobs = {digest(data): data for data in (manifest, *image.blobs)} | dict(extra)
    return [entry("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), entry("index.json", json.dumps(index).encode()),
            *(entry("blobs/sha256/" + name[7:], data) for name, data in blobs.items() if name not in skip)]


def with_first(*hostile, good=None):
    return tar(*hostile, *(good or docker()))


def packed(pieces):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(piece) for piece in pieces) + packer.flush()


def bomb():
    """Two GiB of zeros in two MB."""
    info, _ = entry("layer.tar")
    info.size = 2 << 30
    zeros = bytes(1 << 20)
    return packed([info.tobuf(), *([zeros] * 2048)])


def million():
    header = entry("folder/", kind=tarfile.DIRTYPE)[0].tobuf()
    return packed([header * 10_000] * 100)


def size_that_lies():
    info, _ = entry("big")
    info.size = 1 << 45
    return info.tobuf() + bytes(10_000)


def bad_checksum():
    data = bytearray(tar(*docker()))
    data[0] ^= 1
    return bytes(data)


def changed(manifest, **fields):
    return json.dumps({**json.loads(manifest), **fields}).encode()


ABSENT = registry.described(b"not in the archive", registry.LAYER)
HOSTILE = {
    "climbs out": (lambda: with_first(entry("../../etc/passwd", b"x")), "leads out"),
    "climbs out from below": (lambda: with_first(entry("a/b/../../../x", b"x")), "leads out"),
    "ends with dots": (lambda: with_first(entry("a/..", b"x")), "leads out"),
    "absolute": (lambda: with_first(entry("/etc/passwd", b"x")), "leads out"),
    "a symbolic link out": (lambda: with_first(entry("l", kind=tarfile.SYMTYPE, link="../x")), "link that leads out"),
    "a symbolic link out from below": (
        lambda: with_first(entry("a/b/l", kind=tarfile.SYMTYPE, link="../../../etc")), "link that leads out"),
    "an absolute symbolic link": (
        lambda: with_first(entry("l", kind=tarfile.SYMTYPE, link="/etc/passwd")), "link that leads out"),
    "a hard link out": (lambda: with_first(entry("l", kind=tarfile.LNKTYPE, link="../../etc/shadow")), "link that leads out"),
    "an absolute hard link": (
        lambda: with_first(entry("l", kind=tarfile.LNKTYPE, link="/etc/shadow")), "link that leads out"),
    "links in a ring": (
        lambda: tar(*docker()[:2], entry("config.json", kind=tarfile.SYMTYPE, link="manifest.json"),
                    entry("manifest.json", kind=tarfile.SYMTYPE, link="config.json")), "neither manifest.json nor"),
    "a block device": (lambda: with_first(entry("d", kind=tarfile.BLKTYPE, devmajor=8)), "device or a pipe"),
    "a character device": (lambda: with_first(entry("d", kind=tarfile.CHRTYPE, devmajor=1)), "device or a pipe"),
    "a pipe": (lambda: with_first(entry("d", kind=tarfile.FIFOTYPE)), "device or a pipe"),
    "a sparse file": (
        lambda: tar(entry("s", b"1\n0\n1\n" + bytes(600), pax_headers={
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s",
            "GNU.sparse.realsize": "1000000000000"}), *docker(), pax=True), "sparse"),
    "a decompression bomb": (bomb, "decompression bomb"),
    "a million entries": (million, "more than 10000 entries"),
    "a size that lies": (size_that_lies, "unpacks to more than"),
    "cut off": (lambda: tar(*docker())[:3000], "not a whole tar"),
    "cut off and packed": (lambda: packed([tar(*docker())])[:900], "not a whole tar"),
    "empty": (lambda: b"", "not a whole tar|is empty"),
    "only zeros": (lambda: bytes(10240), "is empty"),
    "not a tar": (lambda: b"GIF89a" * 2000, "not a whole tar"),
    "a wrong checksum": (bad_checksum, "not a whole tar"),
    "an entry twice": (lambda: with_first(entry("manifest.json", b"[]")), "twice"),
    "no image at all": (lambda: tar(entry("README", b"hello")), "not an image archive"),
    "no list of images": (lambda: tar(*docker(saved={})), "not a list"),
    "an empty list of images": (lambda: tar(*docker(saved=[])), "not a list"),
    "a list that is no JSON": (lambda: tar(*docker(saved=b"[{")), "not a list"),
    "several images without a choice": (
        lambda: tar(*docker(saved=[{"Config": "config.json", "RepoTags": [f"x:{n}"], "Layers": []} for n in "23"])), "several images"),
    "a layer that is missing": (lambda: tar(*docker()[1:]), "is missing"),
    "a configuration that is missing": (lambda: tar(*docker()[:2], docker()[-1]), "is missing"),
    "a configuration that is no JSON": (lambda: tar(*docker(config=b"{")), "wrong config"),
    "a layer that was changed": (
        lambda: tar(*docker(layers=[IMAGE.layers[0], registry.tar({"other": b"x"})])), "does not match its digest"),
    "another number of layers": (
        lambda: tar(*docker(saved=[{"Config": "config.json", "Layers": ["0/layer.tar"]}])), "another number of layers"),
    "a name that leads out in the list": (
        lambda: tar(*docker(saved=[{"Config": "../../etc/passwd", "Layers": []}])), "is missing"),
    "a blob that was changed": (
        lambda: tar(*oci(extra={digest(IMAGE.layers[0]): IMAGE.layers[0] + b"!"}.items())), "does not match its digest"),
    "a blob that is missing": (lambda: tar(*oci(skip=[digest(IMAGE.config)])), "is missing"),
    "a manifest that names what it does not hold": (
        lambda: tar(*oci(manifest=changed(IMAGE.manifest, layers=[ABSENT, ABSENT]))), "is missing"),
    "a manifest without a configuration": (lambda: tar(*oci(manifest=changed(IMAGE.manifest, config=None))), "config"),
    "a wrong kind of digest": (
        lambda: tar(*oci(manifest=changed(IMAGE.manifest, config={"digest": "md5:1", "size": 1}))), "not sha256"),
    "a path as a digest": (
        lambda: tar(*oci(manifest=changed(IMAGE.manifest, config={"digest": "sha256:../../../x", "size": 1}))), "not sha256"),
    "a wrong size": (
        lambda: tar(*oci(manifest=changed(IMAGE.manifest, config={
            **registry.described(IMAGE.config, registry.CONFIG), "size": 7}))), "not of the size"),
    "an image for another machine only": (
        lambda: tar(entry("oci-layout", b"{}"), entry("index.json", json.dumps({"manifests": [registry.described(
            IMAGE.manifest, registry.MANIFEST, platform={"os": "plan9", "architecture": "mips"})]}).encode())),
        "no image for this machine"),
}


@pytest.fixture(scope="module")
def someone(server):
    return server.new_user()


def attempt(user, name, data):
    user.multipart("/api/file/file/uploadFolder", {}, [("file", name + ".tar", data)]).ok()
    user.post("/docker/image/upload", {"imageName": name, "userId": user.id}).ok()
    user.post("/docker/image/uploadOld", {"imageName": name, "userId": user.id, "imageTag": "1",
                                          "fileUrl": name + ".tar"}).ok()

    def row():
        rows = user.post("/docker/image/findListSort", {"pageNum": 1, "imageName": name}).payload["rows"]
        found = next(row for row in rows if row["imageName"] == name)
        return found if found["imageStatus"] != 2 else None

    return lathe.wait_until(row, 60, "the import's end")


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_with_the_reason(server, someone, what):
    make, reason = HOSTILE[what]
    row = attempt(someone, "case-" + what.replace(" ", "-").lower(), make())
    assert row["imageStatus"] == 3, row
    assert any(part in row["failReason"] for part in reason.split("|")), row["failReason"]
    assert not list((server.data / "images/.staging").iterdir())
    assert not list((server.data / "images/blobs/sha256").iterdir())


@pytest.mark.parametrize("entries", [docker, oci])
def test_the_same_without_harm_is_imported(own_server, entries):
    """What the cases above are made from is good."""
    assert attempt(own_server.new_user(), "good", tar(*entries()))["imageStatus"] == 1


def test_another_users_content_is_not_taken_from_the_store(own_server):
    """An archive that only names a layer does not get it because the store has it."""
    owner, thief = own_server.new_user(), own_server.new_user()
    assert attempt(owner, "private", tar(*oci()))["imageStatus"] == 1
    row = attempt(thief, "theft", tar(*oci(skip=[digest(IMAGE.layers[0])])))
    assert row["imageStatus"] == 3 and "is missing" in row["failReason"]
