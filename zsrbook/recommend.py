"""``python -m zsrbook export``: train a model in one shop and keep it; ``recommend``: recommendations from a catalogue of your own."""

from __future__ import annotations

import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.table import Column, Table
from safetensors import SafetensorError

from zsrbook.cache import write_whole
from zsrbook.data import table
from zsrbook.data.catalogue import LOADERS, guess, refuse_others
from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences, counted
from zsrbook.data.files import such_as
from zsrbook.data.splits import at_least, compact, select_items, split_by_user
from zsrbook.data.toy import MARKETS
from zsrbook.experiments import zesrec
from zsrbook.models.anchored import Anchored, seen_before
from zsrbook.models.base import Recommender, in_chunks
from zsrbook.models.baselines import NewOnly
from zsrbook.models.files import ModelFile
from zsrbook.records import code_version
from zsrbook.scale import Scale, current_scale
from zsrbook.terminal import Encoding, console, errors_for_people, say
from zsrbook.text import TextEncoder

app = typer.Typer(help="Recommend from a catalogue of your own.", no_args_is_help=True)

#: ``--model`` of export -> the row of the ZESRec chapter's table. The default stands first: on each public pair the map of texts that
#: Anchored learns besides costs it some Recall@20
EXPORTS = {name: name for name in ("Anchored (anchors only)", "Anchored")} | {name: f"{name} (tuned)" for _, name in zesrec.NETWORKS.values()}
DEFAULT = next(iter(EXPORTS))
#: what stands in where there is no model, as the ZESRec chapter measured it, and the same without what the user already has
NEIGHBOUR, NEW_NEIGHBOUR = zesrec.UNTRAINED, "Emb-KNN (decay, cosine, half-whitened, new only)"
#: sources with fewer users teach little
FEW_USERS = 100
#: what a person can mend
MENDABLE = (DataError, OSError, FloatingPointError)
#: true at any moment, since what a command writes is moved into place whole, as the last thing that it does
NOTHING_WRITTEN = "interrupted; nothing was written"

Force = Annotated[bool, typer.Option("--force", help="overwrite a file that is there")]


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="a market of the toy world, a data set that `data list` shows, or your own file or folder")],
    out: Annotated[Path, typer.Argument(help="the model file to write, such as model.safetensors")],
    model: Annotated[str, typer.Option(help=f"one of {', '.join(EXPORTS)}")] = DEFAULT,
    scale: Annotated[
        Scale | None, typer.Option(help="where SOURCE is looked up, and the size of ZESRec; default: ZSRBOOK_SCALE, for files of your own small")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    encoding: Encoding = "utf-8",
    force: Force = False,
) -> None:
    """Train a model in one shop and save it, so that `recommend` can use it in another."""
    if model not in EXPORTS:
        raise typer.BadParameter(f"--model is {model!r}; expected one of {', '.join(EXPORTS)}")
    encoder, version = TextEncoder(), code_version()
    with errors_for_people(*MENDABLE, interrupted=NOTHING_WRITTEN):
        check_free(out, ".safetensors", force, Path(source))
        data, scale = learned_from(source, scale, encoding)
        data = with_vectors(data, encoder)
        split = split_by_user(data, test=0.0)  # nobody is judged; a tenth of the users, if there are that many, stops the training
        (row,) = (row for row in zesrec.systems(scale) if row.name == EXPORTS[model])
        fitted = row.make(seed).fit(split.train, split.valid if split.valid.targets.any() else None)
        learned = fitted.transfer(bare(data))
        file = ModelFile(learned, row.name, encoder, data.name, split.sha256, version)

        def write(path: Path) -> None:
            path.touch()
            mode = path.stat().st_mode
            try:
                file.write(path)
            except SafetensorError as error:  # such as of a full disk
                raise DataError(f"{out}: can't be written ({error}); make room there, or name a file in another folder") from None
            path.chmod(mode)  # that of any new file here; safetensors leaves one that no other account can read

        write_whole(out, write)
    size = f"{counted(len(data), 'interaction{s}')} of {counted(data.n_users, 'user{s}')} with {counted(data.n_items, 'item{s}')}"
    say(f"{row.name} learned from {data.name}: {size}")
    if isinstance(learned, Anchored) and not seen_before(split.train.sequences()).any():
        say("nobody in this source took an item twice, so what a customer already has will stand far down; `recommend --repeat SHARE` changes that")
    if data.n_users < FEW_USERS:
        say(f"{data.n_users:,} users are few to learn from: hold the model against the neighbour, which has learned nothing, before you trust it")
    say(f"written to {out}")


@app.command()
def recommend(
    catalogue: Annotated[Path, typer.Argument(help="your items: a CSV, TSV or Parquet file with columns item,text")],
    history: Annotated[Path | None, typer.Option(help="who took what: columns user,item, and time if you have it")] = None,
    item: Annotated[list[str] | None, typer.Option(help="an item that one user took; say it again for the next, oldest first")] = None,
    model: Annotated[Path | None, typer.Option(help="a file that `export` wrote; without it, a neighbour that has learned nothing")] = None,
    top: Annotated[int, typer.Option(min=1, help="how many items a user")] = 10,
    new_only: Annotated[bool, typer.Option("--new-only", help="leave out what the user already has")] = False,
    repeat: Annotated[
        float | None, typer.Option(min=0, max=1, help="share of what your users take that they took before; default: as in the model's source")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write CSV instead of a table; for many users")] = None,
    encoding: Encoding = "utf-8",
    force: Force = False,
) -> None:
    """The best items of your catalogue for each user, or for one user who took the items given by --item."""
    if history is not None and item:
        raise typer.BadParameter("--history and --item both say who took what; give one of the two")
    if repeat is not None and (model is None or new_only):
        raise typer.BadParameter("--repeat is for a --model that may offer what users already have; without one, or with --new-only, leave it out")
    with errors_for_people(*MENDABLE, interrupted=NOTHING_WRITTEN):
        if out is not None:
            check_free(out, ".csv", force, catalogue, history, model)
        check_there(catalogue, history)
        saved = None if model is None else ModelFile.read(model)
        data, histories = read(catalogue, history, item or [], encoding)
        lines = [line for line in data.report.lines if "without text" not in line]  # of which more is said below
        for line in sorted(lines, key=lambda line: f"{data.name}: kept " not in line):  # first how much it is, then what is odd
            say(line)
        data, histories = with_texts(data, histories)
        data = with_vectors(data, TextEncoder() if saved is None else saved.encoder)
        if saved is None:
            name, ranker = untrained(data, new_only)
            say(f"{name}, which has learned nothing: no --model was given")
        else:
            name, ranker = saved.name, saved.model.transfer(data)
            if repeat is not None:
                ranker = told(ranker, name, repeat)
            ranker = NewOnly(ranker) if new_only else ranker
            say(f"{name}, learned from {saved.source}")
        found = best(ranker, name, data, histories, top)
        left_out = len(histories) - found[Columns.USER].nunique()
        if found.empty:
            raise DataError(f"{data.name}: every user already has all of its {data.n_items} items, so nothing is new; leave --new-only out")
        if left_out:
            say(f"{left_out} of {len(histories)} users already have every item, so nothing is new to them")
        if out is not None:
            write_whole(out, lambda path: found.to_csv(path, index=False))
            say(f"{counted(len(found), 'row{s}')} for {counted(len(histories) - left_out, 'user{s}')} written to {out}")
            return
    show(found)


def learned_from(source: str, scale: Scale | None, encoding: str) -> tuple[Dataset, Scale]:
    """The data to learn from, prepared as in the ZESRec chapter, and the scale of the settings.

    Raises:
        DataError: no such data, or none of this kind or at this scale; or what is there is bad, or nobody in it took two items.
    """
    asked = scale or current_scale()
    names = MARKETS if asked is Scale.TOY else LOADERS
    if source in names:
        return zesrec.load(source, asked), asked
    if not Path(source).exists():
        refuse_others(source, "interactions")
        if other := Scale.TOY if source in MARKETS else Scale.SMALL if source in LOADERS else None:
            raise DataError(f"{source}: no such file or folder, and a data set of scale {other}, while {asked} is asked for; say --scale {other}")
        raise DataError(f"{source}: no such file or folder, and at scale {asked} no data set of that name; --scale {asked} has {', '.join(names)}")
    return compact(at_least(guess(Path(source), encoding), user=2, repeat=False)), scale or Scale.SMALL


def read(catalogue: Path, history: Path | None, taken: list[str], encoding: str = "utf-8") -> tuple[Dataset, Sequences]:
    """The catalogue, with the histories of all users in the file or of one who took these items.

    Raises:
        DataError: a file is bad, or a history names items that the catalogue lacks.
    """
    name = catalogue.name.split(".")[0].lower()
    if history is not None:
        data = table.load(history, catalogue, name=name, encoding=encoding)
        return data, data.sequences()
    data = table.alone(catalogue, name, encoding)
    ids = data.items[Columns.RAW]
    codes = pd.Index(ids).get_indexer(taken)
    unknown = [item for item, code in zip(taken, codes, strict=True) if code < 0]
    if unknown:
        expected = f"expected ids of its column item, {such_as(ids, pd.Series(unknown))}"
        raise DataError(f"{catalogue}: lacks {len(unknown)} of {counted(len(taken), 'item{s}')} given ({', '.join(unknown)}); {expected}")
    return replace(data, users=pd.DataFrame({Columns.RAW: ["you"]})), Sequences.of([codes])


def with_texts(data: Dataset, histories: Sequences) -> tuple[Dataset, Sequences]:
    """Without the items that have no text, in the catalogue and in the histories, and without the users who took no others.

    Items without a text share the vector of the empty one, so each would be the nearest neighbour of the others. A catalogue without
    any text stays as it is: ``with_vectors`` refuses it.

    Raises:
        DataError: no user took an item that has a text, though there are users who took something.
    """
    told = data.items[Columns.TEXT].str.strip().ne("").to_numpy(bool)
    if told.all() or not told.any():
        return data, histories
    say(f"{data.name}: {(~told).sum()} of {len(told)} items have no text, so they are never offered, and count for nothing in a history")
    keep, code = told[histories.items], np.cumsum(told, dtype=np.int32) - 1
    starts = np.append(0, np.cumsum(keep))[histories.starts]
    kept = Sequences(code[histories.items[keep]], starts, histories.users, None if histories.times is None else histories.times[keep])
    lost = (kept.lengths == 0) & (histories.lengths > 0)
    if lost.all():
        raise DataError(f"{data.name}: none of the items taken has a text, so nothing tells what to offer; give a text to them, or name others")
    if lost.any():
        names = textwrap.shorten(", ".join(data.users[Columns.RAW].to_numpy()[histories.users[lost]]), 80, placeholder=" …")
        say(f"{data.name}: {lost.sum()} of {len(lost)} users took nothing that has a text, so they get no list: {names}")
        kept = kept.take(np.flatnonzero(~lost))
    items = np.flatnonzero(told)
    return select_items(data, items, f"{data.name}: only items with a text"), kept


def with_vectors(data: Dataset, encoder: TextEncoder) -> Dataset:
    """The data with a vector an item.

    Raises:
        DataError: no item has a text, or the encoder can't be had.
    """
    texts = data.items[Columns.TEXT].tolist()
    empty = sum(not text.strip() for text in texts)
    if empty == len(texts):
        raise DataError(
            f"{data.name}: none of its {len(texts)} items has a text, and nothing else tells them apart;"
            f" expected a table of items with columns item,text (in a folder of your own: items.csv or catalogue.csv)"
        )
    if empty:
        say(f"{data.name}: {empty} of {len(texts)} items have no text, so they can't be told apart")
    try:
        return zesrec.encoded(data, encoder)
    except DataError:
        raise
    except (OSError, ValueError) as error:  # the latter of a model that would run code of its own
        raise DataError(f"the text encoder {encoder.name!r} can't be had: {error}") from None


def bare(data: Dataset) -> Dataset:
    """A catalogue of two items that say nothing, to bind a model to: then its file holds what it learned, and nothing of the shop."""
    items = pd.DataFrame({Columns.RAW: ["0", "1"], Columns.TEXT: ""})
    return Dataset("bare", data.interactions.iloc[:0], items, data.users.iloc[:0], features=np.zeros((2, data.features.shape[1]), np.float32))


def untrained(data: Dataset, new_only: bool = False) -> tuple[str, Recommender]:
    """The neighbour that stands in for a model in this catalogue, and what it is called."""
    name = NEW_NEIGHBOUR if new_only else NEIGHBOUR
    (row,) = (row for row in zesrec.neighbours() if row.name == name)
    return name, row.make(0).fit(data)


def told(model: Recommender, name: str, repeat: float) -> Anchored:
    """A copy that takes this share of what users take for what they took before, whatever its source said.

    Raises:
        DataError: the model keeps no such share.
    """
    if not isinstance(model, Anchored):
        raise DataError(f"{name} keeps no share of repeats, so --repeat means nothing to it; leave it out, or export {DEFAULT}")
    return model.with_repeat(repeat)


def best(model: Recommender, name: str, data: Dataset, histories: Sequences, top: int) -> pd.DataFrame:
    """The ``top`` items of each user, best first: columns ``user``, ``rank`` from 1, ``item``, ``text``, ``score``.

    Raises:
        DataError: a user has no history, and the model tells no item from another without one; or a score is no number.
    """
    users, items, texts = (t.to_numpy() for t in (data.users[Columns.RAW], data.items[Columns.RAW], data.items[Columns.TEXT]))
    parts = []
    for rows in in_chunks(np.arange(len(histories)), data.n_items):
        chunk = histories.take(rows)
        scores = model.scores(chunk).cpu()
        if scores.isnan().any():
            raise DataError(f"{name}: a score is no number, so the model's file or the vectors of the items are damaged; export the model again")
        if data.n_items > 1 and ((scores.amin(1) == scores.amax(1)).numpy() & (chunk.lengths == 0)).any():
            raise DataError(
                f"{name} can't recommend to a user without a history: all items get the same score; give an --item,"
                f" or a model that learned where to start, such as `python -m zsrbook export SOURCE OUT.safetensors --model ZESRec-G`"
            )
        values, codes = (t.numpy() for t in scores.topk(min(top, data.n_items)))
        user, place = np.nonzero(np.isfinite(values))  # what the user already has stands at minus infinity where that is asked for
        codes = codes[user, place]
        columns = {Columns.USER: users[chunk.users[user]], "rank": place + 1, Columns.ITEM: items[codes], Columns.TEXT: texts[codes]}
        parts.append(pd.DataFrame(columns | {"score": values[user, place]}))
    return pd.concat(parts, ignore_index=True)


def show(found: pd.DataFrame) -> None:
    """The recommendations on the terminal, texts cut short and ids whole, over several lines where they are long."""
    user, item = (Column(name, overflow="fold") for name in (Columns.USER, Columns.ITEM))
    out = Table(user, Column("rank", justify="right"), item, "text", Column("score", justify="right"), box=None)
    for user, rank, item, text, score in found.itertuples(index=False):
        out.add_row(user, str(rank), item, textwrap.shorten(text, 48, placeholder=" …"), f"{score:.2f}")
    console().print(out)


def check_there(*inputs: Path | None) -> None:
    """Files of one's own, of which no list of public data knows anything.

    Raises:
        DataError: one is missing or empty.
    """
    for path in filter(None, inputs):
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected a table of your own, as CSV, TSV or Parquet")
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty (0 bytes); write it anew")


def check_free(path: Path, ending: str, force: bool, *inputs: Path | None) -> None:
    """Before any work is done: whether ``path`` can be written.

    Raises:
        DataError: it has another ending, its folder is missing or can't be written to, it is a folder itself or one of the inputs, or it is there
            and ``force`` is not given.
    """
    if path.suffix.lower() != ending:
        raise DataError(f"{path}: expected a name that ends in {ending}")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected the name of a file in it")
    if path.exists() and any(given is not None and given.exists() and path.samefile(given) for given in inputs):
        raise DataError(f"{path}: is read from, so writing there would destroy it; choose another name, --force or not")
    if path.exists() and not force:
        raise DataError(f"{path}: is there already; choose another name, or say --force to overwrite it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path}: nothing can be written to {path.parent} ({error.strerror}); name a file in another folder") from None
