"""Autoscaling with real replicas: to zero and back, bursts, the documented metrics, and the reasons told."""

import concurrent.futures
import time

import pytest

import lathe
import nvml
from lathe import wait_until
from services import QUICK, Load, Service, version


@pytest.fixture(scope="module")
def server():
    with lathe.Server(config=QUICK) as running:
        yield running


def ask_at_once(service, count, path="/"):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: service.get(path, timeout=120), range(count)))


def test_to_zero_and_back_with_every_decision_told(user):
    service = Service(user, version(minimum=0, maximum=3)).wait_ready()
    assert service.get().ok()["version"] == "1"
    service.wait_status("Sleeping")
    assert service.shown_version()["desiredReplicas"] == 0
    assert not service.replicas("ready", "starting", "draining", "stopping")
    assert service.shown()["status"] == "Sleeping"

    overheads = []
    for _ in range(2):
        service.wait_status("Sleeping")
        begun = time.time()
        answer = service.get().ok()
        total = time.time() - begun
        own = answer["listening"] - answer["executed"]
        overheads.append(total - own)
        print(f"from zero: {total * 1000:.0f} ms, of which the model's own start took {own * 1000:.0f} ms: "
              f"{overheads[-1] * 1000:.0f} ms added")
    # The goal is 200 ms (bench/wake); a busy machine gets some more.
    assert min(overheads) < 1

    service.wait_status("Sleeping")
    scaled = [(e["reason"], e["replicasBefore"], e["replicasAfter"]) for e in service.events("scale")]
    assert scaled == [("Idle", 1, 0)] + 2 * [("Woken", 0, 1), ("Idle", 1, 0)]
    assert all(e["message"] and e["versionId"] for e in service.events("scale"))
    service.delete()


def test_a_burst_from_zero_to_a_hundred_drops_none(user):
    service = Service(user, version(minimum=0, maximum=3)).wait_ready()
    service.wait_status("Sleeping")
    # Long enough that the autoscaler looks at least once while they are all there.
    answers = ask_at_once(service, 100, "/?work=2")
    assert [a.status for a in answers if a.status != 200] == []
    assert max(e["replicasAfter"] for e in service.events("scale")) > 1
    service.delete()


def test_what_waits_is_bounded(user):
    with lathe.Server(config={**QUICK, "serving": {**QUICK["serving"], "heldRequests": 5}}) as server:
        service = Service(server.new_user(), version(minimum=0, env={"START_DELAY": 1})).wait_ready()
        service.wait_status("Sleeping")
        answers = ask_at_once(service, 20)
        refused = [a for a in answers if a.status == 503]
        assert len([a for a in answers if a.status == 200]) >= 5
        assert len(refused) >= 10 and all(int(a.headers["Retry-After"]) > 0 for a in refused), answers
        assert service.get().ok()


def test_concurrency_scales_up_and_down(user):
    # 8 at a time, 4 for a replica at 70 %: 3 replicas.
    service = Service(user, version(minimum=1, maximum=4, threshold="4")).wait_ready()
    with Load(service, clients=8, path="/?work=0.1") as load:
        service.wait_ready(3)
        time.sleep(1)
        assert len(service.replicas("ready")) == 3
        metrics = user.get(f"/api/v1/deployments/{service.id}/metrics").ok()["versions"][0]
        assert metrics["desiredReplicas"] == 3 and 6 < metrics["panic"] < 10 and metrics["target"] == pytest.approx(2.8)
    assert not load.failures
    service.wait_ready(1)
    wait_until(lambda: len(service.replicas("ready", "starting", "draining", "stopping")) == 1, what="the others' end")
    reasons = [e["reason"] for e in service.events("scale")]
    assert "Burst" in reasons or "Load" in reasons, reasons
    assert service.events("scale")[-1]["replicasAfter"] == 1
    assert "concurrency" in service.events("scale")[0]["message"]
    service.delete()


def test_requests_a_second_scale_up_to_the_maximum(user):
    service = Service(user, version(minimum=1, maximum=2, metric=1, threshold="5")).wait_ready()
    with Load(service, clients=2, pause=0.02) as load:
        service.wait_ready(2)
        wait_until(lambda: service.events("scale"), what="a decision")
        time.sleep(1)
        assert service.shown_version()["desiredReplicas"] == 2
    assert not load.failures
    told = service.events("scale")[0]
    assert told["reason"] == "AtMaximum" and "requests per second" in told["message"] and "maximum is 2" in told["message"]
    service.delete()


def test_a_long_request_keeps_it_awake(user):
    service = Service(user, version(minimum=0, metric=1)).wait_ready()
    # Longer than the idle window and the grace together.
    assert service.get("/?work=6").ok()["version"] == "1"
    assert service.events("scale") == []
    service.wait_status("Sleeping")
    service.delete()


def test_gpu_utilisation_needs_whole_gpus(user):
    answer = user.post("/model/modelServer/createModelInferenceServer", {
        "modelServer": {"name": "g"}, "modelServerVersions": [
            {"command": "x $PORT", "cpu": 1, "memory": 1, "metric": 3, "monitorThreshold": "50"}]})
    assert answer.status == 400 and "modelServerVersions[0].metric" in answer.json["message"], answer


def test_gpu_utilisation_scales_up_and_down():
    with nvml.double() as folder:
        load = folder / "load"
        load.write_text("5")
        environment = {"LD_LIBRARY_PATH": str(folder), "NVML_DOUBLE_LOAD": str(load)}
        with lathe.Server(config=QUICK, environment=environment) as server:
            service = Service(server.new_user(), version(minimum=1, maximum=2, metric=3, threshold="50", gpu=1,
                                                         gpuShare="none")).wait_ready()
            load.write_text("90")
            service.wait_ready(2, timeout=20)
            # Each of two at 5 %: one would do.
            load.write_text("5")
            wait_until(lambda: service.shown_version()["desiredReplicas"] == 1, 20, "one replica again")
            service.wait_ready(1, timeout=20)
            told = [e for e in service.events("scale") if e["replicasBefore"] != e["replicasAfter"]]
            assert [(e["replicasBefore"], e["replicasAfter"]) for e in told] == [(1, 2), (2, 1)]
            assert all("GPU utilisation" in e["message"] for e in told), told
            service.delete()
