#!/usr/bin/python3
"""Images beside their peers, interleaved, on this machine:

- the import of a docker-archive against `skopeo copy` to oci:, `docker load`, `podman load`, and against
  OpenSSL's sha256 over the same bytes, which is the least that any of them must do;
- `skopeo copy` to /v2/ against docker-registry.

    run.py [--mib 1024] [--rounds 5] [--only import|push]

Prints medians with every measured value, and what the server took of memory. The archive is in the page cache
for everybody; every contestant starts with an empty store, on the same file system, after a sync.
"""

import argparse
import hashlib
import json
import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import tarfile
import tempfile
import time
import zlib

import lathe
import measure

SHARES = (0.5, 0.25, 0.125, 0.0625, 0.0625)  # layers are of many sizes


class Noise:
    """So many random bytes as a file, without holding them: one MiB, turned a little at every repetition."""

    def __init__(self, size):
        self.left, self.at = size, 0
        self.block = os.urandom(1 << 20)

    def read(self, size=-1):
        size = min(size if size >= 0 else self.left, self.left, 1 << 20)
        self.left -= size
        self.at += 1
        cut = self.at * 4099 % len(self.block)
        return (self.block[cut:] + self.block[:cut])[:size]


def digest(path):
    return "sha256:" + subprocess.run(["openssl", "dgst", "-sha256", "-r", path], capture_output=True, text=True,
                                      check=True).stdout.split()[0]


def make_layers(folder, mib):
    files = []
    for number, share in enumerate(SHARES):
        path = folder / f"layer{number}.tar"
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo(f"data{number}")
            info.size = int(mib * share) << 20
            archive.addfile(info, Noise(info.size))
        files.append(path)
    return files


def config_of(diff_ids):
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
                       "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()


def make_archive(folder, layers):
    """As `docker save` writes it."""
    config = config_of([digest(layer) for layer in layers])
    name = hashlib.sha256(config).hexdigest() + ".json"
    (folder / name).write_bytes(config)
    (folder / "manifest.json").write_text(json.dumps([{
        "Config": name, "RepoTags": ["bench.test/image:v1"], "Layers": [f"{n}/layer.tar" for n in range(len(layers))]}]))
    path = folder / "image.tar"
    with tarfile.open(path, "w") as archive:
        for number, layer in enumerate(layers):
            archive.add(layer, f"{number}/layer.tar")
        archive.add(folder / name, name)
        archive.add(folder / "manifest.json", "manifest.json")
    return path


def make_layout(folder, layers):
    """An OCI layout whose layers are packed already, so that no client packs them anew."""
    layout = folder / "layout"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def described(path, kind):
        return {"mediaType": "application/vnd.oci.image." + kind, "digest": digest(path), "size": path.stat().st_size}

    def place(path, kind):
        entry = described(path, kind)
        os.replace(path, blobs / entry["digest"][7:])
        return entry

    entries, diff_ids = [], []
    for layer in layers:
        diff_ids.append(digest(layer))
        packed = folder / "packed"
        packer = zlib.compressobj(0, zlib.DEFLATED, 31)
        with open(layer, "rb") as plain, open(packed, "wb") as out:
            while piece := plain.read(1 << 20):
                out.write(packer.compress(piece))
            out.write(packer.flush())
        entries.append(place(packed, "layer.v1.tar+gzip"))
    (folder / "config").write_bytes(config_of(diff_ids))
    config = place(folder / "config", "config.v1+json")
    (folder / "manifest").write_text(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": entries}))
    manifest = place(folder / "manifest", "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return layout


def run(*command, env=None, check=True):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env=env)
    if check and done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def timed(action):
    os.sync()
    start = time.monotonic()
    action()
    return time.monotonic() - start


class Ours:
    """The server, with the archive among a user's files."""

    def __init__(self, server, archive=None):
        self.server, self.user = server, server.new_user("bench")
        if archive:
            target = server.data / "users" / self.user.id / "private"
            self.user.get("/api/v1/files").ok()
            target.mkdir(parents=True, exist_ok=True)
            os.link(archive, target / "image.tar")
        self.number = 0

    def row(self, name):
        rows = self.user.post("/docker/image/findListSort", {"pageNum": 1, "imageName": name}).payload["rows"]
        return next(row for row in rows if row["imageName"] == name)

    def import_it(self):
        self.number += 1
        self.name = f"image{self.number}"
        self.user.post("/docker/image/upload", {"imageName": self.name, "userId": self.user.id}).payload
        self.user.post("/docker/image/uploadOld", {"imageName": self.name, "userId": self.user.id, "imageTag": "v1",
                                                   "fileUrl": "image.tar"}).payload
        while (row := self.row(self.name))["imageStatus"] == 2:
            time.sleep(0.005)
        assert row["imageStatus"] == 1, row

    def clear(self, name=None):
        self.user.delete("/api/v1/images/" + self.row(name or self.name)["id"]).gone()
        left = list((self.server.data / "images/blobs/sha256").iterdir())
        assert not left, left

    def memory(self, reset=False):
        """Peak resident MiB since the last reset."""
        if reset:
            measure.forget_peak(self.server.process.pid)
        return measure.peak_mib(self.server.process.pid)

    def cpu(self):
        return measure.cpu_seconds(self.server.process.pid)


class Docker:
    def __init__(self, folder):
        self.socket = folder / "docker.sock"
        self.driver = None
        for driver in ("overlay2", "vfs"):
            log = open(folder / f"docker-{driver}.log", "wb")
            self.daemon = subprocess.Popen(
                ["dockerd", "--data-root", folder / f"docker-{driver}", "--exec-root", folder / "docker-exec",
                 "--pidfile", folder / "docker.pid", "-H", f"unix://{self.socket}", "--storage-driver", driver,
                 "--bridge", "none", "--iptables=false"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            while self.daemon.poll() is None:
                if run("docker", "-H", f"unix://{self.socket}", "version", check=False).returncode == 0:
                    self.driver = driver
                    return
                time.sleep(0.1)
        raise SystemExit("dockerd does not start")

    def load(self, archive):
        run("docker", "-H", f"unix://{self.socket}", "load", "-i", archive)

    def clear(self):
        run("docker", "-H", f"unix://{self.socket}", "rmi", "-f", "bench.test/image:v1")

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait(60)


class Podman:
    def __init__(self, folder):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pm-", dir=folder.parent))
        for self.driver in ("overlay", "vfs"):
            if run(*self.command(), "images", check=False).returncode == 0:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()

    def command(self):
        return ["podman", "--root", self.folder / "r", "--runroot", self.folder / "n", "--tmpdir", self.folder / "t",
                "--storage-driver", self.driver]

    def load(self, archive):
        run(*self.command(), "load", "-i", archive)

    def clear(self):
        run(*self.command(), "rmi", "--all", "--force")

    def stop(self):
        run(*self.command(), "system", "reset", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def table(title, results, base):
    print(f"\n{title}\n")
    print(f"| {'what':34} | {'median s':>8} | {'÷ Lathe':>7} | every run |")
    print(f"|{'-' * 36}|{'-' * 9}:|{'-' * 8}:|---|")
    ours = statistics.median(results[base])
    for name, values in results.items():
        median = statistics.median(values)
        print(f"| {name:34} | {median:8.2f} | {median / ours:7.2f} | {' '.join(f'{v:.2f}' for v in values)} |")
    return ours


def bench_import(folder, mib, rounds):
    layers = make_layers(folder, mib)
    archive = make_archive(folder, layers)
    for layer in layers:
        layer.unlink()
    docker, podman = Docker(folder), Podman(folder)
    peers = {"skopeo copy to oci:": None, f"docker load ({docker.driver})": docker, f"podman load ({podman.driver})": podman}
    results = {name: [] for name in ("Lathe import", *peers, "openssl dgst -sha256")}
    try:
        with lathe.Server(data=folder / "data") as server:
            ours = Ours(server, archive)
            idle = ours.memory(reset=True)
            cpu = ours.cpu()
            for _ in range(rounds):
                results["Lathe import"].append(timed(ours.import_it))
                ours.clear()
                results["openssl dgst -sha256"].append(timed(lambda: run("openssl", "dgst", "-sha256", archive)))
                for name, peer in peers.items():
                    if peer:
                        results[name].append(timed(lambda: peer.load(archive)))
                        peer.clear()
                    else:
                        out = folder / "skopeo"
                        results[name].append(timed(lambda: run("skopeo", "copy", f"docker-archive:{archive}", f"oci:{out}:v1")))
                        shutil.rmtree(out)
            cpu = (ours.cpu() - cpu) / rounds
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run("openssl", "dgst", "-sha256", archive)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            hashing_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            peak = ours.memory()
    finally:
        docker.stop()
        podman.stop()
    us = table(f"Import of a {archive.stat().st_size >> 20} MiB docker-archive", results, "Lathe import")
    fastest = min(statistics.median(values) for name, values in results.items() if name in peers)
    hashing = statistics.median(results["openssl dgst -sha256"])
    print(f"\nLathe: {fastest / us:.2f}× faster than the fastest peer (goal 2.5), {us / hashing:.2f}× OpenSSL's sha256 "
          f"(goal 1.5); {cpu:.2f} s of CPU an import, where OpenSSL's sha256 alone takes {hashing_cpu:.2f}; peak memory {peak:.0f} MiB, {idle:.0f} MiB when idle")
    archive.unlink()


def bench_push(folder, mib, rounds):
    layers = make_layers(folder, mib)
    layout = make_layout(folder, layers)
    for layer in layers:
        layer.unlink()
    results = {"Lathe /v2/": [], "docker-registry": []}
    with lathe.Server(data=folder / "push-data") as server:
        ours = Ours(server)
        key = ours.user.post("/api/v1/api-keys", {"name": "bench"}).created()["key"]
        idle = ours.memory(reset=True)

        def push(*arguments):
            home = tempfile.mkdtemp(dir=folder)  # no memory of where blobs are
            run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:v1", *arguments,
                env={**os.environ, "HOME": home, "XDG_RUNTIME_DIR": home})

        address = server.url.removeprefix("http://")
        for number in range(rounds):
            results["Lathe /v2/"].append(timed(lambda: push(
                "--dest-creds", f"bench:{key}", f"docker://{address}/bench/image{number}:v1")))
            ours.clear(f"image{number}")
            root, port = folder / "docker-registry", measure.free_port()
            (folder / "registry.yml").write_text(json.dumps({
                "version": 0.1, "log": {"level": "error"}, "storage": {"filesystem": {"rootdirectory": str(root)}},
                "http": {"addr": f"127.0.0.1:{port}"}}))
            log = open(folder / "registry.log", "wb")
            peer = subprocess.Popen(["docker-registry", "serve", folder / "registry.yml"], stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=log)
            try:
                lathe.wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, what="docker-registry")
                results["docker-registry"].append(timed(lambda: push(f"docker://127.0.0.1:{port}/bench/image:v1")))
            finally:
                peer.terminate()
                peer.wait(30)
            shutil.rmtree(root)
        peak = ours.memory()
    us = table(f"skopeo copy of {mib} MiB to a registry", results, "Lathe /v2/")
    print(f"\nLathe takes {us / statistics.median(results['docker-registry']):.2f}× the time of docker-registry (goal: not "
          f"more than 1); peak memory {peak:.0f} MiB, {idle:.0f} MiB when idle")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["import", "push"])
    parser.add_argument("--folder", help="where everything is written; default: a temporary folder beside the build")
    options = parser.parse_args()
    base = pathlib.Path(options.folder or pathlib.Path(lathe.binary()).parent)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, everything below {base}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        if options.only != "push":
            bench_import(folder, options.mib, options.rounds)
        if options.only != "import":
            bench_push(folder, options.mib, options.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
