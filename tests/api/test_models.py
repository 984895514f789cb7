"""Models (3.1 to 3.5, /api/v1/models, /api/v1/model-versions) against a running server."""

import json
import os
import struct

import pytest

from lathe import wait_until

CREATE = "/model/aiApplication/createAiApplication"
LIST = "/model/aiApplication/getAiApplicationList"
DETAIL = "/model/aiApplication/getAiApplicationDetail"
VERSIONS = "/model/aiApplicationVersion/getAiApplicationVersionList"
VERSION = "/model/aiApplicationVersion/getAiApplicationVersionDetail"

TEXT, NUMBER, INTEGER, NOTHING = str, float, int, type(None)
APPLICATION = {
    "id": TEXT, "createUser": TEXT, "name": TEXT, "description": TEXT, "createTime": TEXT, "userName": TEXT,
    "modifiedTime": TEXT, "isDelete": INTEGER, "type": TEXT, "developer": TEXT, "loginUser": INTEGER,
    "aiApplicationVersionsCount": INTEGER, "aiApplicationVersionsSize": NUMBER,
    "latestVersion": (TEXT, NOTHING), "status": (INTEGER, NOTHING)}
AI_VERSION = {
    "id": TEXT, "createUser": TEXT, "createTime": TEXT, "version": TEXT, "metrics": (TEXT, NOTHING),
    "use": (TEXT, NOTHING), "softVersion": (TEXT, NOTHING), "description": TEXT, "source": INTEGER, "image": TEXT,
    "framework": (INTEGER, NOTHING), "frameworkStyle": (INTEGER, NOTHING), "saveType": INTEGER, "savePath": TEXT,
    "trainTaskVersionId": TEXT, "llmFineTuneTaskId": TEXT, "size": (NUMBER, NOTHING), "applicationId": TEXT,
    "applicationName": TEXT, "userName": TEXT, "modifiedTime": TEXT, "hideSourcePath": (TEXT, NOTHING),
    "status": INTEGER, "deployJson": (TEXT, NOTHING), "label": TEXT, "parameters": (TEXT, NOTHING),
    "originalParameters": (TEXT, NOTHING), "fromMarket": INTEGER, "configPath": (TEXT, NOTHING),
    "configSaveType": (INTEGER, NOTHING), "preDeployLabel": TEXT, "parameterStatus": INTEGER, "isDelete": INTEGER,
    "scale": TEXT, "hyperParameterList": TEXT, "modelStructure": TEXT, "imageType": (INTEGER, NOTHING),
    "loginUser": INTEGER, "absolutePath": (TEXT, NOTHING)}


def conforms(value, shape):
    """Every documented field is there with its type."""
    for name, kinds in shape.items():
        assert name in value, f"{name} is missing"
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        kinds = kinds + (int,) if float in kinds else kinds  # JSON knows one kind of number
        assert isinstance(value[name], kinds) and not isinstance(value[name], bool), (name, value[name])


def safetensors(tensors, missing=0):
    """A file of float32 tensors: {name: shape}."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 4
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at - missing)


# As the tiny model of examples/ describes itself.
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 256,
          "num_hidden_layers": 3, "num_attention_heads": 3, "vocab_size": 256, "max_position_embeddings": 128,
          "tie_word_embeddings": True, "torch_dtype": "float32"}
MODEL = {"config.json": json.dumps(CONFIG).encode(),
         "model.safetensors": safetensors({"model.embed_tokens.weight": [256, 96], "model.norm.weight": [96]})}


def upload(user, folder, files):
    parts = [("file", name, content) for name, content in files.items()]
    answer = user.multipart("/api/file/file/uploadFolder", {"currentPath": folder}, parts)
    assert answer.status == 200, answer


def version(number="0.0.1", path="/model", **more):
    return {"version": number, "source": 3, "savePath": path, **more}


def create(user, name, *versions, **application):
    return user.post(CREATE, {"application": {"name": name, **application}, "aiApplicationVersionList": versions})


def detail(user, version_id):
    return user.get(VERSION, query={"aiApplicationVersionId": version_id}).payload


def imported(user, version_id):
    """The version once its import has ended, one way or the other."""
    return wait_until(lambda: (row := detail(user, version_id))["status"] != 1 and row, what="the import")


def add(user, name, *versions):
    """Creates them and waits; the ids."""
    made = create(user, name, *versions).payload["aiApplicationVersionList"]
    for row in made:
        assert imported(user, row["id"])["status"] == 2
    return [row["id"] for row in made]


def test_the_documented_example_as_it_is_written(user):
    upload(user, "/lightgbm", MODEL)
    answer = user.post(CREATE, {
        "application": {"name": "11", "createUser": user.id, "description": "", "userName": user.name, "type": "LLM",
                        "developer": "", "loginUser": 1},
        "aiApplicationVersionList": [
            {"applicationName": "11", "createUser": user.id, "userName": user.name, "description": "",
             "version": "0.0.1", "source": "3", "trainTaskVersionId": "", "llmFineTuneTaskId": "", "image": "",
             "imageType": "", "framework": 12, "saveType": 2, "savePath": "/lightgbm", "configSaveType": 2,
             "label": "", "scale": "", "modelStructure": "", "loginUser": 1}],
        "hyperParameterList": []}).ok()
    assert (answer["code"], answer["success"], answer["message"]) == (200, True, "success")
    assert set(answer) == {"code", "success", "message", "data"}
    data = answer["data"]
    assert set(data) == {"application", "aiApplicationVersionList", "hyperParameterList"}
    conforms(data["application"], APPLICATION)
    assert data["application"]["name"] == "11" and data["application"]["createUser"] == user.id
    assert data["hyperParameterList"] == []
    [made] = data["aiApplicationVersionList"]
    conforms(made, AI_VERSION)
    expected = {"createUser": user.id, "version": "0.0.1", "source": 3, "image": "", "framework": 12,
                "frameworkStyle": None, "saveType": 2, "savePath": "/lightgbm", "applicationName": "11", "status": 1,
                "configSaveType": 2, "imageType": None, "loginUser": 1, "absolutePath": None, "userName": user.name}
    assert {name: made[name] for name in expected} == expected
    assert made["size"] == sum(map(len, MODEL.values())) / 1024

    done = imported(user, made["id"])
    conforms(done, AI_VERSION)
    assert done["status"] == 2, done
    assert (done["scale"], done["modelStructure"], done["parameterStatus"]) == ("24.7K", "LlamaForCausalLM", 2)
    assert json.loads(done["parameters"])["parameterCount"] == 256 * 96 + 96
    assert json.loads(done["originalParameters"]) == CONFIG
    assert json.loads(done["hyperParameterList"]) == []
    assert sorted(os.listdir(done["absolutePath"])) == sorted(MODEL)

    application = {"aiApplicationId": data["application"]["id"]}
    shown = user.get("/api" + DETAIL, query=application).payload
    conforms(shown, APPLICATION)
    assert (shown["latestVersion"], shown["status"], shown["aiApplicationVersionsCount"]) == ("0.0.1", 2, 1)
    assert shown["aiApplicationVersionsSize"] == done["size"]
    [listed] = user.get(VERSIONS, query=application).payload
    conforms(listed, AI_VERSION)
    page = user.post(LIST, {"pageNum": 0, "pageSize": 0, "queryInfo": {}}).payload
    assert {name: page[name] for name in ("pageNum", "pageSize", "totalPage", "total")} == {
        "pageNum": 1, "pageSize": 10, "totalPage": 1, "total": 1}
    conforms(page["rows"][0], APPLICATION)


def test_a_name_that_is_new_makes_a_model_and_one_that_is_not_adds_versions(user):
    upload(user, "/model", MODEL)
    first, second = add(user, "llama", version("1"), version("2"))
    assert create(user, "llama", version("3"), version("2")).expect(409)["message"].count("[1].version") == 1
    assert create(user, "llama").status == 409
    [third] = add(user, "llama", version("3"))
    model = {detail(user, each)["applicationId"] for each in (first, second, third)}
    assert len(model) == 1
    rows = user.get(VERSIONS, query={"aiApplicationId": model.pop()}).payload
    assert [row["version"] for row in rows] == ["3", "2", "1"]


@pytest.mark.parametrize("versions, status, field", [
    ([version(path="/nowhere")], 404, "[0].savePath"),
    ([version("1"), version("2", "/nowhere")], 404, "[1].savePath"),
    ([version(path="../../../etc")], 400, "[0].savePath"),
    ([version(path="a\u0000b")], 400, "[0].savePath"),
    ([version(path="")], 400, "[0].savePath"),
    ([version("a b")], 400, "[0].version"),
    ([version("1" * 65)], 400, "[0].version"),
    ([version(source="4")], 400, "[0].source"),
    ([version(source=2)], 400, "[0].image"),
    ([version(source=2, image="no/such:1")], 404, "[0].image"),
    ([version(source=1)], 400, "[0].llmFineTuneTaskId"),
    ([version(source=1, llmFineTuneTaskId="0" * 32)], 404, "[0].llmFineTuneTaskId"),
    ([version(saveType=1)], 400, "[0].saveType"),
    ([version(framework="twelve")], 400, "[0].framework"),
    ([version(createUser="1")], 403, "[0].createUser"),
])
def test_what_is_wrong_is_named_and_nothing_is_made(user, versions, status, field):
    upload(user, "/model", {"config.json": b"{}"})
    answer = create(user, "wrong", *versions).expect(status)
    assert (answer["success"], answer["code"], answer["data"]) == (False, status, None)
    assert "aiApplicationVersionList" + field in answer["message"]
    assert user.post(LIST, {}).payload["total"] == 0
    assert user.items("/api/v1/models") == []


def test_only_owners_and_administrators_see_a_model(server, user, admin):
    upload(user, "/model", MODEL)
    [made] = add(user, "mine", version())
    model = detail(user, made)["applicationId"]
    other = server.new_user()
    for path in (f"{DETAIL}?aiApplicationId={model}", f"{VERSIONS}?aiApplicationId={model}",
                 f"{VERSION}?aiApplicationVersionId={made}"):
        answer = other.get(path).expect(404)
        assert (answer["code"], answer["data"]) == (404, None)
        admin.get(path).ok()
        assert server.client().get(path).expect(401)["code"] == 401
    other.get(f"/api/v1/models/{model}").expect(404)
    other.delete(f"/api/v1/model-versions/{made}").expect(404)
    assert other.post(LIST, {}).payload["total"] == 0
    other.post(LIST, {"queryInfo": {"createUser": user.id}}).expect(403)
    assert [row["id"] for row in admin.post(LIST, {"queryInfo": {"createUser": user.id}}).payload["rows"]] == [model]


@pytest.mark.parametrize("files, says", [
    ({"model.safetensors": safetensors({"w": [64]}, missing=5)}, "model.safetensors: the file is incomplete: 5 bytes"),
    ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\nsize 5\n"}, "git lfs pull"),
    ({"model.safetensors.index.json": json.dumps({"weight_map": {"w": "model-00001-of-00002.safetensors"}}).encode()},
     "model-00001-of-00002.safetensors: this shard is missing"),
])
def test_a_damaged_model_fails_with_the_reason(user, files, says):
    upload(user, "/model", files)
    made = create(user, "damaged", version()).payload["aiApplicationVersionList"][0]
    failed = imported(user, made["id"])
    assert failed["status"] == 3 and says in failed["failReason"]
    user.language = "zh"
    assert detail(user, made["id"])["failReason"] != failed["failReason"]


def test_images_are_a_source(user):
    made = create(user, "imaged", version(source=2, image="host", imageType="1")).payload["aiApplicationVersionList"][0]
    done = imported(user, made["id"])
    assert (done["status"], done["image"], done["imageType"], done["hideSourcePath"]) == (2, "host", 1, None)


def test_templates_come_back(user):
    upload(user, "/model", MODEL)
    template = [{"edit": True, "paramName": "learning_rate", "type": "double", "value": "1e-4", "valueRange": [0, 1]}]
    made = user.post(CREATE, {"application": {"name": "t"}, "aiApplicationVersionList": [version()],
                              "hyperParameterList": template}).payload
    assert made["hyperParameterList"] == template
    version_id = made["aiApplicationVersionList"][0]["id"]
    assert json.loads(detail(user, version_id)["hyperParameterList"]) == template
    model = made["application"]["id"]
    assert user.get(f"/api/v1/models/{model}").ok()["hyperParameters"] == template
    patched = user.patch(f"/api/v1/models/{model}", {"name": "u", "hyperParameters": []}).ok()
    assert (patched["name"], patched["hyperParameters"]) == ("u", [])
    assert user.patch(f"/api/v1/model-versions/{version_id}", {"label": "best"}).ok()["label"] == "best"
    imported(user, version_id)


def test_the_own_api_lists_in_slices(user):
    for number in range(5):
        create(user, f"model-{number}").ok()
    names = [f"model-{number}" for number in reversed(range(5))]
    assert [model["name"] for model in user.items("/api/v1/models", size=2)] == names
    assert [model["name"] for model in user.items("/api/v1/models", name="DEL-3")] == ["model-3"]
    page = user.post(LIST, {"pageNum": 2, "pageSize": 2}).payload
    assert ([row["name"] for row in page["rows"]], page["total"], page["totalPage"]) == (names[2:4], 5, 3)
    user.post(LIST, {"pageSize": 501}).expect(400)


def test_a_repeated_request_with_a_key_makes_one_version(user):
    upload(user, "/model", MODEL)
    body = {"application": {"name": "once"}, "aiApplicationVersionList": [version("1"), version("2")]}
    answers = [user.post(CREATE, body, headers={"Idempotency-Key": "k1"}).payload for _ in range(2)]
    ids = [[row["id"] for row in answer["aiApplicationVersionList"]] for answer in answers]
    assert ids[0] == ids[1]
    for each in ids[0]:
        imported(user, each)


def test_storage_is_charged_and_given_back(user, admin):
    upload(user, "/model", MODEL)
    used = lambda: user.post("/resource/configRemake/getQuotaRemainResource",
                             {"userId": user.id, "uId": "1"}).payload["blockUsed"]
    admin.put(f"/api/v1/users/{user.id}/quota", {"storageBytes": 10 << 20}).ok()
    before = used()
    [made] = add(user, "m", version())
    assert used() != before
    admin.put(f"/api/v1/users/{user.id}/quota", {"storageBytes": 100_000}).ok()
    answer = create(user, "m", version("2")).expect(507)
    assert (answer["code"], answer["data"]) == (507, None)
    path = detail(user, made)["absolutePath"]
    user.delete(f"/api/v1/model-versions/{made}").gone()
    assert used() == before or wait_until(lambda: used() == before)
    wait_until(lambda: not os.path.exists(path), what="the files' removal")
    user.get(f"/api/v1/model-versions/{made}").expect(404)


FILES = 1_000  # enough to be met in the middle of a copy


def test_an_import_survives_kill_9(own_server):
    user = own_server.new_user()
    upload(user, "/", {"seed": b"x"})
    root = own_server.data / "users" / user.id / "private" / "big"
    root.mkdir()
    for number in range(FILES):
        (root / f"part-{number:05}").write_bytes(b"%d" % number)
    made = create(user, "big", version(path="/big")).payload["aiApplicationVersionList"][0]["id"]
    staging = own_server.data / "models" / ".staging" / made
    wait_until(lambda: staging.exists() and len(os.listdir(staging)) > 50 or detail(user, made)["status"] == 2,
               what="the copy's beginning")
    own_server.restart(kill=True)
    user = own_server.admin
    done = imported(user, made)
    assert done["status"] == 2, done
    copied = own_server.data / done["hideSourcePath"].lstrip("/")
    assert len(os.listdir(copied)) == FILES
    assert (copied / f"part-{FILES - 1:05}").read_bytes() == b"%d" % (FILES - 1)
    assert os.listdir(own_server.data / "models" / ".staging") == []

    # A deletion that the server did not live to finish is finished by the next.
    user.delete(f"/api/v1/model-versions/{made}").gone()
    own_server.restart(kill=True)
    wait_until(lambda: not copied.exists(), timeout=60, what="the files' removal")
