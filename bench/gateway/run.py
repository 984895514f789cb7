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
import http.client
import json
import os
import pathlib
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
BODY_BYTES = 1024
PROGRAM = ROOT / "build/release/bench_gateway"


def upstream(kind):
    """The command of a replica: it sees the system's programs and its user's files, nothing else."""
    return (f"cp /workspace/bench/program /tmp/program-$PORT; chmod +x /tmp/program-$PORT; "
            f"exec taskset -c {LOAD_CPU} /tmp/program-$PORT {kind}")


ANSWERS, STREAMS = f"answer $PORT {BODY_BYTES}", "stream $PORT"


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

    def __init__(self, log, kind, binary, rates=(100,)):
        self.rates = rates
        os.environ["LATHE_BINARY"] = binary
        limits = {"maxConnections": 100000}
        self.server = Server(config={"log": {"access": log}, "limits": limits})
        self.kind = kind

    def start(self):
        self.server.start()
        admin = self.server.admin
        admin.multipart("/api/file/file/uploadFolder", {"currentPath": "/bench"},
                        [("file", "program", PROGRAM.read_bytes())]).ok()
        volumes = [{"src": "/bench", "dst": "/workspace/bench"}]
        made = admin.post("/model/modelServer/createModelInferenceServer", {
            "modelServer": {"name": "bench", "createUser": admin.id, "path": ""},
            "modelServerVersions": [{
                "command": upstream(self.kind), "cpu": 1, "memory": 1, "image": "host", "rate": rate,
                "predictMinReplicas": 1, "predictMaxReplicas": 1, "reqMethod": "rest",
                "volumes": volumes} for rate in self.rates]})
        self.id, self.versions = made.payload["id"], made.payload["modelServerVersionIds"]

        def ready():
            replicas = self.server.admin.get(f"/api/v1/deployments/{self.id}/replicas").ok()["items"]
            ready = [r for r in replicas if r["state"] == "ready"]
            return ready if len(ready) == len(self.rates) else None

        self.replica = wait_until(ready, what="the replica")[0]
        self.upstream = self.replica["port"]
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


def ask(proxy, connections, seconds):
    """The upstream makes the load as well (see load.cpp)."""
    before = processor_seconds(proxy.pid)
    told = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=seconds + 30)
    told.request("GET", f"/ask/{proxy.port}/{connections}/{seconds * 1000}{proxy.path}", headers=LOAD_HEADERS)
    got = json.loads(told.getresponse().read())
    told.close()
    if got["failure"]:
        raise AssertionError(f"{proxy.name}: {got['failure']}")
    return {"cpu": (processor_seconds(proxy.pid) - before) / got["requests"] * 1e6, "rate": got["rate"],
            "p99": got["p99"]}


LOAD_HEADERS = {}
KINDS = ["requests", "streams", "idle", "split", "change"]


def in_turn(proxies, rounds):
    """Every proxy once a round, each time another first."""
    for turn in range(rounds):
        yield from proxies[turn % len(proxies):] + proxies[:turn % len(proxies)]


def compare(proxies, rounds, connections, seconds):
    """The better peer of a figure is the one whose median is better; the ratios to it are made within each round,
    and their median taken."""
    figures = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        ask(proxy, connections, 1)
    for proxy in in_turn(proxies, rounds):
        figures[proxy.name].append(ask(proxy, connections, seconds))
    print(f"{'':10} {'CPU µs/request':>15} {'requests/s':>12} {'p99 µs':>9}")
    medians = {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
               for name, rows in figures.items()}
    for name, middle in medians.items():
        print(f"{name:10} {middle['cpu']:15.2f} {middle['rate']:12.0f} {middle['p99']:9.0f}")
    peers = [name for name in figures if name != "lathe"]

    def ratio(key, better):
        peer = better(peers, key=lambda name: medians[name][key])
        return statistics.median(ours[key] / theirs[key] for ours, theirs in zip(figures["lathe"], figures[peer]))

    print("lathe as part of the better peer:", f"CPU {ratio('cpu', min):.2f}, requests/s {ratio('rate', max):.2f},",
          f"p99 {ratio('p99', min):.2f}")


def read_streams(proxy, direct_port, count, seconds):
    port, path = (proxy.port, proxy.path) if proxy else (direct_port, "/")
    headers = [f"{name}: {value}" for name, value in (proxy.headers if proxy else {}).items()]
    before = processor_seconds(proxy.pid) if proxy else 0
    out = subprocess.run(["taskset", "-c", LOAD_CPU, PROGRAM, "read", str(port), path, str(count), str(seconds), *headers],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    spent = processor_seconds(proxy.pid) - before if proxy else 0
    got = json.loads(out)
    return *got["first"], *got["token"], spent / got["tokens"] * 1e6


def compare_streams(proxies, direct_port, count, rounds, seconds):
    """Delays in µs from the making of a token to its reader, and from the request to the first token: medians of the
    rounds."""
    rows = {proxy.name if proxy else "direct": [] for proxy in [None, *proxies]}
    for proxy in in_turn([None, *proxies], rounds):
        rows[proxy.name if proxy else "direct"].append(read_streams(proxy, direct_port, count, seconds))
    print(f"\n{count} streams of 50 tokens a second" + " " * 6 + "first token p50    p99   token p50    p99")
    for name, figures in rows.items():
        first, first99, token, token99, cpu = (statistics.median(column) for column in zip(*figures))
        print(f"{name:32} {first:16.0f} {first99:6.0f} {token:11.0f} {token99:6.0f}   CPU {cpu:.1f} µs/token")


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


def change_shares(binary, changes):
    """Shares changed under full load, among other services: how long the call takes, after whose answer every request
    goes by the new shares; no request may fail."""
    lathe = Lathe(False, ANSWERS, binary, rates=(90, 10))
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
            load = pool.submit(ask, lathe, 64, changes // 4 + 3)
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


def split(binary):
    """A million requests to two versions of 90 and 10."""
    lathe = Lathe(False, ANSWERS, binary, rates=(90, 10))
    try:
        lathe.start()
        LOAD_HEADERS.clear()
        LOAD_HEADERS.update(lathe.headers)
        counts = []
        while sum(counts) < 1_000_000:
            ask(lathe, 64, 10)
            items = lathe.server.admin.get(f"/api/v1/deployments/{lathe.id}/metrics").ok()["items"]
            counts = sorted(item["requests"] for item in items)
        share = counts[0] / sum(counts) * 100
        print(f"\nsplit 90/10: {counts[1]} and {counts[0]} of {sum(counts)} requests, {share:.4f} % to the smaller")
        assert abs(share - 10) <= 0.1
    finally:
        lathe.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=3, help="of one measurement")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--only", choices=KINDS)
    options = parser.parse_args()
    binary = os.path.abspath(os.environ["LATHE_BINARY"])
    for program in ("nginx", "haproxy", "taskset"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing: ./dev setup installs it")
    print("load before:", *os.getloadavg())
    allow_descriptors(50000)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-bench-"))
    wanted = [options.only] if options.only else KINDS
    for log in (False, True) if {"requests", "idle"} & set(wanted) else ():
        with running(folder, binary, ANSWERS, log) as started:
            if "requests" in wanted:
                print("\nwith an access log" if log else "\nwithout an access log")
                compare(started, options.rounds, options.connections, options.seconds)
            if "idle" in wanted and not log:
                idle_memory(started, min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 300))
    if "streams" in wanted:
        Nginx.buffering, HaProxy.streaming = "off", "option http-no-delay"
        with running(folder / "streams", binary, STREAMS, False) as started:
            compare_streams(started, started[0].replica["port"], 1000, options.rounds, options.seconds)
    if "split" in wanted:
        split(binary)
    if "change" in wanted:
        change_shares(binary, 40)
    shutil.rmtree(folder)
    print("load after:", *os.getloadavg())


@contextlib.contextmanager
def running(folder, binary, kind, log):
    """Lathe with the upstream as its replica, and the peers in front of the same."""
    folder.mkdir(exist_ok=True)
    started = []
    try:
        lathe = Lathe(log, kind, binary)
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
