"""The clients that people have push to the registry and pull from it, unmodified: skopeo, podman, docker and
containerd's ctr. Daemons are started here, on sockets of their own, with everything they write in a folder."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import daemons
import lathe
import registry
from registry import Image, digest

PASSWORD = lathe.USER_PASSWORD


def run(*command, check=True, timeout=180, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="module")
def li(server):
    return server.new_user("li")


@pytest.fixture(scope="module")
def address(server):
    return server.url.removeprefix("http://")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home of its own for what clients remember."""
    folder = tmp_path_factory.mktemp("home")
    return {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "DOCKER_CONFIG": str(folder / "docker"),
            "REGISTRY_AUTH_FILE": str(folder / "auth.json")}


@pytest.fixture(scope="module")
def image():
    """A small image that runs."""
    with open(shutil.which("busybox"), "rb") as file:
        return Image([registry.tar({"bin/sh": file.read()}), registry.tar({"etc/motd": os.urandom(100_000)})])


@pytest.fixture(scope="module")
def layout(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    (folder / "blobs/sha256").mkdir(parents=True)
    for blob in (image.manifest, *image.blobs):
        (folder / "blobs/sha256" / digest(blob)[7:]).write_bytes(blob)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [registry.described(
        image.manifest, registry.MANIFEST, annotations={"org.opencontainers.image.ref.name": "v1"})]}))
    return folder


@pytest.fixture(scope="module")
def archive(layout, tmp_path_factory):
    """The same as `docker save` writes it."""
    file = tmp_path_factory.mktemp("archive") / "image.tar"
    run("skopeo", "copy", f"oci:{layout}:v1", f"docker-archive:{file}:lathe.test/demo:v1")
    return file


# skopeo

def skopeo(home, *words, **options):
    return run("skopeo", *words, env=home, **options)


@pytest.fixture(scope="module")
def by_skopeo(li, address, home, layout):
    """The image, pushed by skopeo after a login."""
    skopeo(home, "login", "--tls-verify=false", "-u", "li", "-p", PASSWORD, address)
    skopeo(home, "copy", "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{address}/li/skopeo:v1")
    return f"docker://{address}/li/skopeo"


def test_skopeo_pushes_and_pulls(home, by_skopeo, image, tmp_path):
    skopeo(home, "copy", "--src-tls-verify=false", by_skopeo + ":v1", f"oci:{tmp_path}/out:v1")
    pulled = {file.name for file in (tmp_path / "out/blobs/sha256").iterdir()}
    assert len(pulled) == 4
    inspected = json.loads(skopeo(home, "inspect", "--tls-verify=false", by_skopeo + ":v1").stdout)
    assert inspected["RepoTags"] == ["v1"] and inspected["Architecture"] == "amd64"
    assert json.loads(skopeo(home, "list-tags", "--tls-verify=false", by_skopeo).stdout)["Tags"] == ["v1"]


def test_skopeo_copies_between_repositories_and_deletes(server, li, home, by_skopeo, address):
    flags = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    skopeo(home, "copy", *flags, by_skopeo + ":v1", f"docker://{address}/li/copied/deep:v2")
    copied = registry.Repository(server, li, "copied/deep")
    assert len(copied.pull("v2")) == 4
    skopeo(home, "copy", *flags, "--format", "v2s2", by_skopeo + ":v1", f"docker://{address}/li/docker-format:1")
    skopeo(home, "delete", "--tls-verify=false", f"docker://{address}/li/copied/deep:v2")
    assert copied.tags() == []
    refused = skopeo(home, "copy", *flags, by_skopeo + ":v1", f"docker://{address}/admin/mine:1", check=False)
    assert refused.returncode != 0 and "denied" in refused.stderr.lower()


def test_skopeo_copies_all_of_an_index(server, li, home, address):
    source = registry.Repository(server, li, "multi")
    images = [Image.make(architecture=arch) for arch in ("amd64", "arm64")]
    for one in images:
        source.push(one)
    index = json.dumps({"schemaVersion": 2, "mediaType": registry.INDEX, "manifests": [
        registry.described(one.manifest, registry.MANIFEST, platform={"os": "linux", "architecture": arch})
        for one, arch in zip(images, ("amd64", "arm64"))]}).encode()
    assert source.put_manifest(index, "v1", registry.INDEX).status == 201
    skopeo(home, "login", "--tls-verify=false", "-u", "li", "-p", PASSWORD, address)
    skopeo(home, "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
           f"docker://{address}/li/multi:v1", f"docker://{address}/li/multi-copy:v1")
    copied = registry.Repository(server, li, "multi-copy")
    assert set(copied.pull("v1")) == set(source.pull("v1"))
    # This machine's own is chosen where one is wanted.
    inspected = json.loads(skopeo(home, "inspect", "--tls-verify=false", f"docker://{address}/li/multi:v1").stdout)
    assert inspected["Architecture"] == "amd64"


def test_an_imported_image_is_pulled(server, li, home, address, archive, image, tmp_path):
    li.multipart("/api/file/file/uploadFolder", {"currentPath": ""},
                 [("file", "image.tar", archive.read_bytes())]).payload
    li.post("/docker/image/upload", {"imageName": "imported", "userId": li.id}).payload
    li.post("/docker/image/uploadOld", {"imageName": "imported", "userId": li.id, "imageTag": "v1",
                                        "fileUrl": "image.tar"}).payload

    def status():
        rows = li.post("/docker/image/findListSort", {"pageNum": 1, "imageName": "imported"}).payload["rows"]
        return rows[0]["imageStatus"] if rows[0]["imageStatus"] != 2 else None

    assert lathe.wait_until(status, what="the import's end") == 1
    skopeo(home, "copy", "--src-tls-verify=false", "--src-creds", f"li:{PASSWORD}",
           f"docker://{address}/li/imported:v1", f"dir:{tmp_path}/out")
    pulled = {file.name for file in (tmp_path / "out").iterdir()}
    assert {digest(layer)[7:] for layer in image.layers} <= pulled


# podman

@pytest.fixture
def short_folder():
    """Podman wants short paths."""
    with tempfile.TemporaryDirectory(prefix="lathe-", ignore_cleanup_errors=True) as folder:
        yield pathlib.Path(folder)


def test_podman_pushes_and_pulls(server, li, address, home, archive, short_folder):
    (short_folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=20000:20000","nproc=32768:32768"]\n[engine]\nruntime = "runc"\n')
    environment = {**home, "CONTAINERS_CONF": str(short_folder / "containers.conf")}

    def podman(*words, **options):
        return run("podman", "--root", short_folder / "root", "--runroot", short_folder / "run", "--tmpdir", short_folder / "tmp",
                   "--storage-driver", "vfs", *words, env=environment, **options)

    podman("load", "-i", archive)
    podman("login", "--tls-verify=false", "-u", "li", "-p", PASSWORD, address)
    name = f"{address}/li/podman"
    podman("push", "--tls-verify=false", "lathe.test/demo:v1", name + ":v1")
    podman("push", "--tls-verify=false", "--compression-format", "zstd", "lathe.test/demo:v1", name + ":zstd")
    podman("rmi", "--all", "--force")
    podman("pull", "--tls-verify=false", name + ":v1")
    podman("pull", "--tls-verify=false", name + ":zstd")
    assert "v1" in podman("images", "--format", "{{.Tag}}").stdout.split()
    podman("rmi", "--all", "--force")
    assert sorted(registry.Repository(server, li, "podman").tags()) == ["v1", "zstd"]


# docker

@pytest.fixture(scope="module")
def docker(home):
    with daemons.Daemon("docker") as daemon:
        yield lambda *words, **options: run("docker", "-H", f"unix://{daemon.socket}", *words, env=home, **options)


def test_docker_pushes_and_pulls(server, li, address, docker, archive):
    docker("load", "-i", archive)
    name = f"{address}/li/docker:v1"
    docker("tag", "lathe.test/demo:v1", name)
    refused = docker("push", name, check=False)
    assert refused.returncode != 0  # not logged in
    assert docker("login", "-u", "li", "-p", "wrong", address, check=False).returncode != 0
    docker("login", "-u", "li", "-p", PASSWORD, address)
    pushed = docker("push", name).stdout
    assert "digest: sha256:" in pushed
    docker("tag", "lathe.test/demo:v1", f"{address}/li/docker-other:v1")
    assert "Mounted from" in docker("push", f"{address}/li/docker-other:v1").stdout
    docker("rmi", name, "lathe.test/demo:v1", f"{address}/li/docker-other:v1")
    docker("pull", name)
    assert docker("image", "inspect", "--format", "{{.Architecture}}", name).stdout.strip() == "amd64"
    assert registry.Repository(server, li, "docker").tags() == ["v1"]
    private = docker("pull", f"{address}/admin/private:v1", check=False)
    assert private.returncode != 0
    docker("logout", address)


# containerd

@pytest.fixture(scope="module")
def ctr(home):
    with daemons.Daemon("containerd") as daemon:
        yield lambda *words, **options: run("ctr", "-a", daemon.socket, *words, env=home, **options)


def test_containerd_pushes_and_pulls(server, li, address, ctr, archive):
    ctr("images", "import", "--no-unpack", "--snapshotter", "native", archive)
    reference = f"{address}/li/containerd:v1"
    name = ctr("images", "ls", "-q").stdout.split()[0]
    ctr("images", "tag", name, reference)
    ctr("images", "push", "--plain-http", "--user", f"li:{PASSWORD}", reference)
    ctr("images", "rm", "--sync", name, reference)
    ctr("images", "pull", "--plain-http", "--user", f"li:{PASSWORD}", "--snapshotter", "native", reference)
    assert reference in ctr("images", "ls", "-q").stdout.split()
    assert registry.Repository(server, li, "containerd").tags() == ["v1"]
