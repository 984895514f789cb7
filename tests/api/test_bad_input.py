"""No input breaks anything. Every field of every call, as the server's own OpenAPI document lists them, is sent
missing, of the wrong type, out of range, too long, outside its form; every text also as what a shell, a path or a
parser would act upon. What is wrong is refused with a 4xx that names it; what is accepted is data and nothing else.
"""

import copy
import http.client
import json
import sqlite3
import uuid

import documented
import lathe
import openapi
import pytest

# Rows that come and go with the calling itself, not with what was called.
OWN_TABLES = {"audit", "sessions", "idempotency", "idempotency_keys", "sqlite_sequence", "meta"}
UNKNOWN = "31318cb98b54973c018b55f70c5c0004"
JSON = "application/json"


class Target:
    """The server, a caller for each access class, and what exists in it."""

    def __init__(self, server):
        self.server = server
        self.document = server.client().get("/api/v1/openapi.json").ok()
        self.operations = openapi.operations(self.document)
        self.world = documented.World(server)
        for name in ("group.id", "version.id", "image.id"):
            self.world.value(name)
        # Nothing that is accepted here ever runs.
        future = {"startTime": "2090-01-01T00:00:00Z"}
        server.admin.put(f"/api/v1/users/{self.world.user.id}/quota", future).ok()
        self.tokens = {"open": None, "user": self.world.user.token, "admin": server.admin.token}
        self.connection = None
        self.sent = 0

    def send(self, operation, body=None, query=None, path=None, content_type=JSON):
        """(status, text). One connection for all: a refused request leaves it usable."""
        target = operation.path
        for field in operation.fields:
            if field.place == "path":
                target = target.replace("{" + field.path[0] + "}", quoted((path or {}).get(field.path[0], UNKNOWN)))
        if query:
            target += "?" + "&".join(f"{name}={quoted(value)}" for name, value in query.items())
        headers = {"Accept-Language": "en"}
        if self.tokens[operation.access]:
            headers["Authorization"] = "Bearer " + self.tokens[operation.access]
        if body is not None:
            headers["Content-Type"] = content_type
            body = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")
        self.sent += 1
        status, text = self.exchange(operation.method, target, body, headers)
        assert status < 500, f"{operation}: {status} {text[:500]} for {target[:300]} {str(body)[:1000]}"
        return status, text

    def exchange(self, *request):
        for attempt in (1, 2):
            try:
                self.connection = self.connection or http.client.HTTPConnection(
                    self.server.client().host, self.server.client().port, timeout=30)
                self.connection.request(*request)
                answer = self.connection.getresponse()
                return answer.status, answer.read().decode()
            except (http.client.HTTPException, ConnectionError):
                self.connection.close()
                self.connection = None
                if attempt == 2:
                    raise

    def rows(self):
        """How many rows each table has."""
        with sqlite3.connect(f"file:{self.server.data / 'lathe.db'}?mode=ro", uri=True) as db:
            names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
                    for name in names if name not in OWN_TABLES}

    def outside(self):
        """What lies beside the data directory."""
        return sorted(str(path) for path in self.server.folder.rglob("*")
                      if not path.is_relative_to(self.server.data))

    def kept_files(self):
        """What users' roots, models, images and jobs hold."""
        assert (self.server.data / "users").is_dir()
        return sorted((str(path), path.stat().st_size) for folder in ("users", "models", "images", "jobs")
                      for path in lathe.files_below(self.server.data / folder))


def quoted(value):
    """Into a URL, byte by byte: so that the server decodes exactly this."""
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in data)


@pytest.fixture(scope="module")
def target():
    with lathe.Server(config={"log": {"access": False}}) as server:
        yield Target(server)


@pytest.fixture
def untouched(target):
    """After the test there is nothing that was not there before it."""
    before = target.rows(), target.outside(), target.kept_files()
    yield target
    assert (target.rows(), target.outside(), target.kept_files()) == before


def refuse(target, operation, wrong):
    """Sends all the (field, value) pairs in one request: each of the fields must be named. What a container of
    wrong things hides is sent in a request of its own."""
    problems = []
    for layer in layers(wrong):
        body, query, path = {}, {}, {}
        for field, value in layer:
            if field.place == "body":
                openapi.place(body, field.path, value)
            else:
                (query if field.place == "query" else path)[field.path[0]] = value
        sent = raw(body) if operation.takes_json else None
        status, text = target.send(operation, sent, query, path)
        if path and status == 404 and "violations" not in text:
            continue  # with such a segment it is another address
        problems += judge(operation, status, text, layer)
    return problems


MOST = 400_000  # characters of one request; a body may have a million


def layers(wrong):
    """Splits the fields so that none lies within another one's value, or is another spelling of its name."""
    out = []
    for field, value in wrong:
        for layer in out:
            if not any(hides(field, other) or hides(other, field) for other, _ in layer) and \
                    sum(len(repr(v)) for _, v in layer) + len(repr(value)) < MOST:
                layer.append((field, value))
                break
        else:
            out.append([(field, value)])
    return out


def hides(field, other):
    return field.path == other.path[:len(field.path)] or field.name.lower() == other.name.lower()


def judge(operation, status, text, layer):
    if status != 400:
        return [f"{operation}: {status} for {[(f.name, repr(v)[:60]) for f, v in layer][:5]}: {text[:200]}"]
    answer = json.loads(text)
    if "violations" in answer:
        named = {violation["field"] for violation in answer["violations"]}
        missing = [f.name for f, _ in layer if f.name not in named]
    else:
        missing = [f.name for f, _ in layer if f.name not in answer["message"]]
    values = {f.name: repr(v)[:60] for f, v in layer}
    return [f"{operation}: {name}={values[name]} is not named in: {text[:300]}" for name in missing]


class Raw:
    """A piece of JSON as it stands."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


def raw(body):
    """JSON in which Raw values and bytes go as they are."""
    pieces = []

    def keep(value):
        pieces.append(value.text.encode() if isinstance(value, Raw) else b'"' + value + b'"')
        return f"\ue000{len(pieces) - 1}\ue001"

    text = json.dumps(body, default=keep, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for i, piece in enumerate(pieces):
        text = text.replace(f'"\ue000{i}\ue001"'.encode(), piece)
    return text


def all_at_once(target, values_of):
    """Every operation, with all of its fields for which `values_of(field)` gives wrong values: the first value of
    every field in one request, then the second, and so on."""
    problems, tried = [], 0
    for operation in target.operations:
        wrong = [(field, values_of(field)) for field in operation.fields]
        for i in range(max([len(values) for _, values in wrong], default=0)):
            layer = [(field, values[i]) for field, values in wrong if i < len(values)]
            problems += refuse(target, operation, layer)
            tried += len(layer)
    assert not problems, f"{len(problems)} of {tried}:\n" + "\n".join(problems[:40])
    return tried


def test_the_document_lists_the_calls(target):
    sections = {operation.section for operation in target.operations} - {""}
    twins = {"5.1": "4.1", "5.2": "4.2", "5.3": "4.3", "5.4": "4.4", "5.5": "4.5", "9.1": "4.5"}
    assert sections | set(twins) >= {section["section"] for section in documented.sections()}
    assert sum(len(operation.fields) for operation in target.operations) > 500


@pytest.mark.parametrize("nothing", ["absent", None, ""])
def test_what_is_missing_is_named(untouched, nothing):
    problems, tried = [], 0
    for operation in untouched.operations:
        required = [f for f in operation.fields if f.required and len(f.path) == 1 and
                    (f.place == "body" or (f.place == "query" and nothing is not None))]
        if not required:
            continue
        if nothing == "absent":
            answer = untouched.send(operation, {} if operation.takes_json else None)
            problems += judge(operation, *answer, [(field, nothing) for field in required])
        else:
            problems += refuse(untouched, operation, [(field, nothing) for field in required])
        tried += len(required)
    assert not problems, "\n".join(problems)
    assert tried >= 25


def test_wrong_types_are_named(untouched):
    def values(field):
        if field.place != "body":
            return ["text", "1.5"] if field.is_a("integer") else ["maybe"] if field.is_a("boolean") else []
        if "contentSchema" in field.schema:
            return ["{", "[{]"] + ([7, "7"] if "type" in field.schema["contentSchema"] else [])
        if field.is_a("integer"):
            return ["text", {"a": 1}, [1], True, 1.5, "1e3"]
        if field.is_a("number"):
            return ["text", {"a": 1}, [1], True, "nan", "inf"]
        if field.is_a("boolean"):
            return ["maybe", 7, {"a": 1}, [True]]
        if field.is_a("string"):
            return [{"a": 1}, ["a"]]
        if field.is_a("array"):
            return [{"a": 1}, "text", 7, True]
        return ["text", [1], 7, True] if field.is_a("object") else []

    assert all_at_once(untouched, values) > 1500


def test_numbers_out_of_range_are_named(untouched):
    def values(field):
        if not field.is_a("integer", "number"):
            return []
        huge = [Raw("9223372036854775808"), Raw("1e300"), Raw("-9223372036854775809"), "9223372036854775808"]
        out = [] if field.is_a("number") else huge
        if "minimum" in field.schema:
            out = out + [field.schema["minimum"] - 1, -(2**63)]
        if "maximum" in field.schema:
            out = out + [field.schema["maximum"] + 1, 2**63 - 1]
        return out

    assert all_at_once(untouched, values) > 200


def test_what_is_too_long_is_named(untouched):
    def values(field):
        if field.is_a("string") and "maxLength" in field.schema:
            # Longer ones do not fit into a request line.
            if field.place == "body" or field.schema["maxLength"] < 2000:
                return ["a" * (field.schema["maxLength"] + 1)]
        if field.is_a("array") and field.place == "body" and field.schema.get("maxItems", 1e9) <= 1000:
            return [[None] * (field.schema["maxItems"] + 1)]
        return []

    assert all_at_once(untouched, values) > 300


def test_words_that_are_not_a_choice_are_named(untouched):
    assert all_at_once(untouched, lambda field: ["no-such-word"] if "enum" in field.schema and field.is_a("string")
                       else [77] if "enum" in field.schema else []) > 20


def test_texts_outside_their_form_are_named(untouched):
    def values(field):
        pattern = field.schema.get("pattern", "") if field.is_a("string") else ""
        if not pattern or field.place == "path":
            return []
        out = ["a\nb", "a\x7fb", "a\x1b[31m"]
        if pattern.startswith("^[A-Za-z0-9_.-]"):
            out += ["a b", "a/b", "名", "a;b", "$(a)"]
        if pattern.startswith("^([A-Za-z_]"):
            out += ["a b", "1a", "名", "a;b", "--a", "a=b"]
        if "$%&" in pattern:
            out += ["a;b", "$(touch x)", "`x`", "a|b", "a&b", "a<b", "'a'", '"a"', "a\\b", "*"]
        return out

    assert all_at_once(untouched, values) > 1000


@pytest.mark.parametrize("place, value", [
    ("query", b"a\xff\xfe"), ("query", b"\xc0\xaf"), ("query", b"\xed\xa0\x80"), ("query", b"a\x00b"),
    ("body", b"a\xff"), ("body", b"a\xc0\xaf"), ("body", b"a\\u0000b"), ("body", b"a\\ud800b"),
], ids=repr)
def test_bytes_that_are_no_text_are_refused(untouched, place, value):
    problems = []
    for operation in untouched.operations:
        for field in operation.fields:
            if field.place == place and field.is_a("string") and "contentSchema" not in field.schema:
                body, query = {}, {}
                if place == "query":
                    query[field.path[0]] = value
                else:
                    openapi.place(body, field.path, value)
                status, text = untouched.send(operation, raw(body) if operation.takes_json else None, query)
                if status != 400:
                    problems.append(f"{operation}: {field.name}={value!r}: {status} {text[:200]}")
    assert not problems, f"{len(problems)}:\n" + "\n".join(problems[:40])


def deep(count, open_, close):
    return b'{"a":' + open_ * count + b"1" + close * count + b"}"


@pytest.mark.parametrize("body", [
    b"{", b"[]", b"[{}]", b"7", b"null", b'"text"', b"{'a': 1}", b'{"a": 1}}', b'{"a": 1,}', b"\xff\xfe{\x00}\x00", b"\x00",
    b'{"a": 1e400}x', b'{"a": NaN}', b'{"a": 01}', b'{"\xff": 1}', b'{"a": "\x01"}', b'{"a": "\\ud800"}', b"\xef\xbb\xbf{}}",
    deep(40, b"[", b"]"), deep(40, b'{"a":', b"}"), deep(50_000, b"[", b"]"), deep(50_000, b'{"a":', b"}"),
], ids=lambda body: repr(body[:12]))
def test_what_is_not_json_is_refused(untouched, body):
    for operation in untouched.operations:
        if operation.takes_json:
            status, text = untouched.send(operation, body)
            assert status == 400, f"{operation}: {status} {text}"


def test_a_body_of_another_type_is_refused_or_read_as_json(untouched):
    for operation in untouched.operations:
        if operation.takes_json:
            for kind in ("text/plain", "application/xml", "multipart/form-data; boundary=x", "image/png", ""):
                for body in (b"<a/>", b"--x\r\n\r\n--x--\r\n", b"a=1"):
                    status, text = untouched.send(operation, body, content_type=kind)
                    assert status in (400, 415), f"{operation}: {status} {text}"


def test_too_large_a_body_is_refused(untouched):
    huge = b'{"a": "' + b"a" * (9 << 20) + b'"}'
    for operation in untouched.operations:
        if operation.takes_json:
            # The server need not read what it refuses: the connection may break under it.
            try:
                status, text = untouched.send(operation, huge)
            except OSError:
                continue
            assert status == 413, f"{operation}: {status} {text[:200]}"


def test_numbers_beyond_a_double_do_no_harm(untouched):
    for operation in untouched.operations:
        for field in operation.body_fields():
            if field.is_a("integer", "number"):
                body = {}
                openapi.place(body, field.path, Raw("1e400"))
                assert untouched.send(operation, raw(body))[0] == 400, f"{operation}: {field.name}"
                openapi.place(body, field.path, Raw("1" * 5000))
                assert untouched.send(operation, raw(body))[0] == 400, f"{operation}: {field.name}"


READS = ("list", "get", "find", "query", "show")


def test_unknown_and_repeated_fields_are_harmless(untouched):
    for operation in untouched.operations:
        if operation.takes_json and operation.id.startswith(READS):
            plain = untouched.send(operation, {})
            odd = untouched.send(operation, b'{"no such field": {"a": [1]}, "": 1, "__proto__": {}, "a.b": 1, "a.b": 2}')
            assert odd[0] == plain[0], f"{operation}: {plain} {odd}"
    listing = next(op for op in untouched.operations if op.section == "4.2")
    assert untouched.send(listing, b'{"pageNum": 1, "pageNum": "x"}')[0] in (200, 400)


# --- texts that are data ------------------------------------------------------------------------------------

def hostile(canary):
    touch = f"touch {canary}"
    return [f"; {touch} #", f"$({touch})", f"`{touch}`", f"'\"\\; {touch} | {touch} & {touch} > {canary} <", f"a\n{touch}\n",
            f"x' ; {touch} ; '", f"../../../../../../..{canary}", "/../../../etc/passwd", "%2e%2e%2f%2e%2e%2fx", "..%00",
            "a/" * 300, "x" * 300, f"${{IFS}}{touch}", "{{7*7}}", "${output_dir}", "'; DROP TABLE users; --", "<script>alert(1)</script>",
            "\u202egnp.exe", "-rf", "--help", "~root", "file:///etc/passwd"]


def seeds(target):
    """(operation, whole valid request) of calls that make or change something."""
    known = set(target.world.made)
    by_section = {operation.section: operation for operation in target.operations if operation.section}
    for section in documented.sections():
        for example in section["examples"]:
            names = set(example.get("replaced", {}).values())
            if "json" in example and names <= known and section["section"] in by_section:
                body = copy.deepcopy(example["json"])
                for path, name in example.get("replaced", {}).items():
                    documented.put(body, path, target.world.value(name))
                yield by_section[section["section"]], body
    by_id = {operation.id: operation for operation in target.operations}
    for name, body in {
        "createUser": {"userName": "seed", "password": "a long password", "role": "user"},
        "createApiKey": {"name": "seed"},
        "createResourceGroup": {"name": "seed", "capacity": {"cpu": 1}},
        "createFolder": {"path": "seed"},
        "moveFile": {"path": "data", "newPath": "moved"},
        "createDataset": {"name": "seed", "path": "/data"},
    }.items():
        if name in by_id:
            yield by_id[name], body


def test_hostile_texts_are_data_or_refused(target, tmp_path):
    """One text field after the other of a request that is right otherwise."""
    canary = tmp_path / "pwned"
    outside = target.outside()
    accepted = refused = 0
    for operation, seed in seeds(target):
        for field in operation.body_fields():
            if not field.is_a("string") or field.path[0] not in seed or field.path[0] == "password":
                continue
            for text in hostile(canary):
                body = copy.deepcopy(seed)
                give_a_name(body)
                if openapi.place(body, field.path, text) is None:
                    continue
                status, _ = target.send(operation, body)
                accepted += status < 300
                refused += status >= 400
    assert not canary.exists() and list(tmp_path.iterdir()) == []
    assert target.outside() == outside
    assert accepted > 100 and refused > 1000, (accepted, refused)
    assert target.server.client().get("/readyz").status == 200


def give_a_name(body):
    """What is created must have a name of its own."""
    fresh = "n" + uuid.uuid4().hex[:16]
    if "password" in body:
        body["userName"] = fresh
    if "imageName" in body and "fileUrl" not in body:
        body["imageName"] = fresh
    for part in (body, body.get("application"), body.get("modelServer")):
        if isinstance(part, dict) and "name" in part:
            part["name"] = fresh
    for version in body.get("aiApplicationVersionList", []):
        version["applicationName"] = ""


def test_hostile_values_reach_a_job_as_they_are(target):
    """Not only refused or kept: run. Names that a shell would act upon are refused, values are single words."""
    text = """; touch pwned-job; $(touch pwned-job) `touch pwned-job` ${output_dir} 'single' "double" \\ * ~ # & | > pwned-job\nline"""
    user = target.world.other
    task = user.post("/kernel/trainOperator/createTask", {
        "name": "hostile", "describe": text, "outputDir": "/out",
        "command": 'printf "%s|" ${learning_rate} "${lora_r}" "$V" > ${output_dir}/got',
        "commonHyperParameters": [{"name": "learning_rate", "value": text}],
        "fineTuneHyperParameters": [{"name": "lora_r", "value": text}],
        "variable": [{"name": "V", "value": text}]}).payload["id"]
    job = lathe.wait_until(lambda: next(
        (job for job in [user.post("/kernel/trainOperator/queryTaskInfo", {"taskId": task}).payload] if job["endTime"]), None))
    assert job["status"] == "Succeeded" and job["describe"] == text, job
    got = user.get("/api/v1/files/content", query={"path": "out/got"})
    assert got.status == 200 and got.text == f"{text}|{text}|{text}|"
    assert not list(target.server.folder.rglob("pwned-job"))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..", ".", "a\\..\\x", "a\x00b", "%2e%2e/x", "\udcff", "a" * 300,
                                  "a/" * 3000 + "x", "", "/", "a//b/../c", "con\n"])
def test_hostile_file_names_stay_below_the_root(target, name):
    user, before = target.world.user, target.outside()
    quoted_name = name.encode("utf-8", "surrogateescape").replace(b'"', b"%22")
    for path in ("/api/file/file/uploadFolder", "/api/file/file/uploadPublicFolder"):
        for part in (b'name="file"; filename="' + quoted_name + b'"', b'name="currentPath"'):
            content = quoted_name if b"currentPath" in part else b"x"
            body = b"".join(b"--x\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + b"\r\n" for head, data in [
                (b'name="publicUserId"', user.id.encode()), (part, content), (b'name="file"; filename="ok"', b"x")]) + b"--x--\r\n"
            answer = user.request("POST", path, body, {"Content-Type": "multipart/form-data; boundary=x"})
            assert answer.status in (200, 400, 409), answer
    assert target.outside() == before
    names = [path.parts for path in (target.server.data / "users").rglob("*")]
    assert names and not [parts for parts in names if ".." in parts]


def test_the_server_has_met_no_bug(target):
    """Last: what the log says of all the requests above."""
    log = target.server.log_text()
    assert " failed: " not in log and "terminate" not in log and "Sanitizer" not in log, log[-4000:]
    assert target.sent > 5000
