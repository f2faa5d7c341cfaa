"""Run the cells of one page into the cache of executed notebooks, ``ZSRBOOK_NOTEBOOK_CACHE``: python book/execute.py PAGE

``build.py`` starts one for every page that has cells, several at a time. Sphinx alone would run them one after the other; so it finds all
of them in the cache, under the very keys that it would have given them.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import yaml
from myst_nb.core.config import NbParserConfig
from myst_nb.core.execute import ExecutionError, create_client
from myst_nb.core.read import read_myst_markdown_notebook

CONFIG = Path(__file__).with_name("_config.yml")


class Plain(logging.LoggerAdapter):
    """Drops what Sphinx's loggers take besides the message."""

    def process(self, message, options):
        return f"{self.extra['page']}: {message}", {}


def main(page: Path) -> int:
    """0, or 1 where a cell raised; its traceback is printed."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger(__name__).setLevel(logging.INFO)
    notebook = read_myst_markdown_notebook(page.read_text(encoding="utf-8"), path=str(page))
    timeout = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["execute"]["timeout"]
    cache = {"execution_mode": "cache", "execution_cache_path": os.environ["ZSRBOOK_NOTEBOOK_CACHE"]}
    config = NbParserConfig(**cache, execution_timeout=timeout, execution_show_tb=True, execution_raise_on_error=True)
    log = Plain(logging.getLogger(__name__), {"page": page.name})
    try:
        with create_client(notebook, str(page), config, log, {"type": "plugin", "name": "myst_nb_md"}):
            return 0
    except ExecutionError:
        return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
