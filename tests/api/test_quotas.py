"""Quotas, resource groups and the documented calls about what is left (4.5 = 5.5 = 9.1, 9.2)."""

import pytest

REMAIN = "/api/system/config/getRemainResource"
STORAGE = "/resource/configRemake/getQuotaRemainResource"


def quota_of(user):
    return f"/api/v1/users/{user.id}/quota"


@pytest.mark.parametrize("path", [REMAIN, REMAIN.removeprefix("/api")])
def test_the_documented_example_gets_the_documented_answer(admin, user, path):
    quota = {"cpu": 100, "memoryGb": 110, "vgpu": 10, "mig": 10, "jobs": 1, "gpu": 10,
             "startTime": "2023-10-23 00:00:00", "endTime": "2043-11-30 23:59:59"}
    admin.put(quota_of(user), quota).ok()
    answer = admin.post(path, {"userId": user.id}).ok()
    assert answer == {
        "success": True, "errorCode": 200, "message": "获取剩余资源成功",
        "result": {"remainCpu": 100, "remainMemory": 110.0, "remainMerory": 110.0, "remainVgpu": 10, "remainMig": 10,
                   "remainJobNum": 1, "remainGpu": 10, "isInitConfig": False,
                   "startTime": "2023-10-23 00:00:00", "endTime": "2043-11-30 23:59:59"}}


def test_without_a_quota_the_machine_is_what_is_left(user):
    left = user.post(REMAIN, {"userId": ""}).payload
    assert left["remainCpu"] >= 1 and left["remainMemory"] > 0.1
    assert left["remainJobNum"] == 9999
    assert left["endTime"] == "9999-12-31 00:00:00" and left["startTime"] <= left["endTime"]


def test_only_an_administrator_asks_for_others(server, user, admin):
    other = server.new_user()
    for path, body in ((REMAIN, {"userId": other.id}), (STORAGE, {"userId": other.id, "uid": 2004})):
        answer = user.post(path, body).expect(403)
        assert (answer["success"], answer["errorCode"], answer["result"]) == (False, 403, None)
        assert "userId" in answer["message"]
        admin.post(path, body).ok()
        answer = admin.post(path, {**body, "userId": "987654"}).expect(400)
        assert answer["errorCode"] == 400 and "userId" in answer["message"]
    user.get(quota_of(other)).expect(403)
    user.put(quota_of(user), {"cpu": 1}).expect(403)
    user.delete(quota_of(user)).expect(403)
    user.get(quota_of(user)).ok()


@pytest.mark.parametrize("field", ["uId", "uid"])
def test_storage_without_a_quota_has_the_documented_words(user, field):
    none = "存储配额未开启-无限制"
    assert user.post(STORAGE, {"userId": user.id, field: 2004}).ok() == {
        "success": True, "errorCode": 200, "message": "查询成功",
        "result": {"inodeQuota": none, "inodeUsed": none, "inodeRemain": none, "blockQuota": none, "blockUsed": none,
                   "blockRemain": none, "startTime": none, "endTime": "无限制", "initConfig": False}}


def test_storage_with_a_quota_has_numbers_with_units(admin, user):
    admin.put(quota_of(user), {"storageBytes": 1610612736, "endTime": "2040-01-31T00:00:00Z"}).ok()
    left = user.post("/api" + STORAGE, {"userId": user.id, "uId": "2004"}).payload
    assert left["blockQuota"] == "1.5GB" and left["blockRemain"] == "1.5GB" and left["blockUsed"] == "0B"
    assert left["inodeQuota"] == "无限制" and left["inodeUsed"] == "0个"
    assert left["startTime"] == "无限制" and left["endTime"].startswith("2040-01-31") and left["initConfig"] is False


@pytest.mark.parametrize("body, field", [
    ({"uid": 1}, "userId"), ({"userId": "7"}, "uId"), ({"userId": "7", "uid": "root"}, "uid"),
    ({"userId": "7", "uId": -1}, "uId"), ({"userId": "../7", "uid": 1}, "userId"), ({"userId": ["7"], "uid": 1}, "userId"),
])
def test_a_wrong_storage_query_is_refused_by_field(admin, body, field):
    answer = admin.post(STORAGE, body).expect(400)
    assert answer["errorCode"] == 400 and field in answer["message"]


def test_a_quota_is_put_whole_and_lifted(admin, user):
    empty = dict.fromkeys(["cpu", "memoryGb", "gpu", "vgpu", "mig", "jobs", "storageBytes", "storageInodes",
                           "startTime", "endTime"])
    assert admin.get(quota_of(user)).ok() == empty
    assert admin.put(quota_of(user), {"cpu": "2.5", "jobs": 0}).ok() == {**empty, "cpu": 2.5, "jobs": 0}
    assert user.get(quota_of(user)).ok() == {**empty, "cpu": 2.5, "jobs": 0}
    assert admin.put(quota_of(user), {"gpu": 1}).ok() == {**empty, "gpu": 1}
    assert user.post(REMAIN, {}).payload["remainGpu"] == 1
    admin.delete(quota_of(user)).gone()
    admin.delete(quota_of(user)).gone()
    assert user.get(quota_of(user)).ok() == empty
    admin.get("/api/v1/users/987654/quota").expect(404)
    admin.put("/api/v1/users/987654/quota", {}).expect(404)


@pytest.mark.parametrize("body, field", [
    ({"cpu": -1}, "cpu"), ({"gpu": 1.5}, "gpu"), ({"memoryGb": "much"}, "memoryGb"), ({"storageBytes": 1e300}, "storageBytes"),
    ({"startTime": "2026-02-31 00:00:00"}, "startTime"),
    ({"startTime": "2026-02-02 00:00:00", "endTime": "2026-02-01 00:00:00"}, "endTime"),
])
def test_a_wrong_quota_is_refused_by_field(admin, user, body, field):
    answer = admin.put(quota_of(user), body)
    answer.expect(400)
    assert answer.fields == [field]


def test_the_default_group_is_there_with_the_machines_capacity(user, admin):
    groups = [group for group in user.items("/api/v1/resource-groups") if group["name"] == "default"]
    assert len(groups) == 1
    group = groups[0]
    assert group["capacity"]["cpu"] >= 1 and group["capacity"]["memoryGb"] > 0.1 and group["engine"] == "process"
    assert group["key"].startswith("resourceGroup") and len(group["key"]) == len("resourceGroup") + 16
    path = f"/api/v1/resource-groups/{group['id']}"
    assert user.get(path).ok() == group
    admin.delete(path).expect(409)
    admin.patch(path, {"name": "other"}).expect(409)


def test_groups_are_made_shown_to_their_users_changed_and_deleted(server, user, admin):
    other = server.new_user()
    body = {"name": "gpu 组", "capacity": {"cpu": 4, "memoryGb": 8.5}, "users": [user.id]}
    group = admin.post("/api/v1/resource-groups", body).created()
    path = f"/api/v1/resource-groups/{group['id']}"
    assert group["capacity"] == {"cpu": 4, "memoryGb": 8.5, "gpu": group["capacity"]["gpu"]}
    assert user.get(path).ok() == group
    other.get(path).expect(404)
    assert group["id"] not in [g["id"] for g in other.items("/api/v1/resource-groups")]
    admin.post("/api/v1/resource-groups", body).expect(409)
    user.post("/api/v1/resource-groups", body).expect(403)
    assert admin.patch(path, {"users": [], "capacity": {"cpu": 2}}).ok()["capacity"]["cpu"] == 2
    other.get(path).ok()
    assert admin.patch(path, {"users": ["987654", user.id]}).fields == ["users[0]"]
    user.delete(path).expect(403)
    admin.delete(path).gone()
    admin.get(path).expect(404)


def test_a_deleted_users_quota_goes_with_them(server, admin):
    user = server.new_user()
    admin.put(quota_of(user), {"cpu": 1}).ok()
    admin.delete(f"/api/v1/users/{user.id}").gone()
    admin.get(quota_of(user)).expect(404)
