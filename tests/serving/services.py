"""Services for tests, through the documented calls, and load on them."""

import http.client
import json
import os
import pathlib
import threading
import time
import uuid

from lathe import wait_until

CODE = pathlib.Path(__file__).with_name("model_server.py").read_bytes()
CREATE = "/model/modelServer/createModelInferenceServer"
SAVE = "/model/modelServer/createModelServer"
COMMAND = "exec /usr/bin/python3 /workspace/code/model_server.py"
# Seconds instead of minutes, and room for more replicas than a small machine has cores.
QUICK = {"serving": {"tick": "200ms", "stableWindow": "3s", "panicWindow": "600ms", "zeroGrace": "1s"},
         "capacity": {"cpu": 16, "memoryGb": 32}}


def version(rate=100, name="1", minimum=1, maximum=1, metric=2, threshold="10", env=None, **more):
    """`more`: further fields, as documented."""
    variables = [{"VERSION": name}, *[{key: str(value)} for key, value in (env or {}).items()]]
    return {"cpu": 1, "memory": 1, "command": COMMAND + " # $PORT", "rate": rate, "envs": json.dumps(variables),
            "predictMinReplicas": minimum, "predictMaxReplicas": maximum, "metric": metric,
            "monitorThreshold": threshold, "volumes": json.dumps([{"src": "/code", "dst": "/workspace/code"}]), **more}


class Service:
    def __init__(self, user, *versions, start=True, **more):
        self.user = user
        user.multipart("/api/file/file/uploadFolder", {"currentPath": "/code"},
                       [("file", "model_server.py", CODE)]).ok()
        self.name = "s-" + uuid.uuid4().hex[:12]
        created = user.post(CREATE if start else SAVE,
                            {"modelServer": {"name": self.name, **more}, "modelServerVersions": list(versions)}).payload
        self.id, self.versions = created["id"], created["modelServerVersionIds"]

    def add(self, given, call=CREATE):
        answer = self.user.post(call, {"modelServer": {"name": self.name},
                                       "modelServerVersions": [{"modelServerId": self.id, **given}]})
        created = answer.payload["modelServerVersionIds"]
        self.versions += created
        return created[0]

    def change(self, **by_version):
        """change(v0={"rate": 10}, v1={"rate": 90})"""
        changes = [{"id": self.versions[int(name[1:])], **change} for name, change in by_version.items()]
        return self.user.patch(f"/api/v1/deployments/{self.id}", {"versions": changes}).ok()

    def shown(self):
        return self.user.get(f"/api/v1/deployments/{self.id}").ok()

    def shown_version(self, index=0):
        return self.shown()["modelServerVersions"][index]

    def replicas(self, *states, index=None):
        versions = self.shown()["modelServerVersions"]
        return [replica for i, each in enumerate(versions) if index in (None, i) for replica in each["replicas"]
                if not states or replica["state"] in states]

    def wait_ready(self, count=1, index=0, timeout=60):
        wait_until(lambda: len(self.replicas("ready", index=index)) == count, timeout,
                   f"{count} ready replicas of version {index}")
        return self

    def wait_status(self, status, index=0, timeout=60):
        wait_until(lambda: self.shown_version(index)["status"] == status, timeout, status)

    def events(self, kind=None, reason=None):
        """Oldest first."""
        every = list(reversed(self.user.items(f"/api/v1/deployments/{self.id}/events")))
        return [e for e in every if kind in (None, e["kind"]) and reason in (None, e["reason"])]

    def get(self, path="/", **options):
        return self.user.get(f"/serve/{self.name}{path}", **options)

    def delete(self):
        self.user.delete(f"/api/v1/deployments/{self.id}").gone()


def signal_replica(replica, number):
    """To the process that serves, from outside of its namespaces."""
    found = []
    for process in pathlib.Path("/proc").iterdir():
        try:
            if (f"PORT={replica['port']}".encode() in (process / "environ").read_bytes().split(b"\0")
                    and b"model_server.py" in (process / "cmdline").read_bytes()):
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
    assert found, replica
    for process in found:
        os.kill(process, number)


class Load:
    """Clients that ask one after the other, each on its connection, until told to stop.

        with Load(service, clients=8) as load:
            …
        assert not load.failures
    """

    def __init__(self, service, clients=4, path="/", pause=0.0, timeout=60):
        self.service, self.path, self.pause, self.timeout = service, path, pause, timeout
        self.failures, self.answers = [], []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def run(self):
        user = self.service.user
        connection = http.client.HTTPConnection(user.host, user.port, timeout=self.timeout)
        while not self.ending.is_set():
            begun = time.monotonic()
            try:
                connection.request("GET", f"/serve/{self.service.name}{self.path}",
                                   headers={"Authorization": f"Bearer {user.token}"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    self.failures.append((response.status, body[:300]))
                else:
                    self.answers.append((begun, time.monotonic(), json.loads(body)["version"]))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((0, repr(error)))
                connection.close()
            time.sleep(self.pause)
        connection.close()

    def versions_since(self, moment):
        """Versions that answered what was asked after that moment."""
        return {version for begun, _, version in self.answers if begun > moment}
