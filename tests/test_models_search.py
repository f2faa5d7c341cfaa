"""Zero-shot search: losses against a plain reading of the equations, what links teach that texts do not, and what every search owes."""

from __future__ import annotations

import doctest
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.search import SearchData, links_of
from zsrbook.models import search
from zsrbook.models.retriever import Retriever, compare
from zsrbook.models.search import STL, ZSL_ME, ZSL_TE, Ensemble, Rescaled, SquareSettings, in_turns, omega_at_scale, rewired_links, shuffled_links
from zsrbook.models.search_softmax import SMC, SoftmaxME, SoftmaxSettings, SoftmaxSTL, SoftmaxTE, drawn
from zsrbook.training import Training

SQUARE = SquareSettings(width=16, at_least=1, bigrams=False, omega=0.05, lam=0.5, reweight=False)
ADAM = Training(epochs=12, optimizer="adam", learning_rate=1e-2, clip=None, patience=None)
SOFTMAX = SoftmaxSettings(width=16, at_least=1, bigrams=False, reweight=False, batch=64, training=ADAM)
TOPIC_WORDS = ["funny", "prank", "guitar", "drums"]


def search_data(texts: list[str], row: np.ndarray, column: np.ndarray, queries: list[str], log: list[tuple[int, int]] = ()) -> SearchData:
    items = pd.DataFrame({Columns.RAW: [f"r{i}" for i in range(len(texts))], "title": "", Columns.TEXT: texts})
    table = pd.DataFrame(list(log), columns=["query", Columns.ITEM]).astype(np.int64).assign(**{Columns.TIME: 0.0})
    none = pd.DataFrame({"query": [], Columns.ITEM: [], "grade": []})
    return SearchData("made", items, links_of(np.asarray(row), np.asarray(column), len(texts)), pd.DataFrame({"text": queries}), none, table)


@cache
def two_topics(seed: int = 0, n: int = 240, degree: int = 8) -> SearchData:
    """Item i has the (i mod 4)-th word of ``TOPIC_WORDS`` and four that say nothing, and 8 neighbours of its topic: of both of its words.

    So "funny" and "prank" never stand in one text. The log has 8 clicks a query and item of the query's topic, at random.
    """
    rng = np.random.default_rng(seed)
    texts = [" ".join([TOPIC_WORDS[i % 4], *(f"filler{w}" for w in rng.choice(40, 4, replace=False))]) for i in range(n)]
    topic = np.arange(n) % 4 // 2
    others = [np.flatnonzero((topic == topic[i]) & (np.arange(n) != i)) for i in range(n)]
    column = np.concatenate([rng.choice(others[i], degree, replace=False) for i in range(n)])
    log = [(query, item) for query in range(4) for item in rng.choice(np.flatnonzero(topic == query // 2), 150)]
    return search_data(texts, np.repeat(np.arange(n), degree), column, TOPIC_WORDS, log)


def connected(model: Retriever, n: int = 240) -> float:
    """How often "funny" ranks an item of "prank" above one of the other topic: chance is 0.5."""
    scores, kind = model.scores(["funny"])[0], np.arange(n) % 4
    return float((scores[kind == 1][:, None] > scores[kind > 1]).mean())


def cosines(model) -> tuple[float, float]:
    """Of "funny" with "prank", and with "guitar"."""
    funny, *others = model.query_vectors(TOPIC_WORDS[:3])
    return tuple(compare(funny[None], np.array(others), "cosine")[0].tolist())


@cache
def uneven() -> SearchData:
    """Some 30 items with 0 to 9 words and 0 to 12 neighbours, links in one direction; item 0 has no text, item 1 no link either way."""
    rng = np.random.default_rng(3)
    texts = ["", *(" ".join(f"w{w}" for w in rng.permutation(25)[: rng.integers(1, 10)]) for _ in range(29))]
    pairs = {(i, j) for i in range(30) for j in rng.integers(0, 30, 1 + i % 12 if i % 7 else 0) if i != j and 1 not in (i, j)}
    row, column = np.array(sorted(pairs)).T
    return search_data(texts, row, column, ["w1"])


# -- the losses -----------------------------------------------------------------------------------------------------------------------


def bags_of(data: SearchData) -> tuple[np.ndarray, list[str]]:
    """(n, m) which words stand in each text, word by word, and the words in alphabetical order."""
    words = sorted({word for text in data.items[Columns.TEXT] for word in text.split()})
    return np.array([[float(word in text.split()) for word in words] for text in data.items[Columns.TEXT]]), words


def weights_of(present: np.ndarray) -> np.ndarray:
    """r_i c_j, each proportional to 1/√nnz and of mean 1 (section 4.3)."""
    r, c = (np.array([1 / np.sqrt(k) if k else 0.0 for k in present.sum(axis)]) for axis in (1, 0))
    return np.outer(r / r[r > 0].mean(), c / c[c > 0].mean())


def plain_square(present: np.ndarray, v: np.ndarray, u: np.ndarray, omega: float, reweight: bool) -> float:
    """One task of L_SL, pair by pair."""
    alpha, total = weights_of(present) if reweight else np.ones_like(present), 0.0
    for i in range(len(v)):
        for j in range(len(u)):
            y = float(v[i] @ u[j])
            total += alpha[i, j] * (y - 1) ** 2 if present[i, j] else omega * y**2
    return total


@pytest.mark.parametrize("reweight", [True, False])
@pytest.mark.parametrize("combined", [True, False])
@pytest.mark.parametrize("form", [STL, ZSL_ME, ZSL_TE])
def test_history_is_the_square_loss_of_the_paper(form, combined, reweight):
    data = uneven()
    settings = replace(SQUARE, width=6, omega=0.02, lam=0.3, combined=combined, reweight=reweight, sweeps=4)
    model = form(settings).fit(data)
    held, words = bags_of(data)
    assert list(model.vocabulary.words) == words
    v, w = model.items.astype(np.float64), model.words.astype(np.float64)
    q = np.array([row @ w / row.sum() if row.any() else 0 * w[0] for row in held])  # the mean of a text's words
    links, parameters = data.links.toarray().astype(np.float64), [v, w]
    text_task = (np.diag(held.any(1).astype(float)), q) if combined else (held, w)
    tasks = {STL: [text_task], ZSL_ME: [text_task, (links, model.contexts)], ZSL_TE: [(links * held.any(1), q)]}[form]
    if form is ZSL_ME:
        parameters.append(model.contexts)
    expected = sum(plain_square(present, v, u, 0.02, reweight) for present, u in tasks) + 0.3 * sum((p**2).sum() for p in parameters)
    assert model.history[-1] == pytest.approx(expected, rel=1e-5)
    assert len(model.history) == 5
    assert (np.diff(model.history) < 0).all()
    if form is ZSL_TE:
        np.testing.assert_allclose(model.contexts, q, atol=1e-6)


def plain_cross_entropy(pairs: list[tuple[np.ndarray, int]], v: np.ndarray) -> float:
    total = 0.0
    for q, i in pairs:
        scores = v @ q
        total -= float(scores[i] - np.log(np.exp(scores).sum()))
    return total


@pytest.mark.parametrize("form", [SoftmaxSTL, SoftmaxME, SoftmaxTE, SMC])
def test_the_loss_of_an_epoch_is_the_cross_entropy_of_the_paper(form):
    data = replace(uneven(), queries=two_topics().queries.assign(text=["w1 w2", "w3", "zzz", "w3 w4 w4"]))
    log = pd.DataFrame({"query": [0, 1, 3, 3, 0], Columns.ITEM: [4, 2, 2, 9, 4], Columns.TIME: 0.0})
    data = replace(data, log=log)
    still = replace(SOFTMAX, width=6, batch=7, training=replace(ADAM, epochs=1, learning_rate=1e-12))
    model = form(still).fit(data)
    v, w = model.items.astype(np.float64), dict(zip(model.vocabulary.words, model.reader.words.weight.detach().double().numpy(), strict=True))

    def q(text: str) -> np.ndarray:
        return np.mean([w[word] for word in set(text.split())], axis=0)

    def of_text() -> list[tuple[np.ndarray, int]]:
        return [(q(text), i) for i, text in enumerate(texts) if text]

    texts, links = data.items[Columns.TEXT].tolist(), data.links.tocoo()
    pairs = {
        SoftmaxSTL: of_text,
        SoftmaxME: lambda: [*of_text(), *((model.contexts[j].astype(np.float64), i) for i, j in zip(links.row, links.col, strict=True))],
        SoftmaxTE: lambda: [(q(texts[j]), i) for i, j in zip(links.row, links.col, strict=True) if texts[j]],
        SMC: lambda: [(q(data.queries["text"][k]), i) for k, i in zip(log["query"], log[Columns.ITEM], strict=True)],
    }[form]()
    assert model.curve[0]["train"] == pytest.approx(plain_cross_entropy(pairs, v) / len(pairs), rel=1e-5)


def test_weighted_pairs_are_drawn_in_proportion_to_their_weights():
    links = uneven().links
    model = SoftmaxTE(replace(SOFTMAX, reweight=True))
    pairs = model.pairs(uneven())
    coo = links.tocoo()
    np.testing.assert_allclose(pairs.weight, weights_of(links.toarray())[coo.row, coo.col], rtol=1e-5)
    np.testing.assert_array_equal(np.stack([pairs.target, pairs.source]), np.stack([coo.row, coo.col]))
    rng = np.random.default_rng(0)
    counts = sum(np.bincount(drawn(pairs.weight, links.nnz, rng), minlength=links.nnz) for _ in range(2000))
    np.testing.assert_allclose(counts / counts.sum(), pairs.weight / pairs.weight.sum(), rtol=0.15)
    np.testing.assert_array_equal(np.sort(drawn(None, 9, rng)), np.arange(9))
    assert SoftmaxME(replace(SOFTMAX, reweight=True)).pairs(uneven()).weight[:30].tolist() == [1.0] * 30


def test_links_keep_their_weights_in_whatever_order_they_come():
    links = uneven().links
    backwards = np.concatenate([of_item[::-1] for of_item in np.split(links.indices, links.indptr[1:-1])])
    data = replace(uneven(), links=csr_array((links.data, backwards, links.indptr), shape=links.shape))
    pairs = SoftmaxTE(replace(SOFTMAX, reweight=True)).pairs(data)
    np.testing.assert_allclose(pairs.weight, weights_of(links.toarray())[pairs.target, pairs.source], rtol=1e-5)


def test_a_sampled_softmax_of_many_negatives_is_near_the_full_one():
    still = replace(SOFTMAX, training=replace(ADAM, epochs=1, learning_rate=1e-12))
    full, sampled = (SoftmaxME(settings).fit(two_topics()).curve[0]["train"] for settings in (still, replace(still, sampled_above=10)))
    assert sampled != full
    assert sampled == pytest.approx(full, rel=5e-3)
    assert connected(SoftmaxTE(replace(SOFTMAX, sampled_above=10, negatives=200)).fit(two_topics())) > 0.95


# -- what links teach -----------------------------------------------------------------------------------------------------------------


def test_links_connect_words_that_never_meet_under_the_square_loss():
    """The example of the paper: texts alone leave "funny" as near to "guitar" as to "prank"; common neighbours bring it to "prank"."""
    gaps, found, control = [], [], []
    for seed in range(6):
        models = [form(replace(SQUARE, seed=seed)).fit(two_topics(seed)) for form in (STL, ZSL_ME, ZSL_TE)]
        gaps.append([np.subtract(*cosines(model)) for model in models])
        found.append([connected(model) for model in models])
        control.append(connected(ZSL_TE(replace(SQUARE, seed=seed)).fit(shuffled_links(two_topics(seed), seed))))
    gaps, found = np.array(gaps), np.array(found)
    assert abs(gaps[:, 0].mean()) < 0.15
    assert gaps[:, 0].max() < 0.4
    assert gaps[:, 1:].min() > 0.8
    assert found[:, 0].mean() == pytest.approx(0.5, abs=0.1)
    assert found[:, 1:].min() > 0.98
    assert np.mean(control) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("encoder", ["bow", "attention", "gru"])
def test_links_connect_words_that_never_meet_under_cross_entropy(encoder):
    """ZSL_ME only where texts of five words teach its encoder what one word says: less with a recurrent network."""
    stl, me, te = (
        [connected(form(replace(SOFTMAX, encoder=encoder, training=replace(ADAM, epochs=6, seed=seed))).fit(two_topics(seed))) for seed in range(2)]
        for form in (SoftmaxSTL, SoftmaxME, SoftmaxTE)
    )
    assert np.mean(stl) == pytest.approx(0.5, abs=0.15)
    assert np.mean(me) > np.mean(stl) + 0.2
    assert min(te) > 0.9


def test_the_supervised_model_learns_what_is_consumed_and_how_often():
    data = search_data(["a", "b", "c", "d"], [0], [1], ["red", "blue"], [(0, 0)] * 90 + [(0, 1)] * 10 + [(1, 2)] * 100)
    scores = SMC(replace(SOFTMAX, score="dot", training=replace(ADAM, epochs=250))).fit(data).scores(["red", "blue", "blue red", "grey"])
    assert np.argsort(-scores[0])[:2].tolist() == [0, 1]  # of two good answers, the popular one is first
    assert scores[0, 0] - scores[0, 1] == pytest.approx(np.log(9), rel=0.15)
    assert scores[1].argmax() == 2
    assert scores[2].argmin() == 3
    assert np.isnan(scores[3]).all()


@pytest.mark.parametrize("encoder", ["bow", "gru", "attention"])
def test_only_ordered_encoders_read_order_and_none_reads_bigrams_but_bow(encoder):
    settings = replace(SOFTMAX, encoder=encoder, bigrams=True, longest=3, training=replace(ADAM, epochs=1))
    model = SoftmaxTE(settings).fit(two_topics())
    ab, ba, long, longer = model.query_vectors(["funny prank", "prank funny", "funny prank guitar", "funny prank guitar drums"])
    assert (np.abs(ab - ba).max() < 1e-6) == (encoder == "bow")
    assert (np.abs(long - longer).max() < 1e-6) == (encoder != "bow")  # no more than ``longest`` words are read
    assert any(" " in word for word in model.vocabulary.words) == (encoder == "bow")


# -- settings -------------------------------------------------------------------------------------------------------------------------


def test_links_predict_in_the_direction_that_is_asked_for():
    data = uneven()
    for direction, links in (("transposed", data.links.T), ("symmetric", data.links.maximum(data.links.T))):
        other = data.linked(links_of(*links.tocoo().coords, 30), "other")
        for form, settings in ((ZSL_TE, SQUARE), (ZSL_ME, SQUARE), (SoftmaxTE, replace(SOFTMAX, training=replace(ADAM, epochs=1)))):
            asked, literal = form(replace(settings, direction=direction)).fit(data), form(settings).fit(other)
            np.testing.assert_allclose(asked.items, literal.items, atol=1e-6)
            assert np.abs(asked.items - form(settings).fit(data).items).max() > 1e-3


@pytest.mark.parametrize(("form", "settings"), [(ZSL_TE, SQUARE), (SoftmaxTE, SOFTMAX)])
def test_an_item_without_links_can_be_found_by_its_own_text(form, settings):
    data = uneven()
    bare = np.flatnonzero(np.diff(data.links.indptr) == 0)
    assert len(bare) > 2
    plain, folded = (form(replace(settings, fold_in=fold_in)).fit(data) for fold_in in (False, True))
    if form is ZSL_TE:
        assert (plain.items[bare] == 0).all()
        assert (plain.scores(["w1 w2"])[0, bare] == -1).all()
    told = bare[bare != 0]
    np.testing.assert_allclose(folded.items[told], folded.query_vectors(data.items[Columns.TEXT].iloc[told].tolist()), atol=1e-6)
    linked = np.setdiff1d(np.arange(30), bare)
    np.testing.assert_array_equal(folded.items[linked], plain.items[linked])
    assert np.isfinite(folded.items).all()


def test_omega_at_scale_keeps_the_balance_of_the_paper():
    data = two_topics()
    assert omega_at_scale(data) * 240 / 8 == pytest.approx(min(240 / 8, 17714.821 / 176))
    sparse = search_data(["a"] * 5000, np.arange(5000), (np.arange(5000) + 1) % 5000, [])
    assert omega_at_scale(sparse) * 5000 / 1 == pytest.approx(17714.821 / 176)


def test_doctests():
    result = doctest.testmod(search)
    assert result.attempted > 4
    assert result.failed == 0


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="direction is 'back'; expected one of literal, transposed, symmetric"):
        SquareSettings(direction="back")
    with pytest.raises(ValueError, match="omega is 3; expected 0 to 1"):
        SquareSettings(omega=3)
    with pytest.raises(ValueError, match="sweeps -1; expected 0 or more"):
        SquareSettings(sweeps=-1)
    with pytest.raises(ValueError, match="encoder is 'lstm'"):
        SoftmaxSettings(encoder="lstm")
    with pytest.raises(ValueError, match="4 heads can't share a width of 10"):
        SoftmaxSettings(encoder="attention", width=10)
    with pytest.raises(DataError, match="SMC finds no pair to learn from; expected links, or rows in the log"):
        SMC(SOFTMAX).fit(uneven())
    with pytest.raises(DataError, match="SoftmaxTE finds no pair to learn from whose text has a known word"):
        SoftmaxTE(SOFTMAX).fit(search_data(["tea", "pot", ""], [0, 1], [2, 2], ["tea"]))
    with pytest.raises(ValueError, match="expected 0 <= kept <= until"):
        Ensemble(STL(), STL(), 3, 2)


def test_several_processes_are_refused_by_cross_entropy(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"SoftmaxSTL on .*: 2 processes were started"):
        SoftmaxSTL(SOFTMAX).fit(uneven())


# -- from day to day ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [STL, ZSL_ME, ZSL_TE])
def test_a_refresh_goes_on_from_where_it_was(form, tmp_path):
    whole = two_topics()
    order = np.random.default_rng(0).permutation(240)[:200]
    items, links = whole.items.iloc[order].reset_index(drop=True), whole.links[order][:, order]
    old = replace(whole, items=items, links=links, log=whole.log.iloc[:0])
    texts = [*whole.items[Columns.TEXT][:230], *("banjo funny" for _ in range(10))]
    new = replace(whole, items=whole.items.assign(**{Columns.TEXT: texts}))
    first = form(replace(SQUARE, sweeps=20)).fit(old)
    first.save(tmp_path / "yesterday.safetensors")
    again = form(SQUARE).load(tmp_path / "yesterday.safetensors").refresh(new, sweeps=0)
    np.testing.assert_array_equal(again.items[order], first.items)  # by name, wherever they stand now
    place = [again.vocabulary.words.index(word) for word in first.vocabulary.words]
    np.testing.assert_array_equal(again.words[place], first.words)
    assert "banjo" in again.vocabulary.words
    if form is ZSL_ME:
        np.testing.assert_array_equal(again.contexts[order], first.contexts)
    warm, cold = first.refresh(new, sweeps=3), form(replace(SQUARE, sweeps=3)).fit(new)
    assert warm.history[0] < 0.7 * cold.history[0]
    assert warm.history[-1] < cold.history[-1]
    assert compare(warm.words[place], again.words[place], "cosine").diagonal().mean() > 0.8  # axes did not turn
    assert np.isfinite(warm.scores(["banjo", "funny"])).all()


# -- lists of two models --------------------------------------------------------------------------------------------------------------


def test_rescaled_vectors_have_the_direction_of_one_model_and_the_length_of_another():
    data = two_topics()
    te, smc = ZSL_TE(SQUARE).fit(data), SMC(replace(SOFTMAX, score="dot", training=replace(ADAM, epochs=1))).fit(data)
    both = Rescaled(te, smc)
    np.testing.assert_allclose(compare(both.items, te.items, "cosine").diagonal(), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(both.items, axis=1), np.linalg.norm(smc.items, axis=1), rtol=1e-5)
    np.testing.assert_allclose(both.scores(["funny"]), te.query_vectors(["funny"]) @ both.items.T, rtol=1e-6)
    lengths = np.linalg.norm(smc.items, axis=1)
    q = te.query_vectors(["funny"])
    np.testing.assert_allclose(both.scores(["funny"])[0], te.scores(["funny"])[0] * lengths * np.linalg.norm(q), atol=1e-5)


def plain_ensemble(first: np.ndarray, other: np.ndarray, kept: int, until: int) -> list[int]:
    """The list of section 5.3, item by item."""
    own, others = (sorted(range(len(scores)), key=lambda i: -scores[i]) for scores in (first, other))
    listed = own[:kept]
    turn = 0
    while len(listed) < min(until, len(own)):
        source = (others, own)[turn % 2]
        listed.append(next(i for i in source if i not in listed))
        turn += 1
    return listed + [i for i in own if i not in listed]


@pytest.mark.parametrize(("n", "kept", "until"), [(40, 10, 20), (40, 0, 40), (15, 10, 20), (5, 10, 20), (40, 7, 7), (40, 0, 0)])
def test_the_ensemble_lists_as_the_paper_says(n, kept, until):
    rng = np.random.default_rng(n + kept)
    first, other = rng.integers(0, 12, (2, 30, n)).astype(np.float32)  # with ties
    place = in_turns(first, other, kept, until)
    for row in range(30):
        np.testing.assert_array_equal(np.argsort(place[row]), plain_ensemble(first[row], other[row], kept, until))
    np.testing.assert_array_equal(np.sort(place, axis=1), np.broadcast_to(np.arange(1, n + 1), place.shape))


def test_an_ensemble_listens_to_the_one_that_knows_the_query():
    data = two_topics()
    te, smc = ZSL_TE(SQUARE).fit(data), SMC(replace(SOFTMAX, score="dot", training=replace(ADAM, epochs=1))).fit(data)
    scores = Ensemble(smc, te, 5, 10).scores(["filler3", "funny", "unheard"])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(np.argsort(-scores[0], kind="stable"), np.argsort(-te.scores(["filler3"])[0], kind="stable"))
    assert scores[1].argmax() == smc.scores(["funny"])[0].argmax()
    assert np.isnan(scores[2]).all()


def test_shuffled_links_are_the_same_graph_between_other_items():
    data = uneven()
    mixed = shuffled_links(data, 1)
    for axis in (0, 1):
        np.testing.assert_array_equal(np.sort(mixed.links.sum(axis)), np.sort(data.links.sum(axis)))
    assert (mixed.links != data.links).nnz > data.links.nnz / 2
    assert mixed.items is data.items
    spectrum = [np.sort(np.linalg.svd(d.links.toarray(), compute_uv=False)) for d in (data, mixed)]
    np.testing.assert_allclose(*spectrum, atol=1e-4)
    assert (shuffled_links(data, 1).links != mixed.links).nnz == 0


def test_rewired_links_keep_how_many_there_are_of_each_item_and_nothing_else():
    rng = np.random.default_rng(0)
    pairs = {(i, j) for i, j in zip(rng.integers(80, size=900).tolist(), (80 * rng.random(900) ** 2).astype(int).tolist(), strict=True) if i != j}
    data = search_data(["w"] * 80, *np.array(sorted(pairs)).T, ["w"])
    mixed = rewired_links(data, 1)
    assert mixed.links.diagonal().sum() == 0
    assert mixed.links.data.max() == 1
    assert mixed.links.nnz > 0.98 * data.links.nnz
    for axis in (0, 1):
        assert np.abs(mixed.links.sum(axis) - data.links.sum(axis)).sum() <= data.links.nnz - mixed.links.nnz
    assert (mixed.links != data.links).nnz > data.links.nnz / 4
    assert (rewired_links(data, 1).links != mixed.links).nnz == 0
    assert (rewired_links(data, 2).links != mixed.links).nnz > 0
    stopped = rewired_links(data, 1, rounds=0).links  # many fall twice on one item then, and are dropped, not counted twice
    assert stopped.nnz < mixed.links.nnz
    assert stopped.data.max() == 1


# -- what every search owes -----------------------------------------------------------------------------------------------------------

BRIEF = replace(SOFTMAX, training=replace(ADAM, epochs=2))
VARIANTS = {
    "STL": lambda seed: STL(replace(SQUARE, seed=seed)),
    "STL combined": lambda seed: STL(replace(SQUARE, seed=seed, combined=True, score="dot")),
    "ZSL_ME": lambda seed: ZSL_ME(replace(SQUARE, seed=seed, bigrams=True, stem=True)),
    "ZSL_TE": lambda seed: ZSL_TE(replace(SQUARE, seed=seed, reweight=True, stop=True, fold_in=True)),
    **{
        f"{form.__name__} {encoder}": lambda seed, form=form, encoder=encoder: form(
            replace(BRIEF, encoder=encoder, layers=1 + (encoder == "attention"), training=replace(BRIEF.training, seed=seed))
        )
        for form, encoder in ((SoftmaxSTL, "bow"), (SoftmaxME, "bow"), (SoftmaxTE, "bow"), (SoftmaxTE, "gru"), (SoftmaxTE, "attention"), (SMC, "bow"))
    },
}
ASKED = ["funny", "prank drums filler3 filler4", "unheard", "", "the funny filler1 unheard", "filler2 filler2 prank"]


@cache
def corpus() -> SearchData:
    """``two_topics``, but one text is empty, and the log asks for other words too."""
    data = two_topics()
    texts = ["", *data.items[Columns.TEXT][1:]]
    return replace(
        data,
        items=data.items.assign(**{Columns.TEXT: texts}),
        queries=data.queries.assign(text=["funny", "prank filler3", "guitar", "drums filler2"]),
    )


@cache
def fitted(variant: str, seed: int = 0, fit: int = 0):
    return VARIANTS[variant](seed).fit(corpus())


@pytest.mark.parametrize("variant", VARIANTS)
class TestContract:
    def test_scores_are_float32_one_row_a_query_and_nan_where_no_word_is_known(self, variant):
        model = fitted(variant)
        scores, vectors = model.scores(ASKED), model.query_vectors(ASKED)
        assert scores.shape == (6, 240)
        assert scores.dtype == vectors.dtype == model.items.dtype == np.float32
        known = np.array([True, True, False, False, True, True])
        assert np.isfinite(vectors[known]).all()
        assert np.isnan(vectors[~known]).all()
        assert np.isfinite(scores[known]).all()
        assert np.isnan(scores[~known]).all()
        assert model.scores([]).shape == (0, 240)

    def test_a_batch_equals_one_at_a_time(self, variant):
        model = fitted(variant)
        np.testing.assert_allclose(model.scores(ASKED), np.concatenate([model.scores([query]) for query in ASKED]), atol=2e-6)

    def test_the_seed_repeats_exactly(self, variant):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - neither global state may matter
        np.testing.assert_array_equal(fitted(variant, fit=1).scores(ASKED), fitted(variant).scores(ASKED))
        assert np.nanmax(np.abs(fitted(variant, seed=1).scores(ASKED) - fitted(variant).scores(ASKED))) > 1e-3

    def test_the_solver_for_a_card_learns_the_same(self, variant):
        """On the CPU of torch; words that are coupled through texts go another way, but not elsewhere."""
        other = VARIANTS[variant](0)
        if isinstance(other.settings, SoftmaxSettings):
            pytest.skip("no square loss")
        other.device = "cpu:0"
        compiled, coupled = fitted(variant), other.settings.combined or isinstance(other, ZSL_TE)
        other.fit(corpus())
        assert other.history == pytest.approx(compiled.history, rel=0.3 if coupled else 1e-4)
        assert connected(other) == pytest.approx(connected(compiled), abs=0.1 if coupled else 1e-3)

    def test_save_and_load_give_equal_scores(self, variant, tmp_path):
        model = fitted(variant)
        model.save(tmp_path / "model.safetensors", {"about": "this"})
        loaded = VARIANTS[variant](5).load(tmp_path / "model.safetensors")
        np.testing.assert_array_equal(loaded.scores(ASKED), model.scores(ASKED))
        assert loaded.raw == model.raw
        assert (loaded.contexts is None) == (model.contexts is None)

    def test_no_search_but_the_supervised_reads_log_or_queries(self, variant):
        other = replace(corpus(), queries=corpus().queries.assign(text="banjo"), log=corpus().log.iloc[::-1].assign(**{Columns.ITEM: 1}))
        same = np.array_equal(VARIANTS[variant](0).fit(other).scores(ASKED), fitted(variant).scores(ASKED), equal_nan=True)
        assert same != variant.startswith("SMC")

    @pytest.mark.gpu
    def test_cpu_equals_gpu(self, variant, tmp_path):
        """Equal weights give scores equal to 1e-4; and what the GPU learns connects as much as what the CPU learns."""
        on_gpu = VARIANTS[variant](0)
        if not isinstance(on_gpu.settings, SoftmaxSettings):
            on_gpu.device = "cuda"
            learned = on_gpu.fit(corpus())
            assert learned.history[-1] == pytest.approx(fitted(variant).history[-1], rel=0.05)
            assert connected(learned) == pytest.approx(connected(fitted(variant)), abs=0.1)
            return
        on_gpu.settings = replace(on_gpu.settings, training=replace(on_gpu.settings.training, device="cuda"))
        fitted(variant).save(tmp_path / "model.safetensors")
        np.testing.assert_allclose(on_gpu.load(tmp_path / "model.safetensors").scores(ASKED), fitted(variant).scores(ASKED), atol=1e-4)
        learned = on_gpu.fit(corpus())
        assert learned.curve[-1]["train"] == pytest.approx(fitted(variant).curve[-1]["train"], rel=0.05)
        assert connected(learned) == pytest.approx(connected(fitted(variant)), abs=0.1)
