"""What a choice is worth: rows with one choice of ours made otherwise, each beside the row as it is.

Such a row is named after the other and after the entry in the register of deviations, as in ``ZESRec-G (zes-9)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from zsrbook.evaluation.intervals import difference
from zsrbook.records import RunRecord, find
from zsrbook.tables import stacked

#: paper -> what its chapter judges choices by
METRICS = {"zesrec": "Recall@20", "mail": "AUC (new)", "search": "Recall@R", "prerec": "NDCG@20"}
#: the row that knows nothing
CHANCE = "Random"
#: the row, and the entry in the register
_NAME = re.compile(r"(?P<row>.+) \((?P<id>[a-z]+-\w*\d)\)")
_COLUMNS = ("id", "row", "paper", "pair", "experiment", "scale", "metric", "seeds", "before", "otherwise", "effect", "low", "high", "above")


def effects(changed: Iterable[RunRecord], recipes: Iterable[RunRecord]) -> pd.DataFrame:
    """How much the metric of ``METRICS`` changes with each choice, on the seeds that both records have.

    Args:
        changed: records of which those of such rows are taken.
        recipes: records that hold the rows as they are, on the same data under the same rules. Of several the one counts that shares most seeds
            with the changed record, of equals the last.

    Returns:
        one row a record of ``changed`` that has its counterpart, in their order: ``id``, ``row``, ``paper``, ``pair``, ``experiment``,
        ``scale``, ``metric``, ``seeds``, the two means ``before``, as it is, and ``otherwise``, and ``effect``, their difference, with its 95 %
        interval ``low`` to ``high`` over users and seeds, and ``above``, what the row as it is has above ``CHANCE``; NaN without such a record.
    """
    recipes = list(recipes)
    known: dict[tuple[str, ...], list[RunRecord]] = {}
    for r in recipes:
        known.setdefault(_key(r, r.method), []).insert(0, r)
    chance = {_judged_on(r): r for r in recipes if r.method == CHANCE}
    rows = []
    for r in changed:
        name = _NAME.fullmatch(r.method)
        same = known.get(_key(r, name["row"]), []) if name else []
        recipe = max(same, key=lambda other: len({*other.seeds} & {*r.seeds}), default=None)
        seeds = [seed for seed in r.seeds if recipe and seed in recipe.seeds]
        if seeds:
            metric, (ours, theirs) = METRICS[r.paper], (_of_seeds(record, seeds) for record in (r, recipe))
            e = difference(ours.per_user(metric), theirs.per_user(metric))
            about = (name["id"], name["row"], r.paper, r.pair, r.experiment, r.scale, metric, len(seeds))
            before = theirs.mean(metric)
            floor = chance[_judged_on(r)].mean(metric) if _judged_on(r) in chance else float("nan")
            rows.append((*about, before, ours.mean(metric), e.value, e.low, e.high, before - floor))
    return pd.DataFrame(rows, columns=_COLUMNS)


def table(found: pd.DataFrame, words: Mapping[str, str], digits: int = 3) -> pd.io.formats.style.Styler:
    """What a chapter shows of ``effects``, each with its row where there are several; ``words`` says of each id what was changed.

    The effect comes first, so that a phone shows it beside what was changed.
    """
    several = found["row"].nunique() > 1
    columns = {
        "effect, 95 % interval": [stacked(r.effect, r.low, r.high, digits) for r in found.itertuples()],
        found["metric"].iloc[0]: found["otherwise"].map(f"{{:.{digits}f}}".format),
        "seeds": found["seeds"],
    }
    told = [(words[id_], row, id_) for id_, row in zip(found["id"], found["row"], strict=True)]
    what_changes = [f"{text if not several or text.startswith(f'{row} ') else f'{row}: {text}'} ({id_})" for text, row, id_ in told]
    return pd.DataFrame(columns).set_axis(what_changes).style


def by_pair(found: pd.DataFrame, words: Mapping[str, str]) -> pd.DataFrame:
    """``effects`` on several pairs side by side, as text; a star where the interval leaves zero out.

    Returns:
        index ``id``, ``what changes``; one column a pair, which is one data set where nothing is carried, empty where a choice was not run.
    """
    clear = (found["low"] > 0) | (found["high"] < 0)
    cells = found["effect"].map("{:+.3f}".format) + clear.map({True: "*", False: ""})
    frame = pd.DataFrame({"id": found["id"], "what changes": found["id"].map(words), "pair": found["pair"], "cell": cells})
    wide = frame.pivot(index=["id", "what changes"], columns="pair", values="cell")
    return wide.reindex(columns=found["pair"].unique()).fillna("").rename_axis(columns=None)


#: paper, and experiment whose rows have a choice made otherwise -> the experiments that have the rows as they are. A search is also asked
#: for links and clicks, which its chapter shows
EXPERIMENTS = {
    ("zesrec", "deviations"): ("zero-shot",),
    ("mail", "deviations"): ("clicks",),
    ("mail", "deviations-strict"): ("clicks-strict",),
    ("search", "labels-deviations"): ("labels",),
    ("search", "corpus-deviations"): ("corpus",),
    ("prerec", "deviations"): ("single", "families"),
    ("prerec", "successor-deviations"): ("successor",),
}


def recorded(paper: str | None = None, scale: str | None = None) -> pd.DataFrame:
    """``effects`` of all that was recorded: what the register shows, and a chapter beside it."""
    found = []
    for (of, changed), bases in EXPERIMENTS.items():
        if paper in (None, of):
            recipes = [r for base in bases for r in find(paper=of, experiment=base, scale=scale)]
            found.append(effects(find(paper=of, experiment=changed, scale=scale), recipes))
    return pd.concat(found, ignore_index=True)


def _of_seeds(record: RunRecord, seeds: list[int]) -> RunRecord:
    """A record of these seeds alone."""
    if record.seeds == seeds:
        return record
    metrics = {name: [values[record.seeds.index(seed)] for seed in seeds] for name, values in record.metrics.items()}
    return replace(record, seeds=seeds, metrics=metrics, ranks={seed: ranks for seed, ranks in record.ranks.items() if seed in seeds})


def _key(r: RunRecord, row: str) -> tuple[str, ...]:
    """What a row and its counterpart share."""
    return r.pair, row, *_judged_on(r)


def _judged_on(r: RunRecord) -> tuple[str, ...]:
    """What rows share that are judged alike, wherever they learned."""
    return r.paper, r.target, r.scale, r.data_sha256, json.dumps(r.protocol, sort_keys=True)
