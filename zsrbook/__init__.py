"""zsrbook: the helper package of a book that re-runs four papers on zero-shot recommendation.

Data flows one way through the package, and nothing imports upwards:
``scale`` → ``data`` → ``text`` → ``training`` → ``models`` → ``evaluation`` → ``records`` → ``experiments`` → ``claims``, ``tables``, ``plots``.
"""

__version__ = "0.1.0"
