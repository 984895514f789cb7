"""Changing a running service under load: shares, bounds, a new version, and back. No request may fail."""

import time

import pytest

import lathe
from lathe import wait_until
from services import CREATE, QUICK, SAVE, Load, Service, version


@pytest.fixture(scope="module")
def server():
    with lathe.Server(config=QUICK) as running:
        yield running


def test_shares_change_at_once_and_nothing_fails(user):
    service = Service(user, version(rate=50, name="a"), version(rate=50, name="b"))
    service.wait_ready(index=0).wait_ready(index=1)
    took = []
    with Load(service, clients=4, pause=0.002) as load:
        for share in (100, 0, 30, 50):
            begun = time.monotonic()
            service.change(v0={"rate": share}, v1={"rate": 100 - share})
            changed = time.monotonic()
            took.append(changed - begun)
            time.sleep(0.5)
            if share == 100:
                wait_until(lambda: not service.replicas("ready", index=1), what="b's end")
                assert load.versions_since(changed) == {"a"}
            if share == 0:
                # b starts anew; a serves until it is ready.
                service.wait_ready(index=1)
                moment = time.monotonic()
                wait_until(lambda: load.versions_since(moment), what="answers")
                assert load.versions_since(moment) == {"b"}
            if share == 30:
                service.wait_ready(index=0)
    assert not load.failures, load.failures[:5]
    assert len(load.answers) > 100
    print("a change of shares took effect within", [f"{each * 1000:.0f} ms" for each in took])
    service.delete()


def test_a_new_version_takes_over_only_when_it_is_ready_and_the_way_back_is_open(user):
    service = Service(user, version(name="old", minimum=2, maximum=2)).wait_ready(2)
    with Load(service, clients=4, pause=0.002) as load:
        service.add(version(name="new", minimum=2, maximum=2, env={"START_DELAY": 1.5}))
        begun = time.monotonic()
        while time.monotonic() < begun + 1.2:
            assert len(service.replicas("ready", index=0)) == 2, "the stable version was shrunk first"
            time.sleep(0.05)
        shown = service.shown()["modelServerVersions"]
        assert [v["rate"] for v in shown] == [0, 100]
        assert (shown[0]["status"], shown[0]["statusReason"]) == ("Running", "Retiring")
        service.wait_ready(2, index=1)
        wait_until(lambda: not service.replicas("ready", "draining", "stopping", index=0), what="the old one's end")
        moment = time.monotonic()
        wait_until(lambda: load.versions_since(moment), what="answers")
        assert load.versions_since(moment) == {"new"}

        service.change(v0={"rate": 100}, v1={"rate": 0})
        service.wait_ready(2, index=0)
        wait_until(lambda: not service.replicas("ready", index=1), what="the new one's end")
        moment = time.monotonic()
        wait_until(lambda: load.versions_since(moment), what="answers")
        assert load.versions_since(moment) == {"old"}
    assert not load.failures, load.failures[:5]
    assert [e["reason"] for e in service.events("rollout")] == ["RolledOut"] * 3
    service.delete()


def test_a_version_that_never_becomes_ready_harms_nobody(user):
    service = Service(user, version(name="good")).wait_ready()
    with Load(service, clients=2, pause=0.005) as load:
        service.add(version(name="bad", command="echo the weights are missing; exit 3 # $PORT"))
        wait_until(lambda: service.shown_version(1)["status"] == "Failed", what="its failure")
        time.sleep(0.5)
        assert service.replicas("ready", index=0)
        service.change(v0={"rate": 100}, v1={"rate": 0})
    assert not load.failures and {v for _, _, v in load.answers} == {"good"}
    failed = service.replicas("ended", index=1)[-1]
    assert failed["reason"] == "ExitCode 3" and "the weights are missing" in failed["log"]
    assert [e for e in service.events("replica") if e["reason"] == "ExitCode 3"]
    service.delete()


def test_fewer_replicas_drop_no_request(user):
    service = Service(user, version(minimum=3, maximum=3)).wait_ready(3)
    with Load(service, clients=6, path="/?work=0.3") as load:
        time.sleep(0.5)
        service.change(v0={"minReplicas": 1, "maxReplicas": 1})
        wait_until(lambda: len(service.replicas("ready", "draining", "stopping")) == 1, what="the others' end")
    assert not load.failures, load.failures[:5]
    assert service.shown_version()["predictMaxReplicas"] == 1
    service.delete()


def test_a_stopped_service_ends_what_is_under_way(user):
    service = Service(user, version()).wait_ready()
    with Load(service, clients=1, path="/?work=1") as load:
        wait_until(lambda: user.get(f"/api/v1/deployments/{service.id}/metrics").ok()["items"][0]["inFlight"], what="it")
        user.post(f"/api/v1/deployments/{service.id}/stop").ok()
        load.ending.set()
    assert len(load.answers) >= 1 and not load.failures
    answer = service.get()
    assert answer.status == 503 and "stopped" in answer.text
    service.delete()


def test_saving_a_version_starts_nothing(user):
    service = Service(user, version(name="1")).wait_ready()
    service.add(version(rate=0, name="2"), call=SAVE)
    time.sleep(0.5)
    assert service.replicas(index=1) == []
    refused = user.post(SAVE, {"modelServer": {"name": service.name},
                               "modelServerVersions": [{"modelServerId": service.id, **version(rate=10)}]})
    assert refused.status == 400 and "modelServerVersions[0].rate" in refused.json["message"], refused
    # Given with the shares of the others, in one call.
    third = service.add(version(rate=30, name="3", rates=[{"id": service.versions[0], "rate": 70}]))
    service.wait_ready(index=2)
    assert [v["rate"] for v in service.shown()["modelServerVersions"]] == [70, 0, 30]
    assert third == service.versions[2]
    service.delete()


@pytest.mark.parametrize("field, given", [
    ("rates", {"rates": [7]}),
    ("rates", {"rates": [{"id": "nothing", "rate": 5}]}),
    ("hyperParameterList", {"hyperParameterList": "7"}),
    ("hyperParameterList", {"hyperParameterList": [{"value": 1}]}),
    ("volumePath", {"volumePath": "/not/there"}),
    ("customImageFlag", {"customImageFlag": 1}),
    ("customImageFlag", {"customImageFlag": 2}),
    ("readyPath", {"readyPath": "health"}),
])
def test_what_is_wrong_with_a_version_is_named(user, field, given):
    answer = user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": "wrong"}, "modelServerVersions": [
            {"command": "x $PORT", "cpu": 1, "memory": 1, "rate": 100, **given}]})
    assert answer.status == 400 and f"modelServerVersions[0].{field}" in answer.json["message"], answer


@pytest.mark.parametrize("field", ["cpu", "memory", "gpu"])
def test_what_can_never_fit_is_named(user, field):
    sizes = {"cpu": 4096, "memory": 65536, "gpu": 64}
    answer = user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": "large"}, "modelServerVersions": [
            {"command": "x $PORT", "cpu": 1, "memory": 1, "rate": 100, field: sizes[field]}]})
    assert answer.status == 422 and f"modelServerVersions[0].{field}" in answer.json["message"], answer


def test_a_grpc_service_is_made_and_takes_no_http1(user):
    service = Service(user, version(reqMethod="grpc")).wait_ready()
    assert service.shown_version()["reqMethod"] == "grpc"
    answer = service.get()
    assert answer.status >= 400 and "gRPC" in answer.text
    refused = user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": "wrong"}, "modelServerVersions": [version(reqMethod="grpc", readyPath="/health")]})
    assert refused.status == 400 and "readyPath" in refused.json["message"], refused
    service.delete()


def test_volume_path_is_seen_by_the_replica(user):
    user.multipart("/api/file/file/uploadFolder", {"currentPath": "/weights"}, [("file", "w.bin", b"w")]).ok()
    service = Service(user, version(volumePath="/weights", command="test -f ${volume_dir}/w.bin || exit 9; "
                                    "exec /usr/bin/python3 /workspace/code/model_server.py # $PORT")).wait_ready()
    assert service.get().ok()["volume"] == "/workspace/volume"
    assert service.shown_version()["volumePath"] == "weights"
    service.delete()


def test_services_may_be_the_administrators_business():
    with lathe.Server(config={**QUICK, "serving": {**QUICK["serving"], "access": "administrators"},
                              "jobs": {"network": "none"}}) as server:
        assert "any user may start one" not in server.log_text()
        user = server.new_user()
        # Made in the user's name by an administrator.
        user.multipart("/api/file/file/uploadFolder", {"currentPath": "/code"},
                       [("file", "model_server.py", b"print(1)")]).ok()
        made = server.admin.post(CREATE, {"modelServer": {"name": "theirs", "createUser": user.id},
                                          "modelServerVersions": [version()]}).payload
        path = f"/api/v1/deployments/{made['id']}"
        assert user.get(path).ok()["createUser"] == user.id
        for refused in (user.post(CREATE, {"modelServer": {"name": "own"}, "modelServerVersions": [version()]}),
                        user.post(SAVE, {"modelServer": {"name": "own"}, "modelServerVersions": [version()]}),
                        user.patch(path, {"versions": [{"id": made["modelServerVersionIds"][0], "maxReplicas": 2}]}),
                        user.post(f"{path}/start")):
            assert refused.status == 403 and "administrators" in refused.text, refused
        user.post(f"{path}/stop").ok()
        user.delete(path).gone()
    with lathe.Server(config={"jobs": {"network": "none"}}) as server:
        assert "any user may start one" in server.log_text()
