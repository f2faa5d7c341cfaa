"""The Alimama loader, on generated files of exactly its form, against a plain reading of the same files."""

import functools
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from public import needs

from zsrbook.data import alimama, catalogue, fetch
from zsrbook.data import alimama_generator as generator
from zsrbook.data.alimama import ADS, LOG, PROFILE, SHOWN, USERS
from zsrbook.data.clicks import TEST, TRAIN, VALID
from zsrbook.data.dataset import DataError

SIZES = {"impressions": 600, "behaviours": 5_000, "users": 90, "seed": 3}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Generated once; tests that change a file take a copy."""
    folder = tmp_path_factory.mktemp("alimama")
    generator.generate(folder, **SIZES)
    return folder


@pytest.fixture
def folder(files, tmp_path, monkeypatch):
    """A copy that may be changed, and an empty cache; pieces and ranges so small that there are many of each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(alimama, "PIECE", 20_000)
    monkeypatch.setattr(alimama, "RANGE", 1_500)
    return shutil.copytree(files, tmp_path / "files")


def edit(path, old, new, count=1):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, count).encode())


def lines_of(path):
    return path.read_text().splitlines()


def write_lines(path, lines):
    path.write_text("".join(line + "\n" for line in lines))


def plain(folder, longest=100):
    """A list with one dict an impression, of raw values, and the folds: pandas and loops, nothing of the loader."""
    shown = pd.read_csv(folder / SHOWN).sort_values("time_stamp", kind="stable")
    ads = pd.read_csv(folder / ADS).set_index("adgroup_id")
    people = pd.read_csv(folder / USERS).rename(columns=str.strip).set_index("userid")
    log = pd.read_csv(folder / LOG).sort_values(["user", "time_stamp"], kind="stable")
    log = log[log["time_stamp"] >= shown["time_stamp"].min() - 31 * 86_400]
    histories = dict(list(log.groupby("user")))
    rows = []
    for row in shown.itertuples():
        own = histories.get(row.user, log.iloc[:0])
        past = own[own["time_stamp"] < row.time_stamp].tail(longest)
        there = pd.Timestamp(row.time_stamp, unit="s", tz="UTC").tz_convert("Asia/Shanghai")
        profile = people.loc[row.user] if row.user in people.index else {}
        rows.append(
            {
                "user": (row.user, *(profile.get(field, np.nan) for field in PROFILE)),
                "item": (row.adgroup_id, *ads.loc[row.adgroup_id]),
                "context": (row.pid, there.hour, there.weekday()),
                "time": row.time_stamp,
                "click": row.clk,
                "past": list(past[["cate", "brand", "btag"]].itertuples(index=False, name=None)),
                "fold": {14 - 1: TEST, 14 - 2: VALID}.get(there.day, TRAIN),
            }
        )
    return rows


def numbered(values):
    """Raw value -> code: 1 for the smallest; what is missing has code 0."""
    return {value: code for code, value in enumerate(sorted({v for v in values if not pd.isna(v)}), 1)}


@pytest.mark.parametrize("longest", [100, 7])
def test_every_code_and_window_agrees_with_a_plain_reading(folder, longest):
    data = alimama.load(folder, longest=longest)
    rows = plain(folder, longest)
    assert len(data) == len(rows) == SIZES["impressions"]
    assert data.longest == longest
    ads, people = pd.read_csv(folder / ADS), pd.read_csv(folder / USERS).rename(columns=str.strip)
    vocabulary = {field: numbered(r["user"][at] for r in rows) for at, field in enumerate(data.layout.user) if at == 0}
    reached = {r["user"][0] for r in rows}
    vocabulary |= {field: numbered(people.loc[people["userid"].isin(reached), field]) for field in PROFILE}
    vocabulary |= {field: numbered(ads[f"{field}_id"]) for field in ("adgroup", "campaign")} | {"customer": numbered(ads["customer"])}
    vocabulary["cate"] = numbered([*ads["cate_id"], *(b[0] for r in rows for b in r["past"])])
    vocabulary["brand"] = numbered([*ads["brand"], *(b[1] for r in rows for b in r["past"])])
    vocabulary |= {"btag": {"pv": 1, "cart": 2, "fav": 3, "buy": 4}, "pid": numbered(r["context"][0] for r in rows)}
    vocabulary |= {"hour": {h: h + 1 for h in range(24)}, "weekday": {d: d + 1 for d in range(7)}}
    edges = [np.quantile(ads["price"], q / 32) for q in range(1, 32)]
    code = lambda field, value: vocabulary[field].get(value, 0)  # noqa: E731
    for i, row in enumerate(rows):
        assert data.users[data.user[i]].tolist() == [code(*pair) for pair in zip(data.layout.user, row["user"], strict=True)]
        expected = [code(*pair) for pair in zip(data.layout.item[:-1], row["item"][:-1], strict=True)]
        assert data.items[data.item[i]].tolist() == [*expected, 1 + sum(row["item"][-1] >= edge for edge in edges)]
        assert data.context[i].tolist() == [code(*pair) for pair in zip(data.layout.context, row["context"], strict=True)]
        assert (data.time[i], data.click[i], data.fold[i]) == (row["time"], row["click"], row["fold"])
        begin, end = data.windows[i]
        assert data.behaviours[begin:end].tolist() == [[code(f, v) for f, v in zip(data.layout.behaviour, b, strict=True)] for b in row["past"]]
    assert {f: data.vocabularies[f] for f in vocabulary} == {f: len(v) + 1 for f, v in vocabulary.items() if f not in ("hour", "weekday")} | {
        "hour": 25,
        "weekday": 8,
    }
    assert data.vocabularies["price"] == 33
    used = np.zeros(len(data.behaviours), bool)
    for begin, end in data.windows:
        used[begin:end] = True
    assert used.all()  # nothing is kept that no window reaches


def test_the_fields_are_those_of_the_paper(folder):
    data = alimama.load(folder)
    assert (len(data.layout.user), len(data.layout.item)) == (9, 6)
    assert np.bincount(data.fold, minlength=3).min() > 0
    assert data.time[data.fold == TRAIN].max() < data.time[data.fold == VALID].min()
    assert data.time[data.fold == VALID].max() < data.time[data.fold == TEST].min()
    assert not data.new.any()
    assert data.made_new(0.4).new.sum() == round(0.4 * len(data.users))


def test_sizes_of_pieces_and_ranges_change_nothing(folder, monkeypatch):
    sha = alimama.load(folder).sha256
    for piece, span in ((1 << 27, 10**7), (3_000, 200)):
        monkeypatch.setattr(alimama, "PIECE", piece)
        monkeypatch.setattr(alimama, "RANGE", span)
        shutil.rmtree(alimama.cache_folder())
        assert alimama.load(folder).sha256 == sha


def test_what_is_in_memory_at_once_is_bounded(folder, monkeypatch):
    pieces, spans = [], []
    read_piece, windows_before = alimama.read_piece, alimama.windows_before
    monkeypatch.setattr(alimama, "read_piece", lambda path, begin, end, *rest: pieces.append(end - begin) or read_piece(path, begin, end, *rest))
    monkeypatch.setattr(alimama, "windows_before", lambda *args: spans.append((len(args[0]) + len(args[2]), args[2])) or windows_before(*args))
    alimama.load(folder)
    assert len(pieces) > 6
    assert max(pieces) <= 20_000 + 100
    assert len(spans) > 3
    for rows, owner in spans:
        assert rows <= 1_500 + np.bincount(owner).max() + SIZES["impressions"] // 10
    assert sum(len(owner) for _, owner in spans) == SIZES["behaviours"]


def test_windows_line_ends_byte_order_mark_and_other_columns(folder):
    sha = alimama.load(folder).sha256
    for file in (SHOWN, ADS, USERS, LOG):
        lines = [",".join(reversed([*line.split(","), "note"])) for line in lines_of(folder / file)]
        (folder / file).write_bytes(b"\xef\xbb\xbf" + "".join(line + "\r\n" for line in lines).encode())
    assert alimama.load(folder).sha256 == sha


def test_a_second_load_reads_the_cache_and_changed_files_do_not(folder, monkeypatch):
    data = alimama.load(folder)
    assert not data.behaviours.flags.writeable
    with monkeypatch.context() as patch:
        patch.setattr(alimama, "prepare", None)
        assert alimama.load(folder).sha256 == data.sha256
        assert alimama.load(folder, name="other").report.lines[0].startswith("other: ")
    edit(folder / SHOWN, lines_of(folder / SHOWN)[1] + "\n", "")
    assert len(alimama.load(folder)) == len(data) - 1
    assert len(list((alimama.cache_folder() / "alimama").iterdir())) == 2  # one for each state of the files, and no leftovers


def test_a_damaged_cache_is_named(folder):
    alimama.load(folder)
    (part,) = alimama.cache_folder().glob("alimama/*/behaviours.npy")
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"this cache is damaged .* delete the folder"):
        alimama.load(folder)


@pytest.mark.parametrize("at", [0, 3, 7, 8, 10])
def test_a_killed_run_goes_on_where_it_stopped(folder, monkeypatch, at):
    unbroken = alimama.load(folder).sha256
    shutil.rmtree(alimama.cache_folder())
    write_whole, read_piece, done, again = alimama.write_whole, alimama.read_piece, [], []

    def killed(path, make):
        def half(temporary):
            make(temporary)
            if len(done) == at:
                temporary.write_bytes(temporary.read_bytes()[:50])
                raise KeyboardInterrupt
            done.append(path.name)

        write_whole(path, half)

    def counted(path, *rest):
        again.append(path.name)
        return read_piece(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(alimama, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            alimama.load(folder)
    (work,) = (alimama.cache_folder() / "alimama").iterdir()
    assert {p.name for p in work.iterdir()} == set(done)
    monkeypatch.setattr(alimama, "read_piece", counted)
    monkeypatch.setattr(alimama, "write_whole", lambda path, make: (done.append(path.name), write_whole(path, make)))
    assert alimama.load(folder).sha256 == unbroken
    assert again.count(LOG) == max(0, len(alimama.pieces(folder / LOG)) - at)
    assert len(done) == len(set(done))  # nothing was made twice
    assert [p.suffix for p in (alimama.cache_folder() / "alimama").iterdir()] == [""]


def test_a_kill_while_putting_together(folder, monkeypatch):
    unbroken = alimama.load(folder).sha256
    shutil.rmtree(alimama.cache_folder())
    with monkeypatch.context() as patch:
        patch.setattr(alimama.os, "replace", functools.partial(interrupted_at_the_end, alimama.os.replace))
        with pytest.raises(KeyboardInterrupt):
            alimama.load(folder)
    monkeypatch.setattr(alimama, "read_piece", without_the_log(alimama.read_piece))
    assert alimama.load(folder).sha256 == unbroken


def test_of_two_runs_at_once_one_prepares_and_both_read(folder, monkeypatch):
    prepare, made = alimama.prepare, []
    monkeypatch.setattr(alimama, "prepare", lambda *given: (made.append(1), prepare(*given)))
    with ThreadPoolExecutor(2) as runs:
        one, other = runs.map(alimama.load, [folder, folder])
    assert made == [1]
    assert one.sha256 == other.sha256


def interrupted_at_the_end(replace, source, target):
    if source.is_dir():
        raise KeyboardInterrupt
    replace(source, target)


def without_the_log(read_piece):
    def read(path, *rest):
        assert path.name != LOG
        return read_piece(path, *rest)

    return read


def test_no_room_on_the_disk(folder, monkeypatch):
    monkeypatch.setattr(alimama.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(DataError, match=r"GB free; preparing .* may take .* GB; free some, or set XDG_CACHE_HOME"):
        alimama.load(folder)
    assert not alimama.cache_folder().exists()


def test_paper_size(folder, monkeypatch):
    with pytest.raises(DataError, match="600 impressions; paper_size samples 6,000,000"):
        alimama.load(folder, paper_size=True)
    monkeypatch.setattr(alimama, "PAPER_ROWS", 200)
    whole, some, other = alimama.load(folder), alimama.load(folder, paper_size=True), alimama.load(folder, paper_size=True, seed=1)
    assert len(some) == len(other) == 200
    assert some.sha256 == alimama.load(folder, paper_size=True).sha256 != other.sha256
    assert (np.diff(some.time) >= 0).all()
    assert np.array_equal(some.made_new(0.4).new, whole.made_new(0.4).new)  # the same people are new in both
    assert "a random sample of 200 impressions (seed 0)" in some.report.lines[-1]
    monkeypatch.setattr(fetch, "locate", lambda name: {"alimama": folder}[name])
    assert catalogue.load_clicks("alimama-6m").sha256 == some.sha256


# -- bad input --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [SHOWN, ADS, USERS, LOG])
def test_files_that_are_no_files(folder, file):
    path, content = folder / file, (folder / file).read_bytes()
    column = alimama.FILES[file][2]
    cases = [
        (content[:-3], "the last line is .* without a line end, so the file was cut short"),
        (content[: len(content) // 2].rpartition(b"\n")[0], "without a line end"),
        (content.replace(column.encode(), b"other", 1), f"line 1 names no column {column}; it is .* expected {', '.join(alimama.FILES[file])[:10]}"),
        (content.replace(b"\n", f",{column}\n".encode(), 1), f"line 1 names a column twice: .*, {column}; expected each name once"),
        (b"<!DOCTYPE html><title>Log in</title>\n", "a web page, not data"),
        (content.partition(b"\n")[0] + b"\n", "nothing follows"),
        (b"", "the file is empty"),
        (content + content.partition(b"\n")[2].partition(b"\n")[0] + b",7\n", "columns"),
        (content.replace(b"\n", b"\n\n", 3), "columns|is blank"),
        (content + b"1,2\n", "columns"),
    ]
    for bad, message in cases:
        path.write_bytes(bad)
        with pytest.raises(DataError, match=message) as error:
            alimama.load(folder)
        assert str(path) in str(error.value)
    path.unlink()
    with pytest.raises(DataError, match=f"{file}: no such file"):
        alimama.load(folder)


BAD_VALUES = [
    (SHOWN, "clk", "2", "expected 0 or 1"),
    (SHOWN, "clk", "", "clk is ''; expected 0 or 1"),
    (SHOWN, "nonclk", None, "expected 1 - clk, so that the two add to 1"),
    (SHOWN, "user", "abc", "user is 'abc'; expected a whole number"),
    (SHOWN, "adgroup_id", "-4", "adgroup_id is '-4'; expected a whole number"),
    (SHOWN, "time_stamp", "1494032110000", "expected seconds since 1970"),
    (SHOWN, "pid", "", "pid is ''; expected a scenario"),
    (LOG, "btag", "view", "btag is 'view'; expected pv, cart, fav or buy"),
    (LOG, "cate", "1.5", "cate is '1.5'; expected a whole number"),
    (LOG, "brand", "NULL", "brand is 'NULL'; expected a whole number"),
    (LOG, "time_stamp", "0", "time_stamp is '0'; expected seconds since 1970"),
    (LOG, "user", "99999999999", "user is '99999999999'"),
    (ADS, "price", "cheap", "price is 'cheap'; expected a number from 0 on"),
    (ADS, "cate_id", "NULL", "cate_id is 'NULL'; expected a whole number"),
    (ADS, "brand", "2.5", "brand is '2.5'; expected a whole number"),
    (USERS, "age_level", "old", "age_level is 'old'; expected a whole number from 0 on, or nothing"),
    (USERS, "userid", "", "userid is missing|userid is ''"),
]


@pytest.mark.parametrize(("file", "column", "value", "message"), BAD_VALUES)
@pytest.mark.parametrize("at", [1, 60])
def test_bad_values_are_named_with_their_line(folder, file, column, value, message, at):
    lines = lines_of(folder / file)
    place = [name.strip() for name in lines[0].split(",")].index(column)
    at = -at % len(lines)
    row = lines[at].split(",")
    row[place] = str(1 - int(row[place])) if value is None else value
    lines[at] = ",".join(row)
    write_lines(folder / file, lines)
    with pytest.raises(DataError, match=message) as error:
        alimama.load(folder)
    assert f"{folder / file}: line {at + 1}: " in str(error.value)
    assert not list(alimama.cache_folder().glob("alimama/*/about.json"))


def test_ids_that_stand_twice(folder):
    for file in (ADS, USERS):
        lines = lines_of(folder / file)
        write_lines(folder / file, [*lines, lines[5]])
        with pytest.raises(DataError, match=f"{file}: line {len(lines) + 1}: .* expected each id once"):
            alimama.load(folder)
        write_lines(folder / file, lines)


def test_a_clock_that_is_wrong(folder):
    lines = lines_of(folder / SHOWN)
    write_lines(folder / SHOWN, [*lines, "1,1594032110,1,430548_1007,1,0"])
    with pytest.raises(DataError, match=rf"time_stamp runs from line \d+: 2017-05-06 .* to line {len(lines) + 1}: 2020-.* expected 8 days"):
        alimama.load(folder)
    write_lines(folder / SHOWN, lines[:2])
    with pytest.raises(DataError, match="3 at least"):
        alimama.load(folder)


def test_repairs_are_counted_and_printed(folder):
    before = alimama.load(folder)
    shown, log = lines_of(folder / SHOWN), lines_of(folder / LOG)
    shown += [shown[1]] * 2  # three times the same user, ad and second
    shown += ["7777,1494000000,3,430548_1007,1,0", "7777,1494000500,900000,430548_1007,0,1"]  # no profile, and an ad that nobody knows
    log += ["7777,1494600000,pv,1,1", "7777,1494600000,buy,1,1"]  # all of it later
    log += ["8888,1494000000,pv,1,1"]  # saw no ad
    log += [f"{shown[1].split(',')[0]},1400000000,pv,1,1"]  # years before
    write_lines(folder / SHOWN, shown)
    write_lines(folder / LOG, log)
    data = alimama.load(folder)
    said = str(data.report)
    for line in (
        "2 impressions repeat another's user, ad and second; kept",
        "1 impressions of 1 ads that ad_feature.csv lacks: all fields unknown",
        "behavior_log.csv: 1 rows of users who saw no ad; left out",
        "behavior_log.csv: 1 rows more than a month before the first impression or after the last day; left out",
        "raw_sample.csv: sorted by time: ",
        "behavior_log.csv: sorted by time: ",
        "raw_sample.csv: 604 rows; the published file has 26,557,961",
    ):
        assert line in said, line
    assert later(data) == later(before) + 1
    assert len(data) == len(before) + 4
    mine = np.flatnonzero(data.user == data.user.max())  # 7777 is the largest id
    assert (data.windows[mine, 0] == data.windows[mine, 1]).all()
    assert (data.group[mine] == 2).all()
    assert (data.users[data.user[mine[0]], 1:] == 0).all()
    assert sorted(data.items[data.item[mine]].any(1)) == [False, True]
    assert len(data.items) == len(before.items) + 1
    assert data.behaviours.shape == before.behaviours.shape


def later(data):
    """How many users are said to have behaviours, but none before any impression."""
    return int(re.search(r"of whom ([\d,]+) have later ones", str(data.report))[1])


def test_a_log_that_comes_too_late_for_everybody(folder):
    write_lines(folder / LOG, ["user,time_stamp,btag,cate,brand", f"{lines_of(folder / SHOWN)[1].split(',')[0]},1494691199,pv,1,1"])
    data = alimama.load(folder)
    assert data.behaviours.shape == (0, 3)
    assert (data.group == 2).all()


# -- the generator ----------------------------------------------------------------------------------------------------------------


def test_the_generator_keeps_the_form_and_the_quirks(files):
    for file, columns in alimama.FILES.items():
        assert lines_of(files / file)[0] == ",".join(columns) + (" " if file == USERS else "")
        assert (files / file).read_bytes().endswith(b"\n")
    assert len(lines_of(files / SHOWN)) == SIZES["impressions"] + 1
    assert len(lines_of(files / LOG)) == SIZES["behaviours"] + 1
    log = pd.read_csv(files / LOG)
    assert not log["user"].is_monotonic_increasing
    assert not log["time_stamp"].is_monotonic_increasing
    assert log["time_stamp"].between(1_494_000_000 - 14 * 86_400, 1_494_000_000 + 8 * 86_400 - 1).all()
    assert set(log["btag"]) == {"pv", "cart", "fav", "buy"}
    ads = lines_of(files / ADS)
    assert 0.15 < np.mean([line.split(",")[4] == "NULL" for line in ads]) < 0.45


def test_the_generator_streams_and_repeats_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "ROWS", 700)
    for name in ("a", "b"):
        generator.generate(tmp_path / name, impressions=2_000, behaviours=3_000, users=1_000)
    for file in alimama.FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    people = pd.read_csv(tmp_path / "a" / USERS).rename(columns=str.strip)
    assert 0.04 < 1 - len(people) / 1_000 < 0.10
    assert people["pvalue_level"].isna().mean() == pytest.approx(0.5, abs=0.06)
    assert people["new_user_class_level"].isna().mean() == pytest.approx(0.33, abs=0.06)
    assert people[["cms_segid", "cms_group_id", "age_level", "occupation"]].min().tolist() == [0, 0, 0, 0]
    assert people["cms_segid"].max() == 96
    assert len(lines_of(tmp_path / "a" / LOG)) == 3_001
    with pytest.raises(DataError, match="users is 0; expected 1 or more"):
        generator.generate(tmp_path / "c", users=0)
    assert not (tmp_path / "c").exists()


def test_people_click_on_what_they_look_at(tmp_path):
    world = generator.generate(tmp_path, impressions=20_000, behaviours=20_000, users=500)
    shown = pd.read_csv(tmp_path / SHOWN).merge(pd.read_csv(tmp_path / ADS), on="adgroup_id")
    seen = pd.read_csv(tmp_path / LOG)[["user", "cate"]].drop_duplicates().rename(columns={"cate": "cate_id"})
    known = shown.merge(seen, on=["user", "cate_id"])
    assert known["clk"].mean() > 1.2 * shown["clk"].mean()
    rate = world.click_probability("grocery", np.repeat(np.arange(500), 360), np.tile(np.arange(360), 500)).reshape(500, 360)
    assert shown["clk"].mean() == pytest.approx((rate @ world.popularity("grocery")).mean(), abs=0.015)


def test_costs_are_measured(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "set back after the test")
    first, cpu, again = generator.loading(folder)
    assert 0 < again < first
    assert cpu > 0


# -- PaddleRec's sample -----------------------------------------------------------------------------------------------------------


def sampled(**changes):
    """One row of 267 values: two behaviours, then what is asked for."""
    row = dict.fromkeys(range(267), 0)
    for at, (cate, brand, btag) in ((48, (7, 70, 1)), (49, (8, 80, 4))):
        row |= {at: btag, 50 + at: cate, 100 + at: brand, 150 + at: 1}
    row |= dict(zip(range(250, 267), (1000, 27, 4, 2, 4, 0, 2, 0, 4, 300, 7, 20, 30, 0, 0.98, 1, 0), strict=True))
    return ",".join(str(v) for v in (row | {int(c[1:]): v for c, v in changes.items()}).values())


def test_rows_of_the_sample(tmp_path):
    path = tmp_path / "sample.txt"
    write_lines(path, [sampled(), sampled(c250=999, c259=301, c263=80, c264=0.5, c198=0, c266=1), sampled(c260=7)])
    data = alimama.load_sample(path)
    assert data.user.tolist() == [1, 0, 1]
    assert data.click.tolist() == [0, 1, 0]
    assert data.windows.tolist() == [[0, 2], [2, 3], [3, 5]]
    assert data.behaviours.tolist() == [[1, 1, 1], [2, 2, 4], [2, 2, 4], [1, 1, 1], [2, 2, 4]]  # oldest first
    fields = dict(zip(data.layout.user, data.users[data.user[0]].tolist(), strict=True))
    assert (fields["user"], fields["pvalue_level"], fields["occupation"]) == (2, 0, 1)
    items = [dict(zip(data.layout.item, data.items[i].tolist(), strict=True)) for i in data.item]
    assert (items[0]["brand"], items[1]["brand"], items[0]["cate"]) == (0, 2, 1)  # vocabularies are shared with the behaviours
    assert items[0] == items[2]
    assert items[0]["price"] > items[1]["price"] > 0
    for row, message in (
        (sampled()[:-2], "266 columns"),
        (sampled(c266=3), "'3'; expected 0 or 1"),
        (sampled(c49=9), "an action is 9; expected 1 to 4"),
    ):
        write_lines(path, [sampled(), row])
        with pytest.raises(DataError, match=message):
            alimama.load_sample(path)


@pytest.mark.small
def test_the_real_sample():
    needs("alimama-sample")
    data = catalogue.load_clicks("alimama-sample")
    assert (len(data), len(data.users), len(data.items), int(data.click.sum())) == (500, 230, 297, 210)
    assert len(data.behaviours) == 24_879
    assert np.bincount(data.behaviours[:, 2]).tolist() == [0, 23_587, 336, 567, 389]
    assert data.longest == 50
    assert (np.diff(data.windows) > 0).all()


@pytest.mark.skipif(not os.environ.get("ZSRBOOK_DATA"), reason="ZSRBOOK_DATA is not set: the folder of real public data")
def test_the_real_files():
    """As published: the counts of the source, and those of MAIL's Table 1. The first run takes long. Few machines have 22 GB of this."""
    source = fetch.source_of("alimama")
    if source.missing():
        pytest.skip(f"{source.missing()[0].path} is not in {source.where}; it needs an account at {source.page}")
    data = catalogue.load_clicks("alimama")
    assert (len(data), len(data.users), len(data.items)) == (26_557_961, 1_141_729, 846_811)
    assert sum("as published" in line for line in data.report.lines) == 4


def test_names_of_click_data_are_told_from_those_of_interactions():
    with pytest.raises(DataError, match="alimama holds impressions and clicks"):
        catalogue.load("alimama")
    with pytest.raises(DataError, match="ml-1m holds interactions"):
        catalogue.load_clicks("ml-1m")
