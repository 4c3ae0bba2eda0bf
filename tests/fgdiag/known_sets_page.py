"""Write `docs/image-sets.md` from the facts: `python tests/fgdiag/known_sets_page.py`."""

from pathlib import Path

from fgdiag.known_sets import KNOWN_SETS, KnownSet

PAGE = Path(__file__).parents[2] / "docs/image-sets.md"

_HEAD = """\
# Image sets by name

Wherever fgdiag takes images, it takes the name of one of these published sets:

```
fgdiag diagnose llava-hf/llava-1.5-7b-hf flowers-102 -o runs/flowers
fgdiag diagnose llava-hf/llava-1.5-7b-hf flowers-102:/data/flowers -o runs/flowers
```

```python
images = fgdiag.open_images("flowers-102:/data/flowers")
images.synonyms["sword lily"]  # ("gladiolus",)
```

- **The name alone** loads the copy on the hub of Hugging Face datasets (`pip install 'fgdiag[datasets]'`), or takes
  the images that an installed package brings along.
- **The name, a colon and a folder** reads a copy of your own: the folder as the authors publish it, or one that
  `save_to_disk` wrote of the copy on the hub. Both give the same labels.
- A folder or file of your own that has the name of a set comes first; `./flowers-102` and `flowers-102:` leave no
  doubt.

Published splits are kept. Where test labels are not public, val is used as test; where there is no split, one is made
from the content of the images, with what must stay together on one side. Labels are names to ask a model about, and a
hyphen that belongs to a name stays. Synonyms come from the files (ImageNet, iNaturalist, Cars, Aircraft) or are kept
in fgdiag, written by hand and not complete; one that two classes of a set would share is left out.
`ImageSet.synonyms` has both, `facts(NAME).synonyms` (from `fgdiag.known_sets`) what is kept in fgdiag: from the label
of a class to its further names.

What this page says of splits, sizes and licences is what the authors publish; it is no legal advice. The copies on
the hub are other people's. Their ids and columns are those of their public descriptions; fgdiag's tests read folders
with the same columns, not the copies themselves. Where a copy has other columns by now, one line says which are
missing; then give a folder.

This page is written from `fgdiag/known_sets` and checked by a test. `fgdiag sets` prints the same.
"""


def page() -> str:
    """Return the whole page."""
    table = [
        "| name | classes | images | splits | coarse classes | by name alone | licence |",
        "|---|---|---|---|---|---|---|",
        *(_row(known) for known in KNOWN_SETS.values()),
    ]
    return "\n".join([_HEAD, *table, "", *(_section(known) for known in KNOWN_SETS.values())])


def _row(known: KnownSet) -> str:
    alone = "hub" if known.hub else "package" if known.package else "no"
    cells = (
        f"[{known.name}](#{known.name})",
        f"{known.classes:,}",
        f"{known.images:,}",
        ", ".join(known.splits) or "made",
        known.coarse or "none",
        alone,
        known.licence,
    )
    return f"| {' | '.join(cells)} |"


def _section(known: KnownSet) -> str:
    return "\n".join(
        [f"## {known.name}", "", *(f"- **{what}**: {_plain(text)}" for what, text in known.lines()), ""]
    )


def _plain(text: str) -> str:
    """Keep Markdown from reading `<class>/*.jpg` as markup."""
    return text.replace("<", "\\<").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
