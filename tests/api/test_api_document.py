"""docs/api.md and docs/glossary.md say what there is."""

import re

import documented
import openapi
import pytest

DOCS = documented.FOLDER.parents[2] / "docs"
SCHEMAS = documented.schemas()


def rows(heading):
    """The cells of the table under a heading of api.md."""
    text = (DOCS / "api.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return cells[2:]


@pytest.fixture(scope="module")
def operations(server):
    return openapi.operations(server.client().get("/api/v1/openapi.json").ok())


def test_every_section_is_in_the_table_with_what_proves_it():
    sections = {s["section"]: f"`{s['method']} {s['path']}`" for s in documented.sections()}
    table = {row[0].split()[0]: row for row in rows("The documented API")}
    assert {section: row[1] for section, row in table.items()} == sections
    assert all(row[3] == f"`test_section[{section}]`" and len(row[2]) > 5 for section, row in table.items())


def test_every_section_has_a_route(operations):
    def plain(path):
        return path.removeprefix("/api")

    served = {(op.method, plain(op.path)) for op in operations if op.section}
    assert {(s["method"], plain(s["path"])) for s in documented.sections()} == served


def test_every_own_route_is_in_the_table_with_its_access(operations):
    there = {(f"`{op.method} {op.path}`", op.access) for op in operations if not op.section}
    listed = {(row[0], row[1]) for row in rows("The own API")}
    missing = [f"| {route} | {access} | … |" for route, access in sorted(there - listed)]
    assert not missing, "docs/api.md lacks:\n" + "\n".join(missing)
    assert listed - there == set()


def names(value):
    """Every field name within an example or a schema."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names(inner)


def test_every_documented_field_is_in_the_glossary(operations):
    used = set(names(list(SCHEMAS.values())))
    for section in documented.sections():
        for example in section["examples"]:
            for part in ("json", "query", "form", "multipart", "answer"):
                used |= set(names(example.get(part)))
    for operation in operations:
        if operation.section:
            used |= {step for field in operation.fields for step in field.path if isinstance(step, str)}
    known = set(re.findall(r"`(\w+)`", (DOCS / "glossary.md").read_text()))
    assert sorted(used - known) == []
