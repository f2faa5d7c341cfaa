"""What the book adds to Sphinx: scripts that come with the page instead of from the network, and pages rendered from data."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from importlib.metadata import files
from pathlib import Path

import plotly
import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from zsrbook.experiments import choices

#: tex-svg.js of MathJax 3.2.2, one file with its fonts
MATHJAX_SHA256 = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"


def use_cache_of_build(app: Sphinx, config) -> None:
    """``book/build.py`` names the cache after everything that the numbers depend on."""
    if cache := os.environ.get("ZSRBOOK_NOTEBOOK_CACHE"):
        config.nb_execution_cache_path = cache


def copy_scripts(app: Sphinx) -> None:
    """MathJax and plotly, from the installed packages."""
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    mathjax = next(f.locate() for f in files("sphinx-mathjax-offline") if f.name == "tex-svg.js")
    seen = hashlib.sha256(mathjax.read_bytes()).hexdigest()
    if seen != MATHJAX_SHA256:
        raise ValueError(f"{mathjax} has sha256 {seen}, expected {MATHJAX_SHA256}; install sphinx-mathjax-offline as constraints.txt says")
    shutil.copy(mathjax, static / "tex-svg.js")
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", static / "plotly.min.js")


def tidy_scripts(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Without thebe, which jupyter-book adds even where it is off, and which would load from elsewhere; follow the system's light or dark."""
    context["script_files"][:] = [script for script in context["script_files"] if "thebe" not in str(script.filename) + str(script.attributes)]
    context["css_files"][:] = [sheet for sheet in context["css_files"] if "thebe" not in str(sheet.filename)]
    context["default_mode"] = context.get("default_mode") or "auto"


def drop_notebook_buttons(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Pages of ``book/`` have cells but no twin, so there is nothing for Colab to open, nor for a reader to download and run."""
    if pagename.startswith("book/"):
        buttons = [button for button in context.get("header_buttons", []) if button.get("label") != "launch-buttons"]
        for group in buttons:
            if group["type"] == "group":
                group["buttons"] = [button for button in group["buttons"] if button.get("label") != "download-notebook-button"]
        context["header_buttons"] = buttons


def offer_twins(app: Sphinx, exception: Exception | None) -> None:
    """What a chapter offers for download is its twin: the notebook that MyST-NB leaves there shows raw markup and can't install anything."""
    sources = Path(app.outdir) / "_sources"
    for left in sources.rglob("*.ipynb"):
        twin = Path(app.srcdir) / left.relative_to(sources)
        if twin.exists():
            shutil.copy(twin, left)
        else:
            left.unlink()


def add_plotly(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Five megabytes, so only where a figure needs them."""
    if "zsr-plotly" in context.get("body", ""):
        app.add_js_file("plotly.min.js", loading_method="defer")
        app.add_js_file("zsrbook-plotly.js", loading_method="defer")


def add_register(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """What opens the entry that a link leads to."""
    if "zsr-deviation" in context.get("body", ""):
        app.add_js_file("zsrbook-register.js", loading_method="defer")


def effect(row) -> str:
    """One row of ``choices.recorded`` in words."""
    how = {"deviations-strict": ", strict protocol", "corpus-deviations": ", whole corpus"}.get(row.experiment, "")
    seeds = f"{row.seeds} seed{'s' if row.seeds > 1 else ''}"
    where = f"{row.pair.replace('--', ' → ')}, {row.scale}, {seeds}{how}"
    return f"{row.row} ({where}): {row.metric} {row.before:.4f} → {row.otherwise:.4f}, **{row.effect:+.4f}** ({row.low:+.4f} to {row.high:+.4f})"


#: an entry that names another
OTHER_ENTRY = re.compile(r"\b(zes|mail|search|prerec)-p?\d+\b")


class Deviations(SphinxDirective):
    """``{deviations} path.yml``: one entry a deviation, each with a target ``dev-<id>`` that chapters can link to, and what was measured of it.

    Before them stands a choice of which to show. It is made by the style sheet, so it needs no script.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        found = choices.recorded()
        measured, clear = found.groupby("id", sort=False), set(found["id"][(found["low"] > 0) | (found["high"] < 0)])
        lines: list[str] = []
        kinds: list[str] = []
        for paper in yaml.safe_load(Path(path).read_text(encoding="utf-8")):
            lines += [f"## {paper['paper']}", "", paper.get("about", "").strip(), ""]
            for entry in paper["deviations"]:
                kinds.append("clear" if entry["id"] in clear else "measured" if entry["id"] in measured.groups else "")
                lines += [f"(dev-{entry['id']})=", f"### {entry['id'].upper()}: {entry['what'].strip()}", ""]
                chapter = f"in the [chapter](../notebooks/{'zesrec' if entry['id'].startswith('zes-') else entry['id'].split('-')[0]}.md)"
                paper_says, here, why = (OTHER_ENTRY.sub(r"[\g<0>](#dev-\g<0>)", entry[part].strip()) for part in ("paper", "here", "why"))
                lines += [f"::::{{div}} zsr-deviation {kinds[-1] and 'zsr-' + kinds[-1]}", f"**The paper.** {paper_says}", ""]
                lines += [f"**Here.** {here} **Why.** {why}", ""]
                if "effect" in entry:
                    said = entry["effect"].strip().replace("in the chapter", chapter)
                    lines += [f"**Effect.** {said[0].upper()}{said[1:]}", ""]
                if entry["id"] in measured.groups:
                    lines += [f"- {effect(row)}" for row in measured.get_group(entry["id"]).itertuples()] + [""]
                lines += ["::::", ""]
        shown = {
            "all": f"all {len(kinds)}",
            "measured": f"the {len(kinds) - kinds.count('')} that were also chosen otherwise, and measured",
            "clear": f"the {kinds.count('clear')} of these that change a result, on some data, by more than chance could",
        }
        buttons = "".join(
            f'<label><input type="radio" name="zsr-show" id="zsr-show-{kind}"{" checked" * (kind == "all")}> {label}</label>'
            for kind, label in shown.items()
        )
        choice = nodes.raw("", f'<fieldset class="zsr-show"><legend>Show</legend>{buttons}</fieldset>', format="html")
        return [choice, *self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)]


#: what stands beside the title of an entry of this class
TAGS = {"zsr-clear": "moves a result", "zsr-measured": "measured, no clear effect"}


def fold_deviations(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Each entry becomes its title, which opens it: all of them at full length are eighty screens of a phone.

    Done when all that reads titles has read them; and by what HTML has for it, which needs no script.
    """
    for entry in list(doctree.findall(lambda node: isinstance(node, nodes.Element) and "zsr-deviation" in node.get("classes", []))):
        section = entry.parent
        title = section.index(section.next_node(nodes.title))
        tag = next((f' <span class="zsr-tag">{words}</span>' for kind, words in TAGS.items() if kind in entry["classes"]), "")
        section.insert(title + 1, nodes.raw("", f"{tag}</summary>", format="html"))
        section.insert(title, nodes.raw("", "<details><summary>", format="html"))
        section.append(nodes.raw("", "</details>", format="html"))


def drop_repeated_ids(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """sphinx-exercise gives the inside of each exercise, and of each solution, the same id as the one before; an id names one thing."""
    for section in doctree.findall(nodes.section):
        section["ids"] = [name for name in section["ids"] if name not in ("exercise-content", "solution-content")]


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", use_cache_of_build)
    app.connect("builder-inited", copy_scripts)
    app.connect("html-page-context", tidy_scripts)
    app.connect("html-page-context", add_plotly)
    app.connect("html-page-context", add_register)
    app.connect("doctree-resolved", fold_deviations)
    app.connect("doctree-resolved", drop_repeated_ids)
    app.connect("html-page-context", drop_notebook_buttons, priority=600)  # after the theme has made them
    app.connect("build-finished", offer_twins)
    app.add_directive("deviations", Deviations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
