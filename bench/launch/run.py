"""From the submission of a job to its process running, beside Slurm's sbatch and srun on the same machine.

Each job's command writes the time into a file as the first thing it does; the clock starts when the client begins to
send the request, or to start sbatch or srun. One job at a time, interleaved. A client's own start counts where the
client is a program: that is what its user waits for; Lathe is called over one kept-alive connection and, to be fair,
also by curl, a program that starts anew for every job as sbatch does.
"""

import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import lathe
import measure
import slurm

ROUNDS = int(os.environ.get("ROUNDS", "40"))


def wait_for(path, timeout=60):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            text = path.read_text().strip()
        except OSError:
            text = ""
        if text:
            return float(text)
        time.sleep(0.002)
    raise AssertionError(f"{path} was never written")


class OurJobs:
    def __init__(self, server):
        self.server, self.number = server, 0
        self.connection = http.client.HTTPConnection(server.admin.host, server.admin.port)
        self.headers = {"Authorization": f"Bearer {server.admin.token}", "Content-Type": "application/json"}

    def body(self):
        self.number += 1
        return json.dumps({"name": f"launch-{self.number}", "createWay": "custom", "outputDir": f"/out/{self.number}",
                           "command": "date +%s.%N > ${output_dir}/started",
                           "resource": [{"cpuNumber": 1, "memory": 1, "nodeType": "master", "numbers": 1}]})

    def started(self):
        path = f"/out/{self.number}/started"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            answer = self.server.admin.get("/api/v1/files/content", query={"path": path})
            if answer.status == 200 and answer.body.strip():
                return float(answer.body)
            time.sleep(0.01)
        raise AssertionError("the job never started")

    def by_connection(self):
        began = time.time()
        self.connection.request("POST", "/kernel/trainOperator/createTask", self.body(), self.headers)
        answer = json.loads(self.connection.getresponse().read())
        assert answer["success"], answer
        return (self.started() - began) * 1e3

    def by_curl(self):
        body = self.body()
        began = time.time()
        subprocess.run(["curl", "-sf", "-o", "/dev/null", f"{self.server.url}/kernel/trainOperator/createTask",
                        "-H", f"Authorization: Bearer {self.server.admin.token}",
                        "-H", "Content-Type: application/json", "-d", body], check=True)
        return (self.started() - began) * 1e3


class SlurmJobs:
    def __init__(self, cluster):
        self.cluster, self.number = cluster, 0
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-launch-"))

    def sbatch(self):
        self.number += 1
        out = self.folder / f"started-{self.number}"
        script = self.folder / "script"
        script.write_text(f"#!/bin/sh\ndate +%s.%N > {out}\n")
        began = time.time()
        self.cluster.command("sbatch", "--parsable", "-n1", "-o", "/dev/null", str(script))
        return (wait_for(out) - began) * 1e3

    def srun(self):
        began = time.time()
        out = self.cluster.command("srun", "-n1", "date", "+%s.%N")
        return (float(out) - began) * 1e3


def main():
    with lathe.Server() as server, slurm.Slurm() as cluster:
        ours, theirs = OurJobs(server), SlurmJobs(cluster)
        ways = {"Lathe, kept-alive connection": ours.by_connection, "Lathe, curl": ours.by_curl,
                "Slurm, sbatch": theirs.sbatch, "Slurm, srun": theirs.srun}
        for way in ways.values():
            way()
        measure.heading(f"From submission to the running process, one at a time, {ROUNDS} rounds")
        times = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                times[name].append(way())
                time.sleep(0.05)
        for name, values in times.items():
            print(f"  {name:<34} {measure.spread(values)}")
        median = {name: statistics.median(values) for name, values in times.items()}
        measure.figure("Lathe, median", median["Lathe, kept-alive connection"], "ms", ("<=", 20))
        best = min(median["Slurm, sbatch"], median["Slurm, srun"])
        measure.figure("Slurm's quicker way : Lathe by curl", best / median["Lathe, curl"], "×", (">=", 1))


if __name__ == "__main__":
    sys.exit(main())
