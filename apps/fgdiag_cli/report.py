"""The report of a run: one HTML file that needs nothing else."""

import base64
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from fgdiag_probes import Answers, confused_pairs
from fgdiag_probes.cards import data_card, facts_line, model_card, typed_command
from fgdiag_probes.closer_look import folds
from fgdiag_probes.confusion_matrix import confusion_matrix, side_by_side
from fgdiag_probes.depths import sites_of
from fgdiag_probes.linear import fits_in_words
from fgdiag_probes.said_folds import said_folds
from fgdiag_probes.separability import PICKED_NOTE, pair_curves
from fgdiag_probes.similarity import class_order
from fgdiag_probes.stability import deal_anew
from fgdiag_probes.style import LEVEL_WORDS, minus, percent
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import fgdiag
from fgdiag.errors import RunIncomplete
from fgdiag.prompts import spoken
from fgdiag.store import write_bytes

if TYPE_CHECKING:
    from fgdiag_probes import ConfusedPairs, LayerCurves, LossBudget
    from fgdiag_probes.evidence import Evidence
    from fgdiag_probes.separability import PairCurves

    from fgdiag.store import Run

PAIRS, EXAMPLES = 6, 3
"""Confused pairs shown with pictures, and pictures of each class."""

DEMO_NOTE = (
    "The demo VLM joins DINOv2-small and SmolLM2-135M-Instruct, both frozen, by a projector. The projector was "
    "trained on drawings of the species of the field guide, other drawings than those of `fgdiag demo`, and on "
    "the training photographs of the Grocery Store Dataset. Other class names it has never learnt to say."
)


@dataclass(frozen=True)
class Pair:
    """Two classes taken for one another, with pictures as data URIs."""

    truth: str
    said: str
    kind: str
    counts: str
    mistaken: list[str]
    others: list[str]


def write_report(run: "Run", curves: "LayerCurves", evidence: "Evidence", budget: "LossBudget") -> Path:
    """Write `report.html` into the run: the verdict, what it rests on, and how to get it again.

    The file works offline and holds its own scripts and pictures.

    Parameters
    ----------
    run
        An extracted run.
    curves, evidence, budget
        What `probe_layers`, `gather` and `loss_budget` found in it.

    Raises
    ------
    NoSpace
        The report cannot be written.
    """
    seed = run.manifest["seed"]
    pairs, followed = confused_pairs(run, seed=seed), pair_curves(run, seed=seed)
    stability = deal_anew(run, curves, seed=seed)
    page = _template().render(
        title=run.path.name,
        verdict=budget.verdict,
        heading=budget.heading,
        sentence=budget.verdict.sentence.replace(" %", "\N{NO-BREAK SPACE}%"),
        plotly=Markup(get_plotlyjs()),
        facts=facts_line(run, curves.labels),
        curve=_spec(curves.figure(), height=400),
        other_curves=[
            (LEVEL_WORDS[level], _spec(curves.figure(level).update_layout(showlegend=False), height=300))
            for level in curves.labels.levels[1:]
        ],
        finest=LEVEL_WORDS[curves.labels.levels[0]],
        budget=_spec(budget.figure()),
        drops=_drops(budget),
        folds=[*folds(curves, evidence, stability, _answers(run)), *said_folds(run)],
        confusion=_spec(pairs.figure(), height=None) if len(pairs.table) else None,
        pairs=_pairs(run, pairs),
        ranked_by=pairs.ranked_by,
        matrices=_spec(_matrices(run, curves, seed), height=None, top=40),
        followed=_followed(run, followed),
        followed_note=PICKED_NOTE,
        pair_curves=_spec(followed.figure(), height=None, top=56),
        controls=_controls(curves, budget, evidence),
        model=model_card(run),
        data=data_card(run, curves.labels),
        note=DEMO_NOTE if run.manifest["model"] == "demo" else None,
        commands=[f"pip install fgdiag=={fgdiag.__version__}", typed_command(run)],
        made=f"fgdiag {fgdiag.__version__}, {datetime.now():%Y-%m-%d %H:%M}",
    )
    path = run.path / "report.html"
    write_bytes(path, page.encode())
    return path


def _template() -> Any:
    loader = PackageLoader("fgdiag_cli")
    room = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return room.get_template("report.html.jinja")


def _spec(figure: go.Figure, *, height: int | None = 380, top: int = 12) -> Markup:
    """A figure as JSON that may stand in a page, which draws it and says its title."""
    figure.update_layout(title_text=None, margin_t=top)
    if height:
        figure.update_layout(height=height)
    return Markup(str(figure.to_json()).replace("<", "\\u003c"))


def _drops(budget: "LossBudget") -> list[dict[str, Any]]:
    """Rows of the table of losses, a word for each level."""
    return [
        {
            "level": LEVEL_WORDS[row["level"]],
            "step": f"{row['from']} → {row['to']}",
            "stage": row["stage"],
            "drop": minus(f"{row['drop']:+.1f}"),
            "interval": minus(f"{row['low']:.1f} to {row['high']:.1f}"),
            "network": minus(f"{row['drop_nonlinear']:+.1f}"),
            "network_interval": minus(f"{row['low_nonlinear']:.1f} to {row['high_nonlinear']:.1f}"),
            "bits": minus(f"{row['drop_bits']:+.2f}"),
            "word": _word(row),
            "significant": row["significant"] and not row["made_good"],
        }
        for row in budget.drops.to_dict("records")
    ]


def _word(drop: dict[str, Any]) -> str:
    if not drop["significant"]:
        return "within chance"
    if drop["made_good"]:
        return "loss, made good later"
    return "loss" if drop["lost"] else "harder to read"


def _pairs(run: "Run", found: "ConfusedPairs") -> list[Pair]:
    """The pairs most confused, with pictures of the images mistaken and of the class they were taken for."""
    return [_pair(run, row, found.ranked_by) for row in found.table.head(PAIRS).to_dict("records")]


def _pair(run: "Run", row: dict[str, Any], ranked_by: str) -> Pair:
    images = run.images
    others = images.index[(images["fine"] == row["said"]) & (images["split"] == "test")]
    kind = spoken(row["coarse"]) if row["coarse"] != row["truth"] else ""
    return Pair(
        truth=spoken(row["truth"]),
        said=spoken(row["said"]),
        kind=kind,
        counts=f"{row[ranked_by]} of {row['images']}",
        mistaken=_pictures(run, row["rows"]),
        others=_pictures(run, others),
    )


def _matrices(run: "Run", curves: "LayerCurves", seed: int) -> go.Figure:
    """What is named for what at the encoder, and in the answer or else at the last layer."""
    depths, answered = list(sites_of(curves)), run.result_path("answers.parquet").exists()
    ends = dict.fromkeys([depths[0], "answer" if answered else depths[-1]])
    order = class_order(run, curves)
    return side_by_side(*(confusion_matrix(run, at=at, order=order, seed=seed) for at in ends))


def _followed(run: "Run", found: "PairCurves") -> list[dict[str, Any]]:
    """Pairs followed through the model, with pictures of both classes."""
    images = run.images[run.images["split"] == "test"]
    return [
        {
            "names": [spoken(row[end]) for end in ("first", "second")],
            "sentence": row["sentence"],
            "marks": row["marks"],
            "pictures": [
                _pictures(run, images.index[images["fine"] == row[end]]) for end in ("first", "second")
            ],
        }
        for row in found.places.to_dict("records")
    ]


def _pictures(run: "Run", rows: Any) -> list[str]:
    pictures = []
    for row in rows:
        if len(pictures) == EXAMPLES:
            break
        try:
            pictures.append(_data_uri(run.thumbnail(int(row))))
        except RunIncomplete:
            continue
    return pictures


def _data_uri(picture: Any) -> str:
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _answers(run: "Run") -> Answers | None:
    answered = run.result_path("answers.parquet").exists()
    return Answers(run.read_table("answers")) if answered else None


def _controls(curves: "LayerCurves", budget: "LossBudget", evidence: "Evidence") -> list[tuple[str, str]]:
    lines = [
        ("Tokens before the image", curves.control.sentence),
        ("Shuffled labels", evidence.shuffled.sentence),
    ]
    for row in budget.depths.to_dict("records"):
        if row["depth"] == "pixels":
            lines.append(
                (
                    f"Raw pixels, {LEVEL_WORDS[row['level']]}",
                    f"A probe on the image shrunk to 16 × 16 names {percent(row['accuracy'])} right (95 % "
                    f"interval {100 * row['low']:.0f} to {100 * row['high']:.0f}; chance "
                    f"{percent(row['chance'])}).",
                )
            )
    lines.append(("Fits", fits_in_words(curves.table)))
    return lines
