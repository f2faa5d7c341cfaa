"""The search box: what the browser finds is what NumPy finds, for every reader, from the page alone."""

import gzip
import json
import re
import sys
import unicodedata
from base64 import b64decode
from pathlib import Path

import bm25s
import numpy as np
import pandas as pd
import pydata_sphinx_theme
import pytest
import test_book
from scipy.sparse import csr_array
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize
from test_plots import contrast

from zsrbook.data.search import SearchData, Vocabulary
from zsrbook.data.toy import ToyWorld
from zsrbook.models.retriever import compare
from zsrbook.models.search_baselines import BM25, BM25Settings
from zsrbook.search_box import packed, search_box

browser, page = test_book.browser, test_book.page
in_browser = pytest.mark.browser

#: what a box shows after each query: a list a search, of (title, why)
ASK = """([box, queries]) => queries.map((query) => {
  const search = document.querySelectorAll(".zsr-search")[box];
  search.querySelector("input").value = query;
  search.querySelector("form").requestSubmit();
  return [...search.querySelectorAll("ol")].map((list) =>
    [...list.children].map((item) => [".zsr-search-title", ".zsr-search-why"].map((part) => item.querySelector(part).textContent)));
})"""


@pytest.fixture(scope="module")
def grocery():
    """Titles, texts, queries, the vocabulary, and vectors of three kinds; titles are made unique."""
    world = ToyWorld()
    items = world.dataset("grocery").items
    texts = items["text"].tolist()
    titles = [f"{title} ({i})" for i, title in enumerate(items["title"])]
    vocabulary = Vocabulary.of(texts, 5)
    matrix = vocabulary.matrix(texts)
    svd = TruncatedSVD(64, random_state=0)
    lsi, words = svd.fit_transform(matrix), svd.components_.T
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    # as a strong regulariser leaves them: one axis is nearly all, few others say anything, and all axes are mixed
    fading = np.geomspace(1, 1e-6, 64)
    systems = {
        "LSI": (words, lsi, "cosine"),
        "lengths": (words, lsi * rng.lognormal(0, 0.5, (len(lsi), 1)), "dot"),
        "parallel": (words * fading @ turn, (lsi * fading + 30 * np.eye(64)[0]) @ turn, "cosine"),
    }
    return titles, texts, world.queries("grocery").texts["text"].tolist(), vocabulary, systems


@pytest.fixture
def opened(page, tmp_path):
    """Opens boxes on one page, in the theme's colours, and gives the page once they work."""

    def open_boxes(*boxes, width=1400):
        theme = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static/styles/pydata-sphinx-theme.css"
        style = re.sub(r"@font-face\s*{[^}]*}", "", theme.read_text(encoding="utf-8"))
        body = "".join(f"<div>{box.data}</div>" for box in boxes)
        path = tmp_path / "page.html"
        path.write_text(f'<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><style>{style}</style><body>{body}</body></html>')
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_function("() => [...document.querySelectorAll('.zsr-search-live')].every((live) => !live.hidden)", timeout=10_000)
        return page

    yield open_boxes
    assert not page.faults


def lexical(texts, **options):
    """BM25 as the browser can follow it."""
    nothing = pd.DataFrame({"query": [], "item": [], "grade": [], "text": []}, dtype=np.int64)
    none = csr_array((len(texts), len(texts)))
    return BM25(BM25Settings(stem=False, stop=False, **options)).fit(SearchData("toy", pd.DataFrame({"text": texts}), none, nothing, nothing))


def small(titles=("Green tea", "Black soap"), texts=("green tea, calm", "black soap"), examples=("calm tea",), **options):
    vocabulary = Vocabulary.of(texts)
    matrix = vocabulary.matrix(texts).toarray()
    options.setdefault("bm25", lexical(texts))
    return search_box(titles, texts, vocabulary, options.pop("systems", {"words": (np.eye(len(vocabulary)), matrix, "cosine")}), examples, **options)


def exact(query, vocabulary, words, items, score):
    """(n,) scores as the retrievers have them."""
    return compare(np.asarray(normalize(vocabulary.matrix([query]), "l1") @ words), items, score)[0]


# ---------------------------------------------------------------- the same answers


@in_browser
def test_vectors_rank_as_in_numpy(grocery, opened):
    titles, texts, queries, vocabulary, systems = grocery
    box = search_box(titles, texts, vocabulary, systems, queries[:1], k=10)
    found = opened(box).evaluate(ASK, [0, queries])
    code = {title: i for i, title in enumerate(titles)}
    assert len(queries) > 100
    for place, (name, system) in enumerate(systems.items()):
        overlap = []
        for query, lists in zip(queries, found, strict=True):
            best = np.argsort(-exact(query, vocabulary, *system), kind="stable")[:10]
            overlap.append(len(set(best) & {code[title] for title, _ in lists[place]}) / 10)
        assert np.mean(overlap) >= 0.95, name


@in_browser
def test_bm25_ranks_as_bm25s(grocery, opened):
    titles, texts, queries, vocabulary, _ = grocery
    queries = [*queries, "tea tea juice", "the tea of the day"]
    box = search_box(titles, texts, vocabulary, {}, queries[:1], bm25=lexical(texts, k1=0.9, b=0.4), k=10)
    found = opened(box).evaluate(ASK, [0, queries])
    cut = [re.findall(r"\w+", text.lower()) for text in texts]
    index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    index.index(cut, show_progress=False)
    code = {title: i for i, title in enumerate(titles)}
    for query, (answers,) in zip(queries, found, strict=True):
        asked = query.lower().split()
        scores = sum(index.get_scores([word]) for word in asked)  # so that a word counts each time
        best = -np.sort(-scores)[:10]
        assert scores[[code[title] for title, _ in answers]] == pytest.approx(best[best > 0], rel=1e-5), query
        for title, why in answers:
            shared = [word for word in dict.fromkeys(asked) if word in cut[code[title]]]
            assert why == f"holds: {', '.join(shared)}"


@in_browser
def test_queries_are_cut_as_the_vocabulary_cuts_texts(opened):
    """Every character that this Python knows, between two letters; of the many alike, some."""
    characters = [chr(c) for c in range(sys.maxunicode) if unicodedata.category(chr(c)) not in {"Cn", "Cs", "Co"} and (c < 0x3000 or c % 17 == 0)]
    words = [f"a{c}b" for c in characters if c not in "\r\n"]
    queries = [" ".join(words[i : i + 5]) for i in range(0, len(words), 5)]  # ten words at most, since the box names twelve
    page = opened(small(texts=("q", "r"), examples=("q",)))
    unknown_of = "document.querySelector('.zsr-search-unknown').textContent"
    said = page.evaluate(f"(queries) => queries.map((query) => {{ ({ASK})([0, [query]]); return {unknown_of}; }})", queries)
    cut = Vocabulary.of(["q"], longest=1).vectorizer.build_analyzer()
    assert len(characters) > 10_000
    for query, unknown in zip(queries, said, strict=True):
        assert unknown.removeprefix("unknown: ").split(", ") == list(dict.fromkeys(cut(query))), query


@in_browser
def test_phrases_of_the_vocabulary_are_found(opened):
    vocabulary = Vocabulary.of(["ice tea", "tea ice"])
    words = np.eye(len(vocabulary))[:, [vocabulary.words.index("ice tea"), vocabulary.words.index("tea ice")]]
    box = search_box(["first", "second"], ["ice tea", "tea ice"], vocabulary, {"pairs": (words, np.eye(2), "cosine")}, ["ice tea"])
    found = opened(box).evaluate(ASK, [0, ["Ice, TEA!", "tea-ice", "tea"]])
    assert [[title for title, _ in lists[0]] for lists in found] == [["first", "second"], ["second", "first"], []]


@in_browser
def test_the_tables_say_what_the_browser_says(opened):
    rng = np.random.default_rng(0)
    texts = [f"w{i % 5} w{i % 7} w{i % 7}" for i in range(12)]
    vocabulary = Vocabulary.of(texts)
    systems = {"random": (rng.normal(size=(len(vocabulary), 4)), rng.normal(size=(12, 4)), "cosine")}
    examples = ["w1", "w2 w3", "w6 w6 w0", "zzz"]
    page = opened(search_box([f"item {i}" for i in range(12)], texts, vocabulary, systems, examples, bm25=lexical(texts), k=5))
    found = page.evaluate(ASK, [0, examples])
    rows = page.locator("tbody").evaluate_all(
        "bodies => bodies.map((body) => [...body.rows].map((row) => [...row.cells].slice(1).map((cell) => cell.textContent)))"
    )
    assert [[len(column) for column in lists] for lists in found] == [[5, 4], [5, 5], [5, 5], [0, 0]]
    for lists, table in zip(found, rows, strict=True):
        for place, column in enumerate(lists):
            said = [title + (f" {why}" if why == "no word of the query" else "") for title, why in column] or ["nothing found"]
            assert [row[place] for row in table] == said + [""] * (len(table) - len(said))


# ---------------------------------------------------------------- for every reader


@in_browser
def test_words_that_nobody_knows_are_named_and_give_a_plain_message(opened):
    page = opened(small())
    assert page.evaluate(ASK, [0, ["xyz"]]) == [[[], []]]
    assert page.locator(".zsr-search-unknown").text_content() == "unknown: xyz"
    assert page.locator(".zsr-search-message").all_text_contents() == ["Nothing found: this search knows no word of the query."] * 2
    assert page.evaluate(ASK, [0, ["  ?! "]]) == [[[], []]]
    assert page.get_by_role("status").inner_text() == "Type a query of one or more words."
    assert page.locator(".zsr-search-name, .zsr-search-message").evaluate_all("found => found.some((e) => e.checkVisibility())") is False
    assert page.locator(".zsr-search-unknown").count() == 0
    page.evaluate(ASK, [0, ["calm"]])
    assert page.get_by_role("list", name="BM25").is_visible()
    assert "NaN" not in page.locator("body").inner_text()


@in_browser
def test_a_long_query_is_told_in_short_and_searched_whole(opened):
    page = opened(small())
    strange = [f"word{i}" for i in range(1500)]
    assert page.evaluate(ASK, [0, [" ".join([*strange, "calm"])]])[0][0][0] == ["Green tea", "holds: calm"]
    assert page.locator(".zsr-search-unknown").text_content() == f"unknown: {', '.join(strange[:12])} and 1,488 more"
    asked = page.get_by_role("status").inner_text().split("“")[1].split("”")[0]
    assert asked == " ".join(strange)[:79] + "…"
    page.evaluate(ASK, [0, [f"{'q' * 200} xyz"]])
    assert page.locator(".zsr-search-unknown").text_content() == f"unknown: {'q' * 39}…, xyz"


@in_browser
def test_a_word_too_rare_for_the_vectors_is_told_apart(opened):
    texts = ["tea mint", "tea soap"]
    vocabulary = Vocabulary.of(texts, at_least=2)
    page = opened(search_box(["a", "b"], texts, vocabulary, {"one": (np.ones((1, 2)), np.eye(2), "cosine")}, ["mint xyz"], bm25=lexical(texts)))
    assert page.locator(".zsr-search-rare").text_content() == "known to BM25 alone: mint"
    assert page.locator(".zsr-search-unknown").text_content() == "unknown: xyz"


@in_browser
def test_an_item_of_no_vector_is_no_answer(opened):
    systems = {"cosine": (np.eye(2), np.array([[0.0, 0.0], [-1, 0], [0, 1]]), "cosine")}
    page = opened(small(["a", "b", "c"], ["x", "y", "x"], ["x"], systems=systems, bm25=None))
    assert page.evaluate(ASK, [0, ["x"]]) == [[[["c", "holds: x"], ["b", "no word of the query"]]]]


@in_browser
def test_titles_and_queries_are_text_and_boxes_do_not_clash(opened):
    nasty = "<b>&\"' tea</b><script>alert(1)</script>"
    page = opened(small([nasty, "soap"], examples=["calm", nasty], label=nasty), small(label="Another"))
    assert page.evaluate(ASK, [0, ["calm"]])[0][0][0] == [nasty, "holds: calm"]
    assert page.locator(".zsr-search b:not(.zsr-search-unknown), .zsr-search li script, .zsr-search td script").count() == 0
    page.evaluate(ASK, [1, ["black"]])
    assert page.locator("input").evaluate_all("inputs => inputs.map((input) => input.value)") == ["calm", "black"]
    assert page.locator(".zsr-search").first.locator("ol li").first.inner_text().startswith(nasty)
    page.locator(".zsr-search-examples button").nth(1).click()
    assert page.locator("input").first.input_value() == nasty
    assert page.locator(".zsr-search-status").first.inner_text().startswith(f"Found for “{nasty}”: words 2 items · BM25 1 item.")
    assert page.locator("[id]").count() == 0


@in_browser
def test_the_keyboard_and_a_screen_reader_get_through(opened):
    page = opened(small(examples=["calm tea", "soap"]))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('input')")
    assert page.get_by_label("Your query").count() >= 1
    page.keyboard.press("Control+A")
    page.keyboard.type("black")
    page.keyboard.press("Enter")
    assert page.get_by_role("status").inner_text() == "Found for “black”: words 2 items · BM25 1 item."
    assert page.get_by_role("list", name="BM25").get_by_role("listitem").count() == 1
    seen = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("[document.activeElement.innerText, getComputedStyle(document.activeElement).outlineWidth]"))
    assert [text for text, _ in seen] == ["Search", "calm tea", "soap", "The answers to the example queries, as tables"]
    assert {width for _, width in seen} == {"3px"}
    assert page.get_by_role("status").get_attribute("hidden") is None


@in_browser
def test_a_phone_stacks_the_searches_and_nothing_runs_off(grocery, opened):
    titles, texts, _, vocabulary, systems = grocery
    box = search_box(titles, texts, vocabulary, systems, ["calm tea", "q" * 200], bm25=lexical(texts))
    for width, columns in ((360, 1), (1400, 4)):
        page = opened(box, width=width)
        page.locator("details").evaluate("details => { details.open = true; }")
        lefts = page.locator(".zsr-search-columns > div").evaluate_all("divs => divs.map((div) => Math.round(div.getBoundingClientRect().left))")
        assert len(set(lefts)) == columns
        for query in ("calm tea", "q" * 200):
            page.evaluate(ASK, [0, [query]])
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@in_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out(opened, theme):
    page = opened(small(examples=["calm xyz"]))
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    ground = {"light": "#ffffff", "dark": "#14181e"}[theme]
    page.add_style_tag(content=f"body {{ background: {ground}; color: var(--pst-color-text-base); }} details {{ display: block }}")
    colours = page.evaluate("""() => {
      const css = getComputedStyle, clear = "rgba(0, 0, 0, 0)";
      const ground = (e) => css(e).backgroundColor === clear ? ground(e.parentElement) : css(e).backgroundColor;
      const speaks = (e) => e.matches("input") || [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE);
      return [...document.querySelectorAll(".zsr-search-live *, summary")].filter(speaks)
        .map((e) => [e.className || e.tagName, css(e).color, ground(e), css(e).borderColor]);
    }""")

    def share(colour):
        return tuple(int(part) / 255 for part in re.findall(r"\d+", colour)[:3])

    assert {"zsr-search-why", "zsr-search-badge", "zsr-search-unknown", "INPUT", "BUTTON"} <= {name for name, *_ in colours}
    for name, text, behind, border in colours:
        assert contrast(share(text), share(behind)) >= 4.5, name
        if name in ("INPUT", "BUTTON"):
            assert contrast(share(border), ground) >= 3, name


@in_browser
def test_without_scripts_the_tables_stand_there(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'>{small().data}")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert not page.locator("form").is_visible()
    assert page.locator("table").inner_text().split("\n")[0] == "calm tea"
    assert page.locator("td").first.inner_text() == "Green tea"
    context.close()


# ---------------------------------------------------------------- what the page carries


def unpacked(box):
    return json.loads(gzip.decompress(b64decode(re.search(r'data-catalogue="([^"]+)"', box.data)[1])))


def decoded(side, width):
    numbers = np.frombuffer(b64decode(side["numbers"]), np.int8).reshape(-1, width)
    return numbers * np.frombuffer(b64decode(side["scales"]), "<f4")[:, None].astype(float)


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_packed_vectors_give_the_scores_up_to_a_constant_a_query(score):
    rng = np.random.default_rng(1)
    words, items = rng.normal(size=(40, 12)), rng.normal(size=(30, 12)) + 3
    items[4] = 0.0
    pack = packed(words, items, score)
    ours = decoded(pack["words"], pack["width"]) @ decoded(pack["items"], pack["width"]).T
    theirs = words @ (normalize(items) if score == "cosine" else items).T
    alive = np.setdiff1d(np.arange(30), pack["silent"])
    assert pack["silent"] == ([4] if score == "cosine" else [])
    difference = (ours - theirs)[:, alive]
    assert np.abs(difference - difference.mean(1, keepdims=True)).max() < 0.02 * theirs.std()


def test_axes_that_say_nothing_stay_at_home():
    rng = np.random.default_rng(2)
    words, items = rng.normal(size=(50, 5)) @ rng.normal(size=(5, 64)), rng.normal(size=(60, 64))
    assert packed(words, items, "dot")["width"] == 5
    assert packed(words, np.ones((60, 64)), "cosine")["width"] == 0


def test_the_size_is_what_the_docstring_says_and_the_page_states_it():
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 1000, 12)) for _ in range(1000)]
    vocabulary = Vocabulary.of(texts, longest=1)
    systems = {name: (rng.normal(size=(len(vocabulary), 64)), rng.normal(size=(1000, 64)), "cosine") for name in "abc"}
    size = {}
    for count in (0, 1, 3):
        html = search_box(texts, texts, vocabulary, dict(list(systems.items())[:count]), ["w1"], bm25=lexical(texts)).data
        size[count] = len(re.search(r'data-catalogue="([^"]+)"', html)[1])
        assert f"from {-(-size[count] // 1000):,} kB that came with it" in html
    assert (size[3] - size[1]) / 2 == pytest.approx(170_000, rel=0.1)
    assert size[0] < 80_000


def test_the_catalogue_says_what_the_texts_say():
    catalogue = unpacked(small())
    held = {}
    for word, posting in zip(catalogue["terms"], catalogue["postings"], strict=True):
        held[word] = dict(zip((np.cumsum(posting[::2]) - 1).tolist(), posting[1::2], strict=True))
    assert held == {"black": {1: 1}, "calm": {0: 1}, "green": {0: 1}, "soap": {1: 1}, "tea": {0: 1}}


def test_the_page_stands_alone_and_is_the_same_each_time():
    first, second = small().data, small().data
    assert first == second
    assert not re.search(r"https?:|//\w+\.|\bon\w+\s*=\s*[\"']|\beval\b|new Function|innerHTML|@import|url\(", first)
    assert first.count("</script>") == first.count("</style>") == 1


def test_html_in_titles_is_escaped_in_the_tables():
    html = small(["<b>&\"' tea</b>", "soap"], examples=['calm <i>"']).data
    assert "<td>&lt;b&gt;&amp;&quot;&#x27; tea&lt;/b&gt;</td>" in html
    assert "<b>" not in html
    assert 'value="calm &lt;i&gt;&quot;"' in html


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"titles": ["a"]}, "1 titles and 2 texts"),
        ({"examples": []}, "examples is empty"),
        ({"label": " "}, "label is empty"),
        ({"k": 0}, "k is 0"),
        ({"systems": {}, "bm25": None}, "no systems and no bm25"),
        ({"bm25": lexical(["tea"])}, "bm25 knows 1 words, the texts hold 5"),
        ({"systems": {"BM25": (np.eye(8), np.eye(2, 8), "dot")}}, "named BM25"),
        ({"systems": {"X": (np.eye(8), np.eye(2, 8), "l2")}}, "X: the score is 'l2'; expected cosine or dot"),
        ({"systems": {"X": (np.eye(6), np.eye(2, 6), "dot")}}, r"X: words of shape \(6, 6\) and items of shape \(2, 6\); expected \(8, d\)"),
        ({"systems": {"X": (np.full((8, 2), np.nan), np.eye(2), "dot")}}, r"X: the vector of word 0, 'black', is not finite \(8 such of 8\)"),
        ({"systems": {"X": (np.ones((8, 2)), np.diag([1, np.inf]), "dot")}}, r"X: the vector of item 1, 'Black soap', is not finite \(1 such of 2\)"),
    ],
)
def test_errors_name_what_is_wrong(options, said):
    with pytest.raises(ValueError, match=said):
        small(**options)


@pytest.mark.parametrize("how", ["stem", "stop"])
def test_a_vocabulary_that_the_browser_cannot_follow_is_refused(how):
    texts = ["the running of teas", "a tea"]
    vocabulary = Vocabulary.of(texts, **{how: True})
    m = len(vocabulary)
    with pytest.raises(ValueError, match=r"text 0, 'the running of teas'.*stems or leaves out stop words"):
        search_box(["a", "b"], texts, vocabulary, {"X": (np.eye(m), np.eye(2, m), "dot")}, ["tea"])
