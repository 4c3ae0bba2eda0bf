"""What is known of one published image set, and how its copies are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgdiag.image_dataset import Columns
from fgdiag.listing import Listed, Listing

GHOSH = "Ghosh, Zhang and Schmidt (arXiv 2602.17871)"
ZHANG = "Zhang et al. (NeurIPS 2024, arXiv 2405.18415)"
CHANDHOK = "Chandhok et al. (ACL 2025, arXiv 2507.10442)"


@dataclass(frozen=True)
class HubCopy:
    """A copy of the set on the hub of Hugging Face datasets."""

    id: str
    """`owner/name` or `owner/name:config`."""
    columns: Columns
    splits: bool = True
    """False where the splits of the copy are not to be used; then one is made, see `fgdiag.splits`."""
    note: str = ""


@dataclass(frozen=True)
class KnownSet:
    """Facts of one published set, and the way from its files to labelled images.

    A reader returns the labels as the files give them. `clean` turns them into names to ask a model about, and is
    the same for every copy, so that a run on one copy can be compared with a run on another.
    """

    name: str
    """What `open_images` takes."""
    title: str
    paper: str
    homepage: str
    licence: str
    splits: Mapping[str, int]
    """Images of each labelled split as published; empty where there is none and one is made."""
    classes: int
    images: int
    """Labelled images."""
    class_names: str
    """Where the names of the classes are taken from, and how they are cleaned."""
    coarse: str
    """What the coarse classes are; empty where the set has none."""
    coarse_source: str
    """Where the coarse classes are taken from, or why there are none."""
    layout: str
    """Files of the original folder."""
    read: Callable[[Path], Listing]
    """From the original folder to a listing with the labels of the files."""
    clean: Callable[[Listed], Listed] = lambda image: image
    """Give one image the names to ask about, and its coarse class."""
    also_called: Callable[[str], tuple[str, ...]] = lambda label: ()
    """Further names of a class that its label in the files holds."""
    hub: HubCopy | None = None
    package: str = ""
    """Python package that brings the original folder along, as `module/folder`."""
    group: str = ""
    """Which images must stay on one side of a split."""
    note: str = ""
    """What to know before a number is believed."""
    used_by: tuple[str, ...] = ()
    """Papers on what vision-language models know of fine detail that use the set."""
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """From a class name to further names, where the files do not hold them."""

    def lines(self) -> list[tuple[str, str]]:
        """Return the facts as a reader wants them: what, and the text."""
        splits = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
        hub = f"{self.hub.id}{f' ({self.hub.note})' if self.hub.note else ''}" if self.hub else ""
        known = [
            ("set", f"{self.title}: {self.images:,} images of {self.classes:,} classes"),
            ("paper", self.paper),
            ("homepage", self.homepage),
            ("licence", self.licence),
            ("splits", splits or "none published; one is made (`--test-share`, `--seed`)"),
            ("class names", self.class_names),
            ("coarse classes", f"{self.coarse or 'none'}; {self.coarse_source}"),
            ("kept on one side", self.group),
            ("synonyms", f"of {len(self.synonyms)} classes" if self.synonyms else ""),
            ("by name alone", hub or self.package.partition("/")[0] or "no; give the folder"),
            ("folder", self.layout),
            ("used by", "; ".join(self.used_by)),
            ("mind", self.note),
        ]
        return [(what, text) for what, text in known if text]

    def json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        facts = (
            "name",
            "title",
            "paper",
            "homepage",
            "licence",
            "classes",
            "images",
            "class_names",
            "coarse",
        )
        more = ("coarse_source", "layout", "group", "note")
        return {
            **{fact: getattr(self, fact) for fact in (*facts, *more)},
            "splits": dict(self.splits),
            "hub": self.hub.id if self.hub else None,
            "hub_note": self.hub.note if self.hub else "",
            "package": self.package.partition("/")[0] or None,
            "used_by": list(self.used_by),
            "synonyms": {name: list(others) for name, others in self.synonyms.items()},
        }
