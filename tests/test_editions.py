"""The notebooks for Colab, for students and for instructors say what the pages say, in Markdown that every notebook shows."""

import json
import re
import zipfile
from pathlib import Path

import editions  # from book/
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.md"))
HEAD = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n\n"
LESSON = """# A lesson

As {cite:t}`ding2021zesrec` say {cite:p}`wu2020search,feng2021mail`, see [wheels](lesson-wheels) and [MAIL](mail.md).

:::{important}
Count twice.
:::

(lesson-wheels)=
## Wheels

```{exercise} Count
:label: lesson-count

How many wheels has `cart`?
```

```{code-cell} ipython3
:tags: [hide-input, check]

check = Exercise(lambda n: n == 4, "walk round it.")
```

```{code-cell} ipython3
check(None);
```

```{solution-start} lesson-count
:class: dropdown
```

Walk round it:

```{code-cell} ipython3
check(4);
```

It has four.

```{solution-end}
```

```{code-cell} ipython3
:tags: [proof, remove-cell]

check.prove(4, wrong=[3])
```

## What to read next
"""


def cells_of(notebook: str) -> list[dict]:
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(notebook)["cells"]]


def text_of(notebook: str) -> str:
    return "\n".join(cell["source"] for cell in cells_of(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_twin_says_the_same_and_has_no_outputs(path):
    twin = path.with_suffix(".ipynb")
    assert twin.exists(), f"{twin.name} is missing; make book writes it"
    text = twin.read_text(encoding="utf-8")
    assert text == editions.edition(path.read_text(encoding="utf-8"), "twin"), f"{twin.name} is older than {path.name}; make book writes it anew"
    cells = [cell for cell in cells_of(text) if cell["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_links_within_an_edition_lead_somewhere(path):
    words = text_of(editions.edition(path.read_text(encoding="utf-8"), "twin"))
    assert set(re.findall(r"\]\(#([^)]*)\)", words)) <= set(re.findall(r'<a name="([^"]*)">', words))
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\.(?:md|ipynb|html)", words)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_exercise_has_a_check_a_solution_and_a_proof(path):
    text = path.read_text(encoding="utf-8")
    asked, answered = (re.findall(pattern, text, re.MULTILINE) for pattern in (r"^:label: ([\w-]+)$", r"^```\{solution-start\} ([\w-]+)$"))
    assert asked == answered
    assert len(asked) >= 2
    tags = [cell["metadata"].get("tags", []) for cell in cells_of(editions.edition(text, "instructor"))]
    assert sum("proof" in found for found in tags) == len(asked)
    assert text.count(" = Exercise(") == text.count(".prove(") == len(asked)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_students_get_questions_and_no_answers(path):
    text = path.read_text(encoding="utf-8")
    student, instructor = (text_of(editions.edition(text, kind)) for kind in ("student", "instructor"))
    assert student.count("### Exercise: ") == instructor.count("### Exercise: ") == instructor.count("**Solution**") >= 2
    assert "**Solution**" not in student
    assert instructor.count("**Wrong answers that the check must refuse**") == instructor.count("### Exercise: ")
    assert ".prove(" not in student
    for solution in re.findall(r"^```\{solution-start\}.*?^```\{solution-end\}", text, re.DOTALL | re.MULTILINE):
        for code in re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", solution, re.DOTALL | re.MULTILINE):
            assert code.strip() not in student
            assert code.strip() in instructor


@pytest.mark.parametrize("kind", ["twin", "student"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_check_is_folded_and_stands_apart_from_the_answer(path, kind):
    cells = [cell for cell in cells_of(editions.edition(path.read_text(encoding="utf-8"), kind)) if cell["cell_type"] == "code"]
    checks = [i for i, cell in enumerate(cells) if " = Exercise(" in cell["source"]]
    assert checks
    for i in checks:
        assert cells[i]["metadata"]["jupyter"] == {"source_hidden": True}
        assert cells[i]["metadata"]["cellView"] == "form"
        assert cells[i]["source"].startswith("# @title ")
        (name,) = re.findall(r"^(\w+) = Exercise\(", cells[i]["source"], re.MULTILINE)
        assert f"{name}(" not in cells[i]["source"], "the answer stands in a cell that is folded"
        assert re.search(rf"^{name}\(my_\w+\);$", cells[i + 1]["source"], re.MULTILINE)
        assert "cellView" not in cells[i + 1]["metadata"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_each_chapter_has_notes_for_whoever_teaches_it(path):
    notes = editions.notes_on(path.stem)
    assert len(notes.split()) > 100, f"book/teaching.md has no section (teach-{path.stem})="
    cells = cells_of(editions.edition(path.read_text(encoding="utf-8"), "instructor", notes))
    assert "google.colab" in cells[1]["source"], "book/teaching.md says that the second cell installs the rest"
    assert editions.plain(notes) in cells[2]["source"]


def test_markup_becomes_plain():
    text = text_of(editions.edition(HEAD + LESSON, "twin"))
    assert "As [Ding et al. (2021)](https://arxiv.org/abs/2105.08318) say (" in text
    assert "([Wu et al., 2020](https://arxiv.org/abs/2008.02930); [Feng et al., 2021](https://doi.org/10.1145/3459637.3482312))" in text
    assert f"see [wheels](#lesson-wheels) and [MAIL]({editions.REPOSITORY}/notebooks/mail.ipynb)" in text
    assert '<a name="lesson-wheels"></a>\n## Wheels' in text
    assert "> **Important.**\n>\n> Count twice." in text
    assert "### Exercise: Count\n\nHow many wheels has `cart`?" in text
    assert "{" not in text.replace("{cart}", "")


def test_names_are_written_without_the_signs_of_bibtex():
    assert editions.citation(["barabasi1999emergence"], in_text=True).startswith("[Barabási and Albert (1999)](")
    assert not [key for key in editions.bibliography() if re.search(r"[{}\\]", editions.citation([key], in_text=False).partition("](")[0])]


def test_the_twin_folds_its_solution():
    cells = cells_of(editions.edition(HEAD + LESSON, "twin"))
    (solution,) = (cell for cell in cells if "check(4)" in cell["source"])
    assert solution["source"].startswith("# @title Solution")
    assert solution["metadata"]["cellView"] == "form"
    (question,) = (cell for cell in cells if "check(None)" in cell["source"])
    assert "cellView" not in question["metadata"]
    assert not any(".prove(" in cell["source"] for cell in cells)


def test_markup_without_a_plain_form_is_refused():
    for markup in ("```{figure} x.png\n```", "{doc}`intro`"):
        with pytest.raises(ValueError, match=r"(figure|doc).* has no plain form"):
            editions.edition(f"{HEAD}# A lesson\n\n{markup}\n", "twin")


def test_the_course_is_two_archives_that_do_not_change_by_themselves(tmp_path):
    student, instructor = editions.write_course(tmp_path)
    for path in (student, instructor):
        with zipfile.ZipFile(path) as archive:
            files = {Path(name).name for name in archive.namelist()}
            assert files == {f"{notebook.stem}.ipynb" for notebook in NOTEBOOKS} | {"README.md", "LICENSE"}
            assert all(member.compress_size < member.file_size for member in archive.infolist())
            assert {member.external_attr >> 16 for member in archive.infolist()} == {0o644}
    before = [path.read_bytes() for path in (student, instructor)]
    assert [path.read_bytes() for path in editions.write_course(tmp_path)] == before
