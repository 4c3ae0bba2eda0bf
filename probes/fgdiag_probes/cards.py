"""What a run was made of, a line each: the model, the images, and the command that was typed."""

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fgdiag.errors import RunIncomplete
from fgdiag_probes.style import quantity

if TYPE_CHECKING:
    from fgdiag.store import Run
    from fgdiag_probes.labels import Labels


def facts_line(run: "Run", labels: "Labels") -> str:
    """Say in a line what was run on what."""
    kinds = f" in {len(labels.coarse_names)} kinds" if "coarse" in labels.levels else ""
    return (
        f"{run.manifest['model']} on {run.manifest['images']['name']}: {len(labels.fine_names)} classes{kinds}, "
        f"{len(labels.train):,} training and {len(labels.test):,} test images"
    )


def model_card(run: "Run") -> list[tuple[str, str]]:
    """Return what was run: the model, its parts, the question, the sites."""
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


def data_card(run: "Run", labels: "Labels") -> list[tuple[str, str]]:
    """Return what it was shown: images, splits, classes, and what was left out."""
    images, manifest = run.images, run.manifest["images"]
    counts = images["split"].value_counts().to_dict()
    splits = ", ".join(f"{name} {counts[name]:,}" for name in ("train", "val", "test") if name in counts)
    unread = images.loc[images["status"] != "ok", "status"].tolist()
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


def typed_command(run: "Run") -> str:
    """The command that recorded a run, as it was typed; rebuilt from the manifest where that is not known."""
    try:
        return run.read_json("command")["command"]
    except RunIncomplete:
        manifest = run.manifest
        words = [manifest["model"], manifest["images"]["name"], "-o", str(run.path)]
        return shlex.join(["fgdiag", "diagnose", *words, "--prompt", manifest["prompt"]])


def _range(classes: np.ndarray) -> str:
    sizes = Counter(classes.tolist()).values()
    least, most = min(sizes), max(sizes)
    return f"{least}" if least == most else f"{least} to {most}"


def _told(lines: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in lines if value is not None]
