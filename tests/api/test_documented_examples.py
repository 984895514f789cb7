"""Every example of the documented API, sent as the document writes it, gets the documented answer; wrong
requests get the documented refusal. The examples are data: examples/SECTION.json, see support/documented.py."""

import copy
import re

import documented
import lathe
import pytest

SECTIONS = documented.sections()
SCHEMAS = documented.schemas()
CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module", params=["", "/api"], ids=["plain", "api"])
def world(request):
    """Documented paths answer with and without a leading /api: all is done once each way."""
    with lathe.Server() as server:
        made = documented.World(server, request.param)
        yield made
        made.stop_services()


def refused(answer, section, status):
    """The message of a refusal in the right envelope."""
    assert answer.status == status, answer
    message = answer.json["message"]
    assert answer.json == documented.failure(section["path"], status, message) and message, answer
    return message


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["section"])
def test_section(world, section):
    for example in section["examples"]:
        for need in example.get("needs", []):
            world.value(need)
        answer = documented.send(world.user, section, example, world)
        assert answer.status == 200, answer
        wrong = documented.mismatches(example["answer"], answer.json, SCHEMAS)
        assert not wrong, "\n".join([section["section"], *wrong, repr(answer)])
    for example in section.get("refused", []):
        message = refused(documented.send(world.user, section, example, world), section, example["status"])
        in_english = documented.send(world.user, section, example, world, headers={"Accept-Language": "en-GB,en;q=0.9"})
        english = refused(in_english, section, example["status"])
        for name in example["names"]:
            assert name in message and name in english, (example["what"], name, message, english)
        assert CHINESE.search(message) and not CHINESE.search(english), (message, english)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["section"])
def test_nobody_is_let_in_without_a_valid_token(world, section):
    for token in (None, "no-such-token"):
        answer = documented.send(world.server.client(token), section, section["examples"][0], world)
        refused(answer, section, 401)


@pytest.mark.parametrize("section", [s for s in SECTIONS if "json" in s["examples"][0]], ids=lambda s: s["section"])
@pytest.mark.parametrize("body", ['{"userId": ', "[]", '"text"', '{"userId": "7"，"uid: 2004}'])
def test_a_body_that_is_not_an_object_is_refused(world, section, body):
    headers = {"Content-Type": "application/json;charset=UTF-8"}
    answer = world.user.request(section["method"], world.prefix + section["path"].removeprefix("/api"), body, headers)
    assert "JSON" in refused(answer, section, 400)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["section"])
def test_another_method_is_refused(world, section):
    answer = world.user.request("PUT", world.prefix + section["path"].removeprefix("/api").replace("{taskId}", "x"))
    assert answer.headers["Allow"] == section["method"]
    refused(answer, section, 405)


@pytest.mark.parametrize("path", ["/kernel/fineTune/nothing", "/model/modelServer/nothing", "/docker/image/nothing",
                                  "/model/evaluation/task/nothing", "/system/config/nothing"])
def test_an_unknown_path_is_refused_in_its_familys_envelope(world, path):
    assert path in refused(world.user.post(world.prefix + path, {}), {"path": path}, 404)


@pytest.mark.parametrize("section, name", [("2.1", "imageName"), ("3.1", "application.name"), ("4.1", "name"), ("6.1", "name"),
                                           ("7.1", "name"), ("8.1", "modelServer.name"), ("8.2", "modelServer.name")])
def test_the_same_key_creates_once(world, section, name):
    section = next(s for s in SECTIONS if s["section"] == section)
    example = copy.deepcopy(section["examples"][0])
    for need in example.get("needs", []):
        world.value(need)
    documented.put(example["json"], name, "once-" + section["section"])
    for version in example["json"].get("aiApplicationVersionList", []):
        version["applicationName"] = ""
    key = {"Idempotency-Key": "key-of-" + section["section"]}
    answers = [documented.send(world.user, section, example, world, headers=key).ok() for _ in range(2)]
    assert ids_of(answers[0]) == ids_of(answers[1])
    documented.put(example["json"], name, "twice")
    refused(documented.send(world.user, section, example, world, headers=key), section, 422)


def ids_of(answer):
    data = answer.get("data")
    return data and [data.get("id"), data.get("application", {}).get("id"),
                     [version["id"] for version in data.get("aiApplicationVersionList", [])]]
