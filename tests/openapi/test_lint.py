"""The server's OpenAPI document passes Redocly's and Spectral's recommended rules without an error or a warning."""

import json
import os
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}


def run(*command):
    return subprocess.run(command, cwd=HERE, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def linters():
    """The folder of the installed linters, of exactly the versions in package-lock.json."""
    installed = HERE / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        done = run("npm", "ci", "--no-progress")
        if done.returncode != 0 and not os.environ.get("CI"):
            pytest.skip("the linters cannot be installed here: " + done.stderr[-300:])
        assert done.returncode == 0, done.stderr
        installed.touch()
    return HERE / "node_modules/.bin"


@pytest.fixture(scope="module")
def document(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    path.write_bytes(server.client().get("/api/v1/openapi.json").body)
    return path


def test_redocly_finds_nothing(linters, document):
    done = run(linters / "redocly", "lint", document, "--config", HERE / "redocly.yaml", "--format", "json")
    assert done.returncode == 0, done.stderr + done.stdout[:4000]
    found = json.loads(done.stdout)
    assert found["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, found["problems"][:20]


def test_spectral_finds_nothing(linters, document):
    done = run(linters / "spectral", "lint", "--ruleset", HERE / "spectral.yaml", "--fail-severity", "hint",
               "--format", "json", document)
    found = json.loads(done.stdout[done.stdout.index("["):done.stdout.rindex("]") + 1])
    assert done.returncode == 0 and found == [], done.stderr + json.dumps(found[:20], indent=1)


def test_the_linters_do_find_something(linters, document):
    broken = json.loads(document.read_text())
    operation = broken["paths"]["/healthz"]["get"]
    del operation["operationId"]
    operation["responses"] = {"200": {"$ref": "#/components/responses/none"}}
    path = document.with_name("broken.json")
    path.write_text(json.dumps(broken))
    assert run(linters / "redocly", "lint", path, "--config", HERE / "redocly.yaml").returncode != 0
    assert run(linters / "spectral", "lint", "--ruleset", HERE / "spectral.yaml", path).returncode != 0
