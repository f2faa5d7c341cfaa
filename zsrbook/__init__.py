"""zsrbook: the helper package of a book that re-runs four papers on zero-shot recommendation.

The way of the data: ``data`` → ``text`` → ``models``, fitted by ``training`` → ``evaluation`` → ``records`` → ``claims`` and ``tables``.
``experiments`` puts it together, one module a chapter; ``plots``, ``notebook`` and ``search_box`` show it.
"""

__version__ = "0.1.0"
