#!/usr/bin/python3
"""The rules of CONTRIBUTING.md that can be read off the sources. Prints file:line, what is wrong and what
would be right; ends with 1 if anything is.

    check_tree.py [ROOT]
"""

import pathlib
import re
import subprocess
import sys

import source_tree

# Includes go one way: a layer sees those before it. db and http do not see each other.
LAYERS = [{"base"}, {"db", "http"}, {"accounts"}, {"quotas"}, {"files"}, {"datasets"}, {"images"}, {"models"},
          {"algorithms"}, {"engines"}, {"jobs"}, {"gateway"}, {"serving"}, {"app"}]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
OPEN = {"base", "db", "http"}  # every header at their top is for everybody
FEATURES = set(RANK) - OPEN - {"app"}
# What folders offer beside x.h and x_service.h.
INTERFACES = {
    "accounts": {"audit.h", "idempotency.h"},
    "engines": {"engine.h", "launch_plan.h", "gpu/gpu_pool.h", "engine_set.h"},
    "images": {"export.h"},
    "models": {"safetensors.h"},  # jobs tell whole checkpoints from cut-off ones as models do
    "jobs": {"plan/command.h"},  # values into commands, environment: services start programs as jobs do
}
BAD_NAMES = {"types", "utils", "util", "common", "helpers", "misc"}
WARN_LINES, MAX_LINES = 400, 800

SQL = re.compile(r"^\s*(SELECT\s+[\w*(]|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s"
                 r"|CREATE\s+(UNIQUE\s+)?(TABLE|INDEX)\s|ALTER\s+TABLE\s|DROP\s+TABLE\s)")
SHELL = re.compile(r"(?<![\w.>])(?:std::|::)?(system|popen)\s*\(")
EXEC_SHELL = re.compile(r"\bexecl[ep]?\s*\([^;]*\"(?:/bin/|/usr/bin/)?(?:ba|da)?sh\"")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
HOME = re.compile(r"(?<![\w/])/(home|Users)/[a-z]\w*/")


class Findings:
    def __init__(self):
        self.errors, self.warnings = [], []

    def error(self, path, line, wrong, right):
        self.errors.append(f"{path}:{line}: {wrong}: {right}")

    def warn(self, path, line, wrong, right):
        self.warnings.append(f"{path}:{line}: warning: {wrong}: {right}")


def layer_of(path):
    """The layer of a file below src/: its folder; main.cpp belongs to app."""
    return path.parts[1] if len(path.parts) > 2 else "app"


def is_test(path):
    return path.stem.endswith("_test") or is_test_helper(path)


def is_test_helper(path):
    """Headers and sources that tests share: test_server.h, engine_testing.h, fake_engine.h ..."""
    return bool(re.match(r"(test|fake)_", path.name)) or bool(re.search(r"(^|_)(test|testing|contract)\.", path.name))


def public_headers(folder):
    singular = folder[:-1] if folder.endswith("s") else folder
    names = {f"{stem}{suffix}.h" for stem in (folder, singular) for suffix in ("", "_service")}
    return names | INTERFACES.get(folder, set())


def check_layers(path, text, findings):
    mine = layer_of(path)
    if mine not in RANK:
        findings.error(path, 1, f"src/{mine}/ is in no layer", "put it into a known folder, or add the layer to "
                       "tools/check_tree.py and CONTRIBUTING.md")
        return
    for line, name in source_tree.includes(text):
        included = pathlib.PurePosixPath("src") / name
        theirs = layer_of(included)
        if theirs == mine:
            continue
        if theirs not in RANK:
            findings.error(path, line, f'"{name}" is below no layer', "include project headers as \"layer/x.h\", "
                           "others as <x.h>")
        elif RANK[theirs] >= RANK[mine]:
            findings.error(path, line, f"{mine} includes {theirs} (\"{name}\")", f"{theirs} may include {mine}, not "
                           "the other way; pass in an interface or a function that app connects")
        elif theirs in FEATURES and not (is_test(path) and is_test_helper(included)):
            check_public(path, line, mine, theirs, included, findings)


def check_public(path, line, mine, theirs, included, findings):
    if mine == "app" and included.stem.endswith("_routes"):
        return
    if "/".join(included.parts[2:]) in public_headers(theirs):
        return
    if mine == "app" and theirs in ("engines", "gateway"):  # app constructs them
        return
    allowed = ", ".join(sorted(public_headers(theirs)))
    findings.error(path, line, f"{included.name} is private to {theirs}", f"from outside include {allowed} only")


def check_names(path, findings):
    for part in (*path.parts[1:-1], path.stem):
        if part in BAD_NAMES:
            findings.error(path, 1, f"'{part}' names nothing", "name the file after the one thing it holds")


def check_size(path, text, findings):
    lines = text.count("\n")
    if lines > MAX_LINES:
        findings.error(path, MAX_LINES, f"{lines} lines", f"split it by what it does; {MAX_LINES} are the limit")
    elif lines > WARN_LINES:
        findings.warn(path, WARN_LINES, f"{lines} lines", "is this still one thing?")


def check_sql(path, strings, findings):
    if path.parts[1] == "db" or path.stem.endswith("_store") or is_test(path):
        return
    for line, content in strings:
        if SQL.match(content):
            findings.error(path, line, "SQL outside a store", "move the statement into this feature's *_store.cpp")


def check_processes(path, text, code, findings):
    for match in SHELL.finditer(code):
        findings.error(path, source_tree.line_of(code, match.start()), f"{match.group(1)}() runs a shell line",
                       "start processes by argv (base/subprocess.h)")
    if path.parts[1:3] == ("engines", "process"):  # the sandbox runs the user's own command line
        return
    for match in EXEC_SHELL.finditer(text):
        findings.error(path, source_tree.line_of(text, match.start()), "a shell is executed",
                       "start the program itself by argv (base/subprocess.h)")


def check_words(path, text, findings):
    """For every text file of the repository, not only the sources."""
    for match in UNFINISHED.finditer(text):
        findings.error(path, source_tree.line_of(text, match.start()), f"'{match.group()}'",
                       "finish it, or open an issue and leave no mark here")
    for match in HOME.finditer(text):
        findings.error(path, source_tree.line_of(text, match.start()), f"'{match.group()}' is on your machine only",
                       "use a path relative to the repository")


def check_operations(routes, findings):
    """An operation id, and a method with its path, are declared once: the OpenAPI document needs both."""
    seen = {}
    for path, text in routes:
        code = re.sub(r"//[^\n]*", "", text)
        for match in re.finditer(r'\.id\s*=\s*"([^"]+)"', code):
            note_once(seen, ("operation id", match.group(1)), path, code, match, findings)
        for match in re.finditer(r'\.method\s*=\s*[\w:]*?(\w+)\s*,\s*\.path\s*=\s*"([^"]+)"', code):
            shape = re.sub(r"\{[^}]*\}", "{}", match.group(2))
            note_once(seen, ("route", f"{match.group(1)} {shape}"), path, code, match, findings)


def note_once(seen, key, path, code, match, findings):
    line = source_tree.line_of(code, match.start())
    if key in seen:
        findings.error(path, line, f"{key[0]} '{key[1]}' is declared twice", f"the first is at {seen[key]}")
    seen.setdefault(key, f"{path}:{line}")


def text_files(root):
    """What git would commit, as (path, text)."""
    listed = subprocess.run(["git", "-c", f"safe.directory={root}", "-C", str(root), "ls-files", "-z", "--cached",
                             "--others", "--exclude-standard"], capture_output=True, check=True).stdout
    for name in sorted(filter(None, listed.decode().split("\0"))):
        file = root / name
        if not file.is_file() or file.stat().st_size > 2_000_000 or name.startswith("tools/check_tree.py"):
            continue
        try:
            yield pathlib.PurePosixPath(name), file.read_text()
        except UnicodeDecodeError:
            continue


def check(root):
    root, findings, routes = pathlib.Path(root).resolve(), Findings(), []
    for path in source_tree.sources(root):
        text = (root / path).read_text()
        code, strings = source_tree.split(text)
        check_layers(path, text, findings)
        check_names(path, findings)
        check_size(path, text, findings)
        check_sql(path, strings, findings)
        check_processes(path, text, code, findings)
        if path.stem.endswith("_routes"):
            routes.append((path, text))
    check_operations(routes, findings)
    for path, text in text_files(root):
        check_words(path, text, findings)
    return findings


def main():
    findings = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(findings.warnings + findings.errors))
    print(f"{len(findings.errors)} errors, {len(findings.warnings)} warnings")
    return 1 if findings.errors else 0


if __name__ == "__main__":
    sys.exit(main())
