"""tools/check_packages.py: a header of a package that packages.txt does not name is found."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("packages", "status"), [("[build]\ng++ libsodium-dev\n", 0), ("[build]\ng++\n", 1)])
def test_a_header_and_its_package(tmp_path, packages, status):
    (tmp_path / "packages.txt").write_text(packages)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x.cpp").write_text("#include <vector>\n#include <unistd.h>\n#include <sodium.h>\n")
    run = subprocess.run([sys.executable, ROOT / "tools/check_packages.py", tmp_path], capture_output=True, text=True)
    assert run.returncode == status, run.stdout
    assert ("src/x.cpp:3: <sodium.h> is in libsodium-dev" in run.stdout) == (status == 1)
