"""Build the book into ``build/html``: python book/build.py [--force | --twins | --course]

``--force`` starts from nothing, ``--twins`` only writes the .ipynb twins of the notebooks, ``--course`` only writes them into
``build/course``, once for students, without solutions, and once for instructors, with the solutions open.

What is built is told by one hash over everything that a page can depend on. Same hash: nothing to do. Otherwise the pages are
written from nothing, since Sphinx does not read a page again that failed the last time, while cells whose code, package, data and
constraints are unchanged come from the cache of executed notebooks in ``build/cache``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

import jupytext
import yaml
from nbformat.v4 import new_code_cell
from pybtex.database import Entry, parse_file

from zsrbook.scale import Scale, current_scale, data_folder

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGES = BUILD / "html"
STAMP = PAGES / ".built-from"
#: what a number on a page can depend on, and what a page can depend on besides
NUMBERS = ("zsrbook/**/*", "constraints.txt", "book/claims/**/*", "book/runs/**/*")
WORDS = ("book/**/*", "notebooks/*.md")
#: a page that an exception got onto
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|class=\"[^\"]*\boutput traceback\b")

#: what is worth showing while Sphinx works
PROGRESS = re.compile(r"Execut(ing|ed) notebook|Using cached")

NOISE = re.compile(r"\[IPKernelApp\] WARNING|\.\.\. .*(\[ *\d+%\]|done)")


def main() -> int:
    notebooks = sorted((ROOT / "notebooks").glob("*.md"))
    if "--course" in sys.argv[1:]:
        return write_course(notebooks)
    for notebook in notebooks:
        sync(notebook)
    if "--twins" in sys.argv[1:]:
        return 0
    force = "--force" in sys.argv[1:]
    scale, start = current_scale(), time.monotonic()
    numbers = digest(NUMBERS, scale.value, "" if scale is Scale.TOY else folder_listing(data_folder()))
    everything = digest(WORDS, numbers)
    if not force and STAMP.exists() and STAMP.read_text() == everything:
        return done(scale, "is up to date")

    print(f"== Building the book at scale {scale}{', from nothing' if force else ''}; notebooks run if they, or zsrbook, changed.", flush=True)
    work, cache = BUILD / "work", BUILD / "cache" / f"{scale}-{numbers[:16]}"
    for folder in (work, PAGES, *([cache] if force else [])):
        shutil.rmtree(folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    forget_old_caches(cache)

    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "--config", "book/_config.yml", "--toc", "book/_toc.yml"]
    command += ["--path-output", str(work), "-W", "--keep-going", "-n"]
    environment = os.environ | {"ZSRBOOK_BUILD": "1", "ZSRBOOK_NOTEBOOK_CACHE": str(cache), "ZSRBOOK_SCALE": scale.value, "PYTHONHASHSEED": "0"}
    failed, log = run(command, environment)
    if failed:
        print(log, f"== The book was not built: see the warnings above. What there is of it lies in {work}.", sep="\n", file=sys.stderr)
        return 1
    broken = [page for page in (work / "_build" / "html").rglob("*.html") if TRACEBACK.search(page.read_text(encoding="utf-8"))]
    if broken:
        print(f"== A cell raised an exception on: {', '.join(page.name for page in broken)}. The pages lie in {work}.", file=sys.stderr)
        return 1
    shutil.move(work / "_build" / "html", PAGES)
    shutil.rmtree(work)
    STAMP.write_text(everything)
    return done(scale, f"took {time.monotonic() - start:.0f} s")


def run(command: list[str], environment: dict[str, str]) -> tuple[bool, str]:
    """Whether the command failed, and all that it said; on the way only what tells how far it is."""
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout:
            lines.append(line.rstrip())
            if PROGRESS.search(line):
                print("  ", line.strip(), flush=True)
    return process.returncode != 0, "\n".join(line for line in lines if line and not NOISE.search(line))


def done(scale: Scale, what: str) -> int:
    print(f"== The book at scale {scale} {what}. Open {(PAGES / 'index.html').as_uri()} or run: make serve")
    return 0


def digest(patterns: tuple[str, ...], *more: str) -> str:
    """sha256 over the names and contents of all files that the patterns match, and over ``more``."""
    total = hashlib.sha256("\0".join(more).encode())
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"\0{path.relative_to(ROOT)}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def folder_listing(folder: Path) -> str:
    """Names and sizes of the raw data, which is too large to read for each build."""
    return "\n".join(f"{path.relative_to(folder)} {path.stat().st_size}" for path in sorted(folder.rglob("*")) if path.is_file())


#: the second cell of every twin; the records come with the clone
INSTALL = """\
# On Colab this fetches zsrbook and its recorded runs (a minute); elsewhere it does nothing.
import importlib.util
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("zsrbook") is None:
    !git clone -q --depth 1 https://github.com/zsrbook/zsrbook zsrbook-book
    !pip install -q -e ./zsrbook-book
    sys.path.insert(0, "zsrbook-book")"""


def twin(text: str, solutions: str = "folded") -> str:
    """The .ipynb without outputs that says the same as a notebook in MyST Markdown, and begins by installing what it needs.

    Args:
        solutions: ``folded``, ``open`` or ``none``: how an exercise's solution stands below it.
    """
    notebook = jupytext.reads(text, fmt="md:myst")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell["source"] = plain(cell.source, solutions)
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    notebook.cells.insert(1, new_code_cell(INSTALL))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # jupytext makes up new ones each time
    return jupytext.writes(notebook, fmt="ipynb") + "\n"


def plain(text: str, solutions: str = "folded") -> str:
    """MyST Markdown as Jupyter and Colab show it: citations as words, exercises under a heading, solutions folded, links that lead out."""

    def exercise(match: re.Match) -> str:
        return f"### Exercise: {match['title']}\n\n{match['body'].strip()}"

    def solution(match: re.Match) -> str:
        if solutions == "none":
            return ""
        return f"<details{' open' * (solutions == 'open')}><summary><b>Solution</b></summary>\n\n{match['body'].strip()}\n\n</details>"

    def note(match: re.Match) -> str:
        return "\n".join(f"> {line}".rstrip() for line in match["body"].strip().split("\n"))

    for kind, replaced in (("exercise", exercise), ("solution", solution)):
        fence = rf"^(?P<fence>`{{3,}})\{{{kind}\}} *(?P<title>.*)\n(?P<options>(?::\w+:.*\n)*)(?P<body>(?s:.*?))^(?P=fence)$"
        text = re.sub(fence, replaced, text, flags=re.MULTILINE)
    text = re.sub(r"^(?P<fence>:{3,})\{\w+\}.*\n(?P<body>(?s:.*?))^(?P=fence)$", note, text, flags=re.MULTILINE)
    text = re.sub(r"\{cite:([pt])\}`([^`]+)`", lambda m: cited(m[2].split(","), textual=m[1] == "t"), text)
    text = re.sub(r"^\(([\w-]+)\)=$", r'<a name="\1"></a>\n', text, flags=re.MULTILINE)
    pages = yaml.safe_load((ROOT / "book" / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"] + "/blob/main"
    text = re.sub(r"\]\(\.\./(book/[\w./-]+)\)", rf"]({pages}/\1)", text)
    text = re.sub(r"\]\(([\w-]+)\.md\)", rf"]({pages}/notebooks/\1.ipynb)", text)
    return re.sub(r"\]\(([a-z][\w-]*)\)", r"](#\1)", text)


def cited(keys: list[str], textual: bool) -> str:
    """``(Ding et al., 2021)``, or in a sentence ``Ding et al. (2021)``, each with its link where the bibliography has one."""
    found = [(entry, names(entry), entry.fields["year"]) for entry in (bibliography()[key.strip()] for key in keys)]
    if textual:
        return " and ".join(linked(entry, f"{who} ({year})") for entry, who, year in found)
    return f"({'; '.join(linked(entry, f'{who}, {year}') for entry, who, year in found)})"


@lru_cache(1)
def bibliography() -> dict[str, Entry]:
    return dict(parse_file(str(ROOT / "book" / "references.bib")).entries)


def names(entry: Entry) -> str:
    last = [" ".join(map(str, [*person.rich_prelast_names, *person.rich_last_names])) for person in entry.persons["author"]]
    return f"{last[0]} et al." if len(last) > 2 else " and ".join(last)


def linked(entry: Entry, words: str) -> str:
    address = entry.fields.get("url") or (f"https://doi.org/{entry.fields['doi']}" if "doi" in entry.fields else "")
    return f"[{words}]({address})" if address else words


def write_course(notebooks: list[Path]) -> int:
    """Every notebook for students and for instructors, into ``build/course``."""
    for edition, solutions in (("students", "none"), ("instructors", "open")):
        folder = BUILD / "course" / edition
        folder.mkdir(parents=True, exist_ok=True)
        for notebook in notebooks:
            (folder / notebook.with_suffix(".ipynb").name).write_text(twin(notebook.read_text(encoding="utf-8"), solutions), encoding="utf-8")
        print(f"== wrote {len(notebooks)} notebooks for {edition}, solutions {'left out' if solutions == 'none' else 'open'}: {folder}")
    return 0


def sync(notebook: Path) -> None:
    """Write the twin that Colab opens, if it says something else."""
    path, content = notebook.with_suffix(".ipynb"), twin(notebook.read_text(encoding="utf-8"))
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")
        print(f"== wrote {path.relative_to(ROOT)}")


def forget_old_caches(current: Path, keep: int = 3) -> None:
    current.touch()
    for old in sorted(current.parent.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)[keep:]:
        shutil.rmtree(old)


if __name__ == "__main__":
    sys.exit(main())
