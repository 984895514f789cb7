#!/usr/bin/python3
"""Every header the sources include comes from a package that packages.txt names: what happens to be
installed here is then installed everywhere.

    check_packages.py [ROOT]
"""

import pathlib
import re
import subprocess
import sys

import source_tree

SYSTEM_INCLUDE = re.compile(r"^\s*#\s*include\s*<([^>]+)>", re.MULTILINE)
FOLDERS = [pathlib.Path("/usr/include/c++/12"), pathlib.Path("/usr/include/x86_64-linux-gnu"),
           pathlib.Path("/usr/include/aarch64-linux-gnu"), pathlib.Path("/usr/include")]
# What g++ itself brings.
TOOLCHAIN = {"libc6-dev", "libstdc++-12-dev", "libgcc-12-dev", "linux-libc-dev"}

# Listed for their programs.
TOOLS = {"g++", "mold"}


def listed(root):
    """package -> group"""
    packages, group = {}, None
    for line in (root / "packages.txt").read_text().splitlines():
        if match := re.fullmatch(r"\[(\w+)\]", line):
            group = match.group(1)
        elif not line.startswith("#"):
            packages.update((name, group) for name in line.split() if name not in packages)
    return packages


def used_headers(root):
    """header as written -> the first place that includes it"""
    used = {}
    for folder in ("src", "bench", "tests", "examples"):
        for path in source_tree.sources(root, folder):
            text = (root / path).read_text()
            for match in SYSTEM_INCLUDE.finditer(text):
                used.setdefault(match.group(1), f"{path}:{source_tree.line_of(text, match.start())}")
    return used


def owners(files):
    """file -> package, asked in one go."""
    run = subprocess.run(["dpkg", "-S", *map(str, files)], capture_output=True, text=True)
    found = {}
    for line in run.stdout.splitlines():
        packages, _, file = line.rpartition(": ")
        found[file] = packages.split(",")[0].split(":")[0]
    return found


def has_headers(package):
    run = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True)
    return package not in TOOLS and re.search(r"^/usr/include/.*\.h", run.stdout, re.MULTILINE)


def main(root):
    packages, where = listed(root), {}
    for header, place in used_headers(root).items():
        file = next((folder / header for folder in FOLDERS if (folder / header).is_file()), None)
        if file:
            where[str(file.resolve())] = (header, place)
    owner = owners(where) if where else {}
    errors = 0
    for file, (header, place) in sorted(where.items(), key=lambda item: item[1][1]):
        package = owner.get(file)
        if package is None:
            print(f"{place}: <{header}> belongs to no Debian package: use what Debian has, or bring it along")
            errors += 1
        elif package not in packages and package not in TOOLCHAIN:
            print(f"{place}: <{header}> is in {package}: add that to packages.txt")
            errors += 1
    unused = [name for name, group in packages.items()
              if group == "build" and name not in owner.values() and has_headers(name)]
    if unused:
        print(f"packages.txt: warning: no source includes anything of {', '.join(unused)}")
    print(f"{len(where)} headers of {len(set(owner.values()))} packages, {errors} errors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()))
