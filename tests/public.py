"""Tests on real public data: which of it they need."""

import pytest

from zsrbook.data import fetch


def needs(name: str) -> None:
    """Skips the test where a file of this source is missing, and says how to get it. Whether data are looked for at all, ``conftest`` decides."""
    source = fetch.source_of(name)
    if missing := source.missing():
        pytest.skip(f"{missing[0].path} is not in {source.where}; get it with `python -m zsrbook data get {name}`")
