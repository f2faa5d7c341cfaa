"""What a notebook calls first, and how it shows the source of the package: so that no class exists twice."""

from __future__ import annotations

import inspect
import platform
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Code, display
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import zsrbook
from zsrbook.audience import in_book
from zsrbook.parallel import one_torch_thread
from zsrbook.records import code_version
from zsrbook.scale import Scale, current_scale
from zsrbook.training import pick_device

#: packages whose version can change a number
PACKAGES = ("zsrbook", "torch", "transformers", "numpy", "pandas", "scipy", "scikit-learn", "umap-learn")


@dataclass(frozen=True)
class Session:
    """What a chapter runs on."""

    scale: Scale
    device: torch.device


def setup(minutes: Mapping[str, float] | None = None, seed: int = 0) -> Session:
    """Seed everything, then print scale, device, versions and how long the chapter takes.

    Args:
        minutes: expected minutes of the whole notebook by scale, such as ``{"toy": 1, "small": 15}``, on 2 CPU cores.
        seed: for Python, NumPy and torch; what takes its own seed is not touched.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that draw from the global state
    torch.manual_seed(seed)
    session = Session(current_scale(), pick_device())
    if session.scale is Scale.TOY:
        one_torch_thread()  # a second one gains the small networks nothing, and makes them ten times slower where another process runs
    expected = (minutes or {}).get(session.scale)
    parts = {
        "Scale": session.scale.value,
        "Device": device_name(session.device),
        "Expected": "not measured yet" if expected is None else f"{expected:g} min on 2 CPU cores",
        "Date": date.today().isoformat(),
        "Versions": f"zsrbook {zsrbook.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }
    items = "".join(f"<span><b>{name}</b> {escape(value)}</span> " for name, value in parts.items())
    display(HTML(f'<div class="zsr-ribbon" role="note" aria-label="What this chapter runs on">{items}</div>'))
    return session


def verdict_box(text: str) -> None:
    """What a chapter comes to, in a box at its top."""
    display(HTML(f'<div class="zsr-verdict" role="note" aria-label="In short"><b>In short.</b> {escape(text)}</div>'))


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's architecture with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}"


def versions() -> pd.DataFrame:
    """One row a package whose version can change a number, and the commit of this one."""
    rows = [("Python", platform.python_version()), ("zsrbook, commit", code_version()[:12])]
    for package in PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return pd.DataFrame(rows, columns=["package", "version"])


def show_source(thing: type | ModuleType | object, folded: bool = False) -> None:
    """The source of a class, function or module of the package, highlighted, with the file and the lines it comes from.

    Args:
        folded: show the heading only, until the reader opens it.
    """
    lines, first = inspect.getsourcelines(thing)
    file = Path(inspect.getsourcefile(thing)).resolve().relative_to(Path(zsrbook.__file__).resolve().parents[1])
    first = max(first, 1)  # a module starts at 0
    source = inspect.cleandoc("\n" + "".join(lines))
    if not in_book():
        print(f"{file}, lines {first}–{first + len(lines) - 1}")
        display(Code(source, language="python"))
        return
    code = highlight(source, PythonLexer(), HtmlFormatter(wrapcode=True))  # the theme colours these classes, light and dark
    heading = f"<summary><code>{escape(str(file))}</code>, lines {first}–{first + len(lines) - 1}</summary>"
    display(HTML(f'<details class="zsr-source"{"" if folded else " open"}>{heading}{code}</details>'))
