"""The report of a run: one HTML file that needs nothing else."""

import base64
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from fgdiag_probes import confused_pairs, loss_budget, probe_layers
from fgdiag_probes.linear import fits_in_words
from fgdiag_probes.style import LEVEL_WORDS, percent
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import fgdiag
from fgdiag.errors import RunIncomplete
from fgdiag.prompts import spoken
from fgdiag.store import write_bytes
from fgdiag_cli.screen import quantity

if TYPE_CHECKING:
    from fgdiag_probes import ConfusedPairs, LayerCurves, LossBudget

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


def write_report(run: "Run") -> Path:
    """Write `report.html` into the run: the verdict, what it rests on, and how to get it again.

    What has not been probed yet is probed. The file works offline and holds its own scripts and pictures.

    Raises
    ------
    ControlFailed
        See `fgdiag_probes.probe_layers`.
    NoSpace
        The report cannot be written.
    """
    curves, budget, pairs = probe_layers(run), loss_budget(run), confused_pairs(run)
    page = _template().render(
        title=run.path.name,
        verdict=budget.verdict,
        sentence=budget.verdict.sentence.replace(" %", "\N{NO-BREAK SPACE}%"),
        plotly=Markup(get_plotlyjs()),
        facts=_facts(run, curves),
        curve=_spec(curves.figure(), height=400),
        other_curves=[
            (LEVEL_WORDS[level], _spec(curves.figure(level), height=340))
            for level in curves.labels.levels[1:]
        ],
        finest=LEVEL_WORDS[curves.labels.levels[0]],
        budget=_spec(budget.figure()),
        drops=_drops(budget),
        confusion=_spec(pairs.figure(), height=None) if len(pairs.table) else None,
        pairs=_pairs(run, pairs),
        ranked_by=pairs.ranked_by,
        controls=_controls(curves, budget),
        model=_model_card(run),
        data=_data_card(run, curves),
        note=DEMO_NOTE if run.manifest["model"] == "demo" else None,
        commands=_commands(run),
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


def _spec(figure: go.Figure, *, height: int | None = 380) -> Markup:
    """A figure as JSON that may stand in a page, which draws it and says its title."""
    figure.update_layout(title_text=None, margin_t=12)
    if height:
        figure.update_layout(height=height)
    return Markup(str(figure.to_json()).replace("<", "\\u003c"))


def _facts(run: "Run", curves: "LayerCurves") -> str:
    images, labels = run.manifest["images"], curves.labels
    kinds = f" in {len(labels.coarse_names)} kinds" if "coarse" in labels.levels else ""
    return (
        f"{run.manifest['model']} on {images['name']}: {len(labels.fine_names)} classes{kinds}, "
        f"{len(labels.train):,} training and {len(labels.test):,} test images"
    )


def _drops(budget: "LossBudget") -> list[dict[str, Any]]:
    """Rows of the table of losses, a word for each level."""
    return [
        {
            "level": LEVEL_WORDS[row["level"]],
            "step": f"{row['from']} → {row['to']}",
            "stage": row["stage"],
            "drop": f"{row['drop']:+.1f}".replace("-", "−"),
            "interval": f"{row['low']:.1f} to {row['high']:.1f}".replace("-", "−"),
            "bits": f"{row['drop_bits']:+.2f}".replace("-", "−"),
            "word": _word(row),
            "significant": row["significant"] and not row["made_good"],
        }
        for row in budget.drops.to_dict("records")
    ]


def _word(drop: dict[str, Any]) -> str:
    if not drop["significant"]:
        return "within chance"
    return "loss, made good later" if drop["made_good"] else "loss"


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


def _controls(curves: "LayerCurves", budget: "LossBudget") -> list[tuple[str, str]]:
    lines = [("Tokens before the image", curves.control.sentence)]
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


def _model_card(run: "Run") -> list[tuple[str, str]]:
    manifest = run.manifest
    parts = [
        (name.capitalize(), f"{quantity(part['parameters'], '')} parameters, {quantity(part['bytes'], 'B')}")
        for name, part in manifest.get("parts", {}).items()
    ]
    return _told(
        [
            ("Model", manifest["model"]),
            ("Architecture", manifest.get("model_type")),
            ("Revision", manifest.get("revision")),
            ("Computed in", manifest.get("dtype")),
            *parts,
            ("Question", manifest["prompt"]),
            ("Sites", f"{len(run.sites)}, from {run.sites[0]} to {run.sites[-1]}"),
            ("Fingerprint", manifest.get("fingerprint")),
        ]
    )


def _data_card(run: "Run", curves: "LayerCurves") -> list[tuple[str, str]]:
    images, manifest, labels = run.images, run.manifest["images"], curves.labels
    counts = Counter(images["split"])
    splits = ", ".join(f"{name} {counts[name]:,}" for name in ("train", "val", "test") if counts[name])
    unread = [status for status in images["status"] if status != "ok"]
    reasons = f"{len(unread)}, such as: {unread[0]}" if unread else "none"
    left_out = np.unique(images["fine"].to_numpy(str)[images["split"].to_numpy(str) == "excluded"])
    return _told(
        [
            ("Images", f"{manifest['name']}, {len(images):,}"),
            ("Splits", splits),
            ("Fine classes", len(labels.fine_names)),
            ("Kinds", len(labels.coarse_names) if "coarse" in labels.levels else None),
            ("Training images a class", _range(labels.fine[labels.train])),
            ("Test images a class", _range(labels.fine[labels.test])),
            ("Unreadable", reasons),
            ("Classes left out", ", ".join(left_out) or None),
            ("Digest", manifest.get("digest")),
        ]
    )


def _range(classes: np.ndarray) -> str:
    sizes = Counter(classes.tolist()).values()
    least, most = min(sizes), max(sizes)
    return f"{least}" if least == most else f"{least} to {most}"


def _told(lines: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in lines if value is not None]


def _commands(run: "Run") -> list[str]:
    return [f"pip install fgdiag=={fgdiag.__version__}", typed_command(run)]


def typed_command(run: "Run") -> str:
    """The command that recorded a run, as it was typed; rebuilt from the manifest where that is not known."""
    try:
        return run.read_json("command")["command"]
    except RunIncomplete:
        manifest = run.manifest
        words = [manifest["model"], manifest["images"]["name"], "-o", str(run.path)]
        return shlex.join(["fgdiag", "diagnose", *words, "--prompt", manifest["prompt"]])
