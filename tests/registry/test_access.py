"""Who may do what in the registry, and how it is asked: tokens, passwords, API keys, spaces, quotas."""

import json
import re
import urllib.parse

import pytest

import lathe
import registry
from registry import Image, basic, digest, error_codes


@pytest.fixture(scope="module")
def alice(server):
    return server.new_user("Alice")


@pytest.fixture(scope="module")
def bob(server):
    return server.new_user("bob")


@pytest.fixture(scope="module")
def secret(server, alice):
    made = registry.Repository(server, alice, "team/secret", owner="alice")
    made.image = Image.make()
    made.push(made.image, "v1")
    return made


def as_seen_by(server, user, repository):
    return registry.Repository(server, user, repository.name.split("/", 1)[1], owner=repository.name.split("/")[0])


def publish(user, name, public=True):
    rows = user.post("/docker/image/findListSort", {"pageNum": 1, "imageName": name}).payload["rows"]
    row = next(row for row in rows if row["imageName"] == name)
    user.patch(f"/api/v1/images/{row['id']}", {"public": public}).ok()


# Asking.

def challenge(answer):
    assert answer.status == 401 and error_codes(answer) == ["UNAUTHORIZED"], answer
    scheme, _, words = answer.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', words))


def get_token(repository, scopes=(), authorization=None, **query):
    query = urllib.parse.urlencode([("service", "lathe"), *[("scope", scope) for scope in scopes], *query.items()])
    return repository.client.request("GET", "/v2/token?" + query, headers={
        "Authorization": authorization or repository.authorization})


def test_who_says_nothing_is_told_where_to_get_a_token(server, secret):
    told = challenge(secret.request("GET", "/v2/", headers={"Authorization": None}))
    assert told == {"realm": server.url + "/v2/token", "service": "lathe"}
    told = challenge(secret.request("GET", secret.at("manifests/v1"), headers={"Authorization": None}))
    assert told["scope"] == f"repository:{secret.name}:pull"
    told = challenge(secret.request("POST", secret.at("blobs/uploads/"), headers={"Authorization": None}))
    assert told["scope"] == f"repository:{secret.name}:pull,push"
    told = challenge(secret.request("DELETE", secret.at("manifests/v1"), headers={"Authorization": None}))
    assert told["scope"] == f"repository:{secret.name}:delete"
    told = challenge(secret.request("GET", "/v2/_catalog", headers={"Authorization": None}))
    assert told["scope"] == "registry:catalog:*"


@pytest.mark.parametrize("authorization", [
    "Bearer x", "Bearer lathe-registry.x.y", "Basic !", basic("alice", "wrong"), basic("nobody", lathe.USER_PASSWORD),
    basic("alice", ""), basic("", lathe.USER_PASSWORD), "Digest x", "Basic"])
def test_wrong_credentials(secret, authorization):
    told = challenge(secret.request("GET", "/v2/", headers={"Authorization": authorization}))
    assert told["error"] == "invalid_token"
    assert get_token(secret, authorization=authorization).status == 401


def test_every_credential_works(server, alice, bob, secret):
    key = alice.post("/api/v1/api-keys", {"name": "push"}).created()["key"]
    for authorization in (basic("alice", lathe.USER_PASSWORD), basic("ALICE", lathe.USER_PASSWORD), basic("alice", key),
                          f"Bearer {key}", f"Bearer {alice.token}"):
        headers = {"Authorization": authorization}
        assert secret.request("GET", secret.at("manifests/v1"), headers=headers).status == 200, authorization
    # Somebody else's key with one's own name is nobody's.
    challenge(secret.request("GET", "/v2/", headers={"Authorization": basic("bob", key)}))


def test_tokens(secret):
    answer = get_token(secret, [f"repository:{secret.name}:pull"])
    assert answer.status == 200
    token = answer.json["token"]
    assert answer.json["access_token"] == token and answer.json["expires_in"] == 300
    bearer = {"Authorization": f"Bearer {token}"}
    assert secret.request("GET", "/v2/", headers=bearer).status == 200
    assert secret.request("GET", secret.at("manifests/v1"), headers=bearer).status == 200
    # It is good for what it was asked for, and for nothing else.
    for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/x"), ("DELETE", "manifests/v1")):
        assert challenge(secret.request(method, secret.at(path), headers=bearer))["error"] == "insufficient_scope"
    assert challenge(secret.request("GET", "/v2/_catalog", headers=bearer))["error"] == "insufficient_scope"
    assert challenge(secret.request("GET", "/v2/alice/other/tags/list", headers=bearer))["error"] == "insufficient_scope"
    # Nor for a wider one.
    assert get_token(secret, [f"repository:{secret.name}:push"], f"Bearer {token}").status == 401
    for broken in (token[:-2], token + "A", token.replace("lathe-registry.", "lathe-registry.e30=")):
        challenge(secret.request("GET", "/v2/", headers={"Authorization": f"Bearer {broken}"}))


def test_tokens_by_form(secret):
    form = {"grant_type": "password", "service": "lathe", "username": "alice", "password": lathe.USER_PASSWORD,
            "scope": f"repository:{secret.name}:pull,push repository:alice/b:pull"}
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": None}
    answer = secret.request("POST", "/v2/token", urllib.parse.urlencode(form), headers)
    assert answer.status == 200
    bearer = {"Authorization": f"Bearer {answer.json['access_token']}"}
    assert secret.request("POST", secret.at("blobs/uploads/"), headers=bearer).status == 202
    form["password"] = "wrong"
    assert secret.request("POST", "/v2/token", urllib.parse.urlencode(form), headers).status == 401
    form["grant_type"] = "refresh_token"
    assert secret.request("POST", "/v2/token", urllib.parse.urlencode(form), headers).status == 400


def test_a_token_ends_with_its_account(server, secret):
    carol = server.new_user("carol")
    token = get_token(secret, authorization=basic("carol", lathe.USER_PASSWORD)).json["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert secret.request("GET", "/v2/", headers=bearer).status == 200
    server.admin.patch(f"/api/v1/users/{carol.id}", {"disabled": True}).ok()
    challenge(secret.request("GET", "/v2/", headers=bearer))
    assert get_token(secret, authorization=basic("carol", lathe.USER_PASSWORD)).status == 401


def test_a_token_ends_with_the_password_it_was_asked_for_with(server):
    edna = server.new_user("edna")
    mine = registry.Repository(server, edna, "a", owner="edna")
    mine.push(Image.make(), "v1")
    bearer = {"Authorization": f"Bearer {get_token(mine, [f'repository:{mine.name}:pull']).json['token']}"}
    assert mine.request("GET", mine.at("manifests/v1"), headers=bearer).status == 200
    edna.post("/api/v1/me/password", {"currentPassword": lathe.USER_PASSWORD, "password": "another good horse"}).gone()
    assert mine.request("GET", mine.at("manifests/v1"), headers=bearer).status == 401
    assert get_token(mine).status == 401
    mine = registry.Repository(server, edna, "a", owner="edna", password="another good horse")
    assert get_token(mine).status == 200


def test_guessing_passwords_is_slowed(server, secret):
    server.new_user("dora")
    answers = [secret.request("GET", "/v2/", headers={"Authorization": basic("dora", f"guess {i}")}) for i in range(12)]
    assert answers[0].status == 401
    assert answers[-1].status == 429 and error_codes(answers[-1]) == ["TOOMANYREQUESTS"]
    assert int(answers[-1].headers["Retry-After"]) > 0


# Whose.

def test_private_images_are_not_there_for_others(server, bob, secret):
    seen = as_seen_by(server, bob, secret)
    absent = registry.Repository(server, bob, "team/none", owner="alice")
    nobodys = registry.Repository(server, bob, "team/none", owner="nobody")
    wanted = digest(secret.image.config)
    for path in ("tags/list", "manifests/v1", f"manifests/{secret.image.digest}", f"blobs/{wanted}", f"referrers/{wanted}"):
        answers = [one.request("GET", one.at(path)) for one in (seen, absent, nobodys)]
        assert {answer.status for answer in answers} == {404}
        assert {tuple(error_codes(answer)) for answer in answers} == {("NAME_UNKNOWN",)}
    for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/v1"), ("DELETE", "manifests/v1"),
                         ("DELETE", f"blobs/{wanted}")):
        answers = [one.request(method, one.at(path)) for one in (seen, absent, nobodys)]
        assert {answer.status for answer in answers} == {403}
        assert {tuple(error_codes(answer)) for answer in answers} == {("DENIED",)}


def test_public_images_are_for_everybody_to_pull(server, alice, bob):
    shown = registry.Repository(server, alice, "shown", owner="alice")
    image = Image.make()
    shown.push(image, "v1")
    seen = as_seen_by(server, bob, shown)
    assert seen.get_manifest("v1").status == 404
    publish(alice, "shown")
    assert set(seen.pull("v1")) == {image.digest, *map(digest, image.blobs)}
    assert seen.tags() == ["v1"]
    assert seen.request("POST", seen.at("blobs/uploads/")).status == 403
    assert seen.put_manifest(image.manifest, "v2").status == 403
    assert seen.request("DELETE", seen.at("manifests/v1")).status == 403
    # What was pushed there but is not part of an image yet is its owner's alone.
    shown.push_blob(b"not yet")
    assert seen.get_blob(digest(b"not yet")).status == 404
    publish(alice, "shown", False)
    assert seen.get_manifest("v1").status == 404


def test_content_is_not_had_by_knowing_its_digest(server, bob, secret):
    mine = registry.Repository(server, bob, "thief")
    wanted = digest(secret.image.layers[0])
    assert mine.get_blob(wanted).status == 404
    answer = mine.request("POST", mine.at("blobs/uploads/"), query={"mount": wanted, "from": secret.name})
    assert answer.status == 202
    mine.push_blob(secret.image.config)  # the bytes themselves may be sent by anybody who has them
    answer = mine.put_manifest(secret.image.manifest, "v1")
    assert answer.status == 404 and error_codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
    index = json.dumps({"schemaVersion": 2, "mediaType": registry.INDEX, "manifests": [
        registry.described(secret.image.manifest, registry.MANIFEST)]}).encode()
    answer = mine.put_manifest(index, "v1", registry.INDEX)
    assert answer.status == 404 and error_codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
    assert mine.request("GET", f"/v2/{mine.name}/blobs/{wanted}").status == 404


def test_administrators_may_everything(server, secret):
    seen = as_seen_by(server, server.admin, secret)
    seen.authorization = basic("admin", lathe.ADMIN_PASSWORD)
    assert seen.get_manifest("v1").status == 200
    assert seen.put_manifest(secret.image.manifest, "by-admin").status == 201
    assert seen.request("DELETE", seen.at("manifests/by-admin")).status == 202


def test_the_catalogue_shows_what_one_may_pull(server, alice, bob, secret):
    for name in ("b", "a", "c/d"):
        made = registry.Repository(server, alice, name, owner="alice")
        made.push(Image.make(layers=1), "v1")
    publish(alice, "a")
    owner = registry.Repository(server, alice, "a", owner="alice")
    theirs = owner.request("GET", "/v2/_catalog").json["repositories"]
    assert {"alice/a", "alice/b", "alice/c/d", secret.name} <= set(theirs) and theirs == sorted(theirs)
    other = registry.Repository(server, bob, "x")
    seen = other.request("GET", "/v2/_catalog").json["repositories"]
    assert "alice/a" in seen and "alice/b" not in seen and secret.name not in seen
    # Page by page.
    path, found = "/v2/_catalog?n=2", []
    while path:
        answer = owner.request("GET", path)
        found += answer.json["repositories"]
        link = answer.headers.get("Link")
        path = re.fullmatch(r'<(.*)>; rel="next"', link)[1] if link else None
    assert found == theirs


def test_a_name_that_no_repository_could_have_is_reached_by_id(server):
    odd = server.new_user("张 三".replace(" ", ""))
    made = registry.Repository(server, odd, "a", owner=f"id-{odd.id}")
    made.authorization = "Bearer " + odd.token
    made.push(Image.make(layers=1), "v1")
    assert made.request("GET", "/v2/_catalog").json["repositories"].count(f"id-{odd.id}/a") == 1


@pytest.mark.parametrize("path", ["/v2/alone/tags/list", "/v2/alone/manifests/v1"])
def test_a_repository_is_somebodys(secret, path):
    assert secret.request("GET", path).status == 404
    assert secret.request("PUT", "/v2/alone/manifests/v1", b"{}").status == 403


def test_the_platforms_own_name_is_taken(server, alice):
    made = registry.Repository(server, alice, "host", owner="alice")
    image = Image.make(layers=1)
    for blob in image.blobs:
        made.push_blob(blob)
    assert made.put_manifest(image.manifest, "latest").status == 403


# As images of the platform.

def test_what_is_pushed_is_an_image(server, alice):
    made = registry.Repository(server, alice, "pushed", owner="alice")
    made.push(Image.make(), "v1")
    made.push(Image.make(), "v2")
    row = alice.post("/docker/image/findListSort", {"pageNum": 1, "imageName": "pushed"}).payload["rows"][0]
    assert (row["imageStatus"], row["tagNum"], row["imageTag"]) == (1, 2, "v2")
    assert row["user_id"] == alice.id and row["imageSize"].endswith("KB")
    shown = alice.get(f"/api/v1/images/{row['id']}").ok()
    assert [tag["tag"] for tag in shown["tags"]] == ["v2", "v1"]
    alice.delete(f"/api/v1/images/{row['id']}/tags/v1").gone()
    assert made.tags() == ["v2"]
    alice.delete(f"/api/v1/images/{row['id']}").gone()
    assert made.request("GET", made.at("tags/list")).status == 404


def test_what_is_registered_first_can_be_pushed_to(server, alice):
    alice.post("/docker/image/upload", {"imageName": "registered", "userId": alice.id}).payload
    made = registry.Repository(server, alice, "registered", owner="alice")
    assert made.tags() == []
    made.push(Image.make(), "v1")
    rows = alice.post("/docker/image/findListSort", {"pageNum": 1, "imageName": "registered"}).payload["rows"]
    assert [(row["imageStatus"], row["tagNum"]) for row in rows] == [(1, 1)]


def test_storage_is_counted_once_and_limited(server):
    user = server.new_user()
    made, other = (registry.Repository(server, user, name) for name in ("a", "b"))
    image = Image.make(layers=1, size=300_000)

    server.admin.put(f"/api/v1/users/{user.id}/quota", {"storageBytes": 500_000}).ok()
    made.push(image, "v1")
    for blob in image.blobs:  # the same bytes count once
        answer = other.request("POST", other.at("blobs/uploads/"), query={"mount": digest(blob), "from": made.name})
        assert answer.status == 201, answer
    assert other.put_manifest(image.manifest, "v1").status == 201
    answer = made.request("PUT", made.begin(), b"x" * 400_000, query={"digest": digest(b"x" * 400_000)})
    assert answer.status == 403 and error_codes(answer) == ["DENIED"] and "quota" in answer.text
    row = next(row for row in user.post("/docker/image/findListSort", {"pageNum": 1, "imageName": "b"}).payload["rows"])
    user.delete(f"/api/v1/images/{row['id']}").gone()
    answer = made.request("DELETE", made.at(f"manifests/{image.digest}"))
    assert answer.status == 202
    for blob in image.blobs:
        made.request("DELETE", made.at(f"blobs/{digest(blob)}"))
    made.push(Image.make(layers=1, size=300_000), "v2")


def test_messages_come_in_the_language_that_is_asked_for(secret):
    english = secret.request("GET", secret.at("manifests/none")).json["errors"][0]["message"]
    chinese = secret.request("GET", secret.at("manifests/none"), headers={"Accept-Language": "zh"}).json["errors"][0]["message"]
    assert english.isascii() and "不存在" in chinese
