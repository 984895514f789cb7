"""What the server's own OpenAPI document says of its calls, for tests that go through all of them."""

import dataclasses

JSON = "application/json"


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a request. `path` names the way to it: ("resource", 0, "cpuNumber")."""

    path: tuple
    schema: dict
    place: str  # body, query or path
    required: bool

    @property
    def name(self):
        """As the server names it: resource[0].cpuNumber."""
        out = ""
        for step in self.path:
            out += f"[{step}]" if isinstance(step, int) else ("." if out else "") + step
        return out

    @property
    def types(self):
        kind = self.schema.get("type", [])
        return set(kind if isinstance(kind, list) else [kind]) - {"null"}

    def is_a(self, *kinds):
        return bool(self.types & set(kinds))


def fields_of(schema, path=(), place="body"):
    """Every field below a schema, containers before what they hold."""
    # What travels as a string of JSON may also come as that JSON.
    schema = schema.get("contentSchema", schema)
    for name, inner in schema.get("properties", {}).items():
        here = path + (name,)
        yield Field(here, inner, place, name in schema.get("required", []))
        yield from fields_of(inner, here, place)
    if "items" in schema:
        here = path + (0,)
        yield Field(here, schema["items"], place, False)
        yield from fields_of(schema["items"], here, place)


class Operation:
    def __init__(self, method, path, described):
        self.method = method.upper()
        self.path = path
        self.id = described["operationId"]
        self.access = described["x-access"]
        # A call that several sections describe goes by the first of them.
        self.section = described.get("x-section", "").split(",")[0]
        content = described.get("requestBody", {}).get("content", {})
        self.takes_json = JSON in content
        self.fields = [Field((p["name"],), p["schema"], p["in"], p["required"])
                       for p in described.get("parameters", []) if p["in"] != "header"]
        if self.takes_json:
            self.fields += fields_of(content[JSON]["schema"])

    def __repr__(self):
        return f"{self.method} {self.path}"

    def body_fields(self):
        return [field for field in self.fields if field.place == "body"]


def operations(document):
    return [Operation(method, path, described) for path, item in document["paths"].items()
            for method, described in item.items()]


def place(target, path, value):
    """Puts a value into a JSON body, making what is on the way to it. None if something else is there."""
    for step, following in zip(path, path[1:]):
        empty = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            if not target:
                target.append(empty)
            target = target[0]
        else:
            target = target.setdefault(step, empty)
        if not isinstance(target, type(empty)):
            return None
    if isinstance(path[-1], int):
        target[:1] = [value]
    else:
        target[path[-1]] = value
    return target
