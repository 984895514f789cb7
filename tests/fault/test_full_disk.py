"""A full disk, for real: the data directory is a small file system of its own.

What must hold: whoever asks is told (507), nothing acknowledged is lost, nothing half done is left behind, the
server lives, and everything works again as soon as there is room, without a restart.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile

import pytest

import lathe

SIZE_MIB = 48


@pytest.fixture
def small_disk():
    """A file system of 48 MiB; what is below it."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lathe-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m,mode=0755", "lathe-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


@contextlib.contextmanager
def filled(disk, leave=0):
    """No room on the disk but `leave` bytes."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        size = file.tell()
        file.truncate(max(0, size - leave))
    try:
        yield
    finally:
        ballast.unlink()


def free(disk):
    stat = os.statvfs(disk)
    return stat.f_bavail * stat.f_frsize


def upload(user, name, content):
    """By curl, which reads an answer that comes before everything was sent. The status and the answer."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        out = subprocess.run(["curl", "-s", "-w", "\n%{http_code}", f"{user.url}/file/file/uploadFolder",
                              "-H", f"Authorization: Bearer {user.token}", "-H", "Expect:",
                              "-F", "currentPath=/", "-F", f"file=@{file.name};filename={name}"],
                             capture_output=True, text=True).stdout
    body, status = out.rsplit("\n", 1)
    return int(status), body


def submit(user, command, name="job"):
    return user.post("/kernel/trainOperator/createTask", {
        "name": name, "createWay": "custom", "command": command, "outputDir": "/out",
        "resource": [{"cpuNumber": 1, "memory": 1, "nodeType": "master", "numbers": 1}]})


def ended(user, job):
    def state():
        row = user.get(f"/api/v1/jobs/{job}").ok()
        return row if row["state"] in ("succeeded", "failed", "cancelled") else None
    return lathe.wait_until(state, 60, "the end of the job")


def staged(server):
    return lathe.files_below(server.data / "users" / ".staging")


def test_an_upload_that_does_not_fit_is_told_so_and_leaves_nothing(small_disk):
    with lathe.Server(data=small_disk / "data") as server:
        user = server.new_user()
        kept = os.urandom(1 << 20)
        assert upload(user, "kept.bin", kept)[0] == 200
        before = free(small_disk)
        for _ in range(3):
            status, body = upload(user, "big.bin", bytes(SIZE_MIB << 20))
            assert status == 507 and json.loads(body)["success"] is False, (status, body)
        assert not staged(server)
        assert free(small_disk) > before - (2 << 20)
        assert user.get("/api/v1/files/content", query={"path": "/kept.bin"}).body == kept
        assert user.get("/api/v1/files/content", query={"path": "/big.bin"}).status == 404
        assert upload(user, "small.bin", b"there is room for this")[0] == 200


def test_what_cannot_be_written_down_is_not_acknowledged_and_what_was_is_kept(small_disk):
    with lathe.Server(data=small_disk / "data") as server:
        user = server.new_user()
        known = {submit(user, "true", f"before-{i}").payload["id"] for i in range(5)}
        for job in known:
            assert ended(user, job)["state"] == "succeeded"
        refused = 0
        with filled(small_disk):
            for i in range(2000):  # the database goes on in the room that it has
                answer = submit(user, "true", f"full-{i}")
                if answer.status == 200:
                    known.add(answer.payload["id"])
                else:
                    assert answer.status == 507, answer
                    refused += 1
                if refused == 50:
                    break
            assert refused > 0, "the disk was not full"
            # Reading needs no room.
            assert {job["id"] for job in user.items("/api/v1/jobs", size=200)} == known
            assert server.client().get("/healthz").status == 200
        known.add(submit(user, "true", "after").payload["id"])
        for job in known:
            assert ended(user, job)["state"] in ("succeeded", "failed")
        server.restart(kill=True)
        assert {job["id"] for job in user_again(server, user).items("/api/v1/jobs", size=200)} == known


def user_again(server, user):
    return server.client(user.token)


def test_a_job_that_fills_the_disk_fails_in_words_and_the_next_one_runs(small_disk):
    with lathe.Server(data=small_disk / "data") as server:
        user = server.new_user()
        job = submit(user, "echo begins; dd if=/dev/zero of=${output_dir}/big bs=1M count=500").payload["id"]
        end = ended(user, job)
        assert end["state"] == "failed", end
        assert "begins" in user.get(f"/api/v1/jobs/{job}/logs").text
        assert user.delete("/api/v1/files", query={"path": "/out"}).status == 204
        after = submit(user, "echo fine").payload["id"]
        assert ended(user, after)["state"] == "succeeded"
        assert "fine" in user.get(f"/api/v1/jobs/{after}/logs").text


def test_a_job_that_ends_while_the_disk_is_full_is_known_to_have_ended(small_disk):
    with lathe.Server(data=small_disk / "data") as server:
        user = server.new_user()
        job = submit(user, ": only-here; while [ ! -e ${output_dir}/go ]; do sleep 0.05; done; exit 7").payload["id"]
        lathe.wait_until(lambda: user.get(f"/api/v1/jobs/{job}").ok()["state"] == "running", what="the job's start")
        go = server.data / "users" / user.id / "private" / "out" / "go"
        with filled(small_disk, leave=4096):
            os.mknod(go)
            lathe.wait_until(lambda: not running(server), 30, "the end of its processes")
        end = ended(user, job)
        assert end["state"] == "failed" and end["reason"]["label"] == "ExitCode 7", end


def running(server):
    """Does a job's own command still run?"""
    out = subprocess.run(["pgrep", "-f", "^/bin/sh -c : only-here"], capture_output=True, text=True).stdout
    return bool(out.strip())


def test_a_start_with_a_full_disk_serves_what_there_is(small_disk):
    with lathe.Server(data=small_disk / "data") as server:
        user = server.new_user()
        assert upload(user, "kept.bin", b"kept")[0] == 200
        with filled(small_disk):
            server.restart(kill=True)
            again = user_again(server, user)
            assert again.get("/api/v1/files/content", query={"path": "/kept.bin"}).body == b"kept"
        assert upload(user_again(server, user), "more.bin", b"more")[0] == 200
