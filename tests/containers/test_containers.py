"""Jobs and services in their own images, by a real Docker and a real Podman."""

import time

import pytest

import daemons
from lathe import Server, wait_until

ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def server(daemon):
    with Server(arguments=["--docker-socket", daemon.socket]) as running:
        yield running


@pytest.fixture(scope="module")
def user(server):
    user = server.new_user()
    user.image = daemons.import_image(user, "team/busybox", daemons.docker_archive(daemons.busybox_layer()))
    return user


def start(user, command, **more):
    return user.post("/kernel/trainOperator/createTask",
                     {"command": command, "image": user.image, "outputDir": "/out", **more}).payload["id"]


def state(user, id):
    return user.get(f"/api/v1/jobs/{id}").ok()["state"]


def log(user, id):
    return user.get(f"/api/v1/jobs/{id}/logs", query={"rank": 0}).text


def ended(user, id):
    wait_until(lambda: state(user, id) in ENDED, 90, f"the end of job {id}")
    return user.get(f"/api/v1/jobs/{id}").ok()


def gib(memory, **more):
    return [{"cpuNumber": 1, "memory": memory, "numbers": 1, **more}]


def test_a_job_runs_in_its_image_and_sees_its_directories(user):
    id = start(user, "cat /etc/inside; ls /workspace; echo result > ${output_dir}/r.txt; id -u",
               resource=gib(1))
    job = ended(user, id)
    assert job["state"] == "succeeded", (job, log(user, id))
    assert log(user, id) == "of the image\ncheckpoint\noutput\n64646\n"
    assert user.get("/api/v1/files/content", query={"path": "/out/r.txt"}).text == "result\n"


def test_a_job_over_its_memory_is_told_so(user):
    id = start(user, "head -c 3000000000 /dev/zero | tail", resource=gib(1))
    job = ended(user, id)
    assert (job["state"], job["reason"]["code"]) == ("failed", "OutOfMemory"), job


def test_a_job_is_stopped(user):
    id = start(user, "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    wait_until(lambda: log(user, id) == "up\n", 60, "the job's first line")
    user.post(f"/api/v1/jobs/{id}/stop").ok()
    assert ended(user, id)["state"] == "cancelled"
    assert log(user, id).startswith("up\n") and log(user, id).endswith("saved\n")


def test_a_job_goes_on_while_server_and_daemon_are_killed(daemon, server, user):
    id = start(user, "echo $$; while [ ! -e ${output_dir}/go ]; do sleep 0.05; done; seq 1 5000; exit 3")
    wait_until(lambda: state(user, id) == "running" and log(user, id), 60, "the job's first line")
    server.kill()
    daemon.kill()
    server.start()
    user.__dict__.update({key: value for key, value in server.client(user.token).__dict__.items()
                          if key in ("url", "host", "port")})
    assert state(user, id) == "running"
    user.multipart("/api/file/file/uploadFolder", {"currentPath": "/out"}, [("file", "go", b"")]).ok()
    job = ended(user, id)
    assert (job["state"], job["reason"]["code"]) == ("failed", "ExitCode"), job
    assert log(user, id).endswith("\n4999\n5000\n") and log(user, id).count("\n") == 5001
    daemon.start()
    wait_until(lambda: daemon.containers() == [], 60, "the removal of the containers")


def test_no_job_runs_twice_however_often_the_server_is_killed(daemon, server, user):
    ids = [start(user, f"echo {i} >> ${{output_dir}}/once.txt") for i in range(6)]
    for pause in (0.05, 0.2, 0.5):
        time.sleep(pause)
        server.restart(kill=True)
    user.__dict__.update({key: value for key, value in server.client(user.token).__dict__.items()
                          if key in ("url", "host", "port")})
    for id in ids:
        job = ended(user, id)
        assert job["state"] == "succeeded", (job, log(user, id))
    lines = user.get("/api/v1/files/content", query={"path": "/out/once.txt"}).text.split()
    assert sorted(lines) == [str(i) for i in range(6)]


def test_a_service_runs_in_its_image(user):
    """busybox's own web server: the image brings the software, the gateway finds it by the port it was told."""
    service = user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": "pages", "description": "", "createUser": user.id, "path": ""},
        "modelServerVersions": [{
            "cpu": 1, "memory": 1, "command": "echo served > /tmp/page; exec httpd -f -p ${port} -h /tmp",
            "image": user.image, "imagePorts": "8000", "envs": "[]", "rate": 100, "reqMethod": "rest",
            "gpuShare": "none", "gpu": 0, "predictMinReplicas": 1, "predictMaxReplicas": 1, "metric": 1,
            "monitorThreshold": "100", "volumes": "[]", "hyperParameterList": "null"}]}).payload["id"]

    def ready():
        row = user.post("/model/modelServer/findModelServerById", {"id": service}).payload
        return [r for v in row["modelServerVersions"] for r in v["replicas"] if r["state"] == "ready"]
    wait_until(ready, 90, "a ready replica")
    assert user.get("/serve/pages/page").text == "served\n"


def test_without_a_daemon_images_are_refused_with_the_reason():
    with Server(arguments=["--docker-socket", "none"]) as server:
        user = server.new_user()
        user.image = daemons.import_image(user, "team/busybox", daemons.docker_archive(daemons.busybox_layer()))
        answer = user.post("/kernel/trainOperator/createTask", {"command": "true", "image": user.image})
        assert answer.json["success"] is False
        assert "Docker" in answer.text
