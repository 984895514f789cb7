"""What the benchmarks share: reading a process's cost from /proc, driving wrk, and printing figures.

Every figure is printed with its unit and, where there is a goal, whether it was met. A benchmark never fails
because a figure is poor: that is for its reader to judge, on a machine whose load they know.
"""

import os
import pathlib
import re
import socket
import statistics
import subprocess
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processor_seconds(pid):
    """What the threads that a process has now have spent, by the scheduler's own account: to the microsecond."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass
    return total / 1e9


def cpu_seconds(pid):
    """User and system time of a process, its threads and the children it has waited for."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(value) for value in fields[11:15]) / TICKS


def tree_cpu_seconds(pid):
    """The same of a process and all that descend from it."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total, waiting = 0.0, [pid]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            total += cpu_seconds(process)
        except OSError:
            pass
    return total


def resident_mib(pid):
    """Resident memory now, in MiB."""
    return _status_kib(pid, "VmRSS") / 1024


def peak_mib(pid):
    """The most resident memory since the process began or forget_peak() was called, in MiB."""
    return _status_kib(pid, "VmHWM") / 1024


def forget_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status_kib(pid, field):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB$", text, re.M).group(1))


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def wrk(url, script, connections=64, threads=2, seconds=10, timeout=10):
    """Runs wrk with a Lua script; gives its figures: requests, seconds, per_second, errors, p50_ms, p99_ms."""
    report = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("FIGURES %d %d %d %d %f %f\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.timeout, e.status, latency:percentile(50), latency:percentile(99)))
end
"""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + report)
        file.flush()
        out = subprocess.run(["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s",
                              "--timeout", f"{timeout}s", "-s", file.name, url],
                             check=True, capture_output=True, text=True).stdout
    figures = re.search(r"^FIGURES (.*)$", out, re.M).group(1).split()
    requests, micros, broken, refused = (int(value) for value in figures[:4])
    return {"requests": requests, "seconds": micros / 1e6, "per_second": requests / (micros / 1e6),
            "errors": broken + refused, "p50_ms": float(figures[4]) / 1e3, "p99_ms": float(figures[5]) / 1e3}


def figure(name, value, unit, goal=None, digits=1):
    """One line of a report. `goal`: ("<=" or ">=", figure)."""
    verdict = ""
    if goal:
        met = value <= goal[1] if goal[0] == "<=" else value >= goal[1]
        verdict = f"   goal {goal[0]} {goal[1]:g}: {'met' if met else 'NOT MET'}"
    print(f"  {name:<58} {value:>12,.{digits}f} {unit:<6}{verdict}", flush=True)


def spread(values, unit="ms"):
    """'median 3.1 ms (2.9 … 4.0, p99 3.9)'"""
    return (f"median {statistics.median(values):.2f} {unit} "
            f"({min(values):.2f} … {max(values):.2f}, p99 {percentile(values, 0.99):.2f})")


def heading(text):
    load = os.getloadavg()[0]
    print(f"\n{text}   [{os.cpu_count()} cores, load {load:.1f} before]", flush=True)


class Stopwatch:
    def __enter__(self):
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.started
