"""What every recommender of a binary matrix owes its users: one suite for all of them."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array, csr_matrix
from test_collaborative import X

from zsrbook.data.dataset import DataError
from zsrbook.models.collaborative import BPRMF, EASE, BPRSettings, EASESettings, ItemKNN, MostPop
from zsrbook.models.matrix import MatrixModel
from zsrbook.models.neural_collaborative import LightGCN, LightGCNSettings, MultVAE, MultVAESettings, NeuMF, NeuMFSettings
from zsrbook.models.node2vec import Node2VecSettings
from zsrbook.models.prerec import BinnedPopularity, FeatureSettings, Interpolated, PreRec, PreRecSettings
from zsrbook.training import Training

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("one_thread")]

VALID = csr_array(((np.random.default_rng(1).random(X.shape) < 0.1) & (X == 0)).astype(np.float32))
TRAIN = csr_array(X)
EVERYONE = np.arange(len(X))
FEATURES = FeatureSettings(node2vec=Node2VecSettings(dimension=8, walks=2, length=8, window=3), clusters=4, pair_clusters=8)


def training(seed: int, epochs: int) -> Training:
    return Training(epochs=epochs, optimizer="adam", learning_rate=0.01, clip=None, seed=seed, device="cpu")


#: name → a small one from a seed and a number of epochs
MODELS: dict[str, Callable[[int, int], MatrixModel]] = {
    "MostPop": lambda seed, epochs: MostPop(),
    "ItemKNN": lambda seed, epochs: ItemKNN(),
    "EASE": lambda seed, epochs: EASE(EASESettings(5.0)),
    "BPRMF": lambda seed, epochs: BPRMF(BPRSettings(width=8, epochs=epochs, seed=seed)),
    "NeuMF": lambda seed, epochs: NeuMF(NeuMFSettings(width=8, layers=(8, 4), training=training(seed, epochs))),
    "LightGCN": lambda seed, epochs: LightGCN(LightGCNSettings(width=8, training=training(seed, epochs))),
    "MultVAE": lambda seed, epochs: MultVAE(MultVAESettings(hidden=16, latent=4, training=training(seed, epochs))),
    "PreRec": lambda seed, epochs: PreRec(PreRecSettings(features=FEATURES, hidden=(8, 4), questions=0.4, training=training(seed, epochs))),
    "BinnedPopularity": lambda seed, epochs: BinnedPopularity(),
    "Interpolated": lambda seed, epochs: Interpolated(EASE(EASESettings(5.0)), BinnedPopularity()),
}
CHANCE = ("BPRMF", "NeuMF", "LightGCN", "MultVAE", "PreRec")
every_model = pytest.mark.parametrize("name", MODELS)


def make(name: str, seed: int = 0, epochs: int = 2) -> MatrixModel:
    return MODELS[name](seed, epochs)


@cache
def fitted(name: str) -> MatrixModel:
    return make(name).fit(TRAIN)


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


# -- the same scores, however they are asked for ------------------------------------------------------------------------------------


@every_model
def test_scores_are_finite_float32_one_row_a_user(name):
    scores = fitted(name).scores(EVERYONE)
    assert isinstance(scores, np.ndarray)
    assert scores.shape == X.shape
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert np.array_equal(fitted(name).scores(EVERYONE), scores), "scoring must have no chance in it"


@every_model
def test_users_get_the_same_in_any_order_and_company(name):
    model, scores = fitted(name), fitted(name).scores(EVERYONE)
    order = np.random.default_rng(0).choice(EVERYONE, 60)  # some twice, some not at all
    close(model.scores(order), scores[order])
    close(np.vstack([model.scores(np.array([user])) for user in EVERYONE]), scores)
    assert model.scores(EVERYONE[:0]).shape == (0, X.shape[1])


@every_model
def test_a_user_whom_the_matrix_lacks_is_refused(name):
    for user in (-1, len(X)):
        with pytest.raises(DataError, match=f"{name}: users: user code {user} at place 1; expected 0 to {len(X) - 1}"):
            fitted(name).scores(np.array([0, user]))


# -- learning -----------------------------------------------------------------------------------------------------------------------


@every_model
def test_the_seed_repeats_and_another_differs(name):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - neither global state may matter
    scores = fitted(name).scores(EVERYONE)
    assert np.array_equal(make(name).fit(TRAIN).scores(EVERYONE), scores)
    assert np.array_equal(make(name, seed=1).fit(TRAIN).scores(EVERYONE), scores) == (name not in CHANCE)


@every_model
def test_a_second_fit_forgets_the_first(name):
    assert np.array_equal(make(name).fit(csr_array(1 - X[:, :9]), VALID[:, :9]).fit(TRAIN).scores(EVERYONE), fitted(name).scores(EVERYONE))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in CHANCE])
def test_new_codes_for_users_and_items_move_the_scores_along(name):
    rng = np.random.default_rng(0)
    users, items = rng.permutation(len(X)), rng.permutation(X.shape[1])
    close(make(name).fit(csr_array(X[users][:, items])).scores(EVERYONE), fitted(name).scores(users)[:, items])


@every_model
def test_validation_stops_and_chooses_but_does_not_teach(name):
    """Of a single epoch there is nothing to choose."""
    alone, watched = (make(name, epochs=1).fit(TRAIN, valid) for valid in (None, VALID))
    if name == "PreRec":
        watched.weight = alone.weight  # of its two networks, which validation chooses
    assert np.array_equal(watched.scores(EVERYONE), alone.scores(EVERYONE))


FORMS = {
    "another class": csr_matrix,
    "float64": lambda ones: ones.astype(np.float64),
    "int8": lambda ones: ones.astype(np.int8),
    "bool": lambda ones: ones.astype(bool),
    "long codes": lambda ones: raw(ones.data, ones.indices.astype(np.int64), ones.indptr.astype(np.int64), ones.shape),
    "items in no order": lambda ones: raw(ones.data, np.concatenate([row[::-1] for row in rows(ones)]), ones.indptr, ones.shape),
    "ratings": lambda ones: raw(1 + np.arange(ones.nnz, dtype=np.float32) % 5, ones.indices, ones.indptr, ones.shape),
    "some edges twice": lambda ones: repeated(ones, 1 + np.arange(ones.nnz) % 3 // 2),
}


def rows(matrix: csr_array) -> list[np.ndarray]:
    """The items of each user."""
    return np.split(matrix.indices, matrix.indptr[1:-1])


def raw(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """A matrix of these very arrays; the constructor would choose other kinds of numbers."""
    matrix = csr_array(shape)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    return matrix


def repeated(matrix: csr_array, times: np.ndarray) -> csr_array:
    """The same with each entry so many times."""
    starts = np.append(0, np.cumsum(times))[matrix.indptr].astype(matrix.indptr.dtype)
    return raw(np.repeat(matrix.data, times), np.repeat(matrix.indices, times), starts, matrix.shape)


@pytest.mark.parametrize("form", FORMS)
@every_model
def test_whatever_says_that_an_item_was_taken_is_a_one(name, form):
    """Also where it is served; and a matrix that is read is left as it was."""
    train, scores = FORMS[form](TRAIN), fitted(name).scores(EVERYONE)
    before = [part.copy() for part in (train.data, train.indices, train.indptr)]
    model = make(name).fit(train)
    assert np.array_equal(model.scores(EVERYONE), scores)
    assert model.scores(EVERYONE).dtype == np.float32
    if model.knows != "nothing":
        assert np.array_equal(fitted(name).transfer(train).scores(EVERYONE), scores)
    for part, was in zip((train.data, train.indices, train.indptr), before, strict=True):
        assert part.dtype == was.dtype
        assert np.array_equal(part, was)


@every_model
def test_fit_leaves_validation_as_it_was(name):
    valid = FORMS["items in no order"](VALID)
    before = [part.copy() for part in (valid.data, valid.indices, valid.indptr)]
    make(name).fit(TRAIN, valid)
    assert all(map(np.array_equal, (valid.data, valid.indices, valid.indptr), before))


# -- odd matrices -------------------------------------------------------------------------------------------------------------------

ODD = {
    "a user of nothing": np.vstack([X, np.zeros((1, 12), np.float32)]),
    "a user of everything": np.vstack([X, np.ones((1, 12), np.float32)]),
    "an item that nobody took": np.hstack([X, np.zeros((40, 1), np.float32)]),
    "two who share nothing with the others": np.block([[X, np.zeros((40, 1))], [np.zeros((1, 12)), np.ones((1, 1))]]).astype(np.float32),
    "everybody has everything": np.ones((8, 4), np.float32),
    "a catalogue of one": np.ones((30, 1), np.float32),
    "one user": X[:1],
}
#: PreRec learns from pairs of a one and a blank, and keeps some of them for early stopping
TOO_LITTLE = {"everybody has everything": "expected blanks to learn from", "a catalogue of one": "expected blanks to learn from", "one user": "20"}


@pytest.mark.parametrize("case", ODD)
@every_model
def test_odd_matrices_are_scored(name, case):
    train = csr_array(ODD[case])
    if name == "PreRec" and case in TOO_LITTLE:
        with pytest.raises(DataError, match=TOO_LITTLE[case]):
            make(name).fit(train)
        return
    scores = make(name).fit(train).scores(np.arange(train.shape[0]))
    assert scores.shape == train.shape
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


NO_ONES = {
    "an array": (X, "a ndarray in place of the matrix"),
    "by columns": (TRAIN.tocsc(), "a csc_array in place of the matrix"),
    "a list": (X.tolist(), "a list in place of the matrix"),
    "NaN": (TRAIN * np.float32("nan"), "entries of the matrix are such as nan"),
    "below 0": (-TRAIN, "entries of the matrix are such as -1"),
    "no one": (csr_array(X.shape, dtype=np.float32), "the matrix of 40 users and 12 items holds no one"),
}


@pytest.mark.parametrize("case", NO_ONES)
@every_model
def test_what_is_no_matrix_of_ones_is_refused(name, case):
    train, message = NO_ONES[case]
    with pytest.raises(DataError, match=message):
        make(name).fit(train)
    if fitted(name).knows != "nothing":
        with pytest.raises(DataError, match=f"{name}: .*{message}"):
            fitted(name).transfer(train)


# -- another matrix -----------------------------------------------------------------------------------------------------------------


@every_model
def test_it_serves_the_matrices_that_it_says_it_knows(name):
    model, scores = fitted(name), fitted(name).scores(EVERYONE)
    if model.knows == "nothing":
        with pytest.raises(DataError, match=f"{name} keeps a vector for each user and item, so it can't serve another matrix; fit it there"):
            model.transfer(TRAIN)
        return
    assert np.array_equal(model.transfer(TRAIN).scores(EVERYONE), scores)
    fewer_items = csr_array(X[:25, :7])
    if model.knows == "users":
        close(model.transfer(csr_array(X[30:])).scores(np.arange(10)), scores[30:])
        with pytest.raises(DataError, match=f"{name} knows items by their ids: it was fitted on 12 items, and the matrix has 7"):
            model.transfer(fewer_items)
    else:
        assert model.transfer(fewer_items).scores(np.arange(25)).shape == (25, 7)
    assert np.array_equal(model.scores(EVERYONE), scores), "the model itself must stay as it was"


# -- keeping ------------------------------------------------------------------------------------------------------------------------

KEPT = ("ItemKNN", "EASE", *CHANCE)


def saved(name: str, path: Path) -> Path:
    fitted(name).save(path)
    return path


@pytest.mark.parametrize("name", KEPT)
def test_save_and_load_give_equal_scores(name, tmp_path):
    loaded = make(name, seed=1).load(saved(name, tmp_path / "model.safetensors"))
    if name == "PreRec":
        loaded.bind(TRAIN)  # its file holds what moves to other matrices alone
    assert np.array_equal(loaded.scores(EVERYONE), fitted(name).scores(EVERYONE))
    if loaded.knows == "users":
        newcomers = csr_array(X[30:])
        assert np.array_equal(loaded.transfer(newcomers).scores(EVERYONE[:10]), fitted(name).transfer(newcomers).scores(EVERYONE[:10]))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["NeuMF", "LightGCN", "MultVAE"])
def test_cpu_equals_gpu(name):
    """Equal weights give scores equal to 1e-4 of the largest; and what the GPU learns by itself tells what was taken from what was not as well."""

    def apart(model: MatrixModel) -> float:
        scores = model.scores(EVERYONE)
        return float(np.mean(scores[X > 0][:, None] > scores[X == 0][None, :]))

    here, there = make(name, epochs=20).fit(TRAIN), make(name, epochs=20)
    there.settings = replace(there.settings, training=replace(there.settings.training, device="cuda"))
    there.restore(here.state())
    np.testing.assert_allclose(there.scores(EVERYONE), here.scores(EVERYONE), atol=1e-4 * np.abs(here.scores(EVERYONE)).max())
    assert apart(there.fit(TRAIN)) == pytest.approx(apart(here), abs=0.05)


SPOILT = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("no model at all"),
    "of none": lambda path: save_file({"weight": torch.zeros(2)}, path),
}


@pytest.mark.parametrize("case", SPOILT)
@pytest.mark.parametrize("name", KEPT)
def test_a_file_that_holds_no_such_model_is_refused(name, case, tmp_path):
    SPOILT[case](saved(name, tmp_path / "model.safetensors"))
    with pytest.raises(DataError, match=rf"model\.safetensors: .* {name}"):
        make(name).load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", [name for name in KEPT if name != "PreRec"])
def test_a_file_with_items_beyond_its_catalogue_is_refused(name, tmp_path):
    """Compiled code would read past the end."""
    state = load_file(saved(name, path := tmp_path / "model.safetensors"))
    state["train.indices"][3] = 10**6
    save_file(state, path)
    with pytest.raises(DataError, match=rf"model\.safetensors: .* {name} .*must be < 12"):
        make(name).load(path)


@pytest.mark.parametrize("name", KEPT)
def test_the_file_of_another_model_is_refused(name, tmp_path):
    for other in set(KEPT) - {name}:
        with pytest.raises(DataError, match=rf"model\.safetensors: .* {name}"):
            make(name).load(saved(other, tmp_path / "model.safetensors"))
