"""The life of replicas: readiness, failures and their reasons, kills of a replica and of the server."""

import signal
import time

import pytest

import lathe
from lathe import wait_until
from services import QUICK, Load, Service, signal_replica, version


@pytest.fixture(scope="module")
def server():
    with lathe.Server(config=QUICK) as running:
        yield running


def test_no_traffic_before_it_is_ready(user):
    # It listens at once and answers 503 for a second: only with readyPath that is not taken for ready.
    service = Service(user, version(env={"LOADING": 1}, readyPath="/health"))
    assert service.get().ok()["version"] == "1"
    service.delete()


def test_a_replica_that_dies_under_load_fails_no_idempotent_request(user):
    service = Service(user, version(minimum=2, maximum=2)).wait_ready(2)
    with Load(service, clients=6, path="/?work=0.02") as load:
        for _ in range(3):
            time.sleep(0.4)
            assert service.user.post(f"/serve/{service.name}/die").status == 200
            wait_until(lambda: len(service.replicas("ready")) < 2, what="its end")
            service.wait_ready(2)
    assert not load.failures, load.failures[:5]
    assert len(service.replicas("ended")) >= 3
    assert service.replicas("ended")[-1]["reason"] == "ExitCode 137"
    service.delete()


def test_the_only_replica_dies_and_requests_wait_for_the_next(user):
    service = Service(user, version()).wait_ready()
    with Load(service, clients=2, path="/?work=0.02") as load:
        time.sleep(0.3)
        service.user.post(f"/serve/{service.name}/die")
        wait_until(lambda: service.replicas("ended"), what="its end")
        service.wait_ready()
        time.sleep(0.3)
    assert not load.failures, load.failures[:5]
    service.delete()


def test_failures_are_told_with_the_last_lines_and_answered_more_and_more_slowly(user):
    service = Service(user, version(command="for i in 1 2 3; do echo line $i; done; exit 4 # $PORT"))
    wait_until(lambda: len(service.replicas("ended")) >= 3, what="three failures")
    wait_until(lambda: service.shown_version()["status"] == "Failed", what="the status")
    shown = service.shown_version()
    assert shown["statusReason"].startswith("BackOff: ExitCode 4")
    assert "line 3" in shown["replicas"][-1]["log"]
    answer = service.get()
    assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0 and "in a row" in answer.text
    assert len(service.replicas()) <= 6
    service.delete()


def test_out_of_memory_is_told(user):
    service = Service(user, version()).wait_ready()
    service.user.post(f"/serve/{service.name}/fill")
    ended = wait_until(lambda: service.replicas("ended"), what="its end")
    assert ended[0]["reason"] == "OutOfMemory", ended
    service.wait_ready()
    assert [e for e in service.events("replica") if e["reason"] == "OutOfMemory"]
    service.delete()


def test_one_that_no_longer_listens_is_replaced(user):
    service = Service(user, version(minimum=2, maximum=2)).wait_ready(2)
    with Load(service, clients=2, pause=0.01) as load:
        service.user.post(f"/serve/{service.name}/deaf")
        unready = wait_until(lambda: service.replicas("unready", "ended"), what="its finding")[0]
        assert unready["reason"] == "NotAnswering"
        wait_until(lambda: service.replicas("ended"), what="its end")
        service.wait_ready(2)
    assert not load.failures, load.failures[:5]
    ended = service.replicas("ended")[0]
    assert ended["reason"] == "NotAnswering" and "refused" in ended["detail"]
    service.delete()


def hanging(**serving):
    """Finds a replica that hangs within seconds."""
    return lathe.Server(config={**QUICK, "serving": {**QUICK["serving"], "stallTimeout": "1s", "drainTimeout": "1s",
                                                     **serving}})


def test_one_that_hangs_gets_nothing_until_it_answers_again():
    with hanging(failingTimeout="10m") as server:
        service = Service(server.new_user(), version(readyPath="/health")).wait_ready()
        replica = service.replicas("ready")[0]
        with Load(service, clients=3, path="/?work=0.02") as load:
            signal_replica(replica, signal.SIGSTOP)
            unready = wait_until(lambda: service.replicas("unready"), what="its finding")[0]
            assert unready["id"] == replica["id"] and unready["reason"] == "NotAnswering"
            assert "has not answered" in unready["detail"] and "under way, without progress" in unready["detail"]
            assert service.shown()["statusReason"] == f"NotAnswering — {unready['detail']}"
            signal_replica(replica, signal.SIGCONT)
            service.wait_ready()
            answered = len(load.answers)
            wait_until(lambda: len(load.answers) > answered + 3, what="answers")
        assert not load.failures, load.failures[:5]
        assert [r["id"] for r in service.replicas()] == [replica["id"]]
        service.delete()


def test_the_only_one_hangs_and_is_replaced():
    with hanging(failingTimeout="1s") as server:
        service = Service(server.new_user(), version(readyPath="/health")).wait_ready()
        replica = service.replicas("ready")[0]
        with Load(service, clients=3, path="/?work=0.02") as load:
            signal_replica(replica, signal.SIGSTOP)
            found = wait_until(lambda: [r for r in service.replicas() if r["id"] == replica["id"] and r["state"] != "ready"],
                               what="its finding")[0]
            assert found["reason"] == "NotAnswering"
            service.wait_ready()
            wait_until(lambda: service.replicas("ended"), what="its end")
        # Those that were stuck may be repeated, and were, when it ended.
        assert not load.failures, load.failures[:5]
        assert service.replicas("ended")[0]["reason"] == "NotAnswering"
        assert [e for e in service.events("replica") if e["reason"] == "NotAnswering"]
        service.delete()


def test_of_two_that_one_hangs_harms_only_the_requests_it_has():
    with hanging(failingTimeout="1s") as server:
        service = Service(server.new_user(), version(minimum=2, maximum=2, readyPath="/health")).wait_ready(2)
        hung = service.replicas("ready")[0]
        with Load(service, clients=4, path="/?work=0.02", timeout=3) as load:
            wait_until(lambda: len(load.answers) > 10, what="answers of both")
            signal_replica(hung, signal.SIGSTOP)
            found = wait_until(lambda: [r for r in service.replicas() if r["id"] == hung["id"] and r["reason"]],
                               what="its finding")[0]
            assert found["reason"] == "NotAnswering" and "has not answered" in found["detail"]
            before = len(load.failures)
            service.wait_ready(2)
            assert len(load.failures) == before, load.failures
        # Each client met it once at most, since given-up requests count as under way.
        assert len(load.failures) <= 4 and all("timed out" in why for _, why in load.failures), load.failures
        service.delete()


def test_ports_are_given_without_collision(user):
    service = Service(user, version(minimum=4, maximum=4, name="a")).wait_ready(4)
    other = Service(user, version(minimum=3, maximum=3, name="b")).wait_ready(3)
    ports = [r["port"] for s in (service, other) for r in s.replicas("ready")]
    assert len(set(ports)) == 7
    seen = {other.get().ok()["version"] for _ in range(20)}
    assert seen == {"b"}
    service.delete()
    other.delete()


def test_kill_of_the_server_leaves_the_replicas_and_doubles_none():
    with lathe.Server(config=QUICK) as server:
        user = server.new_user()
        service = Service(user, version(minimum=2, maximum=2)).wait_ready(2)
        asleep = Service(user, version(minimum=0)).wait_ready()
        asleep.wait_status("Sleeping")
        before = {r["id"] for r in service.replicas("ready")}
        started = {service.get().ok()["executed"] for _ in range(8)}
        for _ in range(3):
            server.restart(kill=True)
            user.__dict__.update(host=server.admin.host, port=server.admin.port, url=server.url)
            # They serve from the first moment, without a probe.
            assert service.get().ok()["executed"] in started
        time.sleep(1)
        assert {r["id"] for r in service.replicas("ready", "starting", "unready")} == before
        assert asleep.shown_version()["status"] == "Sleeping"
        assert asleep.get().ok()["version"] == "1"
        service.delete()
        asleep.delete()


def test_kill_of_the_server_while_a_replica_starts_or_drains():
    with lathe.Server(config=QUICK) as server:
        user = server.new_user()
        service = Service(user, version(minimum=2, maximum=2, env={"START_DELAY": 0.3}))
        for count in (1, 3, 2):
            service.change(v0={"minReplicas": count, "maxReplicas": count})
            time.sleep(0.1)
            server.restart(kill=True)
            user.__dict__.update(host=server.admin.host, port=server.admin.port, url=server.url)
        service.wait_ready(2)
        wait_until(lambda: len(service.replicas("ready", "starting", "draining", "stopping", "unready")) == 2,
                   what="the surplus' end")
        service.delete()
