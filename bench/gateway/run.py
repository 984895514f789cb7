#!/usr/bin/python3
"""Lathe's gateway beside nginx and HAProxy as reverse proxies of the same upstream.

Each proxy has one thread, pinned to one processor; the load generator and the upstream share another. The
proxies take turns in every round, so that what else the machine does falls on all of them alike. Lathe runs as it
always does: a deployment with one replica, the caller's API key checked at every request, counters and time-outs.
Its peers do no more than pass requests on over kept connections.

Figures: processor time per request (from the scheduler's own account, which hardly depends on the load beside
it), requests a second and the 99th percentile, each as Lathe's part of the better peer's; then what a proxy adds to
1,000 token streams, what an idle connection costs, how exactly traffic is split, and how soon a change of shares is
in effect.

The peers write their access logs as they are set up where they serve much: nginx through a buffer, with a line that
tells about as much as Lathe's; HAProxy by its httplog format to a file, which it can only write line by line.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "bench/support")]
from lathe import Server, wait_until  # noqa: E402
from measure import figure, free_port, processor_seconds, resident_mib  # noqa: E402

PROXY_CPU, LOAD_CPU = "0", "1"
OTHER_SERVICES = 200
BODY = "x" * 1024
UPSTREAM = """
daemon off; master_process off; pid /tmp/upstream.pid; error_log /dev/stderr error;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_body_temp_path /tmp/b;
  proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server { listen 127.0.0.1:PORT; default_type application/json; location / { return 200 "BODY"; } }
}
""".replace("BODY", BODY)


def allow_descriptors(count):
    """For this process and all it starts, as far as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Proxy:
    name = ""

    def __init__(self, folder, upstream, log):
        self.folder = folder / f"{self.name}-{'log' if log else 'quiet'}"
        self.folder.mkdir()
        self.upstream, self.log = upstream, log
        self.port = free_port()
        self.process = None

    def start(self):
        self.process = subprocess.Popen(["taskset", "-c", PROXY_CPU, *self.command()], cwd=self.folder,
                                        stdout=open(self.folder / "out", "wb"), stderr=subprocess.STDOUT)
        wait_until(lambda: listens(self.port), what=f"{self.name}'s start")
        return self

    @property
    def pid(self):
        return self.process.pid

    path, headers = "/v1/echo", {}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Nginx(Proxy):
    name = "nginx"

    def command(self):
        f = self.folder
        (f / "conf").write_text(f"""
daemon off; master_process off; pid {f}/pid; error_log {f}/error error; 
events {{ worker_connections 45000; multi_accept on; }}
http {{
  log_format timed '$time_iso8601 $request $status $body_bytes_sent $request_time $remote_addr $upstream_addr';
  access_log {f'{f}/access timed buffer=64k flush=100ms' if self.log else 'off'};
  keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nodelay on;
  client_body_temp_path {f}/b; proxy_temp_path {f}/p; fastcgi_temp_path {f}/f; uwsgi_temp_path {f}/u; scgi_temp_path {f}/s;
  upstream back {{ server 127.0.0.1:{self.upstream}; keepalive 2048; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location / {{ proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering {self.buffering}; }}
  }}
}}""")
        return ["nginx", "-c", str(f / "conf")]


    buffering = "on"  # the default; streams need it off


class HaProxy(Proxy):
    name, streaming = "haproxy", ""

    @staticmethod
    def most():
        """It refuses to start where it may not have two descriptors for each connection."""
        return min(22000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1000) // 2)

    def command(self):
        (self.folder / "conf").write_text(f"""
global
  nbthread 1
  maxconn {self.most()}
  tune.http.maxhdr 128
  {'log stdout format raw local0' if self.log else ''}
defaults
  mode http
  timeout connect 2s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
  option http-keep-alive
  {self.streaming}
  http-reuse always
  {'log global' if self.log else ''}
  {'option httplog' if self.log else ''}
frontend front
  bind 127.0.0.1:{self.port} backlog 4096
  default_backend back
backend back
  server one 127.0.0.1:{self.upstream} pool-max-conn -1 pool-purge-delay 600s
""")
        return ["haproxy", "-f", str(self.folder / "conf")]


class Lathe:
    """The platform itself, with one deployment whose replica is the upstream."""

    name = "lathe"

    def __init__(self, log, command, binary, rates=(100,), program=None):
        self.rates, self.program = rates, program
        os.environ["LATHE_BINARY"] = binary
        limits = {"maxConnections": 100000}
        self.server = Server(config={"log": {"access": log}, "limits": limits})
        self.command = command

    def start(self):
        self.server.start()
        admin = self.server.admin
        volumes = []
        if self.program:  # replicas see the system's programs and their user's files, nothing else
            admin.multipart("/api/file/file/uploadFolder", {"currentPath": "/bench"},
                            [("file", "program", self.program.read_bytes())]).ok()
            volumes = [{"src": "/bench", "dst": "/workspace/bench"}]
        made = admin.post("/model/modelServer/createModelInferenceServer", {
            "modelServer": {"name": "bench", "createUser": admin.id, "path": ""},
            "modelServerVersions": [{
                "command": self.command, "cpu": 1, "memory": 1, "image": "host", "rate": rate,
                "predictMinReplicas": 1, "predictMaxReplicas": 1, "reqMethod": "rest",
                "volumes": volumes} for rate in self.rates]})
        self.id, self.versions = made.payload["id"], made.payload["modelServerVersionIds"]

        def ready():
            replicas = self.server.admin.get(f"/api/v1/deployments/{self.id}/replicas").ok()["items"]
            ready = [r for r in replicas if r["state"] == "ready"]
            return ready if len(ready) == len(self.rates) else None

        self.replica = wait_until(ready, what="the replica")[0]
        key = admin.post("/api/v1/api-keys", {"name": "bench"}).created()
        self.headers = {"Authorization": f"Bearer {key['key']}"}
        self.port = self.server.admin.port
        subprocess.run(["taskset", "-acp", PROXY_CPU, str(self.pid)], check=True, stdout=subprocess.DEVNULL)
        return self

    def shown(self):
        return self.server.admin.get(f"/api/v1/deployments/{self.id}").ok()

    path = "/serve/bench/v1/echo"

    @property
    def pid(self):
        return self.server.process.pid

    def stop(self):
        if self.server.url:
            self.server.admin.post(f"/api/v1/deployments/{self.id}/stop").ok()
            wait_until(lambda: not listens(self.replica["port"]), what="the replica's end", timeout=60)
        self.server.stop()
        self.server.remove()


def wrk(proxy, connections, seconds):
    headers = [word for name, value in LOAD_HEADERS.items() for word in ("-H", f"{name}: {value}")]
    before = processor_seconds(proxy.pid)
    out = subprocess.run(["taskset", "-c", LOAD_CPU, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency",
                          *headers, f"http://127.0.0.1:{proxy.port}{proxy.path}"],
                         check=True, capture_output=True, text=True).stdout
    spent = processor_seconds(proxy.pid) - before
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    if "Non-2xx" in out or "Socket errors" in out:
        raise AssertionError(f"{proxy.name}: {out}")
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", out).groups()
    return {"cpu": spent / requests * 1e6,
            "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "p99": float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]}


LOAD_HEADERS = {}
KINDS = ["requests", "streams", "idle", "split", "change"]


def compare(proxies, rounds, connections, seconds):
    """The ratios are made within each round and their median taken."""
    figures = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        wrk(proxy, connections, 1)
    for turn in range(rounds):
        for proxy in proxies[turn % len(proxies):] + proxies[:turn % len(proxies)]:
            figures[proxy.name].append(wrk(proxy, connections, seconds))
    print(f"{'':10} {'CPU µs/request':>15} {'requests/s':>12} {'p99 µs':>9}")
    for name, rows in figures.items():
        middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        print(f"{name:10} {middle['cpu']:15.2f} {middle['rate']:12.0f} {middle['p99']:9.0f}")
    ours = figures.pop("lathe")

    def ratio(key, better):
        return statistics.median(row[key] / better(peer[i][key] for peer in figures.values())
                                 for i, row in enumerate(ours))

    out = {"cpu": ratio("cpu", min), "rate": ratio("rate", max), "p99": ratio("p99", min)}
    print(f"lathe as part of the better peer: CPU {out['cpu']:.2f}, requests/s {out['rate']:.2f}, p99 {out['p99']:.2f}")
    return out


def compare_streams(proxies, direct_port, program, count):
    """Delays in µs from the making of a token to its reader, and from the request to the first token."""
    print(f"\n{count} streams of 50 tokens a second" + " " * 6 + "first token p50    p99   token p50    p99")
    for proxy in [None, *proxies]:
        port, path = (direct_port, "/") if proxy is None else (proxy.port, proxy.path)
        headers = [f"{name}: {value}" for name, value in (proxy.headers if proxy else {}).items()]
        before = processor_seconds(proxy.pid) if proxy else 0
        out = subprocess.run(["taskset", "-c", LOAD_CPU, program, "read", str(port), path, str(count), "10", *headers],
                             stdout=subprocess.PIPE, text=True).stdout
        spent = processor_seconds(proxy.pid) - before if proxy else 0
        got = json.loads(out)
        print(f"{proxy.name if proxy else 'direct':32} {got['first'][0]:16.0f} {got['first'][1]:6.0f} "
              f"{got['token'][0]:11.0f} {got['token'][1]:6.0f}   CPU {spent / got['tokens'] * 1e6:.1f} µs/token")


def idle_memory(proxies, count):
    """Each connection has made one request, and says nothing for some seconds. What the kernel holds of it is the
    same for all. nginx has made room for all the connections it may have before the first one comes."""
    print("\nmemory of idle connections")
    for proxy in proxies:
        number_of = min(count, proxy.most()) if isinstance(proxy, HaProxy) else count
        before, kept = resident_mib(proxy.pid), []
        head = "".join(f"{name}: {value}\r\n" for name, value in proxy.headers.items())
        ask = f"GET {proxy.path} HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode()
        for number in range(number_of):
            # One address has not ports enough.
            one = socket.create_connection(("127.0.0.1", proxy.port), source_address=(f"127.0.1.{number // 10000 + 1}", 0))
            one.sendall(ask)
            while not one.recv(65536).endswith(b"x"):
                pass
            kept.append(one)
        time.sleep(3)
        after = resident_mib(proxy.pid)
        print(f"{proxy.name:10} {(after - before) * (1 << 20) / number_of:8.0f} bytes for each of {number_of} "
              f"({before:.1f} MiB before, {after:.1f} MiB with them)")
        for one in kept:
            one.close()


def change_shares(command, binary, changes):
    """Shares changed under full load, among other services: how long the call takes, after whose answer every request
    goes by the new shares; no request may fail."""
    lathe = Lathe(False, command, binary, rates=(90, 10))
    try:
        lathe.start()
        LOAD_HEADERS.clear()
        LOAD_HEADERS.update(lathe.headers)
        admin = lathe.server.admin
        for number in range(OTHER_SERVICES):
            admin.post("/model/modelServer/createModelServer", {
                "modelServer": {"name": f"other-{number}"}, "modelServerVersions": [
                    {"command": "true # $PORT", "cpu": 1, "memory": 1, "image": "host", "rate": 100}]}).payload

        def counts():
            items = admin.get(f"/api/v1/deployments/{lathe.id}/metrics").ok()["items"]
            by_version = {item["versionId"]: item["requests"] for item in items}
            return [by_version[version] for version in lathe.versions]

        took = []
        with concurrent.futures.ThreadPoolExecutor() as pool:
            load = pool.submit(wrk, lathe, 64, changes // 4 + 3)
            time.sleep(1)
            for turn in range(changes):
                shares = (10, 90) if turn % 2 == 0 else (90, 10)
                begun = time.perf_counter()
                admin.patch(f"/api/v1/deployments/{lathe.id}", {"versions": [
                    {"id": version, "rate": share} for version, share in zip(lathe.versions, shares)]}).ok()
                took.append((time.perf_counter() - begun) * 1e3)
                before = counts()
                time.sleep(0.1)
                each = [now - then for now, then in zip(counts(), before)]
                assert sum(each) > 100 and abs(each[0] / sum(each) * 100 - shares[0]) < 1, (shares, each)
            figures = load.result()  # raises if a request failed
        print(f"\n{changes} changes of shares at {figures['rate']:.0f} requests/s, among {OTHER_SERVICES} other services, "
              "no request failed")
        figure("in effect within, median", statistics.median(took), "ms")
        figure("in effect within, at most", max(took), "ms", ("<=", 100))
    finally:
        lathe.stop()


def split(command, binary):
    """A million requests to two versions of 90 and 10."""
    lathe = Lathe(False, command, binary, rates=(90, 10))
    try:
        lathe.start()
        LOAD_HEADERS.clear()
        LOAD_HEADERS.update(lathe.headers)
        counts = []
        while sum(counts) < 1_000_000:
            wrk(lathe, 64, 10)
            items = lathe.server.admin.get(f"/api/v1/deployments/{lathe.id}/metrics").ok()["items"]
            counts = sorted(item["requests"] for item in items)
        share = counts[0] / sum(counts) * 100
        print(f"\nsplit 90/10: {counts[1]} and {counts[0]} of {sum(counts)} requests, {share:.4f} % to the smaller")
        assert abs(share - 10) <= 0.1
    finally:
        lathe.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of one measurement")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", choices=KINDS)
    options = parser.parse_args()
    binary = os.path.abspath(os.environ["LATHE_BINARY"])
    for program in ("nginx", "haproxy", "wrk", "taskset"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing: ./dev setup installs it")
    print("load before:", *os.getloadavg())
    allow_descriptors(50000)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-bench-"))
    command = f"cat > /tmp/upstream.conf <<END\n{UPSTREAM.replace('PORT', '${port}')}\nEND\nexec taskset -c {LOAD_CPU} nginx -c /tmp/upstream.conf"
    program = ROOT / "build/release/bench_gateway"
    wanted = [options.only] if options.only else KINDS
    upstream = command
    for log in (False, True) if {"requests", "idle"} & set(wanted) else ():
        with running(folder, binary, command, log) as started:
            if "requests" in wanted:
                print("\nwith an access log" if log else "\nwithout an access log")
                compare(started, options.rounds, options.connections, options.seconds)
            if "idle" in wanted and not log:
                idle_memory(started, min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1500))
    if "streams" in wanted:
        Nginx.buffering, HaProxy.streaming = "off", "option http-no-delay"
        command = ("cp /workspace/bench/program /tmp/program; chmod +x /tmp/program; "
                   f"exec taskset -c {LOAD_CPU} /tmp/program upstream $PORT")
        with running(folder / "streams", binary, command, False, program) as started:
            compare_streams(started, started[0].replica["port"], program, 1000)
    apart = upstream.replace("/tmp/upstream.conf", "/tmp/upstream-$PORT.conf")
    if "split" in wanted:
        split(apart, binary)
    if "change" in wanted:
        change_shares(apart, binary, 40)
    shutil.rmtree(folder)
    print("load after:", *os.getloadavg())


@contextlib.contextmanager
def running(folder, binary, command, log, program=None):
    """Lathe with the upstream as its replica, and the peers in front of the same."""
    folder.mkdir(exist_ok=True)
    started = []
    try:
        lathe = Lathe(log, command, binary, program=program)
        started.append(lathe)
        lathe.start()
        LOAD_HEADERS.clear()
        LOAD_HEADERS.update(lathe.headers)
        for kind in (Nginx, HaProxy):
            started.append(kind(folder, lathe.replica["port"], log).start())
        yield started
    finally:
        for one in reversed(started):
            one.stop()


if __name__ == "__main__":
    main()
