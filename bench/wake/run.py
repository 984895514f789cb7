"""What a scale from zero adds to a model's own start.

A service sleeps; a request wakes it and is answered when its replica is. The model says how long its own start took,
from the first moment of its command to its open port, START of it a fixed pause; the rest of the request's time is
what the platform adds: to notice the request, launch the process, see that it is ready, and pass the request on.
"""

import http.client
import os
import pathlib
import statistics
import sys
import time

import lathe
import measure

ROUNDS = int(os.environ.get("ROUNDS", "20"))
START = float(os.environ.get("START", "0.5"))
MODEL = pathlib.Path(__file__).with_name("model.py").read_text()
COMMAND = f"""export BEGAN=$(date +%s.%N) START={START}
cat > /tmp/model.py <<'THE_END'
{MODEL}
THE_END
exec python3 /tmp/model.py # $PORT"""
# So that it soon sleeps again; what a wake takes does not depend on them.
CONFIG = {"serving": {"tick": "200ms", "stableWindow": "1s", "panicWindow": "200ms", "zeroGrace": "200ms"}}


def create(user):
    made = user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": "sleeper"},
        "modelServerVersions": [{"command": COMMAND, "cpu": 1, "memory": 1, "image": "host", "rate": 100,
                                 "predictMinReplicas": 0, "predictMaxReplicas": 1}]})
    return made.payload["id"]


def await_sleep(user, service):
    def sleeps():
        shown = user.get(f"/api/v1/deployments/{service}").ok()
        alive = [r for v in shown["modelServerVersions"] for r in v["replicas"] if r["state"] != "ended"]
        return shown["status"] == "Sleeping" and not alive
    lathe.wait_until(sleeps, 60, "its sleep")


def wake(user):
    """The request's time and the model's own start, in milliseconds."""
    connection = http.client.HTTPConnection(user.host, user.port, timeout=60)
    connection.connect()
    began = time.perf_counter()
    connection.request("GET", "/serve/sleeper/", headers={"Authorization": f"Bearer {user.token}"})
    answer = connection.getresponse()
    body = answer.read()
    total = time.perf_counter() - began
    assert answer.status == 200, (answer.status, body)
    connection.close()
    return total * 1e3, float(body) * 1e3


def main():
    with lathe.Server(config=CONFIG) as server:
        user = server.admin
        service = create(user)
        wake(user)
        measure.heading(f"From zero, {ROUNDS} times, a model that pauses for {START:g} s at its start")
        added, own = [], []
        for _ in range(ROUNDS):
            await_sleep(user, service)
            total, start = wake(user)
            added.append(total - start)
            own.append(start)
        print(f"  {'the model itself':<34} {measure.spread(own)}")
        print(f"  {'added':<34} {measure.spread(added)}")
        measure.figure("added to the model's own start, median", statistics.median(added), "ms", ("<=", 200))
        measure.figure("added to the model's own start, most", max(added), "ms", ("<=", 200))
        lathe.wait_until(lambda: user.delete(f"/api/v1/deployments/{service}").status in (204, 404),
                         what="the replica's end")


if __name__ == "__main__":
    sys.exit(main())
