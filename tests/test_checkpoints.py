"""A checkpoint belongs to one run: of no model it is taken up for other data, or under other settings of the model."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from zsrbook.data.dataset import DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.models.anchored import Anchored, AnchoredSettings
from zsrbook.models.mail import MAIL, MAILSettings
from zsrbook.models.metaemb import MetaEmb, MetaEmbSettings
from zsrbook.models.preprec import PrepRec, PrepRecSettings
from zsrbook.models.ranking import BaseDNN, RankingModel, RankingSettings
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
