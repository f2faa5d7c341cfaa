"""The model of one's own in book/cite.md does what the page says: it keeps the contract, is recorded, and is held against a row of the book."""

import functools
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny

from zsrbook import records
from zsrbook.experiments import zesrec
from zsrbook.scale import Scale

PAGE = (Path(__file__).resolve().parents[1] / "book" / "cite.md").read_text(encoding="utf-8")
MODEL, CONTRACT, RUN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NAME = "zsrbook.models.markov"

markov = sys.modules.setdefault(NAME, ModuleType(NAME))  # as if its file were there
exec(MODEL, vars(markov))
exec(CONTRACT, globals())  # leaves TestMarkov, which is collected as any other


def test_it_is_recorded_and_held_against_a_row_of_the_book(tmp_path, monkeypatch, capsys):
    file = tmp_path / "zsrbook" / "models" / "markov.py"
    file.parent.mkdir(parents=True)
    file.write_text(MODEL)
    monkeypatch.setattr(markov, "__file__", str(file), raising=False)
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    root = tmp_path / "book" / "runs"
    monkeypatch.setattr(records, "find", functools.partial(records.find, root))
    monkeypatch.setattr(records, "write", functools.partial(records.write, root=root))
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with tiny.shrunk():
        with pytest.raises(records.RecordError, match="commit"):
            exec(RUN, {})
        for command in (["add", "."], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start"]):
            subprocess.run(["git", *command], cwd=tmp_path, check=True)
        rival = next(row for row in zesrec.systems(Scale.TOY, ["gru"]) if row.name == "GRU4Rec")
        theirs = zesrec.Bench(zesrec.load_pair("grocery", "pantry", Scale.TOY)).record(rival, [0, 1])
        records.write(records.replace(theirs, code_version=records.code_version()))
        exec(RUN, {})
    path, said = capsys.readouterr().out.strip().splitlines()[-2:]  # training may have told of its progress before
    assert path == str(root / "zesrec" / "mine" / "pantry" / "markov.toy.json")
    assert records.read(Path(path)).config == {"popular": 0.1}
    assert re.fullmatch(r"0\.\d{3} against 0\.\d{3}: [+-]0\.\d{3} \(95 %: [+-]0\.\d{3} to [+-]0\.\d{3}\)", said)
