"""What `fgdiag inspect` tells about an opened model, and `fgdiag families` about those that can be opened."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fgdiag_probes.style import quantity

from fgdiag_cli.screen import print_table

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


def describe(vlm: "VLM") -> dict[str, Any]:
    """Return the parts of a model as plain values."""
    anatomy = vlm.anatomy
    return {
        "model": vlm.name,
        "revision": vlm.revision,
        "model_type": anatomy.model_type,
        "family": anatomy.family,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "device": str(vlm.device),
        "sites": [
            {
                "site": str(spec.site),
                "width": spec.width,
                "readouts": list(spec.readouts),
                "path": spec.path,
            }
            for spec in anatomy.sites
        ],
        "parts": {name: asdict(size) for name, size in anatomy.parts.items()},
        "image_token_id": anatomy.image_token_id,
        "image_tokens": anatomy.image_tokens,
    }


def print_anatomy(found: dict[str, Any]) -> None:
    """Print them as tables."""
    print(
        f"{found['model']}: {found['family']} ({found['model_type']}), {found['dtype']} on {found['device']}"
    )
    print_table(
        "Sites",
        ["site", "width", "readouts", "module"],
        [[one["site"], one["width"], ", ".join(one["readouts"]), one["path"]] for one in found["sites"]],
    )
    print_table(
        "Parts",
        ["part", "parameters", "memory"],
        [
            [name, quantity(part["parameters"], ""), quantity(part["bytes"], "B")]
            for name, part in found["parts"].items()
        ],
    )
    print(f"Image tokens: {found['image_tokens'] or 'none in the sequence of the language model'}")


def print_families(rows: Sequence[dict[str, Any]]) -> None:
    """Print the proven families as a table of 80 columns."""
    print_table(
        "Families",
        ["family", "model_type", "sites"],
        [[row["family"], row["model_type"], " ".join(row["sites"])] for row in rows],
    )
    print("Each is proven by a test; `fgdiag families --json` names it.")
