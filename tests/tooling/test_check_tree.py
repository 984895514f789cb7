"""tools/check_tree.py finds what it is for: each rule is broken once in a small tree made for it."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_tree  # noqa: E402
import source_tree  # noqa: E402

GOOD = {
    "src/base/result.h": "#pragma once\n",
    "src/db/row.h": '#include "base/result.h"\n',
    "src/http/api.h": '#include "base/result.h"\n',
    "src/accounts/accounts.h": '#include "db/row.h"\n',
    "src/models/model.h": '#include "accounts/accounts.h"\n',
    "src/models/models_service.h": '#include "models/model.h"\n',
    "src/models/models_wire.h": '#include "base/result.h"\n',
    "src/models/models_store.cpp": 'auto sql = "SELECT id FROM models";\n',
    "src/models/models_routes.cpp": 'api.add({.method = Method::get, .path = "/models/{id}", .id = "getModel"});\n'
                                    'api.add({.method = Method::get, .path = "/models", .id = "listModels"});\n',
    "src/engines/engine.h": "#pragma once\n",
    "src/engines/process/supervisor.cpp": 'execl("/bin/sh", "sh", "-c", line, nullptr);\n',
    "src/jobs/jobs.h": '#include "models/models_service.h"\n#include "engines/engine.h"\n',
    "src/jobs/jobs_test.cpp": '#include "engines/fake_engine.h"\n',
    "src/app/app.cpp": '#include "models/models_routes.h"\n#include "jobs/jobs.h"\n',
    "src/main.cpp": '#include "app/app.h"\n',
}


def findings(folder, **changes):
    for name, text in {**GOOD, **changes.get("files", {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return check_tree.check(folder)


def test_a_good_tree_passes(tmp_path):
    found = findings(tmp_path)
    assert found.errors == [] and found.warnings == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("src/base/x.h", '\n#include "db/row.h"\n', "src/base/x.h:2: base includes db"),
        ("src/db/x.h", '#include "http/api.h"\n', "db includes http"),
        ("src/http/x.cpp", '#include "db/row.h"\n', "http includes db"),
        ("src/models/x.cpp", '#include "jobs/jobs.h"\n', "models includes jobs"),
        ("src/gateway/x.cpp", '#include "app/app.h"\n', "gateway includes app"),
        ("src/jobs/x.cpp", '#include "models/models_wire.h"\n', "models_wire.h is private to models"),
        ("src/jobs/x.cpp", '#include "models/models_store.h"\n', "models_store.h is private to models"),
        ("src/jobs/x.cpp", '#include "engines/supervised/supervisor.h"\n', "supervisor.h is private to engines"),
        ("src/jobs/x.cpp", '#include "engines/fake_engine.h"\n', "fake_engine.h is private to engines"),
        ("src/jobs/x.cpp", '#include "model.h"\n', "includes app"),
        ("src/jobs/x.cpp", '#include "boost/json.hpp"\n', "is below no layer"),
        ("src/extras/x.cpp", "\n", "src/extras/ is in no layer"),
        ("src/models/types.h", "\n", "'types' names nothing"),
        ("src/jobs/common/x.h", "\n", "'common' names nothing"),
        ("src/jobs/job_utils.cpp", "\n", None),
        ("src/jobs/utils.cpp", "\n", "'utils' names nothing"),
        ("src/jobs/x.cpp", "\n" * 801, "801 lines"),
        ("src/jobs/jobs_service.cpp", 'tx.query("SELECT id FROM jobs");\n', "SQL outside a store"),
        ("src/jobs/jobs_service.cpp", 'tx.query(R"(\n  UPDATE jobs SET a = 1)");\n', "jobs_service.cpp:1: SQL outside"),
        ("src/jobs/jobs_service.cpp", 'log("Select a job to UPDATE"); // "SELECT id FROM x"\n', None),
        ("src/jobs/jobs_test.cpp", 'tx.query("SELECT id FROM jobs");\n', None),
        ("src/jobs/x.cpp", '\nstd::system("ls");\n', "x.cpp:2: system() runs a shell line"),
        ("src/jobs/x.cpp", "auto* p = popen(line, mode);\n", "popen() runs a shell line"),
        ("src/jobs/x.cpp", "throw system_error(1); job.system(2); // system(3)\n", None),
        ("src/jobs/x.cpp", 'execlp("sh", "sh", "-c", line, nullptr);\n', "a shell is executed"),
        ("src/jobs/x.cpp", "int x = 0;  // TO" "DO: more\n", "'TO" "DO'"),
        ("docs/x.md", "see /ho" "me/joe/lathe\n", "is on your machine only"),
        ("src/jobs/jobs_routes.cpp", 'api.add({.id = "getModel"});\n', "operation id 'getModel' is declared twice"),
        ("src/jobs/jobs_routes.cpp", 'api.add({.method = Method::get,\n .path = "/models/{name}"});\n',
         "route 'get /models/{}' is declared twice"),
    ],
)
def test_a_broken_rule_is_found(tmp_path, name, text, expected):
    errors = findings(tmp_path, files={name: text}).errors
    if expected is None:
        assert errors == []
    else:
        assert len(errors) == 1 and expected in errors[0]


def test_a_long_file_is_warned_about(tmp_path):
    found = findings(tmp_path, files={"src/jobs/x.cpp": "\n" * 401})
    assert found.errors == [] and "401 lines" in found.warnings[0]


def test_the_program_fails_and_says_where(tmp_path):
    findings(tmp_path, files={"src/base/x.h": '#include "db/row.h"\n'})
    run = subprocess.run([sys.executable, ROOT / "tools/check_tree.py", tmp_path], capture_output=True, text=True)
    assert run.returncode == 1
    assert "src/base/x.h:1: base includes db" in run.stdout


def test_literals_and_comments_are_told_from_code():
    code, strings = source_tree.split('#include "a/b.h"\nint x = 1\'000; // "no"\nauto s = R"x(y\n"z")x"; char c = \'"\';\nf("w");\n')
    assert strings == [(3, 'y\n"z"'), (5, "w")]
    assert '"no"' not in code and code.count("\n") == 5


def test_a_header_change_makes_its_includers_stale(tmp_path):
    import tidy

    findings(tmp_path)
    (tmp_path / "src/db/row.cpp").write_text('#include "db/row.h"\n')
    source, old = pathlib.Path("src/db/row.cpp"), os.getcwd()
    os.chdir(tmp_path)
    try:
        before = tidy.stamp_of(source, b"", {})
        assert tidy.stamp_of(source, b"", {}) == before
        (tmp_path / "src/base/result.h").write_text("#pragma once\nclass Result;\n")
        assert tidy.stamp_of(source, b"", {}) != before
    finally:
        os.chdir(old)
