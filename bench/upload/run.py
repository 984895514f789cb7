"""An upload against nginx's PUT (dav module), interleaved: throughput and CPU, and that memory does not grow.

Both sides take the same bytes from the same client over loopback, one upload at a time, onto the same disk. nginx
writes a file and renames it; Lathe parses multipart/form-data, counts the quota, writes, syncs to disk and publishes
the file atomically in its catalogue. nginx does not sync, so its row is given twice: as it is, and followed by a
sync of the file, which is what makes the two answers mean the same: the goals are for that.
"""

import http.client
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

import lathe
import measure

SIZE = int(os.environ.get("MIB", "1024")) << 20
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PIECE = os.urandom(1 << 20)


class Nginx:
    """One worker, with the buffers that suit it best (of 256 KiB, 512 KiB and 1 MiB); the body goes to the disk it is kept on."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        for name in ("files", "tmp"):
            (self.folder / name).mkdir()
        modules = sorted(pathlib.Path("/usr/lib/nginx/modules").glob("ngx_http_dav*.so"))
        (self.folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/error.log; user root;
{''.join(f'load_module {m};' for m in modules if 'ext' not in m.name)}
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; client_max_body_size 0; client_body_temp_path {self.folder}/tmp;
  client_body_buffer_size 512k; client_body_in_file_only clean;
  server {{ listen 127.0.0.1:{self.port}; root {self.folder}/files;
    location / {{ dav_methods PUT DELETE; create_full_put_path on; }} }}
}}""")
        self.process = subprocess.Popen(["nginx", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)],
                                        stderr=subprocess.DEVNULL)
        lathe.wait_until(self.answers, 10, "nginx")

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    def put(self):
        before = measure.tree_cpu_seconds(self.process.pid)
        with measure.Stopwatch() as watch:
            send("PUT", self.port, "/big.bin", {}, b"", b"")
        cpu, syncing = measure.tree_cpu_seconds(self.process.pid) - before, time.process_time()
        with measure.Stopwatch() as sync:
            with open(self.folder / "files/big.bin", "rb") as file:
                os.fsync(file.fileno())
        syncing = time.process_time() - syncing
        (self.folder / "files/big.bin").unlink()
        return watch.seconds, watch.seconds + sync.seconds, cpu, cpu + syncing


def send(method, port, path, headers, before, after):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.putrequest(method, path)
    for name, value in {**headers, "Content-Length": str(len(before) + SIZE + len(after))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.sock.sendall(before)
    for _ in range(SIZE // len(PIECE)):
        connection.sock.sendall(PIECE)
    connection.sock.sendall(after)
    response = connection.getresponse()
    body = response.read()
    assert response.status in (200, 201, 204), (response.status, body[:500])
    connection.close()


def upload(server):
    boundary = "0123456789abcdef"
    head = (f'--{boundary}\r\nContent-Disposition: form-data; name="currentPath"\r\n\r\n/\r\n--{boundary}\r\n'
            'Content-Disposition: form-data; name="file"; filename="big.bin"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n").encode()
    pid = server.process.pid
    before = measure.cpu_seconds(pid)
    with measure.Stopwatch() as watch:
        send("POST", server.admin.port, "/file/file/uploadFolder",
             {"Authorization": f"Bearer {server.admin.token}",
              "Content-Type": f"multipart/form-data; boundary={boundary}"}, head, f"\r\n--{boundary}--\r\n".encode())
    cpu = measure.cpu_seconds(pid) - before
    server.admin.delete("/api/v1/files", query={"path": "/big.bin"}).gone()
    return watch.seconds, cpu


def main():
    folder = tempfile.mkdtemp(prefix="bench-upload-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    nginx = Nginx(folder)
    try:
        with lathe.Server(data=os.path.join(folder, "data")) as server:
            pid = server.process.pid
            upload(server), nginx.put()
            measure.forget_peak(pid)
            idle = measure.resident_mib(pid)
            measure.heading(f"Upload of {SIZE >> 20} MiB, {ROUNDS} rounds, interleaved with nginx "
                            f"{subprocess.run(['nginx', '-v'], capture_output=True, text=True).stderr.split('/')[1].strip()}")
            ours, plain, synced, our_cpu, their_cpu, synced_cpu = [], [], [], [], [], []

            def our_turn():
                seconds, cpu = upload(server)
                ours.append(seconds), our_cpu.append(cpu)

            def their_turn():
                unsynced, whole, cpu, whole_cpu = nginx.put()
                plain.append(unsynced), synced.append(whole), their_cpu.append(cpu), synced_cpu.append(whole_cpu)

            for number in range(ROUNDS):
                # Who comes second finds the memory that the first has just freed: they take turns at it.
                for turn in (our_turn, their_turn) if number % 2 else (their_turn, our_turn):
                    time.sleep(0.3)
                    turn()
            mib = SIZE / (1 << 20)
            measure.figure("Lathe", mib / statistics.median(ours), "MiB/s", None, 0)
            measure.figure("nginx, not synced", mib / statistics.median(plain), "MiB/s", None, 0)
            measure.figure("nginx, synced", mib / statistics.median(synced), "MiB/s", None, 0)
            ratio = [theirs / mine for mine, theirs in zip(ours, plain)]
            measure.figure("throughput, Lathe : nginx (not synced)", statistics.median(ratio), "×", None, 2)
            ratio = [theirs / mine for mine, theirs in zip(ours, synced)]
            measure.figure("throughput, Lathe : nginx (synced)", statistics.median(ratio), "×", (">=", 0.9), 2)
            ratio = [mine / theirs for mine, theirs in zip(our_cpu, their_cpu)]
            measure.figure("CPU, Lathe : nginx (not synced)", statistics.median(ratio), "×", None, 2)
            ratio = [mine / theirs for mine, theirs in zip(our_cpu, synced_cpu)]
            measure.figure("CPU, Lathe : nginx (synced)", statistics.median(ratio), "×", ("<=", 1.1), 2)
            measure.figure("resident before", idle, "MiB")
            measure.figure("resident at most while uploading", measure.peak_mib(pid), "MiB")
    finally:
        nginx.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
