import json

import pytest

from zsrbook.data import catalogue, derived
from zsrbook.data.dataset import DataError


def sequences(data):
    """raw user -> raw items, oldest first."""
    raw = data.items["raw"].to_numpy()
    s = data.sequences()
    return {data.users["raw"][u]: raw[s.items[a:b]].tolist() for u, a, b in zip(s.users, s.starts[:-1], s.starts[1:], strict=True)}


ITEMS = {str(k): {"title": f"Thing {k}", "description": "['It&#39;s good.', 'Very.']" if k == 0 else ""} for k in range(30)}


def test_scientific(tmp_path):
    (tmp_path / "Scientific.item.json").write_text(json.dumps(ITEMS))
    (tmp_path / "Scientific.inter.json").write_text('{"0": [2, 0], "1": [1]}')
    data = derived.load_scientific(tmp_path)
    assert sequences(data) == {"0": ["2", "0"], "1": ["1"]}
    assert data.items["text"][0] == "Thing 0 It's good. Very."
    assert not data.clock
    (tmp_path / "Scientific.item.json").write_text('{"0": {"title": "Thing", "description": null, "brand": null}}')
    (tmp_path / "Scientific.inter.json").write_text('{"0": [0]}')
    assert derived.load_scientific(tmp_path).items.loc[0, ["text", "brand"]].tolist() == ["Thing", ""]
    for bad, message in (
        ("{}", "no interactions"),
        ('{"0": []}', "user '0' has"),
        ('{"0": [99]}', "names item '99'"),
        ("<html>", "web page"),
        ("{", "line 1"),
        ('{"0": [0], "0": [0, 0]}', r"Scientific\.inter\.json: '0' stands in one object twice; expected each name once"),
        ('{"\\ud83d": [0]}', "expected an id of whole signs"),
        ("[" * 100_000, "can't be read as JSON"),
        ('{"0": [1' + "0" * 5_000 + "]}", "can't be read as JSON"),
    ):
        (tmp_path / "Scientific.inter.json").write_text(bad)
        with pytest.raises(DataError, match=message):
            derived.load_scientific(tmp_path)
    (tmp_path / "Scientific.item.json").write_text("{}")
    with pytest.raises(DataError, match=r"Scientific\.item\.json: holds no item"):
        derived.load_scientific(tmp_path)
    (tmp_path / "Scientific.item.json").write_text(json.dumps({"0": {"title": "Thing", "description": "[" + "1+" * 3_000 + "1]"}}))
    (tmp_path / "Scientific.inter.json").write_text('{"0": [0]}')
    assert len(derived.load_scientific(tmp_path)) == 1


def test_games(tmp_path):
    (tmp_path / "Games-6k.item").write_text('item_id:token\ttitle:token_seq\n0\tOne &amp; "only"\n1\tTwo\n2\tThree\n')
    (tmp_path / "Games-6k.test.inter").write_text("user_id:token\titem_id_list:token_seq\titem_id:token\n7\t0 2 0\t1\n8\t1\t2\n")
    data = derived.load_games(tmp_path)
    assert sequences(data) == {"7": ["0", "2", "0", "1"], "8": ["1", "2"]}
    assert data.items["text"].tolist() == ['One & "only"', "Two", "Three"]
    with (tmp_path / "Games-6k.test.inter").open("a") as rows:
        rows.write("7\t2\t1\n")
    with pytest.raises(DataError, match="line 4: user is '7'; expected each user once"):
        derived.load_games(tmp_path)
    (tmp_path / "Games-6k.test.inter").write_text("user\titems\titem\n7\t0\t1\n")
    with pytest.raises(DataError, match="line 1 names the columns user"):
        derived.load_games(tmp_path)


def test_yelp(tmp_path):
    (tmp_path / "Yelp.item.json.letter").write_text(json.dumps({"0": {"title": "A", "description": "Food"}, "1": {"title": "B", "description": ""}}))
    (tmp_path / "Yelp.txt").write_text("5 1 2 2 1\n6 2\n")
    data = derived.load_yelp(tmp_path)
    assert sequences(data) == {"5": ["1", "2", "2", "1"], "6": ["2"]}
    assert data.items["text"].tolist() == ["A Food", "B"]
    for bad, message in (
        ("5\n", "line 1 is '5'; expected a user"),
        ("5 1\n\n5 2\n", "line 3: user is '5'; expected each user once"),
        ("5 9\n", "item '9'"),
        ("5 1\n6 two\n", "line 2 holds 'two'; expected whole numbers"),
        ("5 1.5\n", "line 1 holds '1.5'"),
        ("5 " + "9" * 5_000 + "\n", "line 1 holds '999"),
        ("\n", "holds no line, or blank ones only"),
    ):
        (tmp_path / "Yelp.txt").write_text(bad)
        with pytest.raises(DataError, match=message):
            derived.load_yelp(tmp_path)
    (tmp_path / "Yelp.item.json.letter").write_text('{"0": {"title": "A"}, "a": {"title": "B"}}')
    with pytest.raises(DataError, match=r"Yelp\.item\.json\.letter: item 'a'; expected whole numbers"):
        derived.load_yelp(tmp_path)


@pytest.mark.parametrize(
    ("name", "load"),
    [("Sports_and_Outdoors", derived.load_sports), ("Beauty", derived.load_beauty), ("Toys_and_Games", derived.load_toys)],
)
def test_amazon_without_text(tmp_path, name, load):
    (tmp_path / f"{name}.txt").write_text("1 1 2 10\n2 2 3\n")
    data = load(tmp_path)
    assert sequences(data) == {"1": ["1", "2", "10"], "2": ["2", "3"]}
    assert data.items["raw"].tolist() == ["1", "2", "3", "10"]
    assert set(data.items["text"]) == {""}
    assert not data.clock
    assert catalogue.guess(tmp_path).sha256() == catalogue.guess(tmp_path / f"{name}.txt").sha256() == data.sha256()
    (tmp_path / f"{name}.txt").write_text("1 1\n2\n")
    with pytest.raises(DataError, match="line 2 is '2'; expected a user, then at least one item"):
        load(tmp_path)
    (tmp_path / f"{name}.txt").unlink()
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path)


def test_several_data_sets_in_one_folder(tmp_path):
    (tmp_path / "Beauty.txt").write_text("1 1\n")
    (tmp_path / "Toys_and_Games.txt").write_text("1 1\n2 1\n")
    with pytest.raises(DataError, match=r"holds several data sets; name one of the files Beauty\.txt, Toys_and_Games\.txt"):
        catalogue.guess(tmp_path)
    assert catalogue.guess(tmp_path / "Toys_and_Games.txt").name == "toys"
    category = "Industrial_and_Scientific"
    (tmp_path / f"{category}.item.json").write_text(json.dumps(ITEMS))
    for part in ("valid", "test"):
        (tmp_path / f"{category}.{part}.csv").write_text(f'user_id,history_item_id,item_id\n{part},"[1]",2\n')
    (tmp_path / "Office_Products.test.csv").touch()
    with pytest.raises(DataError, match=rf"holds several data sets; name one of the files Office_Products\.test\.csv, {category}\.test\.csv"):
        catalogue.guess(tmp_path)
    assert catalogue.guess(tmp_path / f"{category}.test.csv").name == "industrial"


HEADER = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n"


def office(folder, valid, test):
    (folder / "Office_Products.item.json").write_text(json.dumps(ITEMS))
    for part, rows in (("valid", valid), ("test", test)):
        lines = [f'{u},"[\'a, b\']",t,"{h}",{i},"[\'x\']",y\n' for u, h, i in rows]
        (folder / f"Office_Products.{part}.csv").write_text(HEADER + "".join(lines))
    return folder


def test_office_rows_join_to_sequences(tmp_path):
    long = list(range(12))
    valid = [("u", [3], 4), ("v", long[:10], 10)]
    test = [("v", long[1:11], 11), ("u", [3, 4], 3), ("w", [5, 6], 7)]
    data = derived.load_office(office(tmp_path, valid, test))
    assert sequences(data) == {"u": ["3", "4", "3"], "v": [str(k) for k in long], "w": ["5", "6", "7"]}
    assert "put 5 rows together to 3 sequences; 1 may lack items before the oldest ten" in str(data.report)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([3, 5], r"Office_Products\.test\.csv: line 2: the history of user 'u' is \['3', '5'\]; the rows before it give \['3', '4'\]"),
        ("[3, 4", "line 2: history_item_id is '\\[3, 4'; expected a list"),
        ("__import__('os').getcwd()", "expected a list of item numbers"),
        ("['3']", "expected a list of item numbers"),
        ("[" * 5_000, "expected a list of item numbers"),
        ([99, 4], "user 'u'"),
    ],
)
def test_office_contradictions_and_code_are_refused(tmp_path, history, message):
    with pytest.raises(DataError, match=message):
        derived.load_office(office(tmp_path, [("u", [3], 4)], [("u", history, 9)]))
