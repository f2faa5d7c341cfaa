"""The tables of the PreRec chapter: what it makes of finished records, of its data sets and of trained models, and the chapter in a few sentences.

The experiments are in ``prerec``, which imports nothing from here. Records can be extended with more seeds only while an experiment's module and
all that it imports are unchanged, so tables stand apart and may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler
from scipy.stats import rankdata

from zsrbook import claims
from zsrbook.claims import estimate
from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import MatrixSplit, rows_of
from zsrbook.evaluation.heavy_tails import gini
from zsrbook.evaluation.intervals import PerUser, difference, relative
from zsrbook.evaluation.matrix import against_sample, alone
from zsrbook.evaluation.metrics import values
from zsrbook.evaluation.ranks import RankTable
from zsrbook.experiments.prerec import (
    ASKED,
    BASES,
    DATA,
    FIVE,
    LEFT_OUT,
    OPEN_QUESTIONS,
    PAPER,
    STRANGERS,
    Spec,
    chosen,
    described,
    load,
    results,
    systems,
    tried,
)
from zsrbook.models.matrix import MatrixModel, degrees
from zsrbook.records import RunRecord, find, protocol_of
from zsrbook.scale import Scale
from zsrbook.tables import Measured, measured, paper_numbers

#: what every table says that shows numbers of the model
RECONSTRUCTED = "PreRec as reconstructed here"
#: what a table shows of ``MatrixProtocol.metrics``, where it is not told otherwise
SHOWN = ("NDCG@20", "Recall@20")
#: the rows that carry something over
LEARNED = ("PreRec", "PreRec (tuned)")


# ---------------------------------------------------------------- how they look


def table(records: Sequence[RunRecord], yardstick: str, title: str, metrics: Sequence[str] = SHOWN) -> Measured | Markdown:
    """The records of one data set, or a word that there are none."""
    return measured(records, metrics, yardstick, f"{title} · {RECONSTRUCTED}") if records else Markdown("*Not recorded at this scale yet.*")


def narrow(styled: Styler) -> Styler:
    """A table of many columns in smaller letters, its row names no wider than they need."""
    small = [{"selector": "", "props": "font-size: .85em"}, {"selector": "th.row_heading", "props": "min-width: 0 !important"}]
    return styled.set_table_styles(small, overwrite=False)


def reconstructed(styled: Styler) -> Styler:
    """The same for numbers of PreRec, whose caption ends with what they are."""
    return narrow(styled.set_caption(" · ".join(filter(None, (styled.caption, RECONSTRUCTED)))))


# ---------------------------------------------------------------- data sets


def sizes(scale: Scale) -> pd.DataFrame:
    """One row a data set: ``users``, ``items``, ``ones``, how many a user and an item have, and the share of pairs that are ones."""
    rows = {}
    for name in DATA[scale]:
        try:
            split = load(Spec(name, scale))
        except DataError:  # a page at small scale shows what there is
            continue
        ones, (users, items) = (split.known + split.test).nnz, split.train.shape
        rows[name] = (users, items, ones, ones / users, ones / items, ones / (users * items))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["users", "items", "ones", "ones a user", "ones an item", "density"])


def tails(records: Iterable[RunRecord]) -> pd.DataFrame:
    """``tail_records`` as a table: one row a data set and side."""
    rows = {(r.target, r.method): {name: per_seed[0] for name, per_seed in r.metrics.items()} for r in records}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["data", "of"]) if rows else pd.DataFrame()


def summary_of(split: MatrixSplit, scale: Scale) -> pd.Series:
    """What PreRec could use of a matrix, to see which of it goes with a transfer that works: its size, how dense and how heavy-tailed it is; and
    in the toy world, where walks take seconds and not minutes, how far its ones gather in clusters."""
    user, item = degrees(split.train)
    found = {
        "users": len(user),
        "items": len(item),
        "ones a user": user.mean(),
        "density": split.train.nnz / (len(user) * len(item)),
        "Gini of items": gini(item[item > 0]),
        "Gini of users": gini(user[user > 0]),
    }
    if scale is Scale.TOY:
        clusters = described(split, 0, scale).clusters
        found["ones inside clusters"] = (clusters[rows_of(split.train)] == clusters[split.train.shape[0] + split.train.indices]).mean()
    return pd.Series(found, name=split.name)


def summaries(scale: Scale, names: Iterable[str] | None = None) -> pd.DataFrame:
    """``summary_of`` each of these data sets, or all, one row each."""
    return pd.DataFrame([summary_of(load(Spec(name, scale)), scale) for name in (DATA[scale] if names is None else names)])


def recorded_summaries(names: Iterable[str], scale: Scale) -> pd.DataFrame:
    """What the records tell of data sets that are not at hand: how unequal and how heavy-tailed their marginals are, how many candidates
    a held-out one stands among at the median, and how far popularity alone gets, one row each; without those of which something is not recorded."""
    rows = {}
    for name in names:
        fits = {r.method: r for r in find(paper=PAPER, experiment="tails", target=name, scale=scale)}
        popular = next(iter(find(paper=PAPER, experiment="single", target=name, method="MostPop", scale=scale)), None)
        if popular is None or not {"users", "items"} <= fits.keys():
            continue
        found = {f"{of} of {side}": fits[side].mean(key) for of, key in (("Gini", "Gini"), ("exponent", "exponent")) for side in ("items", "users")}
        candidates = np.median(next(iter(popular.ranks.values())).n_candidates)
        rows[name] = found | {"candidates": candidates, "NDCG@20 of MostPop": popular.mean("NDCG@20")}
    return pd.DataFrame.from_dict(rows, orient="index")


# ---------------------------------------------------------------- one data set at a time


def cell(record: RunRecord, metric: str = "NDCG@20") -> str:
    """``0.149 ± 0.012 (5)``: the mean, half of its 95 % interval, and the number of seeds where it is more than one."""
    value, low, high, _ = estimate([(1.0, record)], metric)
    text = f"{value:.3f} ± {(high - low) / 2:.3f}".replace(" ", "\N{NO-BREAK SPACE}")
    return text + (f" ({len(record.seeds)})" if len(record.seeds) > 1 else "")


def by_data(found: Mapping[str, Iterable[RunRecord]], metric: str = "NDCG@20") -> pd.DataFrame:
    """Index method, one column a data set, each ``cell``; ``–`` where nothing was recorded."""
    return pd.DataFrame({name: {r.method: cell(r, metric) for r in records} for name, records in found.items()}, dtype=object).fillna("–")


def board(names: Iterable[str], scale: Scale, metric: str = "NDCG@20") -> pd.DataFrame:
    """Every row of the table of a single data set, on each data set, as ``by_data`` has it; ``too large`` where a row is left out."""
    found = by_data({name: results("single", Spec(name, scale)) for name in names}, metric)
    there = dict.fromkeys([*found.index, *(method for name in found for method in LEFT_OUT.get(name, {}))])
    usual = [row.name for row in systems(Spec("", scale)) if row.name in there]
    found = found.reindex([*usual, *(method for method in there if method not in usual)]).fillna("–")
    for name in found:
        found.loc[[*LEFT_OUT.get(name, {})], name] = "too large"
    return found


def shares(names: Iterable[str], scale: Scale, ours: str, base: str, metrics: Sequence[str]) -> pd.DataFrame:
    """What one method reaches of another at home, by several ways of ranking: one row a data set that has both, one column a metric."""
    rows = {}
    for name in names:
        found = {r.method: r for r in results("single", Spec(name, scale)) if r.method in (ours, base)}
        if len(found) == 2:
            rows[name] = {metric: found[ours].mean(metric) / found[base].mean(metric) for metric in metrics}
    return pd.DataFrame.from_dict(rows, orient="index")


def costs(names: Iterable[str], scale: Scale) -> pd.DataFrame:
    """Minutes of one core that a seed of each row of ``board`` takes to train, as recorded; a shuffled row trains nothing of its own.

    Returns:
        index method, one column a data set; NaN where nothing was recorded.
    """
    found = {name: {r.method: r.minutes / len(r.seeds) for r in results("single", Spec(name, scale))} for name in names}
    return pd.DataFrame(found).drop("PreRec (shuffled)", errors="ignore")


def tuning(names: Iterable[str], scale: Scale) -> pd.DataFrame:
    """What each family was tuned over and what was chosen, by the records of its trials.

    Returns:
        index data set, family; columns ``fits``, ``chosen`` (in words), ``worst`` and ``best`` (NDCG@20 of validation ones).
    """
    rows = {}
    for name in names:
        spec = Spec(name, scale)
        runs = {r.method: r for r in find(paper=PAPER, experiment="tuning", target=name, scale=scale)}
        for family, best in chosen(spec, runs.values()).items():
            reached = [runs[row].metrics["NDCG@20"][0] for row in tried(spec)[family] if row in runs]
            words = best.removeprefix(f"{family} (").removesuffix(")").replace("_", " ")
            rows[name, family] = len(reached), words, min(reached), max(reached)
    index = pd.MultiIndex.from_tuples(rows, names=["data", "family"]) if rows else None
    return pd.DataFrame(list(rows.values()), index=index, columns=["fits", "chosen", "worst", "best"])


def benchmark(records: Iterable[RunRecord], published: str = "recbole_ml1m") -> pd.DataFrame:
    """Baselines beside what others publish of theirs on the same data, split alike.

    Args:
        records: of the experiment ``level``.
        published: name of the table of numbers.

    Returns:
        index method; columns (metric, ``ours`` | ``theirs`` | ``off``), the last in percent of theirs.
    """
    numbers = paper_numbers(published)
    theirs = numbers.pivot(index="method", columns="metric", values="value")
    rows = {}
    for record in records:
        if record.method in theirs.index:
            pairs = {metric: (record.per_user(metric).value, theirs.at[record.method, metric]) for metric in numbers["metric"].unique()}
            rows[record.method] = {(m, c): v for m, (a, b) in pairs.items() for c, v in (("ours", a), ("theirs", b), ("off", 100 * (a / b - 1)))}
    return pd.DataFrame.from_dict(rows, orient="index")


def levels(model: MatrixModel, users: np.ndarray) -> pd.Series:
    """How many different scores the items of a user get, at the median over users, and how many items tie with the best one."""
    scores = model.scores(users)
    different = [len(np.unique(row)) for row in scores]
    best = (scores == scores.max(1, keepdims=True)).sum(1)
    return pd.Series({"items": scores.shape[1], "different scores": np.median(different), "items level with the best": np.median(best)})


def by_luck(records: Iterable[RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """What ties are worth: a metric where items of equal score stand in random order (its expected value, the rule of this book), where those to be
    found stand first among equals, and where they stand last.

    Returns:
        index method; columns ``expected``, ``first``, ``last``.
    """
    rows = {}
    for record in records:
        protocol, reached = protocol_of(record.protocol), {"expected": [], "first": [], "last": []}
        for ranks in record.ranks.values():
            level = pd.DataFrame({"user": ranks.user, "greater": ranks.greater}).groupby(["user", "greater"])["user"]
            among, own = level.cumcount().to_numpy(), level.transform("size").to_numpy()  # those to be found that share a score
            for name, above in {"first": among, "last": ranks.ties - (own - 1) + among}.items():
                decided = replace(ranks, greater=(ranks.greater + above).astype(np.int32), ties=np.zeros_like(ranks.ties))
                reached[name].append(protocol.summary(decided, (metric,))[metric])
            reached["expected"].append(protocol.summary(ranks, (metric,))[metric])
        rows[record.method] = {name: float(np.mean(found)) for name, found in reached.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def by_kind(records: Iterable[RunRecord], metric: str) -> pd.DataFrame:
    """Strangers of each kind: one row a method, one column a kind."""
    rows: dict[str, dict[str, float]] = {}
    for record in records:
        rows.setdefault(record.method, {})[STRANGERS[record.experiment]] = record.mean(metric)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(STRANGERS.values()))


def mixtures(records: Iterable[RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """What PreRec adds to each base, in percent of the base with 95 % intervals.

    Returns:
        index ``base``; columns ``alone``, ``mixed``, ``gain``, ``low``, ``high``, ``α``, ``oracle`` and ``raw, half`` (gains, too).
    """
    named, rows = {r.method: r for r in records}, {}
    for base in ("MostPop", *BASES):
        if base in named:
            mix, oracle, half = (named[f"{base} + PreRec{note}"] for note in ("", " (oracle)", " (raw, half)"))
            found = gains([mix], {mix.target: named[base]}, metric).iloc[0]
            more = [100 * (r.mean(metric) / found["base"] - 1) for r in (oracle, half)]
            rows[base] = (*found[["base", "value", "gain", "low", "high"]], mix.mean("alpha"), *more)
    columns = ["alone", "mixed", "gain", "low", "high", "α", "oracle", "raw, half"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("base")


def open_questions(spec: Spec, metric: str = "NDCG@20") -> pd.DataFrame:
    """One row a kind of data that was recorded, one column a method."""
    rows = {}
    for words, changes in OPEN_QUESTIONS.items():
        experiment, other = "open" if changes else "single", replace(spec, **changes)
        if find(paper=PAPER, experiment=experiment, target=other.label, scale=spec.scale):
            rows[words] = {r.method: r.mean(metric) for r in results(experiment, other) if r.method in ASKED}
    return pd.DataFrame.from_dict(rows, orient="index")


def dial(records: Iterable[RunRecord], negatives: Sequence[int], metric: str = "NDCG@10") -> pd.DataFrame:
    """A metric against so many sampled negatives, up to all, worked out from the ranks: how the order of methods depends on the sample.

    Returns:
        index ``negatives``; one column a method; the last row, ``all``, ranks against every negative.
    """
    columns = {}
    for record in records:
        found = []
        for count in [*negatives, None]:
            per_seed = [against(table, metric, count) for table in record.ranks.values()]
            found.append(float(np.mean(per_seed)))
        columns[record.method] = found
    return pd.DataFrame(columns, index=pd.Index([*map(str, negatives), "all"], name="negatives"))


def against(table: RankTable, metric: str, negatives: int | None) -> float:
    """Mean over users of a metric in which each held-out one stands alone against sampled negatives; None: against all."""
    _, group = np.unique(table.user, return_inverse=True)
    single = alone(table, group)
    worth = values(single, metric) if negatives is None else against_sample(single, metric, negatives)
    return float((np.bincount(group, worth) / np.bincount(group)).mean())


# ---------------------------------------------------------------- against popularity, at home and elsewhere


def popularity_of(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Target -> the record of MostPop."""
    return {r.target: r for r in records if r.method == "MostPop" and r.experiment == "single"}


def draws_of(method: str, target: str, scale: Scale) -> RunRecord | None:
    """Every run of a row at home that was recorded, each a seed of one record: several experiments hold PreRec as it is, and the same seed on
    another machine makes other clusters. Runs that agree in all metrics are one; None if there is none."""
    runs = {}
    for experiment in ("single", "families", "leaks"):
        for r in find(paper=PAPER, experiment=experiment, target=target, method=method, scale=scale):
            for at, seed in enumerate(r.seeds):
                metrics = {name: per_seed[at] for name, per_seed in r.metrics.items()}
                runs.setdefault(tuple(round(value, 6) for value in metrics.values()), (r, metrics, r.ranks.get(seed)))
    if not runs:
        return None
    first, shared = next(iter(runs.values()))[0], set.intersection(*(set(metrics) for _, metrics, _ in runs.values()))
    return replace(
        first,
        seeds=list(range(len(runs))),
        metrics={name: [metrics[name] for _, metrics, _ in runs.values()] for name in first.metrics if name in shared},
        ranks={draw: ranks for draw, (_, _, ranks) in enumerate(runs.values()) if ranks is not None},
    )


def beyond_draws(
    ours: Iterable[RunRecord], drawn: Mapping[str, RunRecord], metric: str = "NDCG@20", same: Mapping[str, RunRecord] | None = None
) -> pd.DataFrame:
    """``gains`` over all draws of another row, with ``clear``: 1 or -1 where a record lies above or below both the interval and every draw, else 0.

    The interval holds the chance of users and of the other row's draws; that of a record of one seed it can't hold, hence the second bound.

    Args:
        same: target -> the other row of the same seed, from which a clear record differs beyond the interval, too. One that shares the clusters
            of a lucky seed may lie beyond every other draw and be no different from that one.
    """
    ours = list(ours)
    found = gains(ours, drawn, metric)
    most, least = ([worst(drawn[target].metrics[metric]) for target in found["target"]] for worst in (max, min))
    above, below = (found["low"] > 0) & (found["value"] > most), (found["high"] < 0) & (found["value"] < least)
    clear = above.astype(int) - below.astype(int)
    if same is not None:
        beside = gains(ours, same, metric)
        clear = clear.where((np.sign(beside["low"]) == clear) & (np.sign(beside["high"]) == clear), 0)
    return found.assign(clear=clear)


def gains(ours: Iterable[RunRecord], base: Mapping[str, RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """Each record beside the base of its target, in percent of the base, with 95 % intervals.

    Args:
        base: target -> the record to compare with, such as that of MostPop.

    Returns:
        columns ``source``, ``target``, ``method``, ``value``, ``base``, ``gain``, ``low``, ``high``, one row a record whose target has a base.
    """
    rows = []
    for record in ours:
        if record.target in base:
            below = base[record.target]
            found = relative(record.per_user(metric), below.per_user(metric))
            percent = (100 * x for x in (found.value, found.low, found.high))
            rows.append((record.source or record.target, record.target, record.method, record.mean(metric), below.mean(metric), *percent))
    return pd.DataFrame(rows, columns=["source", "target", "method", "value", "base", "gain", "low", "high"])


def transfers(scale: Scale, live: tuple[str, str] | None = None) -> list[RunRecord]:
    """The records of every pair of data sets, and, where source and target are one, of that data set alone.

    Args:
        live: a pair whose seed 0 runs now.
    """
    specs, found = [Spec(name, scale) for name in DATA[scale]], []
    for target in specs:
        for source in specs:
            now = ("PreRec",) if live == (source.name, target.name) else ()
            found += results("single", target, only=("MostPop", "PreRec")) if source == target else results("transfer", target, now, source)
    return found


def beside(moved: Sequence[RunRecord], popular: Mapping[str, RunRecord], counted: Mapping[str, float]) -> pd.DataFrame:
    """The transfers of PreRec, and what stands beside each.

    Args:
        popular: as for ``gains``.
        counted: target -> what ItemKNN reaches there, which trains no weight either.

    Returns:
        index source and target; columns ``PreRec``, ``tuned``, ``MostPop``, ``ItemKNN`` (NDCG@20), and in percent of MostPop ``gain``, ``low``,
        ``high`` of PreRec, ``shuffled``, the gain of its control, and ``tuned low``, ``tuned high``, the interval of that of the tuned row.
    """
    ours, tuned, control = (
        gains((r for r in moved if r.method == name and r.source), popular).set_index(["source", "target"])
        for name in ("PreRec", "PreRec (tuned)", "PreRec (shuffled)")
    )
    found = ours.rename(columns={"value": "PreRec", "base": "MostPop"})
    found["ItemKNN"] = found.index.get_level_values("target").map(counted)
    found["tuned"], found["tuned low"], found["tuned high"], found["shuffled"] = tuned["value"], tuned["low"], tuned["high"], control["gain"]
    return found[["PreRec", "tuned", "MostPop", "ItemKNN", "gain", "low", "high", "shuffled", "tuned low", "tuned high"]]


def carried(records: Iterable[RunRecord], base: Mapping[str, RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """What of PreRec carries over: each method over all its pairs of source and target, against the target's popularity.

    Args:
        base: target -> the record to compare with.

    Returns:
        index method, without the name PreRec where it says what is read; columns ``metric`` (mean over pairs), ``gain``, ``lowest`` and
        ``highest`` (median, least and largest gain of a pair, in percent), ``better`` and ``worse`` (pairs whose interval lies above or below
        0) and ``pairs``.
    """
    found = gains(records, base, metric)
    found["method"] = found["method"].str.replace(r"^PreRec \((.*)\)$", r"\1", regex=True)
    grouped = found.assign(better=found["low"] > 0, worse=found["high"] < 0).groupby("method", sort=False)
    columns = {metric: ("value", "mean"), "gain": ("gain", "median"), "lowest": ("gain", "min"), "highest": ("gain", "max")}
    return grouped.agg(**columns, better=("better", "sum"), worse=("worse", "sum"), pairs=("better", "size"))


def into(found: pd.DataFrame) -> str:
    """``douban 4, yelp 1``: the targets of ``gains`` above 0 beyond the interval, and how many there are of each, the most first."""
    counted = found.loc[found["low"] > 0, "target"].value_counts()
    return ", ".join(f"{target} {count}" for target, count in counted.items())


def only(metric: PerUser, people: np.ndarray) -> PerUser:
    """A metric of some of the users."""
    keep = np.isin(metric.users, people)
    return replace(metric, users=metric.users[keep], sums=metric.sums[keep], counts=metric.counts[keep], more={})


def by_activity(ours: RunRecord, base: RunRecord, split: MatrixSplit, groups: int = 4, metric: str = "NDCG@20") -> pd.DataFrame:
    """Where one method beats another: users in groups of equal size by their training ones.

    Returns:
        one row a group: ``ones`` (the range), ``users``, ``ours``, ``base``, ``low`` and ``high`` of the difference.
    """
    ones = degrees(split.train)[0]
    mine, theirs = ours.per_user(metric), base.per_user(metric)
    group = pd.qcut(pd.Series(ones[mine.users]).rank(method="first"), groups, labels=False).to_numpy()
    rows = []
    for g in range(groups):
        people = mine.users[group == g]
        parts = [only(p, people) for p in (mine, theirs)]
        found = difference(*parts)
        count = ones[people]
        rows.append((f"{count.min()} to {count.max()}", len(people), parts[0].value, parts[1].value, found.low, found.high))
    return pd.DataFrame(rows, columns=["ones", "users", "ours", "base", "low", "high"])


def by_known(ours: Iterable[RunRecord], base: Mapping[str, RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """The same over many transfers, from the ranks alone: users of each target in quarters, by how many items they are known to have, which is how
    few candidates are left to rank.

    Args:
        ours: transfers of one method.
        base: target -> the record to compare with.

    Returns:
        index ``users``, from the fewest known ones to the most; columns ``gain`` (median over the transfers, in percent of the base), ``better`` and
        ``worse`` (transfers whose difference in that quarter lies above or below 0 beyond the interval), and ``transfers``.
    """
    names, rows = ("fewest", "fewer", "more", "most"), []
    for record in ours:
        below = base[record.target]
        table = next(iter(below.ranks.values()))
        people, first = np.unique(table.user, return_index=True)
        known = pd.Series(-table.n_candidates[first].astype(int)).rank(method="first")
        quarter = pd.qcut(known, len(names), labels=False).to_numpy()
        for which, name in enumerate(names):
            mine, theirs = (only(r.per_user(metric), people[quarter == which]) for r in (record, below))
            found = difference(mine, theirs)
            rows.append((name, 100 * found.value / theirs.value if theirs.value else np.nan, found.low > 0, found.high < 0))
    table = pd.DataFrame(rows, columns=["users", "gain", "better", "worse"]).groupby("users", sort=False)
    return table.agg(gain=("gain", "median"), better=("better", "sum"), worse=("worse", "sum"), transfers=("better", "size"))


def foretelling(grid: pd.DataFrame, summaries: pd.DataFrame) -> pd.DataFrame:
    """Which statistics go with the gain of a transfer: Spearman's ρ over the pairs of the matrix, the diagonal left out.

    For each statistic: of the target, of the source, and how far apart the two are, as the absolute difference of logarithms. The pairs share
    sources and targets, so a p-value is from permuting data sets, not pairs: all orders of them, or 999 at random where there are more.

    Args:
        grid: as ``gains`` gives it, one method.
        summaries: index data set, one column a statistic.
    """
    pairs = grid[grid["source"] != grid["target"]]
    logs, n, rows = np.log(summaries.clip(lower=1e-9)), len(summaries), []
    every = factorial(n) <= 999
    orders = list(permutations(range(n))) if every else list(np.random.default_rng(0).permuted(np.tile(np.arange(n), (999, 1)), axis=1))
    ends = [logs.index.get_indexer(pairs[side]) for side in ("source", "target")]

    def ranked(x: np.ndarray) -> np.ndarray:
        """(…, pairs) ranks, centred and of length 1, so that ρ is an inner product."""
        ranks = rankdata(x, axis=-1)
        ranks -= ranks.mean(-1, keepdims=True)
        return ranks / np.maximum(np.linalg.norm(ranks, axis=-1, keepdims=True), 1e-12)

    gain = ranked(pairs["gain"].to_numpy())
    for name in summaries:
        dealt = logs[name].to_numpy()[[range(n), *orders]]  # as it is, and then in each other order
        source, target = (dealt[:, end] for end in ends)
        for which, x in {"of the target": target, "of the source": source, "how far apart": np.abs(source - target)}.items():
            rho, *chance = ranked(x) @ gain
            as_large = np.sum(np.abs(chance) >= abs(rho) - 1e-9)
            rows.append((name, which, rho, as_large / len(chance) if every else (1 + as_large) / (1 + len(chance))))
    return pd.DataFrame(rows, columns=["statistic", "reading", "ρ", "p"]).set_index(["statistic", "reading"])


# ---------------------------------------------------------------- in a few sentences


def beside_counting(moved: Iterable[RunRecord], scale: Scale) -> list[tuple[RunRecord, float]]:
    """Each transfer into data where ItemKNN was recorded, and how far that, counted in the target, is above it in NDCG@20."""
    counted = {r.target: r.mean("NDCG@20") for r in find(paper=PAPER, experiment="single", method="ItemKNN", scale=scale)}
    return [(r, counted[r.target] - r.mean("NDCG@20")) for r in moved if r.method in LEARNED and r.target in counted]


def when() -> list[str]:
    """When statistics beat plain popularity elsewhere, and when not: of the toy world, of public data, and of counting; looked up, never written."""
    said, pairs, behind = [], 0, 0
    for scale, among in ((Scale.TOY, DATA[Scale.TOY]), (Scale.SMALL, FIVE)):
        moved = [r for r in find(paper=PAPER, experiment="transfer", scale=scale) if {r.source, r.target} <= {*among}]
        popular = popularity_of(find(paper=PAPER, experiment="single", method="MostPop", scale=scale))
        plain, tuned = (gains([r for r in moved if r.method == name], popular) for name in LEARNED)
        up, down = plain["low"] > 0, plain["high"] < 0
        if scale is Scale.TOY and len(plain):
            crowd = (plain["source"] == "crowd") | (plain["target"] == "crowd")
            said.append(
                f"**Where shoppers have tastes** they do: {(up & ~crowd).sum()} of {(~crowd).sum()} transfers between toy markets with tastes beat"
                f" popularity beyond the interval. Of {crowd.sum()} into or out of *crowd*, which has none, {(down & crowd).sum()} fall below it and"
                f" {(up & crowd).sum()} beat{'s' * int((up & crowd).sum() == 1)} it."
            )
        elif len(plain):
            said.append(
                f"**Between public data the target decides.** {up.sum()} of {len(plain)} transfers beat popularity ({into(plain)}), and"
                f" {(tuned['low'] > 0).sum()} of {len(tuned)} with the settings that did best in the source ({into(tuned)})."
            )
        held = beside_counting(moved, scale)
        pairs, behind = pairs + len(held), behind + sum(lead > 0 for _, lead in held)
    if pairs:
        said.append(
            "**Where one may count, one need not carry over.** ItemKNN, which counts pairs of items in what is visible in the target, is above"
            f" {behind} of these {pairs} transfers, tuned or not."
        )
    return said


def in_short(scale: Scale) -> str:
    """What the records say of the paper, in a few sentences; the numbers are looked up, never written."""
    first, other = DATA[Scale.TOY][:2]
    single = {r.method: r for r in find(paper=PAPER, experiment="single", target=first, scale=Scale.TOY)}
    moved = find(paper=PAPER, experiment="transfer", source=first, target=other, method="PreRec", scale=Scale.TOY)
    popular = popularity_of(find(paper=PAPER, experiment="single", method="MostPop", scale=Scale.TOY))
    sentences = ["The paper's full text and code could not be had, so this is a reconstruction; its decisions are named, and many are measured."]
    if {"PreRec", "MostPop", "EASE"} <= single.keys():
        ours, popularity, ease = (single[name].mean("NDCG@20") for name in ("PreRec", "MostPop", "EASE"))
        where = "above both" if ours > max(popularity, ease) else "below both" if ours < min(popularity, ease) else "between"
        sentences.append(
            f"In a toy market whose tastes are strong, PreRec reaches NDCG@20 {ours:.3f}, {where} popularity ({popularity:.3f})"
            f" and EASE ({ease:.3f}), which knows the items by their ids."
        )
    if moved and other in popular:
        row = gains(moved, popular).iloc[0]
        sentences.append(
            f"Carried to another market with no shared user or item, it reaches {row.value:.3f}, where popularity has {row.base:.3f}"
            f" ({row.gain:+.0f} %, 95 %: {row.low:+.0f} to {row.high:+.0f})."
        )
    public = [r for r in find(paper=PAPER, experiment="transfer", scale=Scale.SMALL) if {r.source, r.target} <= {*FIVE}]
    popular = popularity_of(find(paper=PAPER, experiment="single", method="MostPop", scale=Scale.SMALL))
    overview = carried([r for r in public if r.method in LEARNED], popular)
    where = {name: f" (into {said})" if (said := into(gains([r for r in public if r.method == name], popular))) else "" for name in LEARNED}
    if "PreRec" in overview.index:
        row = overview.loc["PreRec"]
        sentences.append(
            f"Between public data sets {row.better:.0f} of {row.pairs:.0f} transfers beat popularity{where['PreRec']}"
            f" and {row.worse:.0f} fall below it."
        )
    if "tuned" in overview.index:
        row = overview.loc["tuned"]
        sentences.append(
            f"With the settings that did best in the source {row.better:.0f} of {row.pairs:.0f} transfers between public data sets beat popularity"
            f"{where['PreRec (tuned)']} and {row.worse:.0f} fall below it."
        )
    if held := beside_counting(public, Scale.SMALL):
        behind, more = sum(lead > 0 for _, lead in held), sum(len(r.seeds) > 1 for r, _ in held)
        sentences.append(f"ItemKNN, counted in the target without any training, is above {behind} of these {len(held)}.")
        sentences.append(f"All but {more} of them have one seed.")
    return " ".join([*sentences, claims.in_short(PAPER, scale, "known claims")])
