"""A Docker, a Podman or a containerd of the tests' own, on a socket and in directories of its own, and small images."""

import http.client
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile

import archives
from archives import entry, tar
from lathe import end_processes_of, wait_until

APPLETS = """sh cat cut chmod echo env false grep head httpd id kill ls mkdir printf pwd rm seq setsid sleep sort tail
             test touch tr true wc""".split()


class Daemon:
    """`dockerd`, `podman system service` or `containerd`, as root. Use it with `with`."""

    def __init__(self, kind, folder=None):
        self.kind = kind
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="lathe-daemon-"))
        self.socket = str(self.folder / "api.sock")
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.clear()
        self.stop()
        end_processes_of(self.folder)
        below = [line.split()[1] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        for point in reversed([point for point in below if point.startswith(str(self.folder))]):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        pathlib.Path(self.socket).unlink(missing_ok=True)
        folder = self.folder
        if self.kind == "docker":
            (folder / "pid").unlink(missing_ok=True)
            command = ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile",
                       folder / "pid", "--bridge=none", "--iptables=false", "--ip6tables=false", "--live-restore",
                       "-H", f"unix://{self.socket}"]
        elif self.kind == "containerd":
            (folder / "config.toml").write_text(
                f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
                'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                f'[grpc]\naddress = "{self.socket}"\n[ttrpc]\naddress = "{folder}/ttrpc.sock"\n')
            command = ["containerd", "-c", folder / "config.toml"]
        else:
            command = ["podman", "--root", folder / "data", "--runroot", folder / "run", "--tmpdir", folder / "tmp",
                       "system", "service", "--time", "0", f"unix://{self.socket}"]
        (folder / "containers.conf").write_text(
            '[engine]\nruntime = "runc"\n[containers]\n'
            'default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n')
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder),
                       "CONTAINERS_CONF": str(folder / "containers.conf")}
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, cwd=folder, start_new_session=True)
        wait_until(lambda: self.process.poll() is not None or self.answers(), 60, "the daemon's start")
        assert self.process.poll() is None, (folder / "log").read_text()[-4000:]
        return self

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def clear(self):
        """Containers outlive their daemon: what a test left goes before it."""
        if self.kind == "containerd" or self.process is None or not self.answers():
            return
        for container in self.containers():
            self.request("DELETE", f"/containers/{container['Id']}?force=true&v=true")

    def kill(self):
        """kill -9, of the daemon alone."""
        self.process.kill()
        self.process.wait()
        self.process = None
        pid = self.folder / "exec/containerd/containerd.pid"  # its containerd goes with it, a moment later
        if pid.exists():
            stat = pathlib.Path("/proc", pid.read_text(), "stat")
            wait_until(lambda: not stat.exists() or ") Z " in stat.read_text(), 10, "containerd's end")
            pid.unlink()

    def answers(self):
        if self.kind == "containerd":
            return subprocess.run(["ctr", "-a", self.socket, "version"], capture_output=True).returncode == 0
        try:
            return self.get("/version")[0] == 200
        except OSError:
            return False

    def get(self, path):
        return self.request("GET", path)

    def request(self, method, path, value=None):
        """The status and the parsed answer of the Docker Engine API."""
        connection = http.client.HTTPConnection("daemon", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        try:
            connection.sock.connect(self.socket)
            connection.request(method, "/v1.40" + path, None if value is None else json.dumps(value),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            is_json = body and answer.headers.get_content_type() == "application/json"
            return answer.status, json.loads(body) if is_json else body.decode()
        finally:
            connection.close()

    def image_names(self):
        return [name for image in self.get("/images/json")[1] for name in image["RepoTags"] or ()]

    def containers(self):
        return self.get("/containers/json?all=true")[1]


def busybox_layer(**files):
    """A root file system of Debian's busybox-static, as a tar; `files` in /etc besides."""
    folders = [entry(name, kind=tarfile.DIRTYPE) for name in ("bin", "etc", "dev", "proc", "sys", "var")]
    links = [entry(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox") for name in APPLETS]
    contents = {"inside": b"of the image\n", **files}
    return tar(*folders, entry("tmp", kind=tarfile.DIRTYPE, mode=0o1777),
               entry("bin/busybox", pathlib.Path("/bin/busybox").read_bytes()), *links,
               *(entry(f"etc/{name}", data, mode=0o644) for name, data in contents.items()))


def docker_archive(layer):
    """An archive with an image of one layer."""
    return archives.docker_archive([layer])


def import_image(user, name, archive, tag="1.0"):
    """Imports an archive (bytes, or the name of one of the user's files) as `name:tag`, which it gives back."""
    if isinstance(archive, bytes):
        user.multipart("/api/file/file/uploadFolder", {}, [("file", "image.tar", archive)]).ok()
        archive = "image.tar"

    def rows():
        found = user.post("/docker/image/findListSort", {"pageNum": 1, "pageSize": 100, "imageName": name,
                                                         "userId": user.id}).payload["rows"]
        return [row for row in found if row["imageName"] == name]

    if not rows():
        user.post("/docker/image/upload", {"imageName": name, "userId": user.id}).ok()

    user.post("/docker/image/uploadOld", {"userId": user.id, "imageId": rows()[0]["id"], "imageTag": tag,
                                          "fileUrl": archive}).ok()
    wait_until(lambda: rows()[0]["imageStatus"] in (1, 3), 300, f"the import of {name}")
    assert rows()[0]["imageStatus"] == 1, rows()
    return f"{name}:{tag}"
