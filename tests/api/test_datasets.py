"""Datasets: /api/v1/datasets."""

import pytest

import lathe


@pytest.fixture
def data(user):
    user.multipart("/api/file/file/uploadFolder", {"currentPath": "corpus"},
                   [("file", "train/a.jsonl", b"a" * 1000), ("file", "test/b.jsonl", b"b" * 24)]).ok()
    return user


def measured(user, dataset):
    def latest():
        version = user.get(f"/api/v1/datasets/{dataset['id']}").ok()["latestVersion"]
        return version["state"] != "measuring" and version
    return lathe.wait_until(latest, what="the size of the dataset")


def test_a_dataset_with_its_first_version(data):
    made = data.post("/api/v1/datasets", {"name": "语料", "description": "d", "path": "/corpus", "version": "v1"}).created()
    assert made["versionCount"] == 1 and made["userId"] == data.id
    version = measured(data, made)
    assert (version["version"], version["size"], version["fileCount"], version["storageMedium"]) == ("v1", 1024, 2, 1201)
    second = data.post(f"/api/v1/datasets/{made['id']}/versions", {"path": "corpus/train"}).created()
    assert second["version"] == "2"
    versions = data.items(f"/api/v1/datasets/{made['id']}/versions")
    assert [v["version"] for v in versions] == ["2", "v1"]
    data.delete(f"/api/v1/datasets/{made['id']}/versions/{second['id']}").gone()
    data.delete(f"/api/v1/datasets/{made['id']}").gone()
    data.get(f"/api/v1/datasets/{made['id']}").expect(404)
    assert data.get("/api/v1/files/content?path=corpus/test/b.jsonl").body == b"b" * 24


def test_wrong_fields_are_named(data):
    for body, field in (({}, "name"), ({"name": "a|b"}, "name"), ({"name": "x", "path": "../corpus"}, "path"),
                        ({"name": "x", "path": "corpus", "storageMedium": 1203}, "storageMedium"),
                        ({"name": "x", "path": "corpus", "scope": "else"}, "scope")):
        answer = data.post("/api/v1/datasets", body)
        answer.expect(400)
        assert answer.fields == [field], answer
    data.post("/api/v1/datasets", {"name": "x", "path": "none"}).expect(404)
    assert data.items("/api/v1/datasets") == []


def test_names_are_unique_for_their_user(server, data):
    data.post("/api/v1/datasets", {"name": "x"}).created()
    data.post("/api/v1/datasets", {"name": "x"}).expect(409)
    server.new_user().post("/api/v1/datasets", {"name": "x"}).created()
    key = {"Idempotency-Key": "k"}
    first = data.post("/api/v1/datasets", {"name": "y"}, headers=key).created()
    assert data.post("/api/v1/datasets", {"name": "y"}, headers=key).created()["id"] == first["id"]


def test_only_public_datasets_are_seen_by_others(server, data):
    other = server.new_user()
    made = data.post("/api/v1/datasets", {"name": "hidden", "path": "corpus"}).created()
    url = f"/api/v1/datasets/{made['id']}"
    other.get(url).expect(404)
    assert other.items("/api/v1/datasets", name="hidden") == []
    data.patch(url, {"public": True}).ok()
    assert other.get(url).ok()["public"] is True
    assert [d["id"] for d in other.items("/api/v1/datasets", name="hidden")] == [made["id"]]
    other.patch(url, {"public": False}).expect(403)
    other.delete(url).expect(403)
