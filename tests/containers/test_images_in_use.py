"""What a service or a job uses stays; what nothing needs any more goes from the store and from the daemon."""

import hashlib
import os

import pytest

import daemons
import registry
from lathe import Server, wait_until

# Nothing that no tag leads to is kept for later.
AT_ONCE = {"images": {"unusedLifetime": "0s", "sweepInterval": "200ms"}}


@pytest.fixture(scope="module")
def server(daemon):
    with Server(config=AT_ONCE, arguments=["--docker-socket", daemon.socket]) as running:
        yield running


def bring(server, user, name, tag):
    """A busybox that nobody else has: name:tag, and what the daemon will call it."""
    layer = daemons.busybox_layer(one=os.urandom(100))
    daemons.import_image(user, name, daemons.docker_archive(layer), tag)
    manifest = registry.Repository(server, user, name).get_manifest(tag).body
    owner = hashlib.sha256(str(server.data / "containers").encode()).hexdigest()[:10]
    return f"{name}:{tag}", f"lathe.local/{owner}/image:" + hashlib.sha256(manifest).hexdigest()


def image_id(user, name):
    rows = user.post("/docker/image/findListSort", {"pageNum": 1, "imageName": name}).payload["rows"]
    return next(row["id"] for row in rows if row["imageName"] == name)


def serve(user, image, name):
    return user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": name, "description": "", "createUser": user.id, "path": ""},
        "modelServerVersions": [{
            "cpu": 1, "memory": 1, "command": "echo served > /tmp/page; exec httpd -f -p ${port} -h /tmp",
            "image": image, "imagePorts": "8000", "envs": "[]", "rate": 100, "reqMethod": "rest",
            "gpuShare": "none", "gpu": 0, "predictMinReplicas": 1, "predictMaxReplicas": 1, "metric": 1,
            "monitorThreshold": "100", "volumes": "[]", "hyperParameterList": "null"}]}).payload["id"]


def replicas(user, service, state="ready"):
    row = user.post("/model/modelServer/findModelServerById", {"id": service}).payload
    return [r["id"] for v in row["modelServerVersions"] for r in v["replicas"] if r["state"] == state]


def test_a_services_image_stays_and_goes_after_it(daemon, server):
    user = server.new_user()
    image, loaded = bring(server, user, "web", "1.0")
    bring(server, user, "web", "other")
    name = f"pages-{daemon.kind}"
    service = serve(user, image, name)
    wait_until(lambda: replicas(user, service), 90, "a ready replica")
    assert user.get(f"/serve/{name}/page").text == "served\n"
    assert loaded in daemon.image_names()
    at = f"/api/v1/images/{image_id(user, 'web')}"
    for path in (at, at + "/tags/1.0"):
        answer = user.delete(path)
        assert answer.expect(409)["code"] == "failed_precondition"
        assert f"is used by the service {name}" in answer.text
    mine = registry.Repository(server, user, "web")
    assert mine.request("DELETE", mine.at("manifests/1.0")).status == 409
    user.delete(at + "/tags/other").gone()

    # The tag moves on; the service does not: what it runs from is there for its next replica.
    bring(server, user, "web", "1.0")
    digest = "sha256:" + loaded.rpartition(":")[2]
    assert mine.request("DELETE", mine.at(f"manifests/{digest}")).status == 409
    assert mine.get_manifest(digest).status == 200
    server.restart()
    user.__dict__.update({key: value for key, value in server.client(user.token).__dict__.items()
                          if key in ("url", "host", "port")})
    mine = registry.Repository(server, user, "web")
    assert mine.get_manifest(digest).status == 200 and loaded in daemon.image_names()

    user.delete(f"/api/v1/deployments/{service}").gone()
    wait_until(lambda: mine.get_manifest(digest).status == 404, 60, "the collection of what the service used")
    wait_until(lambda: loaded not in daemon.image_names(), 60, "the image's end in the daemon")
    user.delete(at).gone()


def test_an_image_leaves_the_daemon_with_the_store_but_not_a_container(daemon, server):
    user = server.new_user()
    image, loaded = bring(server, user, "tool", "1")
    foreign = "registry.example/theirs:1"
    job = user.post("/kernel/trainOperator/createTask",
                    {"command": "true", "image": image, "outputDir": "/out"}).payload["id"]
    wait_until(lambda: user.get(f"/api/v1/jobs/{job}").ok()["state"] == "succeeded", 90, "the job's end")
    assert loaded in daemon.image_names()
    # Somebody else makes a container of it, and calls it by a name of their own.
    status, made = daemon.request("POST", "/containers/create?name=theirs", {"Image": loaded, "Cmd": ["true"]})
    assert status == 201, made
    repository, _, tag = foreign.rpartition(":")
    assert daemon.request("POST", f"/images/{loaded}/tag?repo={repository}&tag={tag}")[0] == 201
    user.delete(f"/api/v1/images/{image_id(user, 'tool')}").gone()
    other, theirs = bring(server, user, "second", "1")
    job = user.post("/kernel/trainOperator/createTask",
                    {"command": "true", "image": other, "outputDir": "/out"}).payload["id"]
    wait_until(lambda: user.get(f"/api/v1/jobs/{job}").ok()["state"] == "succeeded", 90, "the job's end")
    user.delete(f"/api/v1/images/{image_id(user, 'second')}").gone()
    wait_until(lambda: theirs not in daemon.image_names(), 60, "the second image's end in the daemon")
    assert daemon.get("/containers/theirs/json")[0] == 200
    assert daemon.request("DELETE", "/containers/theirs")[0] in (200, 204)
    wait_until(lambda: loaded not in daemon.image_names(), 60, "the first image's end in the daemon")
    assert foreign in daemon.image_names()
