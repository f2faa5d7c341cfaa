"""A checkpoint belongs to one run: of no model it is taken up for other data that it reads, or under other settings."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from zsrbook.data.dataset import DataError
from zsrbook.data.splits import Fold
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.models.anchored import Anchored, AnchoredSettings
from zsrbook.models.base import sha256_of
from zsrbook.models.mail import MAIL, MAILSettings
from zsrbook.models.metaemb import MetaEmb, MetaEmbSettings
from zsrbook.models.preprec import PrepRec, PrepRecSettings
from zsrbook.models.ranking import BaseDNN, Emblr, RankingModel, RankingSettings
from zsrbook.models.search_softmax import SoftmaxSettings, SoftmaxSTL
from zsrbook.models.zesrec import ZESRec, ZESRecSettings
from zsrbook.training import Training

ONCE = Training(epochs=1, optimizer="adam", learning_rate=0.01, clip=None, patience=None, device="cpu")
CLICKS = RankingSettings(width=4, training=ONCE)


#: each model that takes a checkpoint: what it learns from, how it is made, and a setting of its own to change
MODELS = {
    "ZESRec": ("dataset", lambda at, **s: ZESRec(ZESRecSettings(width=8, hidden=8, training=ONCE, **s), at), {"batch_targets": 64}),
    "Anchored": ("dataset", lambda at, **s: Anchored(AnchoredSettings(training=ONCE, **s), at), {"candidates": 7}),
    "PrepRec": ("dataset", lambda at, **s: PrepRec(PrepRecSettings(width=8, training=ONCE, **s), at), {"batch_targets": 64}),
    "softmax STL": ("search", lambda at, **s: SoftmaxSTL(SoftmaxSettings(training=ONCE, **s), at), {"batch": 64}),
    "a tower": ("clicks", lambda at, **s: RankingModel(partial(BaseDNN, **s), CLICKS, checkpoint=at), {"dropout": 0.1}),
    "MAIL": ("clicks", lambda at, **s: RankingModel(BaseDNN, CLICKS, partial(MAIL, settings=MAILSettings(**s)), at), {"alignment": "paired"}),
    "MetaEmb": ("clicks", lambda at, **s: MetaEmb(RankingModel(BaseDNN, CLICKS), MetaEmbSettings(training=ONCE, **s), at), {"hidden": False}),
}


@pytest.fixture(scope="module")
def learned_from():
    """Of each kind of data two that differ in nothing but what happened: names and sizes are equal."""
    world = ToyWorld(ToySettings(users=(100, 1, 1), items=(30, 1, 1)))
    one = world.dataset("grocery").with_features(np.random.default_rng(0).standard_normal((30, 16)))
    swapped = one.interactions["item"].to_numpy()[::-1].copy()
    search, clicks = world.search("grocery", 500), world.clicks("grocery", 600, longest=4).made_new(0.4)
    return {
        "dataset": (one, replace(one, interactions=one.interactions.assign(item=swapped))),
        "search": (search, search.linked(search.links.T.tocsr(), search.name)),
        "clicks": (clicks, replace(clicks, click=1 - clicks.click)),
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_other_data_or_settings_is_refused(model, learned_from, tmp_path):
    kind, make, changed = MODELS[model]
    (data, other), at = learned_from[kind], tmp_path / "run.pt"
    curve = make(at).fit(data).curve
    assert make(at).fit(data).curve == curve  # it was whole, so nothing ran
    with pytest.raises(DataError, match=r"under other settings or from other data \(data '[0-9a-f]{64}', now '[0-9a-f]{64}'\)"):
        make(at).fit(other)
    with pytest.raises(DataError, match=r"under other settings or from other data \(\w+ .*, now .*\)"):
        make(at, **changed).fit(data)


#: recommenders, and what of a run they read beside the interactions
READ = {"ZESRec": {"item vectors", "validation"}, "ZESRec of ids": {"validation"}, "Anchored": {"item vectors"}, "PrepRec": {"validation"}}


@pytest.mark.parametrize("model", READ)
def test_a_checkpoint_of_other_item_vectors_or_another_validation_is_refused_where_they_are_read(model, learned_from, tmp_path):
    _, make, _ = MODELS[model.removesuffix(" of ids")]
    fit = partial(make, tmp_path / "run.pt", **({"items": "ids"} if model.endswith("ids") else {}))
    data, newer = learned_from["dataset"]
    valid = Fold(data, data.sequences().positions == 1)
    curve = fit().fit(data, valid).curve
    assert fit().fit(replace(data), Fold(replace(data), valid.targets.copy())).curve == curve  # equal, if not the same
    others = {
        "item vectors": [(data.with_shuffled_features(0), valid)],
        "validation": [(data, None), (data, Fold(newer, valid.targets)), (data, Fold(data, data.sequences().positions == 2))],
    }
    for what, runs in others.items():
        for run in runs:
            if what in READ[model]:
                with pytest.raises(DataError, match=rf"from other data \({what} '[0-9a-f]{{64}}', now ('[0-9a-f]{{64}}'|None)\)"):
                    fit().fit(*run)
            else:
                assert fit().fit(*run).curve == curve


#: what is other in a base model -> the model
BASES = {
    "tower": RankingModel(Emblr, CLICKS),
    "filler": RankingModel(BaseDNN, CLICKS, MAIL),
    "width": RankingModel(BaseDNN, replace(CLICKS, width=8)),
    "training": RankingModel(BaseDNN, replace(CLICKS, training=replace(ONCE, seed=1))),
}


@pytest.mark.parametrize("what", BASES)
def test_a_checkpoint_over_another_base_is_refused(what, learned_from, tmp_path):
    (data, _), at = learned_from["clicks"], tmp_path / "run.pt"
    MetaEmb(RankingModel(BaseDNN, CLICKS), MetaEmbSettings(training=ONCE), at).fit(data)
    with pytest.raises(DataError, match=rf"under other settings or from other data \(base {what} .*, now "):
        MetaEmb(BASES[what], MetaEmbSettings(training=ONCE), at).fit(data)


def test_every_number_counts_in_a_hash_and_so_does_their_shape():
    numbers = np.random.default_rng(3).standard_normal((70_000, 70)).astype(np.float32)  # two pieces
    whole = sha256_of(numbers)
    assert sha256_of(np.asfortranarray(numbers)) == whole
    assert len({whole, sha256_of(numbers.reshape(70, -1)), sha256_of(numbers[:-1]), sha256_of(numbers.view(np.int32))}) == 4
    for place in ((0, 0), (35_000, 1), (-1, -1)):
        other = numbers.copy()
        other[place] += 1
        assert sha256_of(other) != whole
