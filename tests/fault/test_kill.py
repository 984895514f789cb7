"""kill -9 of the server at random moments, while users upload, import, submit, run and delete.

What must hold afterwards, however often it happened: everything that was acknowledged is there, whole; nothing runs
twice; nothing runs that nobody knows; nothing half done is left behind.
"""

import hashlib
import json
import os
import pathlib
import random
import sqlite3
import threading
import time

import pytest

import archives
import lathe

KILLS = int(os.environ.get("LATHE_KILLS", "200"))
SLOW_KILLS = 500
ANSWERED_NOTHING = (OSError, EOFError, json.JSONDecodeError, __import__("http").client.HTTPException)


class Ledger:
    """What the server has acknowledged, and what it may or may not have done when it was killed."""

    def __init__(self):
        self.lock = threading.Lock()
        self.uploads, self.jobs, self.models, self.images, self.services = {}, {}, {}, {}, {}
        self.deleted, self.maybe_deleted = set(), set()  # keys of those books
        self.maybe_uploads, self.used_uploads = {}, set()
        self.refusals = []

    def note(self, book, key, value):
        with self.lock:
            book[key] = value


class Worker(threading.Thread):
    """One user who does things at random until told to stop. A connection that breaks is the server's death."""

    def __init__(self, server, ledger, token, user_id, seed, stop):
        super().__init__(daemon=True)
        self.server, self.ledger, self.token, self.user_id = server, ledger, token, user_id
        self.random, self.stop = random.Random(seed), stop
        self.count, self.seed = 0, seed

    def run(self):
        while not self.stop.wait(self.random.uniform(0, 0.15)):
            self.count += 1
            act = self.random.choice([self.upload, self.upload, self.submit, self.submit, self.register, self.import_image,
                                      self.save_service, self.delete_job, self.delete_other])
            try:
                act(self.server.client(self.token), f"{self.seed}-{self.count}")
            except ANSWERED_NOTHING:
                time.sleep(0.01)

    def refused(self, answer):
        if answer.status >= 500 and answer.status != 503:
            self.ledger.refusals.append(repr(answer))

    def upload(self, client, name):
        content = self.random.randbytes(self.random.choice([10, 5_000, 400_000]))
        files = [("file", f"up/{name}/a.bin", content), ("file", f"up/{name}/b.bin", content[::-1])]
        digest = hashlib.sha256(content).hexdigest()
        self.ledger.note(self.ledger.maybe_uploads, name, digest)
        answer = client.multipart("/api/file/file/uploadFolder", {"currentPath": "/"}, files)
        if answer.status == 200:
            self.ledger.note(self.ledger.uploads, name, digest)
        else:
            self.refused(answer)

    def submit(self, client, name):
        seconds = self.random.choice([0, 0.05, 0.3])
        answer = client.post("/kernel/trainOperator/createTask", {
            "name": f"job-{name}", "createWay": "custom", "outputDir": f"/out/{name}",
            "command": f"echo run >> ${{output_dir}}/started; sleep {seconds}; echo end; echo end >> ${{output_dir}}/ended",
            "resource": [{"cpuNumber": 1, "memory": 1, "nodeType": "master", "numbers": 1}]},
            headers={"Idempotency-Key": f"key-{name}"})
        if answer.status == 200:
            self.ledger.note(self.ledger.jobs, answer.payload["id"], name)
        else:
            self.refused(answer)

    def register(self, client, name):
        upload = self.one_of(self.ledger.uploads, claim=self.ledger.used_uploads)
        if not upload:
            return
        answer = client.post("/model/aiApplication/createAiApplication", {
            "application": {"name": f"model-{name}", "type": "LLM"},
            "aiApplicationVersionList": [{"applicationName": f"model-{name}", "version": "1", "source": 3, "saveType": 2,
                                          "savePath": f"/up/{upload}"}],
            "hyperParameterList": []})
        if answer.status == 200:
            version = answer.payload["aiApplicationVersionList"][0]
            self.ledger.note(self.ledger.models, (version["applicationId"], version["id"]), name)
        else:
            self.refused(answer)

    def import_image(self, client, name):
        up = client.multipart("/api/file/file/uploadFolder", {"currentPath": "/images"},
                              [("file", f"{name}.tar", archives.docker_archive([archives.tar({"etc/tag": name.encode() * 500})]))])
        if up.status != 200 or client.post("/docker/image/upload", {"imageName": f"img/{name}", "userId": self.user_id}).status != 200:
            return
        answer = client.post("/docker/image/uploadOld", {"userId": self.user_id, "imageName": f"img/{name}",
                                                         "imageTag": "1", "fileUrl": f"images/{name}.tar"})
        if answer.status == 200:
            found = client.post("/docker/image/findListSort", {"pageNum": 1, "pageSize": 500, "imageName": f"img/{name}"})
            if found.status == 200:
                record = next(row["id"] for row in found.payload["rows"] if row["imageName"] == f"img/{name}")
                self.ledger.note(self.ledger.images, (record, f"img/{name}"), name)
        else:
            self.refused(answer)

    def save_service(self, client, name):
        answer = client.post("/model/modelServer/createModelServer", {
            "modelServer": {"name": f"service-{name}"},
            "modelServerVersions": [{"command": "true # $PORT", "cpu": 1, "memory": 1, "image": "host", "rate": 100}]})
        if answer.status == 200:
            self.ledger.note(self.ledger.services, answer.payload["id"], name)
        else:
            self.refused(answer)

    def one_of(self, book, claim):
        """One of this user's that is not spoken for, which it then is."""
        with self.ledger.lock:
            spoken_for = self.ledger.maybe_deleted | (self.ledger.used_uploads if book is self.ledger.uploads else set())
            mine = [key for key, name in book.items() if (name if book is not self.ledger.uploads else key)
                    .startswith(f"{self.seed}-") and key not in spoken_for]
            one = self.random.choice(mine) if mine else None
            if one:
                claim.add(one)
            return one

    def delete(self, client, book, path, query=None):
        key = self.one_of(book, claim=self.ledger.maybe_deleted)
        # What was not answered is asked for once more, sometimes: a deletion may be repeated.
        for _ in range(self.random.choice([1, 2]) if key else 0):
            answer = client.delete(path(key), query=query(key) if query else None)
            if answer.status in (200, 204, 404):
                self.ledger.deleted.add(key)
            else:
                self.refused(answer)

    def delete_job(self, client, _):
        self.delete(client, self.ledger.jobs, lambda job: f"/api/v1/jobs/{job}")

    def delete_other(self, client, _):
        self.random.choice([
            lambda: self.delete(client, self.ledger.uploads, lambda _: "/api/v1/files", lambda name: {"path": f"/up/{name}"}),
            lambda: self.delete(client, self.ledger.models, lambda model: f"/api/v1/models/{model[0]}"),
            lambda: self.delete(client, self.ledger.services, lambda service: f"/api/v1/deployments/{service}"),
            lambda: self.delete(client, self.ledger.images, lambda image: f"/api/v1/images/{image[0]}")])()


def supervisors_of(data):
    """Processes that work below this data directory, by /proc."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                cwd = os.readlink(entry / "cwd")
            except OSError:
                continue
            if cwd.startswith(str(data)):
                found.append((entry.name, cwd))
    return found


def all_jobs(client):
    return {job["id"]: job for job in client.items("/api/v1/jobs", size=200)}


def check(server, ledger, users):
    """Lets everything come to its end, then looks at all of it."""
    tokens = {user.id: server.client(user.token) for user in users}
    clients = list(tokens.values())

    def jobs_now():
        found = {}
        for client in clients:
            found.update(all_jobs(client))
        return found
    lathe.wait_until(lambda: all(j["state"] in ("succeeded", "failed", "cancelled") for j in jobs_now().values()),
                     300, "the end of all jobs")
    jobs = jobs_now()

    lost = [i for i in ledger.jobs if i not in jobs and i not in ledger.maybe_deleted]
    assert not lost, f"acknowledged jobs are gone: {lost}"
    undead = [i for i in ledger.deleted if i in jobs]
    assert not undead, f"deleted jobs are back: {undead}"
    for user, client in zip(users, clients):
        root = server.data / "users" / user.id / "private"
        for job_id, name in ledger.jobs.items():
            if job_id not in jobs or not name.startswith(f"{user.seed}-"):
                continue
            job = jobs[job_id]
            started = (root / "out" / name / "started")
            runs = started.read_text().count("run") if started.exists() else 0
            if job["state"] == "succeeded":
                assert runs == 1, f"{job} ran {runs} times"
                assert (root / "out" / name / "ended").read_text() == "end\n", job
                log = client.get(f"/api/v1/jobs/{job_id}/logs").text
                assert log.count("end") == 1, (job, log)
            else:
                assert job_id in ledger.maybe_deleted, f"{job} did not succeed"
                assert runs <= 1, f"{job} ran {runs} times"
        for name, digest in ledger.maybe_uploads.items():
            if not name.startswith(f"{user.seed}-"):
                continue
            assert name not in ledger.deleted or not (root / "up" / name).exists(), f"the deleted up/{name} is back"
            for file, turn in (("a.bin", 1), ("b.bin", -1)):
                path = root / "up" / name / file
                if path.exists():
                    assert hashlib.sha256(path.read_bytes()[::turn]).hexdigest() == digest, f"{path} is not whole"
                else:
                    assert name not in ledger.uploads or name in ledger.maybe_deleted, f"the acknowledged {path} is gone"

        def mine(book):
            return [key for key, name in book.items() if name.startswith(f"{user.seed}-")]

        def stands(key, answer):
            """Whether it is there, as it must or must not be."""
            assert answer.status in (200, 404), (key, answer)
            assert answer.status == 404 or key not in ledger.deleted, f"the deleted {key} is back"
            assert answer.status == 200 or key in ledger.maybe_deleted, f"the acknowledged {key} is gone"
            return answer.status == 200
        for key in mine(ledger.models):
            if stands(key, client.get(f"/api/v1/models/{key[0]}")):
                detail = f"/model/aiApplicationVersion/getAiApplicationVersionDetail?aiApplicationVersionId={key[1]}"
                lathe.wait_until(lambda: client.get(detail).payload["status"] != 1, 60, f"the import of {key}")
                assert client.get(detail).payload["status"] == 2, client.get(detail).text
        for key in mine(ledger.images):
            if stands(key, client.get(f"/api/v1/images/{key[0]}")):
                def row():
                    rows = client.post("/docker/image/findListSort", {"pageNum": 1, "pageSize": 500, "imageName": key[1]}).payload["rows"]
                    return next(r for r in rows if r["imageName"] == key[1])
                lathe.wait_until(lambda: row()["imageStatus"] in (1, 3), 60, f"the import of {key}")
                assert row()["imageStatus"] == 1, row()
        for key in mine(ledger.services):
            stands(key, client.get(f"/api/v1/deployments/{key}"))

    lathe.wait_until(lambda: not supervisors_of(server.data), 30, "the end of all supervisors")
    try:
        lathe.wait_until(lambda: not left_behind(server.data), 30)
    except AssertionError:
        assert not left_behind(server.data)[:5]


def left_behind(data):
    """What is on the disk, and of nothing that the database knows."""
    with sqlite3.connect(f"file:{data / 'lathe.db'}?mode=ro", uri=True) as db:
        def known(sql):
            return {row[0] for row in db.execute(sql)}
        blobs = known("SELECT digest FROM image_blobs UNION SELECT digest FROM image_manifests "
                      "UNION SELECT digest FROM image_loose_blobs")
        jobs, versions = known("SELECT id FROM jobs"), known("SELECT id FROM model_versions")
        runs = known("SELECT run_id FROM job_runs")
    found = [path for folder in ("users/.staging", "models/.staging", "images/.staging", "images/.uploads")
             for path in lathe.files_below(data / folder)]
    found += [path for path in (data / "images/blobs/sha256").iterdir() if f"sha256:{path.name}" not in blobs]
    found += [path for path in (data / "jobs").iterdir() if path.name not in jobs]
    found += [path for path in (data / "models").glob("[!.]*/*") if path.name not in versions]
    return found + [path for path in (data / "engine").iterdir() if path.name not in runs]


def hunt(kills, seed):
    chance = random.Random(seed)
    # As many cores as it likes: what is tested is not the queue.
    server = lathe.Server()
    with server:
        server.admin.patch("/api/v1/resource-groups/default", {"capacity": {"cpu": 64, "memoryGb": 64}})
        users = [server.new_user() for _ in range(3)]
        for index, user in enumerate(users):
            user.seed = f"u{index}"
        ledger, stop = Ledger(), threading.Event()
        workers = [Worker(server, ledger, user.token, user.id, user.seed, stop) for user in users]
        for worker in workers:
            worker.start()
        for _ in range(kills):
            time.sleep(chance.uniform(0.0, 0.35))
            server.restart(kill=True)
        stop.set()
        for worker in workers:
            worker.join(60)
        books = {"uploads": ledger.uploads, "jobs": ledger.jobs, "models": ledger.models, "images": ledger.images,
                 "services": ledger.services}
        done = {name: len(book) for name, book in books.items()}
        gone = {name: len(ledger.deleted & set(book)) for name, book in books.items()}
        print(f"{kills} kills; acknowledged: {done}, deleted again: {gone}")
        assert not ledger.refusals, ledger.refusals[:3]
        assert done["jobs"] >= kills // 4 and min(done.values()) >= kills // 16, done
        assert gone["jobs"] >= kills // 16 and min(gone.values()) >= kills // 64, gone
        check(server, ledger, users)


def test_nothing_is_lost_doubled_or_orphaned_by_kill_9():
    hunt(KILLS, seed=1)


@pytest.mark.slow
def test_nothing_is_lost_by_hundreds_of_kills():
    hunt(SLOW_KILLS, seed=2)
