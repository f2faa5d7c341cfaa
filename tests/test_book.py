"""Every page of the built book in a real browser with the network cut: wide and narrow, light and dark."""

import json
import os
import re
import shutil
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import editions  # from book/
import pytest

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (1400, 390)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("book")]

#: What is wrong with the page as it stands, one line each.
FAULTS = r"""() => {
  const faults = [];
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) faults.push(`scrolls sideways by ${wide} px`);
  const shown = (e) => e.checkVisibility();
  for (const image of document.images) {
    if (!image.hasAttribute("alt")) faults.push(`image without alt: ${image.src.slice(0, 80)}`);
    if (shown(image) && image.naturalWidth === 0) faults.push(`image does not load: ${image.alt || image.src.slice(0, 80)}`);
  }
  for (const figure of document.querySelectorAll(".zsr-figure"))
    if (figure.querySelectorAll("img").length !== 2) faults.push("a figure without its two images");
  const theme = document.documentElement.dataset.theme;
  for (const image of document.querySelectorAll(".zsr-figure img.zsr-light, .zsr-figure img.zsr-dark")) {
    const away = !image.closest("details:not([open])");
    if (away && shown(image) !== image.classList.contains(`zsr-${theme}`)) faults.push(`wrong version shown in ${theme}: ${image.alt.slice(0, 60)}`);
    if (away && shown(image) && image.clientWidth < 0.69 * image.getAttribute("width")) faults.push(`too small to read: ${image.alt.slice(0, 60)}`);
  }
  for (const maths of document.querySelectorAll(".math"))
    if (!maths.querySelector("mjx-container svg")) faults.push(`formula not drawn: ${maths.textContent.slice(0, 60)}`);
  for (const error of document.querySelectorAll("mjx-container [fill=red]")) faults.push(`unknown command in ${error.closest(".math")?.innerText}`);
  for (const plot of document.querySelectorAll(".zsr-plotly"))
    if (!plot.querySelector(".trace, .heatmaplayer image, .surface")) faults.push(`interactive figure not drawn: ${plot.getAttribute("aria-label")}`);
  const text = document.querySelector("article")?.innerText ?? "";
  for (const [what, pattern] of [["traceback", /Traceback \(most recent call last\)/], ["raw formula", /\$\$/], ["a failed reference", /\[\?\]/]])
    if (pattern.test(text)) faults.push(`${what} in the text`);
  return faults;
}"""
READY = """() => [...document.querySelectorAll(".math")].every((m) => m.querySelector("mjx-container svg"))
  && [...document.querySelectorAll(".zsr-plotly")].every((p) => p.querySelector(".main-svg"))"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; run make setup")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium on this machine; install chromium, or set CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page without a network; ``page.faults`` gathers what goes wrong while it is open."""
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900}, color_scheme="light")
    page.faults = []
    page.on("console", lambda message: page.faults.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(f"script: {error}"))

    def only_local(route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            page.faults.append(f"asks the network for {route.request.url}")
            route.abort()

    page.route("**/*", only_local)
    yield page
    page.close()


def test_every_page_stands_alone(book, page):
    from playwright.sync_api import TimeoutError

    redirect = book / "index.html"  # to the first page
    pages = [path for path in sorted(book.rglob("*.html")) if "_static" not in path.parts and path != redirect]
    assert {book / name for name in ("search.html", "genindex.html", "notebooks/search.html")} <= set(pages)  # two of Sphinx's own, and a chapter
    faults = []
    for path in pages:
        page.faults.clear()
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.goto(path.as_uri())
        with suppress(TimeoutError):  # then FAULTS says what is not drawn
            page.wait_for_function(READY, timeout=20_000)
        seen = set(page.faults)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            for theme in ("light", "dark"):
                page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
                page.wait_for_timeout(150)
                seen |= {f"{fault} ({width} px, {theme})" for fault in page.evaluate(FAULTS)}
        faults += [f"{path.relative_to(book)}: {fault}" for fault in sorted(seen | set(page.faults))]
    assert not faults, "\n".join(faults)


def test_the_first_page_leads_to_all_chapters(book, page):
    page.goto((book / "index.html").as_uri())
    page.wait_for_url("**/intro.html")
    links = page.eval_on_selector_all("nav a.internal", "links => links.map((link) => link.href)")
    there = [Path(unquote(re.sub(r"^file://|#.*$", "", link))) for link in links]
    assert {path.stem for path in (ROOT / "notebooks").glob("*.md")} <= {path.stem for path in there if path.parent.name == "notebooks"}
    assert not [path for path in there if not path.exists()]


def test_the_register_is_folded_and_can_be_cut_down_without_a_script(book, browser):
    address = (book / "book/deviations.html").as_uri()
    page = browser.new_page(viewport={"width": 390, "height": 900}, java_script_enabled=False)
    page.goto(address)
    entry = page.locator("details:has(> .zsr-deviation)")
    every = entry.count()
    assert every == entry.filter(visible=True).count() == page.locator(".zsr-deviation").count() > 100
    assert page.locator(".zsr-deviation").filter(visible=True).count() == 0
    entry.first.locator("summary").click()
    assert page.locator(".zsr-deviation").first.is_visible()
    shown = [every]
    for kind, labels in (("measured", (".zsr-measured", ".zsr-clear")), ("clear", (".zsr-clear",))):
        page.locator(f"#zsr-show-{kind}").check()
        shown.append(entry.filter(visible=True).count())
        assert shown[-1] == page.locator(", ".join(labels)).count()
        assert f" {shown[-1]} " in page.locator(f"label:has(#zsr-show-{kind})").inner_text()
    assert shown == sorted(set(shown), reverse=True)
    page.close()


def test_a_link_to_an_entry_of_the_register_opens_it(book, page):
    address = (book / "book/deviations.html").as_uri()
    page.goto(f"{address}#dev-mail-3")
    entry = page.locator("section:has(> #dev-mail-3) > details")
    page.wait_for_function("() => document.getElementById('dev-mail-3').closest('section').querySelector('details').open")
    page.locator("#zsr-show-clear").check()
    page.evaluate("location.hash = '#dev-zes-1'")  # which nobody can measure, so the choice above hides it
    hidden = page.locator("section:has(> #dev-zes-1) > details > .zsr-deviation")
    hidden.wait_for(state="visible")
    assert entry.is_visible()
    assert page.locator("#zsr-show-all").is_checked()
    assert not page.faults


class Links(HTMLParser):
    """The places that a page points to, and those that can be pointed to on it."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        self.targets |= {attributes.get("href"), attributes.get("src")} - {None, ""}


def test_every_link_inside_the_book_leads_somewhere(book):
    pages = {path.resolve(): Links(path) for path in book.rglob("*.html") if "_static" not in path.parts}
    dead = []
    for path, links in pages.items():
        for target in links.targets:
            if re.match(r"[a-z]+:|//", target):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / unquote(file.partition("?")[0])).resolve() if file else path
            if not there.exists() or (anchor and there in pages and unquote(anchor) not in pages[there].anchors):
                dead.append(f"{path.relative_to(book.resolve())}: {target}")
    assert not dead, "\n".join(sorted(dead))


def test_the_contents_open_on_a_phone(book, page):
    page.set_viewport_size({"width": WIDTHS[1], "height": 800})
    page.goto((book / "book" / "intro.html").as_uri())
    for side, link in (("primary", "nav a.internal[href*='zesrec']"), ("secondary", "nav a[href^='#']")):
        page.locator(f".{side}-toggle:visible").first.click()
        page.locator(f"#pst-{side}-sidebar-modal {link}").first.wait_for(state="visible", timeout=3000)
        page.keyboard.press("Escape")


def test_the_keyboard_moves_an_interactive_figure(book, page):
    drawn = [path for path in sorted((book / "notebooks").glob("*.html")) if "zsr-plotly-data" in path.read_text(encoding="utf-8")]
    page.goto(drawn[0].as_uri())
    page.wait_for_function(READY, timeout=20_000)
    plot = page.locator(".zsr-plotly").first
    plot.focus()
    before = plot.evaluate("plot => [...plot._fullLayout.xaxis.range]")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert plot.evaluate("plot => plot._fullLayout.xaxis.range[0]") > before[0]
    page.keyboard.press("+")
    page.wait_for_timeout(200)
    low, high = plot.evaluate("plot => [...plot._fullLayout.xaxis.range]")
    assert high - low < before[1] - before[0]


def test_launch_and_download_point_at_the_notebook(book):
    for path in sorted((ROOT / "notebooks").glob("*.md")):
        html = (book / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert re.search(rf'href="https://colab\.research\.google\.com/[^"]*notebooks/{path.stem}\.ipynb"', html)
        (link,) = re.findall(r'href="([^"]*\.ipynb)" target="_blank"\s+class="[^"]*btn-download-notebook-button', html)
        offered = (book / "notebooks" / link).read_text(encoding="utf-8")
        assert "google.colab" in offered, "it can't install what it needs"
        words = ["".join(cell["source"]) for cell in json.loads(offered)["cells"] if cell["cell_type"] == "markdown"]
        assert not [text for text in words if editions.MYST.search(text)]
    others = [page for page in (book / "book").glob("*.html") if "btn-download-notebook-button" in page.read_text(encoding="utf-8")]
    assert not others, "pages of book/ have no twin that could be run elsewhere"
