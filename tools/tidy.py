#!/usr/bin/python3
"""clang-tidy over the sources that changed since it last liked them: a stamp a file, named by the hash of
the settings, the file and all project headers it includes.

    tidy.py BUILD_FOLDER      which holds compile_commands.json
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import source_tree

STAMPS = pathlib.Path(".cache/tidy")


def stamp_of(source, settings, headers):
    digest = hashlib.sha256(settings)
    for path in source_tree.closure(".", source, headers):
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return STAMPS / digest.hexdigest()


def tidy(build, source, stamp):
    started = time.monotonic()
    run = subprocess.run(["clang-tidy", "-p", build, "--quiet", str(source)], capture_output=True, text=True)
    if run.returncode == 0:
        stamp.touch()
    return source, run.returncode, run.stdout + run.stderr, time.monotonic() - started


def main(build):
    STAMPS.mkdir(parents=True, exist_ok=True)
    commands = json.loads((pathlib.Path(build) / "compile_commands.json").read_text())
    compiled = {pathlib.Path(command["file"]) for command in commands}
    # Tests are left out: gtest's macros cost most of the time and hide most of the findings.
    found = [path for path in source_tree.sources(".") if path.resolve() in compiled and not path.stem.endswith("_test")]
    settings, headers = pathlib.Path(".clang-tidy").read_bytes(), {}
    stamps = {path: stamp_of(path, settings, headers) for path in found}
    stale = [path for path in found if not stamps[path].exists()]
    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, status, output, took in pool.map(lambda path: tidy(build, path, stamps[path]), stale):
            print(f"{'ok  ' if status == 0 else 'BAD '} {took:5.1f} s  {path}")
            if status != 0:
                bad += 1
                print(output)
    print(f"{len(found)} files, {len(stale)} looked at, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
