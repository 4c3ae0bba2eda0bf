"""Which images are for training, which for testing, and which classes can be used at all.

Every choice hangs on a hash of the seed and of what an image is (its id, its group), never on where it stands
in a list: the same images give the same split in any order, on any machine. Unreadable images go with their
group and count for nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import blake2b

from fgdiag.errors import ImagesNotUsable
from fgdiag.listing import ImageRow

_SPLIT_OF_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_name(name: str) -> str | None:
    """`train`, `val` or `test` for what people call them (`Training`, `validation`, `dev`), else None."""
    return _SPLIT_OF_NAME.get(name.strip().lower())


def complete_split(
    rows: Sequence[ImageRow], *, test_share: float, seed: int
) -> tuple[list[ImageRow], list[str]]:
    """Make sure that there are images to train on and images to test on.

    Parameters
    ----------
    rows
        With `split` as given by the source, or empty in every row where the source has no splits.
    test_share, seed
        Passed to `stratified_split` where there is nothing to test on.

    Returns
    -------
    rows : list of ImageRow
        Each in `train`, `val` or `test`.
    warnings : list of str
        A line where the splits are not those of the source.

    Raises
    ------
    ImagesNotUsable
        There are test or val images, but none to train on.
    """
    given = {row.split for row in rows}
    if given == {""}:
        return stratified_split(rows, test_share=test_share, seed=seed), []
    if "train" not in given:
        raise ImagesNotUsable(
            f"The images have a {' and a '.join(sorted(given))} split but none to train on. "
            "Add a train split, or give no splits at all and one is made."
        )
    if "test" in given:
        return list(rows), []
    if "val" in given:
        as_test = [row._replace(split="test") if row.split == "val" else row for row in rows]
        return as_test, ["no test split: val is used as test"]
    split = stratified_split(rows, test_share=test_share, seed=seed)
    return split, [f"only a train split: {test_share:.0%} of it, stratified by class, is held out as test"]


def stratified_split(rows: Sequence[ImageRow], *, test_share: float, seed: int) -> list[ImageRow]:
    """Split into `train` and `test`, stratified by fine class, with whole groups on one side.

    Groups are taken in the order of a seeded hash of their name. One goes to test where that brings the
    number of test images of its classes nearer to `test_share`. Then every class of two groups or more gets
    one on either side, as far as groups that hold several classes allow.

    Parameters
    ----------
    rows
        Read are `fine`, `group` and `status`.
    test_share
        Share of the readable images of each class wanted in test, above 0 and below 1.
    seed
        Another seed gives another split.
    """
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.readable:
            groups[row.group][row.fine] += 1
    groups = {group: groups[group] for group in sorted(groups, key=lambda group: _rank(group, seed))}
    test = _nearest_to_share(groups, test_share)
    _give_every_class_both_sides(groups, test)
    return [row._replace(split="test" if row.group in test else "train") for row in rows]


def _nearest_to_share(groups: dict[str, Counter[str]], test_share: float) -> set[str]:
    total: Counter[str] = Counter()
    for classes in groups.values():
        total.update(classes)
    missing = {fine: min(max(round(test_share * n), 1), max(n - 1, 0)) for fine, n in total.items()}
    test = set()
    for group, classes in groups.items():
        nearer = sum(abs(missing[fine]) - abs(missing[fine] - n) for fine, n in classes.items())
        if nearer > 0:
            test.add(group)
            for fine, n in classes.items():
                missing[fine] -= n
    return test


def _give_every_class_both_sides(groups: dict[str, Counter[str]], test: set[str]) -> None:
    """Move the smallest group of a class that is on one side only, unless another class would lose a side."""
    homes: dict[str, list[str]] = defaultdict(list)
    for group, classes in groups.items():
        for fine in classes:
            homes[fine].append(group)

    def beside(group: str, fine: str) -> int:
        """How many groups of the class are on the side of this group, itself counted."""
        return sum((home in test) == (group in test) for home in homes[fine])

    for fine in sorted(homes):
        if len(homes[fine]) < 2 or beside(homes[fine][0], fine) < len(homes[fine]):
            continue
        movable = [
            group for group in homes[fine] if all(beside(group, c) > 1 for c in groups[group] if c != fine)
        ]
        if movable:
            test ^= {min(movable, key=lambda group: groups[group].total())}


def exclude_thin_classes(rows: Sequence[ImageRow]) -> tuple[list[ImageRow], dict[str, str]]:
    """Set aside the fine classes that cannot be both trained on and tested.

    Returns
    -------
    rows : list of ImageRow
        Those of such classes with the split `excluded`.
    excluded : dict
        From the class to the reason.
    """
    classes: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        classes[row.fine].append(row)
    reasons = {fine: _why_thin(classes[fine]) for fine in sorted(classes)}
    excluded = {fine: reason for fine, reason in reasons.items() if reason}
    return [row._replace(split="excluded") if row.fine in excluded else row for row in rows], excluded


def _why_thin(images: list[ImageRow]) -> str:
    """Say why the images of one class are too few; an empty string where they are not."""
    readable = [row for row in images if row.readable]
    if len(readable) < 2:
        return f"{'a single' if readable else 'no'} readable image"
    if len({row.group for row in readable}) == 1:
        return f"its {len(readable)} images are one group"
    for split, purpose in (("train", "train on"), ("test", "test on")):
        if all(row.split != split for row in readable):
            return f"no image to {purpose}"
    return ""


def limit_classes(rows: Sequence[ImageRow], limit: int, *, seed: int) -> list[ImageRow]:
    """Keep at most `limit` images of each class in each split, in the order given.

    Readable images come first, chosen by a seeded hash of their id.
    """

    def preference(place: int) -> tuple[bool, str, str]:
        row = rows[place]
        return not row.readable, _rank(row.id, seed), row.source

    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for place in sorted(range(len(rows)), key=preference):
        where = rows[place].fine, rows[place].split
        taken[where] += 1
        if taken[where] <= limit:
            kept.append(place)
    return [rows[place] for place in sorted(kept)]


def leaks(rows: Sequence[ImageRow]) -> list[str]:
    """One line for exact duplicates that lie in more than one split, and one for groups that do."""
    used = [row for row in rows if row.split != "excluded"]
    lines = [_straddling("exact duplicates", [(row.id, row) for row in used])]
    if any(row.group != row.id for row in used):
        lines.append(_straddling("groups", [(row.group, row) for row in used]))
    return [line for line in lines if line]


def _straddling(what: str, keyed: list[tuple[str, ImageRow]]) -> str:
    first: dict[str, ImageRow] = {}
    pairs: dict[str, tuple[ImageRow, ImageRow]] = {}
    for key, row in keyed:
        seen = first.setdefault(key, row)
        if seen.split != row.split:
            pairs.setdefault(key, (seen, row))
    if not pairs:
        return ""
    one, other = next(iter(pairs.values()))
    return (
        f"{what} in more than one split ({len(pairs)}), such as {one.source} ({one.split}) "
        f"and {other.source} ({other.split})"
    )


def _rank(name: str, seed: int) -> str:
    return blake2b(f"{seed}:{name}".encode(), digest_size=16).hexdigest()
