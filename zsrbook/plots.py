"""Every figure of the book: alternative text, a light and a dark version, and a static twin of each interactive one.

``show(draw, alt)`` calls ``draw(fig)`` twice on an empty matplotlib figure, once in each style, so ``draw`` must not consume
random numbers and takes its colours from ``palette()`` and ``ink()``. Pages choose the version by the theme's
``data-theme``; notebooks opened in Jupyter or Colab show the light one.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
from cycler import cycler
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zsrbook.audience import in_book

Draw = Callable[[Figure], None]

#: Hues of Okabe and Ito (blue, vermilion, green, purple, ochre, sky, grey), darkened or lightened to reach a contrast of 3:1
LIGHT = ("#0067a5", "#c44601", "#00795c", "#a4478a", "#8a6500", "#2b83ba", "#5c5c5c")
DARK = ("#5bb8f0", "#ff8f4f", "#2ec99b", "#e59cc9", "#f0c744", "#a9d8f5", "#bdbdbd")
#: inches of a figure: no wider, so that a phone, which shows a third less at most, has little to scroll; panels go below each other
SIZE = (6, 4.2)
#: pixels of an interactive figure
_HEIGHT = 520
#: bytes of an SVG from which on it is worth its time to see whether a PNG is smaller
_LARGE = 200_000
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)))
_TONES = {"light": (LIGHT, "#22262c", "#d5d9de", "#ffffff"), "dark": (DARK, "#e6e9ee", "#434b57", "none")}

_OUTSIDE_BOOK = """<style>
.zsr-cards {display:grid; grid-template-columns:repeat(auto-fill,minmax(13rem,1fr)); gap:.7rem; list-style:none; padding:0}
.zsr-cards > li {border:1px solid #8888; border-radius:.5rem; padding:.6rem .8rem; margin:0}
.zsr-cards > li.zsr-hit {border:2px solid #00795c}
.zsr-card-title {font-weight:600} .zsr-card-note {opacity:.8; font-size:.9em}
</style>"""


# ---------------------------------------------------------------- styles


def palette(n: int = len(LIGHT)) -> list[str]:
    """The first ``n`` colours of the style that is being drawn.

    Raises:
        ValueError: more than seven; that many can't be told apart, so draw fewer series or small multiples.
    """
    if n > len(LIGHT):
        raise ValueError(f"asked for {n} colours, but only {len(LIGHT)} can be told apart; draw fewer series or small multiples")
    return [style["color"] for style in mpl.rcParams["axes.prop_cycle"]][:n]


def ink() -> str:
    """The colour of text in the style that is being drawn."""
    return mpl.rcParams["text.color"]


def _style(name: str) -> dict:
    colours, text, grid, ground = _TONES[name]
    return {
        "figure.facecolor": ground,
        "savefig.facecolor": ground,
        "figure.constrained_layout.use": True,
        "axes.facecolor": "none",
        "axes.prop_cycle": cycler(color=colours) + cycler(linestyle=_DASHES),
        "axes.edgecolor": text,
        "axes.labelcolor": text,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 12,
        "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same
        "font.size": 11,
        "grid.color": grid,
        "grid.linewidth": 0.7,
        "image.cmap": "viridis",
        "legend.frameon": False,
        "lines.linewidth": 2,
        "patch.linewidth": 0,
        "svg.fonttype": "path",
        "svg.hashsalt": "zsrbook",
        "text.color": text,
        "xtick.color": text,
        "ytick.color": text,
    }


# ---------------------------------------------------------------- showing


def show(draw: Draw, alt: str, size: tuple[float, float] = SIZE, caption: str | None = None) -> None:
    """Show what ``draw`` draws, in both themes.

    Args:
        draw: gets an empty figure of ``size`` inches; called twice.
        alt: what a reader who can't see the figure must know of it; required.
        caption: plain text below the figure.
    """
    _emit(f'<figure class="zsr-figure">{images(draw, alt, size)}{_caption(caption)}</figure>')


def show_interactive(figure: go.Figure, draw_static: Draw, alt: str, caption: str | None = None) -> None:
    """Show a plotly figure together with its static twin, which serves print, readers without scripts and screen readers.

    Colours of ``LIGHT`` in the figure turn into those of ``DARK`` in the dark theme. On a page of the book the figure takes the
    keyboard: arrows move, + and - zoom, 0 resets.
    """
    label = _checked(alt)
    figure.update_layout(height=_HEIGHT, margin={"l": 50, "r": 20, "t": 40, "b": 45}, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    twin = f'<details class="zsr-static"><summary>The same as a static picture</summary>{images(draw_static, alt, SIZE)}</details>'
    if not in_book():
        figure.show()  # plotly picks what works in Jupyter, Colab or VS Code
        _emit(f'<figure class="zsr-figure">{twin}{_caption(caption)}</figure>')
        return
    figure.update_layout(template="none")
    payload = json.dumps({"figure": json.loads(figure.to_json()), "light": LIGHT, "dark": DARK}, separators=(",", ":")).replace("<", "\\u003c")
    _emit(
        f'<figure class="zsr-figure zsr-interactive"><div class="zsr-plotly" role="group" tabindex="0" style="min-height:{_HEIGHT}px"'
        f' aria-label="{label} Arrow keys move, plus and minus zoom, 0 resets."></div>'
        f'<script type="application/json" class="zsr-plotly-data">{payload}</script>'
        f"{twin.replace('<details ', '<details open ')}{_caption(caption)}</figure>"  # the script of the page closes it
    )


def images(draw: Draw, alt: str, size: tuple[float, float]) -> str:
    """HTML of the light and the dark image of one figure.

    Raises:
        ValueError: the alternative text is empty, or nothing was drawn.
    """
    label = _checked(alt)
    width, tags = round(size[0] * 96), []
    for theme in ("light", "dark"):
        hidden = ";display:none" if theme == "dark" else ""
        # dark-light: the theme leaves such images as they are
        tags.append(
            f'<img class="zsr-{theme} dark-light" src="{_data_url(draw, theme, size)}" alt="{label}" width="{width}"'
            f' style="--width:{width}px;max-width:100%;height:auto{hidden}">'  # --width: for the style sheet, which can't read the other one
        )
    return f'<div class="zsr-picture">{"".join(tags)}</div>'


def _data_url(draw: Draw, theme: str, size: tuple[float, float]) -> str:
    """The figure as SVG, or where that is large as PNG at 200 dots an inch if this is smaller; the same bytes each time."""
    with mpl.rc_context(_style(theme)):
        figure = Figure(figsize=size)
        draw(figure)
        if not (figure.axes or figure.texts):
            raise ValueError("the figure is empty: draw(fig) must add axes to the figure that it is given, such as fig.subplots()")
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        if svg.tell() > _LARGE:
            figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    mime, data = ("image/png", png.getvalue()) if 0 < png.tell() < svg.tell() else ("image/svg+xml", svg.getvalue())
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _checked(alt: str) -> str:
    if not alt or not alt.strip():
        raise ValueError("alt is empty; say in a sentence what the figure shows, for readers who can't see it")
    return escape(" ".join(alt.split()), quote=True)


def _caption(caption: str | None) -> str:
    return f"<figcaption>{escape(caption)}</figcaption>" if caption else ""


def _emit(html: str) -> None:
    display(HTML(html if in_book() else _OUTSIDE_BOOK + html))


# ---------------------------------------------------------------- standard charts


def lines_with_bands(
    ax: Axes, x: Sequence[float], low: Sequence[float], mid: Sequence[float], high: Sequence[float], label: str, style: str | None = None
) -> None:
    """A line with markers and a band from ``low`` to ``high``, such as a mean with its 95 % interval; all of length n.

    Args:
        style: of matplotlib, such as ``:``; default the next of the cycle, which tells lines apart without colours.
    """
    (line,) = ax.plot(x, mid, *([] if style is None else [style]), label=label, marker=MARKERS[len(ax.lines) % len(MARKERS)], markersize=5)
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def bars(ax: Axes, labels: Sequence[str], mid: Sequence[float], low: Sequence[float] | None = None, high: Sequence[float] | None = None) -> None:
    """Horizontal bars, the first on top, with intervals from ``low`` to ``high`` when given."""
    at, mid = np.arange(len(labels)), np.asarray(mid, float)
    ax.barh(at, mid, color=palette()[0], height=0.65)
    if low is not None and high is not None:
        ax.errorbar(mid, at, xerr=[mid - np.asarray(low), np.asarray(high) - mid], fmt="none", ecolor=ink(), elinewidth=1.3, capsize=3)
    ax.set_yticks(at, labels)
    ax.invert_yaxis()
    ax.grid(False, axis="y")


def heat_map(
    ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, digits: int = 2, limit: float | None = None
) -> None:
    """(rows, columns) numbers as colours, each number written in its cell; NaN stays empty.

    Args:
        limit: of differences; colours then run from one hue at −limit over white at 0 to another at +limit.
    """
    values = np.asarray(values, float)
    scale = {} if limit is None else {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    image = ax.imshow(values, aspect="auto", **scale)
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.grid(False)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            bright = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
            ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color="#111111" if bright else "#ffffff", fontsize=9)
    ax.figure.colorbar(image, ax=ax, label=label)


#: on which side of its point a name stands: for Plotly, and for matplotlib the offset and the alignment
_SIDES = (("top center", (0, 4), "center", "bottom"), ("middle right", (5, 0), "left", "center"), ("bottom center", (0, -4), "center", "top"))


def map_of_items(
    points: np.ndarray,
    domains: Sequence[str],
    texts: Sequence[str],
    alt: str,
    title: str = "",
    caption: str | None = None,
    named: str | None = None,
) -> None:
    """An interactive map of items, such as t-SNE or UMAP of their vectors: hover shows the text, colour and shape the domain.

    Args:
        points: (n, 2) positions on the map.
        domains: (n,) the series each item belongs to; at most seven different ones, drawn in order of first appearance.
        texts: (n,) what an item says of itself; shown up to 90 characters.
        named: a series of few points and short texts, which stand beside the points.

    Raises:
        ValueError: sizes that do not match, or more than seven series.
    """
    points, domains = np.asarray(points, float), np.asarray(domains, dtype=object)
    if points.shape != (len(domains), 2) or len(texts) != len(domains):
        raise ValueError(f"points are {points.shape}, with {len(domains)} domains and {len(texts)} texts; expected (n, 2), n and n")
    hover = np.array([escape(t if len(t) <= 90 else t[:89] + "…") for t in texts], dtype=object)
    series = list(dict.fromkeys(domains))
    palette(len(series))  # refuses more than can be told apart

    figure = go.Figure(layout={"title": title, "hovermode": "closest"})
    for name, marker, colour in zip(series, _PLOTLY_MARKERS, LIGHT, strict=False):
        x, y = points[domains == name].round(3).T.tolist()
        style = {"color": colour, "symbol": marker, "size": 6, "opacity": 0.75}
        mode = "markers+text" if name == named else "markers"
        sides = [_SIDES[k % len(_SIDES)][0] for k in range(len(x))]  # neighbours in turn, since those that belong together lie together
        shown = {"text": hover[domains == name].tolist(), "textposition": sides, "hovertemplate": "%{text}<extra></extra>"}
        figure.add_scatter(x=x, y=y, mode=mode, name=str(name), marker=style, **shown)
    figure.update_xaxes(showticklabels=False, zeroline=False).update_yaxes(showticklabels=False, zeroline=False)

    def draw(fig: Figure) -> None:
        ax = fig.subplots()
        for name, marker, colour in zip(series, MARKERS, palette(), strict=False):
            ax.scatter(*points[domains == name].T, s=14, marker=marker, color=colour, alpha=0.75, linewidth=0, label=str(name))
        for k, place in enumerate(np.flatnonzero(domains == named)):
            _, offset, ha, va = _SIDES[k % len(_SIDES)]
            ax.annotate(texts[place], points[place], offset, textcoords="offset points", ha=ha, va=va, fontsize=8)
        ax.set(xticks=[], yticks=[], title=title)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.6)

    show_interactive(figure, draw, alt, caption)


# ---------------------------------------------------------------- case studies


@dataclass(frozen=True)
class Card:
    """One item in a case study: its title, its text, a note such as "rank 1, score 0.82", and whether it is what came next."""

    title: str
    text: str = ""
    note: str = ""
    hit: bool = False


def cards(items: Iterable[Card | str], label: str) -> None:
    """Items side by side as an ordered list; ``label`` says what the list is, such as "What this user bought, oldest first"."""
    if not label.strip():
        raise ValueError("label is empty; say what the list of cards is")
    entries = []
    for item in items:
        card = Card(item) if isinstance(item, str) else item
        lines = [f'<div class="zsr-card-title">{escape(card.title)}</div>']
        lines += [f"<div>{escape(card.text)}</div>"] if card.text else []
        note = " · ".join(part for part in (card.note, "✓ came next" if card.hit else "") if part)
        lines += [f'<div class="zsr-card-note">{escape(note)}</div>'] if note else []
        begin = '<li class="zsr-hit">' if card.hit else "<li>"
        entries.append(f"{begin}{''.join(lines)}</li>")
    _emit(f'<p class="zsr-cards-label">{escape(label)}</p><ol class="zsr-cards" aria-label="{escape(label, quote=True)}">{"".join(entries)}</ol>')
