"""Titles as people read them, and in one spelling for exact matching across catalogues.

MovieLens writes "Matrix, The (1999)" where Netflix writes "The Matrix"; ZESRec (section 4.7) matches films by equal titles,
which only works once both are written the same way.
"""

from __future__ import annotations

import re
import unicodedata

ARTICLES = "The|A|An|Le|La|Les|L'|Un|Une|Il|Lo|I|Gli|Uno|Una|El|Los|Las|Der|Die|Das|Ein|Eine|De|Het|Een|O|Os|As|Den|Det|En|Ett"
YEAR = re.compile(r"\s*\(((?:19|20|18)\d\d)(?:\s*[-–]\s*(?:\d{2,4})?)?\)")
ARTICLE = re.compile(rf"^(?P<rest>.*\S)\s*,\s+(?P<article>{ARTICLES})(?P<after>\s*\(.*)?$", re.IGNORECASE)
PARENTHESIS = re.compile(r"\s*\(([^()]*)\)")
ALSO = re.compile(r"^(?:a\.?\s?k\.?\s?a\.?|also known as)\s+", re.IGNORECASE)
#: joined words: letters and digits of any script
WORDS = re.compile(r"[^\W_]+")


def year(title: str) -> int | None:
    """The year in parentheses that stands last, or None.

    >>> year("2001: A Space Odyssey (1968)")
    1968
    """
    found = YEAR.findall(title)
    return int(found[-1]) if found else None


def readable(title: str) -> str:
    """Without the year, and with an article at the end moved to the front.

    >>> readable("Matrix, The (1999)")
    'The Matrix'
    """
    return article_first(" ".join(YEAR.sub(" ", title).split()))


def article_first(name: str) -> str:
    found = ARTICLE.match(name)
    if not found:
        return name
    article = found["article"] + ("" if found["article"].endswith("'") else " ")
    return article + found["rest"] + (found["after"] or "")


def normalise(title: str) -> str:
    """One spelling for exact matching: readable, without "a.k.a." parts, NFKC, case-folded, words with single spaces.

    Accents stay, since they tell titles apart; an ampersand counts as "and". Applying it twice changes nothing. A title
    made of signs alone, such as "***", keeps them, so that it does not equal every other such title.

    >>> normalise("Seven (a.k.a. Se7en) (1995)")
    'seven'
    """
    name = readable(unicodedata.normalize("NFKC", title))
    name = PARENTHESIS.sub(lambda m: "" if ALSO.match(m[1].strip()) else m[0], name)
    return spelling(article_first(name.strip()))


def names(title: str) -> frozenset[str]:
    """All normalised names that a title gives: with and without what stands in parentheses, and each "a.k.a." name.

    >>> sorted(names("Seven (a.k.a. Se7en) (1995)"))
    ['se7en', 'seven']
    """
    name = readable(unicodedata.normalize("NFKC", title))
    main = normalise(PARENTHESIS.sub("", name))
    also = [normalise(ALSO.sub("", part.strip())) for part in PARENTHESIS.findall(name) if ALSO.match(part.strip())]
    return frozenset({normalise(title), main, *also} - {""})


def spelling(name: str) -> str:
    """NFKC after case-folding too, since each can undo the other; words with single spaces between them."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    folded = re.sub(r"(?<=\w)['’`](?=\w)", "", folded).replace("&", " and ")
    words = WORDS.findall(folded)
    return " ".join(words) if words else " ".join(folded.split())
