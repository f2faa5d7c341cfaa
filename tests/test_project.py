"""The repository keeps its own promises: one address, nothing private, one way to show a figure."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import editions  # from book/
import pytest
import yaml
from typer.testing import CliRunner

from zsrbook.scale import Scale

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.md"))
TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".cff", ".css", ".js", ".ipynb", ".json", ".csv", ".bib", ""}


def tracked() -> list[Path]:
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", ROOT / "book" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_environment_yml_asks_for_what_pyproject_asks():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["project"]["name"]
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert any(d.startswith("python" + PROJECT["project"]["requires-python"]) for d in conda)
    extras = re.fullmatch(r"-e \.\[(.*)\]", next(line for line in pip if line.startswith("-e")))[1]
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    assert "-c constraints.txt" in pip


def test_an_install_brings_the_command():
    module, _, app = PROJECT["project"]["scripts"]["zsrbook"].partition(":")
    found = CliRunner().invoke(getattr(importlib.import_module(module), app), ["data", "--help"])
    assert found.exit_code == 0
    assert all(command in found.output for command in ("list", "get", "check"))


def test_constraints_pin_every_direct_dependency_within_its_range():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for requirement in (Requirement(text) for group in groups for text in group):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"constraints.txt lacks {requirement.name}"
        assert requirement.specifier.contains(pin), (
            f"constraints.txt has {requirement.name}=={pin}, but pyproject.toml asks for {requirement.specifier}"
        )
    assert not any("+" in version for version in pins.values()), "a local version, such as +cpu, exists on one platform only"


def test_jobs_that_run_the_tests_install_what_these_import():
    """Both extras: without pybtex, or without the theme of the book, four files of tests can't even be read."""
    for name in ("newest", "oldest"):
        steps = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text())["jobs"][name]["steps"]
        assert "-e '.[book,test]'" in " ".join(step.get("run", "") for step in steps)


def test_one_repository_address():
    from zsrbook.records import ADDRESS

    address = PROJECT["project"]["urls"]["Repository"]
    assert yaml.safe_load((ROOT / "book/_config.yml").read_text())["repository"]["url"] == address
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == address
    assert address == ADDRESS
    assert f"{address}/blob/main" == editions.REPOSITORY
    assert f"git clone -q --depth 1 {address} " in editions.INSTALL
    assert f"{{{address}}}" in (ROOT / "book/cite.md").read_text()


def test_the_glossary_has_the_rows_that_prerec_is_held_against():
    from zsrbook.experiments import prerec

    terms = re.findall(r"^(\S.*)\n  ", (ROOT / "book/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    rows = {row.name for row in prerec.baselines(prerec.Spec("grocery", Scale.TOY))} - {"MostPop", "MostPop (binned)", "Random"}
    assert rows <= set(terms)


def test_a_mistyped_scale_builds_nothing_and_says_so(build, monkeypatch, capsys):
    monkeypatch.setenv("ZSRBOOK_SCALE", "tiny")
    monkeypatch.setattr("sys.argv", ["build.py"])
    assert build.main() == 1
    assert "== The book was not built: ZSRBOOK_SCALE is 'tiny'; it must be one of toy, small, paper" in capsys.readouterr().err


def test_one_version():
    from zsrbook import __version__

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert f"version = {{{__version__}}}" in (ROOT / "book/cite.md").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_figures_are_shown_through_plots_alone(path):
    direct = re.findall(r"plt\.show\(|\bfig\w*\.show\(|import matplotlib\.pyplot|%matplotlib|px\.\w+\(.*\)\.show", path.read_text(encoding="utf-8"))
    assert not direct, f"{path.name} shows figures by {direct}; use zsrbook.plots, which adds the text alternative and the dark version"


def test_nothing_private_is_committed():
    # written in pieces, so that this file does not match itself
    forbidden = {
        "a folder of one machine": "/work" + "/(main|shared)|/" + "tmp/(clone|shots|preamble)|/" + "opt/pypi|/" + "home/\\w+/",
        "a package registry": "py" + r"pi\.org|files\." + r"pythonhosted\.org|download\." + r"pytorch\.org|registry\." + r"npmjs\.org",
        "a pickle": r"\bimport " + r"pickle\b|" + r"allow_pickle=" + "True",
        "a merge mark": "^<{7} |^>{7} ",
    }
    found = []
    for path in tracked():
        if path.suffix not in TEXT:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {what}" for what, pattern in forbidden.items() if re.search(pattern, text, re.MULTILINE)]
    assert not found, "\n".join(found)


def test_no_large_file_is_committed():
    large = [f"{path.relative_to(ROOT)}: {path.stat().st_size >> 10} KB" for path in tracked() if path.stat().st_size > 1 << 20]
    assert not large, "\n".join(large)


def test_a_traceback_on_a_page_is_seen(build):
    assert build.TRACEBACK.search('<div class="output traceback highlight-ipythontb">')
    assert not build.TRACEBACK.search("<p>the last traceback was long ago</p>")


def test_pages_run_once_and_a_cell_that_raises_ends_the_build(build, tmp_path, capsys):
    head = "---\nkernelspec:\n  name: python3\njupytext:\n  text_representation:\n    format_name: myst\n---\n\n# Page\n\n"
    pages = {name: tmp_path / f"{name}.md" for name in ("good", "bad")}
    for name, code in (("good", "1 + 1"), ("bad", "raise ValueError('as asked')")):
        pages[name].write_text(f"{head}```{{code-cell}} ipython3\n{code}\n```\n")
    environment = os.environ | {"ZSRBOOK_NOTEBOOK_CACHE": str(tmp_path / "cache")}
    assert build.execute([pages["good"]], environment)
    assert "good.md: Executed" in capsys.readouterr().out
    assert not build.execute(list(pages.values()), environment)
    told = capsys.readouterr().out
    assert "good.md: Using cached" in told
    assert "as asked" in told  # the traceback, in colours


def test_no_page_begins_after_an_interruption(build, monkeypatch):
    began = []

    def run(command, environment):
        began.append(command)
        if len(began) == 1:
            raise KeyboardInterrupt
        time.sleep(0.2)
        return False, ""

    monkeypatch.setattr(build, "run", run)
    monkeypatch.setattr(build, "MOST_AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        build.execute([Path(f"{n}.md") for n in range(9)], {})
    assert len(began) < 4  # one may begin before the first is heard of


def test_the_book_is_served_at_the_scale_at_which_it_was_built(build, capsys):
    """At another, make would build it anew in its place."""
    for scale, command in ((Scale.TOY, "make serve\n"), (Scale.SMALL, "make serve SCALE=small\n")):
        build.done(scale, "is up to date")
        assert capsys.readouterr().out.endswith(command)


def test_chapters_run_before_other_pages(build):
    names = [page.parent.name for page in build.pages_with_cells()]
    assert names == sorted(names, reverse=True)
    assert set(names) == {"book", "notebooks"}


def test_the_hash_of_a_build_sees_content_and_scale(build, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("1")
    first = build.digest(("*.py",), "toy")
    assert first == build.digest(("*.py",), "toy")
    assert first != build.digest(("*.py",), "small")
    (tmp_path / "a.py").write_text("2")
    assert first != build.digest(("*.py",), "toy")


def test_the_hash_of_a_build_sees_that_data_has_changed(build, tmp_path):
    data = tmp_path / os.fsdecode(b"r\xe9sum\xe9.csv")  # no UTF-8, as names from old disks
    try:
        data.write_text("1")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    first = build.folder_listing(tmp_path)
    assert build.digest((), first) == build.digest((), build.folder_listing(tmp_path))
    data.write_text("2")  # no longer than before
    os.utime(data, ns=(0, 1))
    assert build.digest((), first) != build.digest((), build.folder_listing(tmp_path))
    assert build.folder_listing(tmp_path / "none") == ""


def test_of_old_caches_three_stay_and_what_is_no_cache_does_too(build, tmp_path):
    (tmp_path / ".DS_Store").touch()  # as macOS leaves in folders that were looked at
    for age, name in enumerate("abcde"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (age, age))
    build.forget_old_caches(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".DS_Store", "a", "d", "e"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_an_environment_that_was_stopped_before_it_had_pip_is_made_again(tmp_path):
    """By a stand-in for Python that makes an environment in which nothing does anything."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n[ \"$2\" = venv ] && printf '#!/bin/sh\\n' > .venv/bin/pip && chmod +x .venv/bin/pip\nexit 0\n")
    python.chmod(0o755)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(python, tmp_path / ".venv/bin/python")
    done = subprocess.run(["make", "setup", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv/.ready").exists()


def test_every_source_of_data_can_be_cited():
    from zsrbook.data.fetch import SOURCES

    bibliography = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    for source in SOURCES.values():
        assert f"{{{source.citation}," in bibliography, f"{source.name} is cited as {source.citation}, which references.bib lacks"


def test_the_register_of_deviations_names_each_once_and_holds_all_that_are_measured(monkeypatch):
    from zsrbook.experiments import mail, preprec, prerec, search, zesrec

    monkeypatch.setattr(search, "tuned", lambda spec, name: search.SquareSettings())  # the ids do not depend on it

    papers = yaml.safe_load((ROOT / "book/deviations.yml").read_text(encoding="utf-8"))
    entries = [entry for paper in papers for entry in paper["deviations"]]
    assert all({"id", "what", "paper", "here", "why"} <= set(entry) <= {"id", "what", "paper", "here", "why", "effect"} for entry in entries)
    ids = [entry["id"] for entry in entries]
    assert len(ids) == len(set(ids))
    measured = {entry["id"] for entry in entries if "measured in the chapter" in entry.get("effect", "")}
    assert measured == {
        *zesrec.deviation_settings(Scale.TOY),
        *mail.choice_words(Scale.TOY),
        *search.DEVIATIONS,
        *prerec.deviation_settings(Scale.TOY),
        *preprec.WORDS,
    }
