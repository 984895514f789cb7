"""Documents how the texts beside this file were cut, and makes them anew (README.md: sources and licences).

Needs Debian's packages bible-kjv, bible-kjv-text and dict-devil; the files it wrote are in the repository.
"""
import gzip
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BOOKS = {"train": ["Genesis", "Psalms", "Proverbs", "Isaiah", "Matthew", "Luke", "John", "Acts"],
         "validate": ["Ruth", "James"]}
# Entries that insult a people in the manner of their time.
LEFT_OUT = {"AFRICAN", "CREDITOR", "ELECTRICITY", "FUNERAL", "HATCHET", "HEBREW", "MINSTREL", "MULATTO", "NEGRO",
            "READING", "RED-SKIN", "REPARTEE", "SEVERALTY"}
SIZES = {"train": 42_000, "validate": 6_000, "test": 16_000}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    print(path.relative_to(HERE), len(text))


def bible():
    """Whole books, a verse a line, without the references."""
    for part, books in BOOKS.items():
        for book in books:
            lines = subprocess.run(["bible", "-f", f"{book} 1:1-{book} 200:200"], capture_output=True, text=True,
                                   check=True).stdout.splitlines()
            verses = [re.sub(r"^\S+\d+:\d+ ", "", line) for line in lines]
            write(HERE / "pretrain" / part / f"{book.lower()}.txt", "\n".join(verses) + "\n")


def devils_dictionary():
    """Whole entries as printed, every one to one part only; dealt out so that each part spans the alphabet."""
    book = gzip.decompress(Path("/usr/share/dictd/devil.dict.dz").read_bytes()).decode("ascii")
    entries = [entry.strip() for entry in re.split(r"\n\n+(?=[A-Z][A-Z' -]*,? )", book)
               if re.match(r"[A-Z][A-Z' -]+, (n|adj|v|adv)\.", entry) and entry.split(",")[0] not in LEFT_OUT]
    parts = {part: [] for part in SIZES}
    for i, entry in enumerate(entries):
        for part, chosen in parts.items():
            # The share of the book's length that the part takes, kept up entry by entry.
            due = SIZES[part] * (i + 1) / len(entries)
            if sum(map(len, chosen)) + len(entry) <= due:
                chosen.append(entry)
                break
    for part, chosen in parts.items():
        write(HERE / "tune" / part / "devils-dictionary.txt", "\n\n".join(chosen) + "\n")


if __name__ == "__main__":
    bible()
    devils_dictionary()
