"""Which classes a text names: whole words, whatever their case, accents, number or hyphens, and synonyms.

Matching raw substrings, as arXiv 2405.18415 did, finds "pear" in "appear" and "grape" in "grapefruit".
"""

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from fgdiag.errors import FgdiagError
from fgdiag.prompts import spoken
from fgdiag_probes.class_names import class_named

Synonyms = Mapping[str, Iterable[str]]
"""Other names of classes, by class."""

SAME = (
    ("zucchini", "courgette"),
    ("aubergine", "eggplant"),
    ("red beet", "beet", "beetroot"),
    ("bell pepper", "sweet pepper", "capsicum"),
    ("cilantro", "coriander"),
    ("arugula", "rocket"),
    ("scallion", "spring onion", "green onion"),
    ("swede", "rutabaga"),
    ("yoghurt", "yogurt"),
    ("soyghurt", "soy yoghurt"),
    ("oatghurt", "oat yoghurt"),
    ("cantaloupe", "cantaloupe melon"),
    ("satsuma", "mandarin"),
    ("passion fruit", "maracuja"),
    ("corn", "maize"),
    ("airplane", "aeroplane", "plane"),
    ("motorbike", "motorcycle"),
    ("gray", "grey"),
    ("cougar", "puma", "mountain lion"),
)
"""Words that mean the same, also inside longer names. A class of its own name is never another's synonym."""
NUMBERED = 4
"""Letters a word has at least, before it is taken for a plural."""
JOINED = 2
"""Words more than a name has that may still make it up: `water melon`."""
BREAK = ","
"""Stands for any mark between words that ends a phrase."""

_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Thai, kana, Chinese characters, Hangul: scripts that may put no blanks between words."""
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[,.;:!?()/\n]")
_REFUSAL = re.compile(
    r"\b(sorry|unable to|can ?not|can'?t|could ?n[o']t|do(es)? ?n[o']t (know|show)|unclear|as an ai|no idea"
    r"|not (sure|certain|possible|clear|able)|impossible to)\b",
    re.IGNORECASE,
)


class SynonymsNotUsable(FgdiagError, ValueError):
    """A table of synonyms that cannot be read, or that contradicts the class names."""


@dataclass(frozen=True)
class Named:
    """What a text names.

    Attributes
    ----------
    fine, coarse
        Classes in the order in which they are named.
    kind_first
        Whether a coarse class is named before any fine one.
    """

    fine: tuple[str, ...]
    coarse: tuple[str, ...]
    kind_first: bool = False


@dataclass(frozen=True)
class ClassNames:
    """The names of all classes of a set, ready to be found in a text.

    Attributes
    ----------
    kind_of
        Coarse class by fine class.
    forms
        Name or synonym without blanks, and the classes (level, name) it stands for.
    longest
        Words of the longest name.
    """

    kind_of: dict[str, str]
    forms: dict[str, tuple[tuple[str, str], ...]]
    longest: int

    @classmethod
    def of(cls, kind_of: Mapping[str, str], synonyms: Synonyms | None = None) -> Self:
        """Collect names and synonyms.

        Parameters
        ----------
        kind_of
            Coarse class by fine class; empty coarse classes where there is no such level.
        synonyms
            Further names of fine or coarse classes.

        Raises
        ------
        SynonymsNotUsable
            A synonym is the name of another class of the same level.
        ClassNotFound
            Synonyms are given for what is no class.
        """
        coarse = {kind for kind in kind_of.values() if kind}
        classes = [("fine", name) for name in kind_of] + [("coarse", name) for name in sorted(coarse)]
        given = _by_class(synonyms or {}, [*kind_of, *sorted(coarse)])
        own = {(level, "".join(words(name))): name for level, name in classes}
        forms: dict[str, list[tuple[str, str]]] = {}
        longest = 1
        for level, name in classes:
            for text, is_given in _texts(name, given.get(name, ())):
                form = words(text)
                other = own.get((level, "".join(form)), name)
                if other != name and is_given:
                    raise SynonymsNotUsable(
                        f"{text!r} cannot be a synonym of {name!r}, for it is the name of another class. Take it out."
                    )
                if other != name:
                    continue
                for key in {"".join(form), "".join(word for word in form if word != BREAK)} - {""}:
                    if (level, name) not in forms.setdefault(key, []):
                        forms[key].append((level, name))
                longest = max(longest, len(form))
        return cls(dict(kind_of), {form: tuple(found) for form, found in forms.items()}, longest)

    def in_text(self, text: str) -> Named:
        """Find the classes a text names, the longest name first at each place.

        A name directly before another one only describes it, and does not count: "apple juice" is juice, not apple;
        but "Royal Gala apple" is a Royal Gala, whose kind is apple.
        """
        found = self._spans(words(text))
        named: dict[str, list[str]] = {"fine": [], "coarse": []}
        kind_first = False
        for i, (_, end, classes) in enumerate(found):
            behind = found[i + 1][2] if i + 1 < len(found) and found[i + 1][0] == end else ()
            for level, name in classes:
                kind = self.kind_of.get(name) if level == "fine" else name
                if not behind or ("coarse", kind) in behind:
                    named[level].append(name)
            kind_first |= bool(named["coarse"]) and not named["fine"]
        fine, coarse = (tuple(dict.fromkeys(named[level])) for level in ("fine", "coarse"))
        return Named(fine, coarse, kind_first)

    def _spans(self, tokens: tuple[str, ...]) -> list[tuple[int, int, tuple[tuple[str, str], ...]]]:
        found, start = [], 0
        while start < len(tokens):
            for end in range(min(len(tokens), start + self.longest + JOINED), start, -1):
                classes = self.forms.get("".join(tokens[start:end]), ())
                if classes:
                    found.append((start, end, classes))
                    break
            else:
                end = start + 1
            start = end
        return found


def words(text: str) -> tuple[str, ...]:
    """Words of a text in lower case and singular, without accents; a mark that ends a phrase is `BREAK`.

    Examples
    --------
    >>> words("Red-Bell-Peppers, two Grüne Äpfel")
    ('red', 'bell', 'pepper', ',', 'two', 'grune', 'apfel')
    """
    plain = unicodedata.normalize("NFKD", text.casefold().replace("’", "'").replace("'s", ""))
    plain = unicodedata.normalize("NFC", "".join(c for c in plain if not "\u0300" <= c <= "\u036f"))
    tokens = _TOKEN.findall(plain)
    return tuple(_singular(token) if token[0].isalnum() else BREAK for token in tokens)


def refuses(text: str) -> bool:
    """Whether a text says that it cannot or will not tell."""
    return bool(_REFUSAL.search(text.replace("’", "'")))


def read_synonyms(path: str | Path) -> dict[str, list[str]]:
    """Read a CSV file with the columns `name` and `synonym`, one pair a line.

    Raises
    ------
    SynonymsNotUsable
        There is no such file, or no such columns in it.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SynonymsNotUsable(f"{path} cannot be read ({error}); expected a CSV file in UTF-8.") from None
    table: dict[str, list[str]] = {}
    for line, row in enumerate(rows, start=2):
        name, synonym = ((row.get(column) or "").strip() for column in ("name", "synonym"))
        if not name or not synonym:
            raise SynonymsNotUsable(
                f"{path}, line {line}: got {dict(row)}, expected a name and a synonym below the heads "
                "`name` and `synonym`."
            )
        table.setdefault(name, []).append(synonym)
    return table


def _by_class(synonyms: Synonyms, known: list[str]) -> dict[str, list[str]]:
    return {class_named(name, dict.fromkeys(known)): list(others) for name, others in synonyms.items()}


def _texts(name: str, given: Iterable[str]) -> list[tuple[str, bool]]:
    """All ways to say a class, and whether the user gave them."""
    texts = [spoken(name), *given]
    replaced = []
    for text in texts:
        plain = " ".join(words(text))
        for group in SAME:
            inside = [" ".join(words(same)) for same in group]
            for one in inside:
                if re.search(rf"\b{re.escape(one)}\b", plain):
                    replaced += [re.sub(rf"\b{re.escape(one)}\b", other, plain) for other in inside]
                    break
    own = [(spoken(name), False), (name, False)]
    return [*own, *((text, True) for text in given), *((text, False) for text in replaced)]


@cache
def _singular(word: str) -> str:
    if len(word) < NUMBERED or not word.isascii():
        return word
    return _nouns().singular_noun(word) or word


@cache
def _nouns() -> Any:
    import inflect

    return inflect.engine()
