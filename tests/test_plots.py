"""Figures: always with alternative text, never blank, the same bytes each time, readable in both themes."""

import base64
import io
import json
import re

import matplotlib as mpl
import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from zsrbook import plots


@pytest.fixture
def shown(monkeypatch):
    """The HTML that a page of the book would get."""
    pieces = []
    monkeypatch.setenv("ZSRBOOK_BUILD", "1")
    monkeypatch.setattr(plots, "display", lambda html: pieces.append(html.data))
    return pieces


def curve(fig):
    ax = fig.subplots()
    plots.lines_with_bands(ax, [1, 2, 3], [0, 1, 2], [1, 2, 3], [2, 3, 4], "ours")
    ax.legend()


def cloud(fig):
    """Too many marks for a small SVG."""
    fig.subplots().plot(np.random.default_rng(0).normal(size=(20_000, 1)), ".")


def luminance(colour):
    channels = np.array(mpl.colors.to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("colours", "ground"), [(plots.LIGHT, "#ffffff"), (plots.DARK, "#14181e")])
def test_every_colour_stands_out_from_the_page(colours, ground):
    assert min(contrast(c, ground) for c in colours) >= 3


def test_both_themes_are_drawn_with_the_same_alt_text(shown):
    plots.show(curve, alt='Recall "rises" with <size>', caption="A & B")
    html = shown[0]
    assert html.count('alt="Recall &quot;rises&quot; with &lt;size&gt;"') == 2
    assert "<figcaption>A &amp; B</figcaption>" in html
    light, dark = re.findall(r'src="([^"]+)"', html)
    assert light != dark


def test_the_same_figure_has_the_same_bytes(shown):
    plots.show(curve, alt="a curve")
    plots.show(curve, alt="a curve")
    assert shown[0] == shown[1]


def test_the_smaller_format_wins(shown):
    plots.show(curve, alt="a curve")
    plots.show(cloud, alt="a cloud")
    assert "image/svg+xml" in shown[0]
    assert "image/png" in shown[1]


def test_images_are_not_blank(shown):
    plots.show(cloud, alt="a cloud")
    images = re.findall(r"image/png;base64,([^\"]+)", shown[0])
    assert len(images) == 2
    for data in images:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
        assert pixels.std() > 5


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_empty_alt_text_is_refused(shown, alt):
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show(curve, alt=alt)
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show_interactive(go.Figure(), curve, alt=alt)


def test_an_empty_figure_is_refused(shown):
    with pytest.raises(ValueError, match="figure is empty"):
        plots.show(lambda fig: None, alt="nothing")


def test_an_interactive_figure_carries_its_data_and_its_twin_but_no_library(shown):
    points = np.random.default_rng(0).normal(size=(30, 2))
    plots.map_of_items(points, ["tea"] * 20 + ["films"] * 10, ["</script><b>tea</b>"] * 30, alt="two clouds")
    html = shown[0]
    assert len(html) < 500_000
    assert html.count("<img") == 2
    assert html.count("</script>") == 1
    payload = json.loads(re.search(r'class="zsr-plotly-data">(.*?)</script>', html, re.S)[1])
    assert [trace["name"] for trace in payload["figure"]["data"]] == ["tea", "films"]
    assert [len(trace["x"]) for trace in payload["figure"]["data"]] == [20, 10]
    assert payload["figure"]["data"][0]["marker"]["color"] in payload["light"]


def test_a_map_checks_its_shapes(shown):
    with pytest.raises(ValueError, match="expected"):
        plots.map_of_items(np.zeros((3, 3)), ["a"] * 3, ["b"] * 3, alt="x")
    with pytest.raises(ValueError, match="told apart"):
        plots.map_of_items(np.zeros((8, 2)), list("abcdefgh"), ["b"] * 8, alt="x")


def test_heat_map_and_bars_draw(shown):
    plots.show(lambda fig: plots.heat_map(fig.subplots(), [[0.1, np.nan], [0.9, 0.4]], ["a", "b"], ["c", "d"], "Recall@20"), alt="a heat map")
    plots.show(lambda fig: plots.bars(fig.subplots(), ["a", "b"], [1, 2], [0.5, 1.5], [1.5, 2.5]), alt="two bars")
    assert len(shown) == 2


def test_cards_are_a_labelled_list_with_escaped_text(shown):
    plots.cards(["Green tea", plots.Card("Soap <b>", "lavender", note="rank 1", hit=True)], label='What came "next"')
    assert 'aria-label="What came &quot;next&quot;"' in shown[0]
    assert "Soap &lt;b&gt;" in shown[0]
    assert shown[0].count("<li") == 2
    assert "✓ came next" in shown[0]
