"""The notebooks for those who run them or teach with them, from the same source as the pages: python book/editions.py [FOLDER]

- the **twin** stands beside each notebook, for Colab and Jupyter: everything, with checks and solutions folded away;
- the **student** edition has the exercises, their checks folded away, since a check may show what it looks for, and no solutions;
- the **instructor** edition has solutions open, the wrong answers that each check must refuse, and the notes of ``book/teaching.md``.

Only a Jupyter Book reads MyST, so its citations, boxes and links between chapters become plain Markdown.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Literal

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from pybtex.database import Entry, parse_file

Edition = Literal["twin", "student", "instructor"]

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/zsrbook/zsrbook/blob/main"

#: the second cell; the records come with the clone
INSTALL = """\
# On Colab this fetches zsrbook and its recorded runs (a minute); elsewhere it does nothing.
import importlib.util
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("zsrbook") is None:
    !git clone -q --depth 1 https://github.com/zsrbook/zsrbook zsrbook-book
    !pip install -q -e ./zsrbook-book
    sys.path.insert(0, "zsrbook-book")"""

#: beside the notebooks of a course
README = """\
# zsrbook: zero-shot recommendation, re-run ({kind} edition)

Begin with toy-world.ipynb; the other chapters don't lean on each other. On Colab choose File, Upload notebook; the second cell installs the
rest. On your machine, see {repository}/book/how-to-read.md. How to teach with it: {repository}/book/teaching.md.

You may change and hand out all of this with attribution: text and figures are under CC-BY-4.0, code is under the MIT License; see LICENSE.
"""

SOLUTION = re.compile(r"^```\{solution-start\}.*?^```\{solution-end\}\n```\n", re.DOTALL | re.MULTILINE)
#: a directive or a role that plain Markdown does not know
MYST = re.compile(r"^[`:]{3,}\{[\w:-]+\}|\{[\w:]+\}`", re.MULTILINE)


def edition(text: str, kind: Edition, notes: str = "") -> str:
    """A notebook in MyST Markdown as .ipynb, without outputs.

    Args:
        notes: Markdown for whoever teaches it; the third cell of the instructor edition.

    Raises:
        ValueError: the notebook has markup that would stand in the cells as it is; says which.
    """
    if kind == "student":
        text = SOLUTION.sub("", text)
    notebook = jupytext.reads(text, fmt="md:myst")
    cells, solving = [], False
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "proof" in tags:
            if kind != "instructor":
                continue
            cells.append(new_markdown_cell("**Wrong answers that the check must refuse**"))
        if cell.cell_type == "markdown":
            solving = cell.source.rfind("{solution-start}") > cell.source.rfind("{solution-end}") if "{solution-" in cell.source else solving
            cell.source = plain(cell.source)
        elif "check" in tags and kind != "instructor":
            folded(cell, "The check: run this cell, then answer in the next")
        elif kind == "twin" and (solving or {"hide-input", "remove-input"} & set(tags)):
            folded(cell, "Solution: open this cell to see it" if solving else "")
        cells.append(cell)
    notebook.cells = [cells[0], new_code_cell(INSTALL), *cells[1:]]
    if kind == "instructor" and notes:
        notebook.cells.insert(2, new_markdown_cell(f"## For whoever teaches this\n\n{plain(notes)}"))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # jupytext makes up new ones each time
    return jupytext.writes(notebook, fmt="ipynb") + "\n"


def folded(cell: NotebookNode, title: str) -> None:
    """Fold the code away, in Jupyter and in Colab."""
    cell.metadata["jupyter"] = {"source_hidden": True}
    cell.metadata["cellView"] = "form"
    if title:
        cell.source = f"# @title {title}\n{cell.source}"


def plain(text: str) -> str:
    """Markdown that every notebook shows.

    Raises:
        ValueError: there is markup left that it has no plain form for.
    """
    text = re.sub(r"^```\{exercise\} (.+)\n(?::.*\n)*\n((?:(?!```).*\n)*)```$", r"### Exercise: \1\n\n\2", text, flags=re.MULTILINE)
    text = re.sub(r"^```\{solution-start\}.*\n(?::.*\n)*```$", "**Solution**", text, flags=re.MULTILINE)
    text = re.sub(r"^```\{solution-end\}\n```$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^:::\{(\w+)\}\n(.*?)^:::$", lambda box: quoted(box[1].capitalize(), box[2]), text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\{cite:([pt])\}`([^`]+)`", lambda cited: citation(cited[2].split(","), in_text=cited[1] == "t"), text)
    text = re.sub(r"^\(([\w-]+)\)=$", r'<a name="\1"></a>', text, flags=re.MULTILINE)
    text = re.sub(r"\]\(\.\./(book/[\w./-]+)\)", rf"]({REPOSITORY}/\1)", text)  # Colab has this notebook and no other file
    text = re.sub(r"\]\((?:\.\./notebooks/)?([\w-]+)\.md", rf"]({REPOSITORY}/notebooks/\1.ipynb", text)
    text = re.sub(r"\]\(([a-z][\w-]*)\)", r"](#\1)", text)
    if left := MYST.search(text):
        raise ValueError(f"{left[0]} has no plain form yet; give it one in book/editions.py")
    return text.strip("\n")


def quoted(title: str, body: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in [f"**{title}.**", "", *body.strip().splitlines()])


def citation(keys: list[str], in_text: bool) -> str:
    """Author and year, linked to the work where it has an address."""
    parts = []
    for key in keys:
        entry = bibliography()[key.strip()]
        fields = entry.fields
        address = fields.get("url") or ("doi" in fields and f"https://doi.org/{fields['doi']}")
        name = f"{authors(entry)} ({fields['year']})" if in_text else f"{authors(entry)}, {fields['year']}"
        parts.append(f"[{name}]({address})" if address else name)
    return " and ".join(parts) if in_text else f"({'; '.join(parts)})"


@cache
def bibliography() -> dict[str, Entry]:
    return parse_file(ROOT / "book" / "references.bib").entries


def authors(entry: Entry) -> str:
    """Last names; of three or more the first. Rich ones, since an accent or a brace of BibTeX means nothing in Markdown."""
    names = [" ".join(map(str, [*person.rich_prelast_names, *person.rich_last_names])) for person in entry.persons["author"]]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


def notes_on(chapter: str) -> str:
    """What ``book/teaching.md`` says of a chapter: from its label ``(teach-CHAPTER)=`` to the next, without the heading."""
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    section = re.search(rf"^\(teach-{chapter}\)=\n##[^\n]*\n(.*?)(?=^\(teach-|^##|\Z)", page, re.DOTALL | re.MULTILINE)
    return section[1].strip() if section else ""


def write_course(folder: Path) -> list[Path]:
    """A zip with all chapters for students, and one for instructors."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("student", "instructor"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for notebook in sorted((ROOT / "notebooks").glob("*.md")):
                content = edition(notebook.read_text(encoding="utf-8"), kind, notes_on(notebook.stem))
                pack(archive, f"zsrbook-{kind}/{notebook.stem}.ipynb", content)
            pack(archive, f"zsrbook-{kind}/README.md", README.format(kind=kind, repository=REPOSITORY))
            pack(archive, f"zsrbook-{kind}/LICENSE", (ROOT / "LICENSE").read_text(encoding="utf-8"))
        written.append(folder / f"zsrbook-{kind}.zip")
        written[-1].write_bytes(packed.getvalue())
    return written


def pack(archive: zipfile.ZipFile, name: str, content: str) -> None:
    member = zipfile.ZipInfo(name)  # without a date: same content, same file
    member.external_attr = 0o644 << 16  # or it would unpack as a file for one user alone
    archive.writestr(member, content, zipfile.ZIP_DEFLATED)  # an info is stored as it is, whatever its archive does


if __name__ == "__main__":
    for path in write_course(Path(sys.argv[1] if len(sys.argv) > 1 else "build/course")):
        print(f"== wrote {path}")
