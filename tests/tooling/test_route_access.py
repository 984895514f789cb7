"""A route that does not say who may call it does not compile."""

import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]

ROUTE = """
#include "http/api.h"

void add(lathe::http::Api& api) {
  api.add<lathe::Nothing, lathe::Nothing>(
      {.method = lathe::http::Method::get, .path = "/x", %s .id = "x", .tag = "t", .summary = "s"},
      [](lathe::http::Call&, lathe::Nothing) -> lathe::Result<lathe::Nothing> { return lathe::Nothing{}; });
}
"""


def compile_route(access):
    compiler = shutil.which("g++")
    assert compiler, "the build needs g++ too"
    return subprocess.run(
        [compiler, "-std=c++20", "-fsyntax-only", "-Wno-missing-field-initializers", f"-I{ROOT / 'src'}", "-x", "c++", "-"],
        input=ROUTE % access, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"})


def test_a_declared_route_compiles():
    run = compile_route(".access = lathe::http::Access::user,")
    assert run.returncode == 0, run.stderr


def test_an_undeclared_route_does_not_compile():
    run = compile_route("")
    assert run.returncode != 0
    assert "use of deleted function 'lathe::http::Access::Access()'" in run.stderr
