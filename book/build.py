"""Build the book into ``build/html``: python book/build.py [--force | --twins]

What is built is told by one hash over everything that a page can depend on. Same hash: nothing to do. Otherwise the pages are
written from nothing, since Sphinx does not read a page again that failed the last time, while cells whose code, package, data and
constraints are unchanged come from the cache of executed notebooks in ``build/cache``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml
from editions import edition, write_course
from jupyter_cache import get_cache
from myst_nb.core.read import is_myst_markdown_notebook

from zsrbook.scale import Scale, ScaleError, current_scale, data_folder

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGES = BUILD / "html"
STAMP = PAGES / ".built-from"
#: what a number on a page can depend on, and what a page can depend on besides
NUMBERS = ("zsrbook/**/*", "constraints.txt", "book/claims/**/*", "book/runs/**/*", "book/**/*.csv", "book/deviations.yml", "*/bench.json")
WORDS = ("book/**/*", "notebooks/*.md")
#: a page that an exception got onto
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|class=\"[^\"]*\boutput traceback\b")

#: pages that run at the same time; each takes up to 2 GB
MOST_AT_ONCE = 4
#: what is worth showing while pages run
PROGRESS = re.compile(r"\.md: Execut(ing|ed) notebook|^[\w-]+\.md: Using cached")
#: what tells nothing where a build failed
NOISE = re.compile(r"\[IPKernelApp\] WARNING|\.\.\. .*(\[ *\d+%\]|done)")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book into build/html.")
    parser.add_argument("--force", action="store_true", help="from nothing")
    parser.add_argument("--twins", action="store_true", help="only write the .ipynb twins of the notebooks")
    asked = parser.parse_args()
    for notebook in sorted((ROOT / "notebooks").glob("*.md")):
        sync(notebook)
    if asked.twins:
        return 0
    start = time.monotonic()
    try:
        scale, data = current_scale(), data_folder()
    except ScaleError as error:
        print(f"== The book was not built: {error}", file=sys.stderr)
        return 1
    numbers = digest(NUMBERS, scale.value, "" if scale is Scale.TOY else folder_listing(data))
    everything = digest(WORDS, numbers)
    if not asked.force and STAMP.exists() and STAMP.read_text() == everything:
        return done(scale, "is up to date")

    print(f"== Building the book at scale {scale}{', from nothing' if asked.force else ''}; notebooks run if they, or zsrbook, changed.", flush=True)
    work, cache = BUILD / "work", BUILD / "cache" / f"{scale}-{numbers[:16]}"
    for folder in (work, PAGES, *([cache] if asked.force else [])):
        shutil.rmtree(folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    get_cache(cache).db  # noqa: B018  reading it makes it; two pages that make it at the same moment would fail
    forget_old_caches(cache)

    environment = os.environ | {"ZSRBOOK_BUILD": "1", "ZSRBOOK_NOTEBOOK_CACHE": str(cache), "ZSRBOOK_SCALE": scale.value, "PYTHONHASHSEED": "0"}
    if not execute(pages_with_cells(), environment):
        print("== The book was not built: the page above did not run to its end.", file=sys.stderr)
        return 1
    print("== Writing the pages.", flush=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "--config", "book/_config.yml", "--toc", "book/_toc.yml"]
    command += ["--path-output", str(work), "-W", "--keep-going", "-n"]
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
    write_course(PAGES / "course")
    STAMP.write_text(everything)
    return done(scale, f"took {time.monotonic() - start:.0f} s")


def pages_with_cells() -> list[Path]:
    """Of the table of contents, the chapters before all else, since they take longest."""
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    names = [contents["root"], *(chapter["file"] for part in contents["parts"] for chapter in part["chapters"])]
    pages = [ROOT / f"{name}.md" for name in sorted(names, key=lambda name: not name.startswith("notebooks/"))]
    return [page for page in pages if is_myst_markdown_notebook(page.read_text(encoding="utf-8"))]


def execute(pages: list[Path], environment: dict[str, str]) -> bool:
    """Run the cells of all pages that are not in the cache yet, a few pages at a time; False where one raised, which ends it."""
    cores = os.cpu_count() or 1
    at_once = min(cores, MOST_AT_ONCE)
    threads = str(max(1, cores // at_once))  # more than there are cores would wait for each other
    environment = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads} | environment
    script = str(ROOT / "book" / "execute.py")
    with ThreadPoolExecutor(at_once) as pool:
        runs = [pool.submit(run, [sys.executable, script, str(page)], environment) for page in pages]
        try:
            for ended in as_completed(runs):
                failed, log = ended.result()
                if failed:
                    print(log)
                    return False
        finally:
            pool.shutdown(cancel_futures=True)  # after a page that raised, and after Ctrl-C, no other begins
    return True


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
    at_scale = "" if scale is Scale.TOY else f" SCALE={scale}"  # else make would build it at toy scale, in the place of this one
    print(f"== The book at scale {scale} {what}. Open {(PAGES / 'index.html').as_uri()} or run: make serve{at_scale}")
    return 0


def digest(patterns: tuple[str, ...], *more: str) -> str:
    """sha256 over the names and contents of all files that the patterns match, and over ``more``."""
    total = hashlib.sha256(os.fsencode("\0".join(more)))  # a name in the data folder may be no UTF-8
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"\0{path.relative_to(ROOT)}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def folder_listing(folder: Path) -> str:
    """Names, sizes and times of the raw data, which is too large to read for each build."""
    files = {path.relative_to(folder): path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    return "\n".join(f"{path} {about.st_size} {about.st_mtime_ns}" for path, about in files.items())


def sync(notebook: Path) -> None:
    """Write the twin that Colab opens, if it says something else."""
    path, content = notebook.with_suffix(".ipynb"), edition(notebook.read_text(encoding="utf-8"), "twin")
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")
        print(f"== wrote {path.relative_to(ROOT)}")


def forget_old_caches(current: Path) -> None:
    """The three used last stay."""
    current.touch()
    folders = (path for path in current.parent.iterdir() if path.is_dir())
    for old in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)[3:]:
        shutil.rmtree(old)


if __name__ == "__main__":
    sys.exit(main())
