"""Sessions, API keys, users, the audit trail: who may do what, and what stops at once."""

import base64
import concurrent.futures
import time

import lathe
import pytest


def test_log_in_gives_a_token_that_works_and_log_out_ends_it(server, user):
    assert user.get("/api/v1/me").ok() == {"id": user.id, "userName": user.name, "role": "user"}
    answer = server.client().post("/api/v1/sessions", {"userName": user.name, "password": lathe.USER_PASSWORD})
    session = answer.created()
    assert len(session["token"]) == 64
    assert session["expiresAt"].endswith("Z")
    other = server.client(session["token"])
    other.get("/api/v1/me").ok()
    other.delete("/api/v1/sessions/current").gone()
    other.get("/api/v1/me").expect(401)
    user.get("/api/v1/me").ok()


def test_wrong_logins_all_look_the_same(server, user, anonymous):
    for body in ({"userName": user.name, "password": "wrong password"},
                 {"userName": "nobody-here", "password": "wrong password"}):
        answer = anonymous.post("/api/v1/sessions", body)
        problem = answer.expect(401)
        assert problem["detail"] == "wrong user name or password"
        assert answer.headers.get("Content-Type") == "application/problem+json"
        assert answer.headers.get("WWW-Authenticate") == "Bearer"


def test_an_unknown_user_takes_as_long_as_a_wrong_password(server, user, anonymous):
    def seconds(name):
        started = time.monotonic()
        anonymous.post("/api/v1/sessions", {"userName": name, "password": "wrong password"}).expect(401)
        return time.monotonic() - started

    known = min(seconds(user.name) for _ in range(4))
    unknown = min(seconds("nobody-like-that") for _ in range(4))
    assert unknown > known / 3, (known, unknown)


def test_guessing_is_slowed_and_says_for_how_long(server, anonymous):
    victim, other = server.new_user(), server.new_user()
    wrong = {"userName": victim.name, "password": "wrong password"}
    statuses = [anonymous.post("/api/v1/sessions", wrong).status for _ in range(11)]
    assert statuses == [401] * 10 + [429]
    answer = anonymous.post("/api/v1/sessions", {"userName": victim.name, "password": lathe.USER_PASSWORD})
    assert answer.status == 429
    assert 1 <= int(answer.headers.get("Retry-After")) <= 60
    victim.get("/api/v1/me").ok()
    server.client().log_in(other.name, lathe.USER_PASSWORD)


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer nonsense", "Basic !!!", "Basic " + "YTpi", "Digest x",
                                    "Bearer " + "0" * 64, "Bearer lathe_" + "0" * 64, "Bearer " + "x" * 5000])
def test_a_token_that_is_none_is_401(anonymous, header):
    anonymous.get("/api/v1/me", headers={"Authorization": header}).expect(401)


def test_requests_that_need_a_token_say_so_in_the_form_of_their_family(anonymous):
    answer = anonymous.post("/api/system/config/getRemainResource", {"userId": ""}).expect(401)
    assert answer["success"] is False and answer["errorCode"] == 401 and answer["result"] is None
    assert anonymous.get("/api/v1/users").expect(401)["code"] == "unauthenticated"


def test_every_wrong_field_of_a_login_is_named(anonymous):
    answer = anonymous.post("/api/v1/sessions", {"userName": "x" * 65})
    answer.expect(400)
    assert answer.fields == ["userName", "password"]
    anonymous.post("/api/v1/sessions", {"userName": {"a": 1}, "password": ["x"]}).expect(400)


def test_api_keys_work_until_revoked(server, user):
    made = user.post("/api/v1/api-keys", {"name": "ci"}).created()
    assert made["key"].startswith("lathe_") and made["key"].startswith(made["hint"])
    assert made["lastUsedAt"] is None and made["expiresAt"] is None
    robot = server.client(made["key"])
    assert robot.get("/api/v1/me").ok()["id"] == user.id
    listed = user.items("/api/v1/api-keys")
    assert [key["name"] for key in listed] == ["ci"]
    assert "key" not in listed[0] and listed[0]["lastUsedAt"] is not None
    robot.delete("/api/v1/sessions/current").expect(409)

    server.new_user().delete(f"/api/v1/api-keys/{made['id']}").expect(404)
    user.delete(f"/api/v1/api-keys/{made['id']}").gone()
    robot.get("/api/v1/me").expect(401)
    user.delete(f"/api/v1/api-keys/{made['id']}").expect(404)


def test_an_api_key_is_a_password_for_basic(server, user):
    made = user.post("/api/v1/api-keys", {"name": "registry"}).created()

    def basic(name, secret):
        word = base64.b64encode(f"{name}:{secret}".encode()).decode()
        return server.client().get("/api/v1/me", headers={"Authorization": f"Basic {word}"})

    assert basic(user.name, made["key"]).ok()["id"] == user.id
    basic("admin", made["key"]).expect(401)
    basic(user.name, lathe.USER_PASSWORD).expect(401)
    basic(user.name, user.token).expect(401)


def test_an_api_key_expires(server, user):
    user.post("/api/v1/api-keys", {"name": "late", "expiresAt": "2020-01-01T00:00:00Z"}).expect(400)
    soon = time.time() + 1.2
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(soon)) + f".{int(soon % 1 * 1000):03}Z"
    robot = server.client(user.post("/api/v1/api-keys", {"name": "short", "expiresAt": stamp}).created()["key"])
    robot.get("/api/v1/me").ok()
    lathe.wait_until(lambda: robot.get("/api/v1/me").status == 401, 10, "the end of the key")


def test_keys_come_in_slices_newest_first(user):
    for number in range(7):
        user.post("/api/v1/api-keys", {"name": f"key {number}"}).created()
    names = [key["name"] for key in user.items("/api/v1/api-keys", size=3)]
    assert names == [f"key {number}" for number in reversed(range(7))]
    user.get("/api/v1/api-keys", query={"pageSize": 501}).expect(400)
    user.get("/api/v1/api-keys", query={"cursor": "'; drop"}).expect(400)


def test_an_idempotency_key_makes_one_thing_only(server, user, admin):
    once = {"Idempotency-Key": "make-key-1"}
    first = user.post("/api/v1/api-keys", {"name": "once"}, headers=once).created()
    second = user.post("/api/v1/api-keys", {"name": "once"}, headers=once).created()
    assert first["id"] == second["id"] and len(user.items("/api/v1/api-keys")) == 1
    server.client(second["key"]).get("/api/v1/me").ok()
    user.post("/api/v1/api-keys", {"name": "another"}, headers=once).expect(422)
    user.post("/api/v1/api-keys", {"name": "x"}, headers={"Idempotency-Key": "a b"}).expect(400)

    body = {"userName": "made-once", "password": "long enough"}
    headers = {"Idempotency-Key": "user-1"}
    first = admin.post("/api/v1/users", body, headers=headers).created()
    assert admin.post("/api/v1/users", body, headers=headers).created() == first
    admin.post("/api/v1/users", body).expect(409)


def test_users_are_the_administrators_business(server, user, admin):
    for method, path in (("GET", "/api/v1/users"), ("POST", "/api/v1/users"), ("GET", f"/api/v1/users/{user.id}"),
                         ("PATCH", f"/api/v1/users/{user.id}"), ("DELETE", f"/api/v1/users/{user.id}"),
                         ("GET", "/api/v1/audit"), ("GET", "/metrics")):
        assert user.send(method, path).expect(403)["code"] == "permission_denied"

    made = admin.post("/api/v1/users", {"userName": "王小明", "password": "long enough"}).created()
    assert made["role"] == "user" and made["disabled"] is False and made["id"].isdigit()
    assert admin.get(f"/api/v1/users/{made['id']}").ok() == made
    assert made in admin.items("/api/v1/users", size=2)
    admin.delete(f"/api/v1/users/{made['id']}").gone()
    admin.get(f"/api/v1/users/{made['id']}").expect(404)
    again = admin.post("/api/v1/users", {"userName": "王小明", "password": "long enough"}).created()
    assert int(again["id"]) > int(made["id"])


@pytest.mark.parametrize("body, field", [
    ({"password": "long enough"}, "userName"),
    ({"userName": "", "password": "long enough"}, "userName"),
    ({"userName": "a b", "password": "long enough"}, "userName"),
    ({"userName": "a/b", "password": "long enough"}, "userName"),
    ({"userName": "a:b", "password": "long enough"}, "userName"),
    ({"userName": "a;b", "password": "long enough"}, "userName"),
    ({"userName": "a\u0000b", "password": "long enough"}, "userName"),
    ({"userName": "x" * 65, "password": "long enough"}, "userName"),
    ({"userName": "fine"}, "password"),
    ({"userName": "fine", "password": "short"}, "password"),
    ({"userName": "fine", "password": "x" * 257}, "password"),
    ({"userName": "fine", "password": "long enough", "role": "root"}, "role"),
])
def test_a_wrong_user_is_refused_by_field(admin, body, field):
    answer = admin.post("/api/v1/users", body)
    answer.expect(400)
    assert answer.fields == [field]


def test_names_that_differ_in_case_are_one(admin):
    admin.post("/api/v1/users", {"userName": "CaseTest", "password": "long enough"}).created()
    answer = admin.post("/api/v1/users", {"userName": "casetest", "password": "long enough"})
    assert answer.expect(409) and answer.fields == ["userName"]


def test_a_disabled_user_is_out_at_once(server, user, admin):
    key = server.client(user.post("/api/v1/api-keys", {"name": "k"}).created()["key"])
    key.get("/api/v1/me").ok()
    assert admin.patch(f"/api/v1/users/{user.id}", {"disabled": True}).ok()["disabled"] is True
    user.get("/api/v1/me").expect(401)
    key.get("/api/v1/me").expect(401)
    server.client().post("/api/v1/sessions", {"userName": user.name, "password": lathe.USER_PASSWORD}).expect(403)
    admin.patch(f"/api/v1/users/{user.id}", {"disabled": False}).ok()
    key.get("/api/v1/me").ok()
    user.get("/api/v1/me").expect(401)


def test_a_role_changes_at_once(server, user, admin):
    user.get("/api/v1/users").expect(403)
    admin.patch(f"/api/v1/users/{user.id}", {"role": "admin"}).ok()
    user.get("/api/v1/users").ok()
    admin.patch(f"/api/v1/users/{user.id}", {"role": "user"}).ok()
    user.get("/api/v1/users").expect(403)


def test_a_deleted_user_is_out_at_once(server, user, admin):
    user.get("/api/v1/me").ok()
    admin.delete(f"/api/v1/users/{user.id}").gone()
    user.get("/api/v1/me").expect(401)


def test_passwords_change(server, user, admin):
    other = server.client().log_in(user.name, lathe.USER_PASSWORD)
    change = {"currentPassword": lathe.USER_PASSWORD, "password": "another password"}
    assert user.post("/api/v1/me/password", {**change, "currentPassword": "not it at all"}).fields == ["currentPassword"]
    user.post("/api/v1/me/password", change).gone()
    user.get("/api/v1/me").ok()
    other.get("/api/v1/me").expect(401)
    server.client().post("/api/v1/sessions", {"userName": user.name, "password": lathe.USER_PASSWORD}).expect(401)
    server.client().log_in(user.name, "another password")
    admin.patch(f"/api/v1/users/{user.id}", {"password": "set by the admin"}).ok()
    user.get("/api/v1/me").expect(401)
    server.client().log_in(user.name, "set by the admin")


def test_one_administrator_always_remains(own_server):
    admin = own_server.admin
    mine = f"/api/v1/users/{admin.id}"
    for change in ({"role": "user"}, {"disabled": True}):
        admin.patch(mine, change).expect(409)
    admin.delete(mine).expect(409)
    second = own_server.new_user(role="admin")
    # However many try at once, one stays.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        statuses = sorted(pool.map(lambda pair: pair[0].patch(f"/api/v1/users/{pair[1]}", {"role": "user"}).status,
                                   [(admin, second.id), (second, admin.id)]))
    assert statuses in ([200, 403], [200, 409]), statuses
    left = admin if admin.get("/api/v1/users").status == 200 else second
    assert [u["role"] for u in left.items("/api/v1/users")].count("admin") == 1


def test_what_was_done_is_on_record(server, user, admin):
    made = user.post("/api/v1/api-keys", {"name": "traced"}).created()
    admin.patch(f"/api/v1/users/{user.id}", {"role": "admin", "disabled": False}).ok()
    trail = admin.items("/api/v1/audit", size=5, userId=user.id)
    assert [entry["action"] for entry in trail] == ["apiKey.create", "session.create"]
    entry = trail[0]
    assert (entry["objectKind"], entry["objectId"], entry["userName"], entry["peer"]) == (
        "apiKey", made["id"], user.name, "127.0.0.1")
    changes = admin.items("/api/v1/audit", action="user.update", objectId=user.id)
    assert [change["detail"] for change in changes] == ["role admin enabled"]
    assert lathe.USER_PASSWORD not in str(admin.items("/api/v1/audit"))


def test_tokens_and_passwords_are_not_in_the_data_directory(own_server):
    user = own_server.new_user(name="secretive", password="a very secret password")
    key = user.post("/api/v1/api-keys", {"name": "k"}).created()["key"]
    own_server.stop()
    stored = b"".join(p.read_bytes() for p in own_server.data.rglob("*") if p.is_file())
    assert b"secretive" in stored
    for secret in (user.token, key, "a very secret password", lathe.ADMIN_PASSWORD):
        assert secret.encode() not in stored


def test_sessions_and_keys_survive_the_server(own_server):
    user = own_server.new_user()
    key = user.post("/api/v1/api-keys", {"name": "k"}).created()["key"]
    own_server.restart(kill=True)
    for token in (user.token, key):
        assert own_server.client(token).get("/api/v1/me").ok()["id"] == user.id


def test_sessions_end_when_idle_and_absolutely():
    config = {"sessions": {"idle": "1500ms", "absolute": "4s"}}
    with lathe.Server(config=config) as server:
        idle, busy = server.client().log_in("admin", server.admin_password), server.client()
        busy.log_in("admin", server.admin_password)
        started = time.monotonic()
        while busy.get("/api/v1/me").status == 200:
            time.sleep(0.2)
            assert time.monotonic() - started < 20
        assert time.monotonic() - started > 2.5, "a session in use ended early"
        idle.get("/api/v1/me").expect(401)


def test_a_flood_of_logins_neither_eats_memory_nor_stops_others(own_server):
    user = own_server.new_user()
    before = peak_memory(own_server)

    def attempt(number):
        body = {"userName": f"flood-{number}", "password": "wrong password"}
        return own_server.client().post("/api/v1/sessions", body).status

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        flood = [pool.submit(attempt, n) for n in range(40)]
        slowest = 0
        while not all(f.done() for f in flood):
            started = time.monotonic()
            user.get("/api/v1/me").ok()
            slowest = max(slowest, time.monotonic() - started)
        assert {f.result() for f in flood} <= {401, 429}
    assert peak_memory(own_server) - before < 400 << 20
    assert slowest < 10


def peak_memory(server):
    status = open(f"/proc/{server.process.pid}/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
