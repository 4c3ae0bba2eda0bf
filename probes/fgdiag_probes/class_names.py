"""The class a user means: names as they are on disk or as they are spoken."""

from collections.abc import Iterable
from difflib import get_close_matches

from fgdiag.errors import ClassNotFound
from fgdiag.prompts import spoken


def class_named(asked: str, known: Iterable[str]) -> str:
    """Return the class of `known` that is meant; case, hyphens and underscores do not matter.

    Raises
    ------
    ClassNotFound
        There is none of that name, or several that differ only in what does not matter.

    Examples
    --------
    >>> class_named("granny smith", ["Golden-Delicious", "Granny-Smith"])
    'Granny-Smith'
    """
    known = list(known)
    if asked in known:
        return asked
    meant = [name for name in known if _plain(name) == _plain(asked)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ClassNotFound(f"{asked!r} may mean {' or '.join(map(repr, meant))}; write it as one of these.")
    by_plain = {_plain(name): name for name in known}
    close = [spoken(by_plain[plain]) for plain in get_close_matches(_plain(asked), by_plain, n=3)]
    hint = (
        f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {', '.join(known[:5])}, ..."
    )
    raise ClassNotFound(f"No class {asked!r} among the {len(known)} of this run; {hint}")


def _plain(name: str) -> str:
    return spoken(name).casefold()
