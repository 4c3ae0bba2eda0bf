"""Damage that is known, planted in a real model: what a verdict is tested on.

Beside it stand changes that do no harm (`fgdiag_probes.harmless`); how both are planted is in `fgdiag_probes.planting`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, one_hot
from torch.utils.hooks import RemovableHandle

from fgdiag.hooks import changing_output
from fgdiag.sites import Site
from fgdiag.store import Run
from fgdiag_probes.likelihood import answer_ids
from fgdiag_probes.planting import CannotPlant, Change, Fault, block_of
from fgdiag_probes.verdict import Stage

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


# --- before the language model ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlindedEncoder(Fault):
    """The encoder is shown the image at a `strength` times lower resolution, its class token included."""

    strength: float
    kind: ClassVar[str] = "encoder blinded"
    stage: ClassVar[Stage] = "vision encoder"
    site: ClassVar[str | None] = "vision"

    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:
        def blur(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            pixels = kwargs.get("pixel_values")
            return (args, kwargs if pixels is None else kwargs | {"pixel_values": self._low_pass(pixels)})

        yield vlm.model.base_model.register_forward_pre_hook(blur, with_kwargs=True)

    def _low_pass(self, pixels: Tensor) -> Tensor:
        if pixels.ndim < 4:
            raise CannotPlant(
                f"The encoder takes its pixels as {tuple(pixels.shape)}, expected (images, channels, height, width); "
                "it cannot be blinded here."
            )
        planes = pixels.float().flatten(0, -4)
        height, width = (max(1, round(side / self.strength)) for side in planes.shape[-2:])
        small = interpolate(planes, size=(height, width), mode="area")
        blurred = interpolate(small, size=planes.shape[-2:], mode="bilinear")
        return blurred.view_as(pixels).to(pixels)


@dataclass(frozen=True)
class LowRankProjector(Fault):
    """Only the first principal directions of the image embeddings reach the language model: `strength` of them.

    They are those of `run`'s recorded image embeddings (mean over an image's tokens), so most of what tells images
    apart is kept longest.
    """

    run: Run
    strength: float
    kind: ClassVar[str] = "projector cut to rank"
    stage: ClassVar[Stage] = "projector"
    site: ClassVar[str | None] = "projector"

    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:
        found = [spec for spec in vlm.anatomy.sites if str(spec.site) == "projector"]
        if not found:
            raise CannotPlant(
                f"{vlm.name} injects its image embeddings at several depths, so its projector cannot be cut to a "
                "rank here."
            )
        spec = found[0]
        if spec.reads != "input":
            raise CannotPlant(
                f"{vlm.name} does not give its image embeddings to the LLM as tokens of the sequence, so its projector "
                "cannot be cut to a rank here."
            )
        vectors = torch.from_numpy(_used(self.run, self.run.activations("projector", "image")))
        mean = vectors.mean(0)
        directions = torch.linalg.svd(vectors - mean, full_matrices=False).Vh[: int(self.strength)]
        image_tokens = torch.zeros(0)

        def look(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            nonlocal image_tokens
            image_tokens = kwargs["input_ids"] == vlm.anatomy.image_token_id

        def cut(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            given = kwargs["inputs_embeds"]
            centre, axes = mean.to(given.device), directions.to(given.device)
            kept = centre + (given.float() - centre) @ axes.T @ axes
            of_image = image_tokens.to(given.device)[..., None]
            return args, kwargs | {"inputs_embeds": torch.where(of_image, kept.to(given), given)}

        yield vlm.model.base_model.register_forward_pre_hook(look, with_kwargs=True)
        yield vlm.model.get_submodule(spec.path).register_forward_pre_hook(cut, with_kwargs=True)


# --- in the language model -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoisyLayer(Fault):
    """Gaussian noise on the residual stream after one decoder block, the same for all tokens of an image.

    Its standard deviation is `strength` times that of `run`'s readouts over images, dimension by dimension: the
    layer's root mean square would be ruled by a few huge dimensions that say nothing of the image. It is seeded by
    the pixels of the image, so batches and their order do not matter.
    """

    run: Run
    site: str
    strength: float
    seed: int = 0
    kind: ClassVar[str] = "noise"
    stage: ClassVar[Stage] = "language model"

    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:
        spread = np.sqrt(np.mean([part.var(0) for part in _parts(self.run, self.site)], axis=0))
        scale = torch.from_numpy(self.strength * spread)
        noise = torch.zeros(0)

        def look(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            nonlocal noise
            # Without pixels, names are run behind the cache of the images before: their noise goes on.
            if kwargs.get("pixel_values") is not None:
                noise = scale * self._standard(kwargs["pixel_values"], len(kwargs["input_ids"]), len(scale))

        def add(hidden: Tensor) -> Tensor:
            rows = noise.repeat_interleave(len(hidden) // len(noise), 0)
            return hidden + rows[:, None].to(hidden)

        yield vlm.model.base_model.register_forward_pre_hook(look, with_kwargs=True)
        yield changing_output(block_of(vlm, self.site), add)

    def _standard(self, pixels: Tensor, images: int, width: int) -> Tensor:
        """(images, width) standard normal, from the seed and each image's own pixels."""
        if len(pixels) % images:
            raise CannotPlant(
                f"The model takes {images} images as {len(pixels)} tiles, expected as many for each image; noise "
                "cannot be planted here."
            )
        rows = []
        for own in pixels.unflatten(0, (images, -1)).float().cpu().numpy():
            digest = blake2b(own.tobytes(), digest_size=7, salt=self.seed.to_bytes(8, "little")).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            rows.append(torch.randn(width, generator=generator))
        return torch.stack(rows)


@dataclass(frozen=True)
class ErasedClasses(Fault):
    """The subspace of the fine classes is erased from every token after one decoder block, or from there on.

    LEACE (Belrose et al. 2023, arXiv 2306.03819; `concept-erasure`), fitted to the readouts that `run` recorded.
    An affine map of every token is the same map of their mean, so no linear probe can read the classes of those
    images there. `strength` 1 erases them wholly, less leaves the rest in place.
    """

    run: Run
    site: str
    onwards: bool = True
    """Whether every later recorded block is treated too, so that none can rebuild the classes."""
    strength: float = 1.0
    stage: ClassVar[Stage] = "language model"

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "classes erased from" if self.onwards else "classes erased at"

    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:
        for site in self._sites():
            block = block_of(vlm, site)
            eraser = self._fitted(site, next(block.parameters()).device)

            def erase(hidden: Tensor, eraser: Change = eraser) -> Tensor:
                wide = hidden.float()
                return torch.lerp(wide, eraser(wide), self.strength).to(hidden)

            yield changing_output(block, erase)

    def _sites(self) -> list[str]:
        first = Site.parse(self.site)
        blocks = [site for site in self.run.sites if site.part == "llm" and site.index != "norm"]
        return [str(site) for site in blocks if site == first or (self.onwards and first < site)]

    def _fitted(self, site: str, device: torch.device) -> Change:
        from concept_erasure import LeaceEraser, LeaceFitter

        parts = [torch.from_numpy(part).double() for part in _parts(self.run, site)]
        _, codes = np.unique(_used(self.run, self.run.images["fine"].to_numpy(str)), return_inverse=True)
        classes = one_hot(torch.from_numpy(codes)).double()
        concept = (classes - classes.mean(0)) / classes.std(0)
        # Each readout has columns of its own, and is centred by itself: else a class direction in one could cancel
        # that in the other, and the direction that tells the readouts apart would be erased with the classes.
        columns = torch.block_diag(*[concept] * len(parts))
        centred = torch.cat([part - part.mean(0) for part in parts])
        fitted = LeaceFitter.fit(centred, columns, constrain_cov_trace=False, svd_tol=1e-3).eraser
        tensors = (fitted.proj_left, fitted.proj_right, torch.cat(parts).mean(0))
        return LeaceEraser(*(tensor.to(device, torch.float32) for tensor in tensors))


# --- between the last layer and the answer ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ShuffledNames(Fault):
    """The head mixes up the tokens of fine names, a share `strength` of them; coarse names keep their likelihood.

    Only the logits of tokens that no coarse name has are exchanged, so their sum, and all else, stays.
    """

    fine: tuple[str, ...]
    """Names as they are spoken."""
    coarse: tuple[str, ...] = ()
    strength: float = 1.0
    seed: int = 0
    kind: ClassVar[str] = "fine names shuffled"
    stage: ClassVar[Stage] = "answer"
    site: ClassVar[str | None] = None

    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:
        tokens = sorted(_tokens(vlm, self.fine) - _tokens(vlm, self.coarse))
        count = round(self.strength * len(tokens))
        if count < 2:
            raise CannotPlant(
                f"{len(tokens)} tokens are in fine names and in no coarse name; expected enough to exchange two of a "
                f"share of {self.strength:g}."
            )
        chosen = torch.from_numpy(np.random.default_rng(self.seed).permutation(tokens)[:count])

        def shuffle(logits: Tensor) -> Tensor:
            places = chosen.to(logits.device)
            shuffled = logits.clone()
            shuffled[..., places] = logits[..., places.roll(1)]
            return shuffled

        yield changing_output(_head(vlm), shuffle)


@dataclass(frozen=True)
class BiasedAnswers(Fault):
    """The head favours words of its own choice, whatever it sees: answers fail at every level.

    Each token's logit is raised by a normal number of standard deviation `strength` nats, drawn once.
    """

    strength: float
    seed: int = 0
    kind: ClassVar[str] = "answers biased"
    stage: ClassVar[Stage] = "answer"
    site: ClassVar[str | None] = None

    def _hang(self, vlm: "VLM") -> Iterator[RemovableHandle]:

        def favour(logits: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(self.seed)
            return logits + (self.strength * torch.randn(logits.shape[-1], generator=generator)).to(logits)

        yield changing_output(_head(vlm), favour)


# --- what they need of the model and of the run ----------------------------------------------------------------------


def _head(vlm: "VLM") -> nn.Module:
    head = vlm.model.get_output_embeddings()
    if head is None:
        raise CannotPlant(
            f"{vlm.name} has no head that could be hooked, so its answers cannot be damaged here."
        )
    return head


def _parts(run: Run, site: str) -> list[np.ndarray]:
    """Readouts that see the image at a layer, each (used images, width) float32."""
    return [_used(run, run.activations(site, name)) for name in run.readouts(site) if name != "pre"]


def _used(run: Run, rows: np.ndarray) -> np.ndarray:
    """Rows of the images that the model was shown."""
    return rows[((run.images["status"] == "ok") & (run.images["split"] != "excluded")).to_numpy()]


def _tokens(vlm: "VLM", names: Sequence[str]) -> set[int]:
    prompt = vlm.chat("")
    return {token for name in names for token in answer_ids(vlm, prompt, name)}
