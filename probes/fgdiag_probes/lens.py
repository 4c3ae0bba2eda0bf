"""What image tokens mean in words, layer by layer: the logit lens, and the nearest word vector.

The logit lens puts the model's own final norm and head on the residual stream behind every block (nostalgebraist 2020,
"interpreting GPT: the logit lens"; for image tokens Neo et al. 2024, arXiv 2410.07149). The nearest word vector is the
input embedding with the largest cosine. Neither was trained, so a word that does not show may still be there.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fgdiag.anatomy import SiteSpec
from fgdiag.errors import ImageUnreadable, ModelNotSupported, RunIncomplete
from fgdiag.progress import say, track
from fgdiag.prompts import FINE_QUESTION, spoken
from fgdiag.store import RESULTS, Run
from fgdiag_probes.labels import Labels
from fgdiag_probes.layout import token_layout
from fgdiag_probes.sampled import sampled
from fgdiag_probes.substitution import hooked
from fgdiag_probes.token_boxes import boxes_of
from fgdiag_probes.token_lens import TokenLens, TokenLenses
from fgdiag_probes.word_reader import TOP, WordReader

if TYPE_CHECKING:
    from fgdiag.images import ImageSet
    from fgdiag.vlm import VLM

FORMAT = 1
"""Changes whenever the same picture would be read otherwise."""
SHOWN_SIDE = 320
"""Longest side in pixels of the picture kept with a lens."""


@torch.inference_mode()
def image_lens(
    vlm: "VLM",
    image: Image.Image,
    names: Sequence[str],
    *,
    among: Sequence[Sequence[str]] = (),
    question: str = FINE_QUESTION,
) -> TokenLens:
    """Read the image tokens of one picture as words, at every layer.

    Parameters
    ----------
    vlm
        The opened model.
    image
        RGB.
    names
        The picture's class names as they are spoken, the fine one first.
    among
        For each name, all class names of its level; by default `names` alone.
    question
        What is asked about the picture.

    Raises
    ------
    ModelNotSupported
        The language model's sequence holds no image tokens, it decodes in a second stack, or each token looks at the
        whole picture.
    """
    inputs = vlm.inputs([image], vlm.chat(question))
    where = vlm.spans(inputs).image
    _check_readable(vlm, where)
    boxes, grid = boxes_of(token_layout(vlm, image.size, "projector"))
    reader = WordReader.of(vlm, names, among or [[name] for name in names])
    specs, seen = _sites(vlm), {}

    def look(name: str, hidden: Tensor) -> Tensor:
        seen[name] = reader.read(hidden[where.to(hidden.device)])
        return hidden

    with ExitStack() as stack:
        for spec in specs:
            module = vlm.model.get_submodule(spec.path)
            stack.enter_context(hooked(module, spec, partial(look, str(spec.site))))
        vlm.forward(inputs)
    layers = [seen[str(spec.site)] for spec in specs]
    shown = image.convert("RGB")
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return TokenLens(
        sites=tuple(str(spec.site) for spec in specs),
        names=tuple(names),
        words=np.stack([one["words"] for one in layers], 1),
        scores=np.stack([one["scores"] for one in layers], 1),
        ranks=np.stack([one["ranks"] for one in layers], 1),
        ranks_among=np.stack([one["ranks_among"] for one in layers], 1),
        vocabulary=reader.vocabulary,
        among=tuple(len(one) for one in reader.rivals),
        spellings=tuple(tuple(reader.word(token) for token in one) for one in reader.own),
        boxes=boxes,
        grid=grid,
        picture=np.asarray(shown),
    )


def token_lenses(
    run: Run,
    vlm: "VLM",
    images: "ImageSet",
    *,
    count: int = 12,
    rows: Sequence[int] | None = None,
    seed: int = 0,
) -> TokenLenses:
    """Read the image tokens of some images of a run as words; each image is kept in `results/lens/` at once.

    Of a draw the medians are written to `results/lens.json`, too.

    Parameters
    ----------
    run, vlm, images
        A run, its model and its images.
    count
        Test images, drawn evenly over the fine classes.
    rows
        Rows of the run instead.
    seed
        Of the draw.

    Raises
    ------
    ModelNotSupported
        As `image_lens`.
    RunIncomplete
        The run has no readable image in one of the rows.
    """
    labels = Labels.of(run, seed=run.manifest.get("seed", 0))
    asked = sampled(labels, count, seed).tolist() if rows is None else _readable(run, rows)
    make = LensMaker.of(run, vlm, images, labels)
    kept = {row: make.kept(row) for row in asked}
    missing = [row for row, found in kept.items() if found is None]
    done = len(kept) - len(missing)
    for row in track(missing, description="reading tokens as words", total=len(kept), done=done):
        try:
            kept[row] = make.make(row)
        except ImageUnreadable as error:
            say(f"image {row} is left out: {error}")
    found = TokenLenses(tuple(one for one in kept.values() if one is not None))
    if not found.lenses:
        raise RunIncomplete(
            f"None of the images asked for can be read any more; are they still in {images.source}?"
        )
    if rows is None:
        run.write_json("lens", found.json())
    return found


def kept_lens(run: Run, row: int) -> TokenLens | None:
    """Return what `token_lenses` has kept of one image, the latest where there are several; None where nothing is."""
    found = (run.path / RESULTS / "lens").glob(f"{row:07d}.*.npz")
    latest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return latest and TokenLens.read(latest)


@dataclass(frozen=True)
class LensMaker:
    """Reads images of a run as words, or reads back what was kept."""

    run: Run
    vlm: "VLM"
    images: "ImageSet"
    labels: Labels

    @classmethod
    def of(cls, run: Run, vlm: "VLM", images: "ImageSet", labels: Labels | None = None) -> "LensMaker":
        """Take the labels from the run."""
        return cls(run, vlm, images, labels or Labels.of(run, seed=run.manifest.get("seed", 0)))

    def kept(self, row: int) -> TokenLens | None:
        """Read a lens back; None where it has not been made."""
        return TokenLens.read(self._path(row), self._key)

    def make(self, row: int) -> TokenLens:
        """Make a lens and keep it; `ImageUnreadable` where the image is gone."""
        labels = self.labels
        fine, coarse = (str(self.run.images[column].iloc[row]) for column in ("fine", "coarse"))
        levels = [(fine, labels.fine_names), (coarse, labels.coarse_names)][: 1 + ("coarse" in labels.levels)]
        found = image_lens(
            self.vlm,
            self.images.open(row),
            [spoken(name) for name, _ in levels],
            among=[[spoken(str(name)) for name in names] for _, names in levels],
            question=self.run.manifest["prompt"],
        )
        found = replace(found, row=row, fine=fine, coarse=coarse)
        found.save(self._path(row), self._key)
        return found

    @property
    def _key(self) -> str:
        names = [*self.labels.fine_names.tolist(), *self.labels.coarse_names.tolist()]
        made_of = [
            FORMAT,
            TOP,
            self.run.manifest["fingerprint"],
            str(self.vlm.dtype),
            self.run.manifest["prompt"],
            names,
        ]
        return blake2b(json.dumps(made_of).encode(), digest_size=8).hexdigest()

    def _path(self, row: int) -> Path:
        return self.run.result_path(f"lens/{row:07d}.{self._key}.npz")


def _readable(run: Run, rows: Sequence[int]) -> list[int]:
    status = run.images["status"].to_numpy()
    for row in rows:
        if not 0 <= row < len(status) or status[row] != "ok":
            why = status[row] if 0 <= row < len(status) else f"it has rows 0 to {len(status) - 1}"
            raise RunIncomplete(f"The run {run.path} has no readable image {row}: {why}.")
    return list(dict.fromkeys(rows))


def _check_readable(vlm: "VLM", where: Tensor) -> None:
    if getattr(vlm.model.config.get_text_config(), "is_encoder_decoder", False):
        raise ModelNotSupported(
            f"The image tokens of {vlm.name} are in an encoder, and its head only reads its decoder: there is no token "
            "lens for encoder-decoder models."
        )
    if not where.any():
        raise ModelNotSupported(
            f"The language model of {vlm.name} holds no image tokens, it looks at the image by cross-attention: there "
            "is nothing to read as words."
        )


def _sites(vlm: "VLM") -> list[SiteSpec]:
    """What enters the language model, and the residual stream behind every block."""
    entry = [spec for spec in vlm.anatomy.sites if spec.site.part == "projector" and spec.reads == "input"]
    blocks = [spec for spec in vlm.anatomy.sites if spec.site.part == "llm" and str(spec.site) != "llm.norm"]
    return [*entry, *blocks]
