"""The OpenAPI document keeps to OpenAPI 3.1 and to what linters recommend of it (the rules of Redocly's and
Spectral's recommended sets that a generated document can break)."""

import re

import pytest

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
TYPES = {"null", "boolean", "object", "array", "number", "string", "integer"}


@pytest.fixture
def document(anonymous):
    return anonymous.get("/api/v1/openapi.json").ok()


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS, f"{path}: {method}"
            yield f"{method} {path}", path, method, operation


def walk(node, place="#"):
    yield place, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from walk(child, f"{place}/{key}")


def test_operation_ids_are_words_and_unique(document):
    ids = [operation["operationId"] for _, _, _, operation in operations(document)]
    assert len(ids) > 20
    assert sorted(ids) == sorted(set(ids))
    assert [name for name in ids if not re.fullmatch(r"[A-Za-z0-9_.-]+", name)] == []


def test_no_two_paths_are_the_same_but_for_their_parameters(document):
    shapes = [re.sub(r"\{[^}]*\}", "{}", path) for path in document["paths"]]
    assert sorted(shapes) == sorted(set(shapes))
    assert [path for path in document["paths"] if "?" in path or (path.endswith("/") and path != "/")] == []


def test_path_parameters_are_declared_and_nothing_else_is(document):
    for name, path, _, operation in operations(document):
        parameters = operation.get("parameters", [])
        declared = {p["name"] for p in parameters if p["in"] == "path"}
        assert declared == set(re.findall(r"\{([^}]*)\}", path)), name
        assert all(p["required"] is True for p in parameters if p["in"] == "path"), name
        keys = [(p["in"], p["name"]) for p in parameters]
        assert len(keys) == len(set(keys)), name
        assert all("schema" in p for p in parameters), name


def test_every_operation_is_described_tagged_and_answers(document):
    tags = [tag["name"] for tag in document["tags"]]
    assert len(tags) == len(set(tags))
    for name, _, method, operation in operations(document):
        assert operation["summary"] and operation["description"], name
        assert operation["tags"] and set(operation["tags"]) <= set(tags), name
        statuses = set(operation["responses"])
        assert any(status.startswith(("2", "3")) for status in statuses), name
        assert any(status.startswith("4") for status in statuses), name
        assert all(response["description"] for response in operation["responses"].values()), name
        assert not (method in ("get", "head") and "requestBody" in operation), name


def test_security_is_declared_for_every_operation(document):
    schemes = set(document["components"]["securitySchemes"])
    for name, _, _, operation in operations(document):
        security = operation.get("security", document["security"])
        assert all(set(requirement) <= schemes for requirement in security), name
        if security:
            assert "401" in operation["responses"], name


def test_references_resolve_and_no_component_is_unused(document):
    used = set()
    for place, node in walk(document):
        if isinstance(node, dict) and "$ref" in node and isinstance(node["$ref"], str):
            reference = node["$ref"]
            assert reference.startswith("#/"), f"{place}: {reference}"
            target = document
            for part in reference[2:].split("/"):
                assert part in target, f"{place}: {reference} leads nowhere"
                target = target[part]
            used.add(reference)
    declared = {f"#/components/schemas/{name}" for name in document["components"].get("schemas", {})}
    assert declared - used == set()


def test_schemas_are_json_schema(document):
    schemas = 0
    for place, node in walk(document["paths"]):
        # A property may be called "type" itself.
        if not isinstance(node, dict) or "type" not in node or place.endswith("/properties"):
            continue
        schemas += 1
        types = node["type"] if isinstance(node["type"], list) else [node["type"]]
        assert set(types) <= TYPES, f"{place}: {types}"
        if "array" in types:
            assert "items" in node, place
        if "required" in node and "properties" in node:
            assert set(node["required"]) <= set(node["properties"]), place
        if "enum" in node:
            assert node["enum"] and len(node["enum"]) == len(set(map(str, node["enum"]))), place
    assert schemas > 50
