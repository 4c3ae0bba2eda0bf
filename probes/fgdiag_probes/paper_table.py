"""A comparison as a table to paste into a paper: markdown, LaTeX or CSV."""

from typing import Literal

import pandas as pd

from fgdiag_probes.compare import Comparison
from fgdiag_probes.style import LEVEL_WORDS, minus

Format = Literal["markdown", "latex", "csv"]

LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"*": "$^{*}$", minus("-"): "$-$"}
)
HEADS = {
    "vision": "vision encoder",
    "projector": "projector",
    "best llm layer": "best LLM layer",
    "last llm layer": "last LLM layer",
    "answer": "answer",
}
CAPTION = (
    "Accuracy in per cent on {images} test images; below, the difference from {first} in points on the same images. "
    "95 % intervals clustered by class; * significant after Holm's correction over the depths."
)


def paper_table(found: Comparison, style: Format) -> str:
    """Write a comparison out.

    Parameters
    ----------
    style
        `markdown` and `latex` (with booktabs) have a column a depth, a row a run and one a difference; `csv` has a
        row a run and depth, as numbers.
    """
    if style == "csv":
        return numbers(found).to_csv(index=False)
    return _markdown(found) if style == "markdown" else _latex(found)


def numbers(found: Comparison) -> pd.DataFrame:
    """Return a row a level, run and depth: accuracy in [0, 1], and the difference from the first run in points."""
    apart = found.differences.drop(columns=["first", "images"]).rename(
        columns={"low": "difference_low", "high": "difference_high"}
    )
    return found.depths.merge(apart, how="left", on=["level", "run", "depth"])


def _markdown(found: Comparison) -> str:
    cells = _cells(found)
    heads = [str(name) for name in cells]
    lines = [heads, ["---"] * 2 + ["--:"] * (len(heads) - 2), *cells.to_numpy(str).tolist()]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", _caption(found)])


def _latex(found: Comparison) -> str:
    cells = _cells(found).map(_escaped)
    cells.columns = [_escaped(str(name)) for name in cells]
    return cells.to_latex(
        index=False,
        column_format="ll" + "r" * (cells.shape[1] - 2),
        caption=_escaped(_caption(found)),
        label="tab:fgdiag",
    ).rstrip()


def _cells(found: Comparison) -> pd.DataFrame:
    """A row a level and run, and one a difference from the first run; a column a depth."""
    rows = []
    for level in found.levels:
        depths = found.depths.loc[found.depths["level"] == level]
        apart = found.differences.loc[found.differences["level"] == level]
        for run in dict.fromkeys(depths["run"]):
            of = depths.loc[depths["run"] == run].to_dict("records")
            rows.append(
                {
                    "classes": LEVEL_WORDS[level],
                    "run": run,
                    **{
                        HEADS[row["depth"]]: f"{100 * row['accuracy']:.1f} "
                        f"({100 * row['low']:.0f} to {100 * row['high']:.0f})"
                        for row in of
                    },
                }
            )
            changes = {
                HEADS[row["depth"]]: minus(
                    f"{row['difference']:+.1f}{'*' if row['significant'] else ''} "
                    f"({row['low']:+.1f} to {row['high']:+.1f})"
                )
                for row in apart.loc[apart["run"] == run].to_dict("records")
            }
            if changes:
                first = found.runs["run"].iloc[0]
                rows.append({"classes": LEVEL_WORDS[level], "run": f"{run} {minus('-')} {first}", **changes})
    return pd.DataFrame(rows)


def _caption(found: Comparison) -> str:
    return CAPTION.format(images=f"{found.images:,}", first=found.runs["run"].iloc[0])


def _escaped(text: str) -> str:
    return text.translate(LATEX)
