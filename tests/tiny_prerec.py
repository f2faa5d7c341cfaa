"""The PreRec experiments in a world so small that a model is fitted in a moment: for tests alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest

from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.experiments import prerec
from zsrbook.experiments.prerec import Spec
from zsrbook.records import RunRecord
from zsrbook.scale import Scale

GROCERY, PANTRY, CROWD = (Spec(name, Scale.TOY) for name in ("grocery", "pantry", "crowd"))
QUICK = ("MostPop", "EASE", "PreRec", "PreRec (shuffled)")


@contextmanager
def shrunk() -> Iterator[None]:
    """Three hundred people a market, short walks, one process."""
    tiny = prerec.SETTINGS[Scale.TOY]
    walks = replace(tiny.features.node2vec, dimension=16, walks=5, length=20)
    quick = replace(
        tiny, features=replace(tiny.features, node2vec=walks, pair_clusters=40), hidden=(16, 8), training=replace(tiny.training, epochs=5)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSRBOOK_WORKERS", "1")
        patch.setitem(prerec.SETTINGS, Scale.TOY, quick)
        patch.setattr(
            prerec, "toy_world", lambda **dials: ToyWorld(ToySettings(**({"users": (300, 300, 300), "history": 25.0, "taste": 3.0} | dials)))
        )
        patch.setattr(prerec, "_WEIGHTS", {})
        patch.setattr(prerec, "_MODELS", {})
        prerec.load.cache_clear()
        yield
    prerec.load.cache_clear()


def rows(experiment: str, spec: Spec, names: tuple[str, ...] = QUICK) -> list[prerec.System]:
    return [row for row in prerec.ROWS[experiment](spec) if row.name in names]


@cache
def recorded(
    experiment: str, spec: Spec, names: tuple[str, ...] = QUICK, seeds: tuple[int, ...] = (0,), source: Spec | None = None
) -> tuple[RunRecord, ...]:
    """The records of these rows, made once; only where the world is ``shrunk``."""
    return tuple(prerec.run(spec, experiment, seeds, rows(experiment, spec, names), source))


@pytest.fixture(autouse=True, scope="module")
def small_world() -> Iterator[None]:
    with shrunk():
        yield


@pytest.fixture(scope="module")
def single() -> tuple[RunRecord, ...]:
    return recorded("single", GROCERY, seeds=(0, 1))


@pytest.fixture(scope="module")
def moved() -> tuple[RunRecord, ...]:
    return recorded("transfer", PANTRY, source=GROCERY)
