"""Reading the C++ sources: files, includes, and tokens without comments. Standard library only."""

import pathlib
import re

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)

_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/'  # comments
    r'|R"(?P<delimiter>[^()\\\s]{0,16})\((?P<raw>.*?)\)(?P=delimiter)"'
    r'|"(?P<text>(?:\\.|[^"\\\n])*)"'
    r"|'(?:\\.|[^'\\\n])+'",
    re.DOTALL,
)


def sources(root, folder="src"):
    """Every .h and .cpp below root/folder, sorted, relative to root."""
    base = pathlib.Path(root)
    found = [path for suffix in ("*.h", "*.cpp") for path in (base / folder).rglob(suffix)]
    return sorted(path.relative_to(base) for path in found)


def includes(text):
    """(line number, path) of every #include "..."."""
    return [(line_of(text, match.start(1)), match.group(1)) for match in INCLUDE.finditer(text)]


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def split(text):
    """(code, strings): the text with comments and literals blanked out but for their lines and quotes, and
    (line number, content) of every string literal that is not a header name."""
    strings = []

    def blank(match):
        token = match.group()
        content = match.group("text") if match.group("raw") is None else match.group("raw")
        if content is not None:
            start = text.rfind("\n", 0, match.start()) + 1
            if not re.match(r"\s*#\s*include", text[start:match.start()]):
                strings.append((line_of(text, match.start()), content))
        lines = "\n" * token.count("\n")
        return lines if token.startswith(("//", "/*")) else f'"{lines}"'

    # A digit separator (1'000) is no character literal.
    return _TOKEN.sub(blank, re.sub(r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])", " ", text)), strings


def closure(root, source, cache):
    """The project files a source includes, directly or not, itself included. `cache` is kept between calls."""
    seen, todo = set(), [pathlib.Path(source)]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if path not in cache:
            text = (pathlib.Path(root) / path).read_text()
            candidates = [pathlib.Path("src") / name for _, name in includes(text)]
            cache[path] = [name for name in candidates if (pathlib.Path(root) / name).is_file()]
        todo += cache[path]
    return sorted(seen)
