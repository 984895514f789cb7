"""Durable submissions a second, what a list costs, and memory, with 100,000 jobs and 100,000 models.

Submissions come from wrk's 64 connections, each the documented 4.1 call with a name of its own. Everything
acknowledged must be there after the server was killed and started again, or the figure is worth nothing. The
lists are asked over one kept-alive connection each, with the documented page sizes.
"""

import http.client
import json
import os
import sqlite3
import statistics
import time

import lathe
import measure

ROWS = int(os.environ.get("ROWS", "100000"))
CLIENTS = 64

SUBMIT = """
local thread = 0
function setup(t) t:set("id", thread); thread = thread + 1 end
function init() count = 0; wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer %(token)s" end
function request() count = count + 1
  return wrk.format(nil, "/kernel/trainOperator/createTask", nil, string.format(
    '{"name":"%(prefix)s-%%d-%%d","createWay":"custom","command":"true","resource":'
    ..'[{"cpuNumber":1,"memory":1,"nodeType":"master","numbers":1}]}', id, count)) end
"""


def submit(server, prefix, seconds):
    """wrk counts every answer without a status of success as an error; what was accepted is counted afterwards."""
    return measure.wrk(server.url, SUBMIT % {"token": server.admin.token, "prefix": prefix},
                       connections=CLIENTS, seconds=seconds)


def jobs_total(server):
    answer = server.admin.post("/kernel/trainOperator/listTask", {"pageNum": 1, "pageSize": 1})
    return int(answer.payload["total"])


def copy_models(database, rows):
    """Copies of one model and its version under ids and names of their own: what registering them one by one would
    leave behind, without its hour."""
    with sqlite3.connect(database) as db:
        for table, rename in (("models", "name"), ("model_versions", None)):
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            first = db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchone()
            place = {name: index for index, name in enumerate(columns)}

            def copies():
                for number in range(rows):
                    row = list(first)
                    row[place["id"]] = f"{number:08d}{row[place['id']][8:]}"
                    if rename:
                        row[place[rename]] = f"{row[place[rename]]}-{number}"
                    if "model_id" in place:
                        row[place["model_id"]] = f"{number:08d}{row[place['model_id']][8:]}"
                    yield row
            db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", copies())


class Asker:
    """One kept-alive connection."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.admin.host, server.admin.port)
        self.headers = {"Authorization": f"Bearer {server.admin.token}", "Content-Type": "application/json"}

    def ask(self, method, path, value=None):
        started = time.perf_counter()
        self.connection.request(method, path, None if value is None else json.dumps(value), self.headers)
        response = self.connection.getresponse()
        body = response.read()
        took = (time.perf_counter() - started) * 1e3
        assert response.status == 200, (path, response.status, body[:500])
        return took


def lists(server, total):
    last = total // 20 - 1
    asker = Asker(server)
    calls = [
        ("4.2 jobs, first page", "POST", "/kernel/trainOperator/listTask", {"pageNum": 1, "pageSize": 20}),
        ("4.2 jobs, middle page", "POST", "/kernel/trainOperator/listTask", {"pageNum": last // 2, "pageSize": 20}),
        ("4.2 jobs, last page", "POST", "/kernel/trainOperator/listTask", {"pageNum": last, "pageSize": 20}),
        ("4.2 jobs by status", "POST", "/kernel/trainOperator/listTask",
         {"pageNum": 1, "pageSize": 20, "status": "Pending"}),
        ("own API, jobs", "GET", "/api/v1/jobs?pageSize=20", None),
        ("3.2 models, first page", "POST", "/model/aiApplication/getAiApplicationList", {"pageNum": 1, "pageSize": 20}),
        ("3.2 models, last page", "POST", "/model/aiApplication/getAiApplicationList",
         {"pageNum": ROWS // 20 - 1, "pageSize": 20}),
        ("own API, models", "GET", "/api/v1/models?pageSize=20", None),
    ]
    measure.heading(f"Lists, {total:,} jobs and {ROWS:,} models, 20 rows each, one connection")
    for name, method, path, body in calls:
        times = [asker.ask(method, path, body) for _ in range(200)]
        print(f"  {name:<40} {measure.spread(times)}")


def main():
    with lathe.Server() as server:
        server.stop()
        with measure.Stopwatch() as watch:
            server.start()
        measure.heading("Start")
        measure.figure("start with an empty queue, until it answers", watch.seconds * 1e3, "ms", ("<=", 1000), 0)
        pid = server.process.pid
        server.admin.post("/kernel/trainOperator/listTask", {"pageNum": 1, "pageSize": 20}).payload
        time.sleep(1)
        measure.heading("Memory")
        measure.figure("resident, idle", measure.resident_mib(pid), "MiB", ("<=", 40))

        occupy(server)
        measure.heading(f"Submissions (4.1), {CLIENTS} clients, acknowledged when they are on disk")
        rates, accepted = [], 0
        for round_number in range(5):
            before = measure.cpu_seconds(pid)
            result = submit(server, f"round{round_number}", 2)
            cost = (measure.cpu_seconds(pid) - before) / max(1, result["requests"]) * 1e6
            print(f"  round {round_number + 1}: {result['per_second']:,.0f} a second, p50 {result['p50_ms']:.1f} ms, "
                  f"p99 {result['p99_ms']:.1f} ms, {result['errors']} errors, {cost:.0f} µs of CPU each")
            assert result["errors"] == 0, result
            rates.append(result["per_second"])
            accepted += result["requests"]
        measure.figure("durable submissions a second, median of 5 rounds", statistics.median(rates), "1/s",
                       (">=", 10_000), 0)
        server.restart(kill=True)
        total = jobs_total(server)
        print(f"  after kill -9 and a new start: {total:,} jobs, {accepted:,} acknowledged")
        assert total >= accepted
        while total < ROWS:
            submit(server, f"more{total}", 1)
            total = jobs_total(server)

        register_models(server)
        pid = server.process.pid
        lists(server, total)
        measure.heading("Memory")
        measure.figure(f"resident, {total:,} jobs listed", measure.resident_mib(pid), "MiB", ("<=", 100))
        server.kill()


def occupy(server):
    """One job takes every core, so that all others wait: it is the submission that is measured, not /bin/true."""
    cores = server.admin.post("/system/config/getRemainResource", {"userId": ""}).payload["remainCpu"]
    server.admin.post("/kernel/trainOperator/createTask", {
        "name": "occupies", "createWay": "custom", "command": "sleep 3600",
        "resource": [{"cpuNumber": int(cores), "memory": 1, "nodeType": "master", "numbers": 1}]}).payload


def register_models(server):
    server.admin.multipart("/api/file/file/uploadFolder", {"currentPath": "/"},
                           [("file", "model/weights.bin", b"weights")]).ok()
    server.admin.post("/model/aiApplication/createAiApplication", {
        "application": {"name": "model", "type": "LLM"},
        "aiApplicationVersionList": [{"applicationName": "model", "version": "1", "source": 3, "saveType": 2,
                                      "savePath": "/model"}],
        "hyperParameterList": []}).ok()
    server.stop()
    copy_models(next(server.data.glob("*.db")), ROWS)
    with measure.Stopwatch() as watch:
        server.start()
    measure.heading("Start")
    measure.figure("start with everything there, until it answers", watch.seconds * 1e3, "ms", ("<=", 1000), 0)


if __name__ == "__main__":
    main()
