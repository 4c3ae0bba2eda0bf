"""One picture on its way through a VLM, whose pixels or image tokens can be replaced by others."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from fgdiag.anatomy import SiteSpec
from fgdiag.errors import SiteNotFound
from fgdiag.hooks import changing_output, what_enters
from fgdiag_probes.targets import Target

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

Entry = Literal["pixels", "vision", "projector"]
"""Where the picture is replaced: what the processor hands over, what the projector is fed, what enters the LLM."""
BLUR = 0.12
"""Standard deviation of the blur that takes all detail away, as a share of the picture's longer side."""
AT_ONCE = 16
"""Versions of a picture that run together."""


class Substitution:
    """A picture, a target, and the place where other values can be put in.

    Parameters
    ----------
    vlm
        The opened model.
    picture
        RGB.
    target
        The number that is computed from it.
    entry
        Where values are put in.
    scored
        Called with how many versions are about to be scored; what it raises stops the work.

    Attributes
    ----------
    original, blurred
        What is there of the picture and of the picture blurred beyond recognition, which is what stands for "nothing
        to be seen": (1, ...) as the processor makes it, or (1, tokens, width).
    """

    def __init__(
        self,
        vlm: "VLM",
        picture: Image.Image,
        target: Target,
        entry: Entry,
        *,
        scored: Callable[[int], None] | None = None,
    ) -> None:
        self.vlm, self.picture, self.target, self.entry = vlm, picture, target, entry
        self.inputs = vlm.inputs([picture], vlm.chat(target.question))
        self._scored = scored or (lambda versions: None)
        self._copied: dict[int, dict[str, Any]] = {}
        self._features: dict[int, Any] = {}
        plain = vlm.inputs([blurred(picture)], vlm.chat(target.question))
        if entry == "pixels":
            self.original, self.blurred = self.inputs["pixel_values"][None], plain["pixel_values"][None]
        else:
            self.spec = entry_spec(vlm, entry)
            self.original = tokens_at(vlm, self.spec, self.inputs)
            self.blurred = tokens_at(vlm, self.spec, plain)

    def scores(self, values: Tensor) -> Tensor:
        """Score of the target with other values in place.

        Parameters
        ----------
        values
            (versions, ...) each of the shape of `original`.

        Returns
        -------
        Tensor
            (versions,) float32; gradients flow to `values`.
        """
        self._scored(len(values))
        inputs = self._copies(len(values))
        if self.entry == "pixels":
            with _features_once(self.vlm.model, {}):
                return self.target.scores(self.vlm, inputs | {"pixel_values": values.flatten(0, 1)})
        past_encoder = self.entry == "projector" and self.spec.reads == "input"
        features = self._features if past_encoder else {}
        with (
            _replacing(self.vlm, self.spec, self.inputs, values),
            _features_once(self.vlm.model, features, frozen=past_encoder),
        ):
            return self.target.scores(self.vlm, inputs)

    @torch.no_grad()
    def scores_of(self, versions: Iterable[Tensor]) -> Tensor:
        """`scores` of any number of versions, (...) each, a few at once and without gradients: (versions,) float32."""
        versions, found = iter(versions), []
        while lot := list(islice(versions, AT_ONCE)):
            found.append(self.scores(torch.stack(lot)).float().cpu())
        return torch.cat(found)

    def _copies(self, count: int) -> dict[str, Any]:
        """The inputs `count` times; the same tensors each time, so that what was computed of them is known again."""
        if count not in self._copied:
            self._copied[count] = copies(self.inputs, count)
        return self._copied[count]


def blurred(picture: Image.Image) -> Image.Image:
    """Blur a picture until only its colours are left, roughly where they were."""
    return picture.filter(ImageFilter.GaussianBlur(BLUR * max(picture.size)))


def copies(inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Inputs of one picture, repeated along the first axis of each."""
    return {name: torch.cat([value] * count) for name, value in inputs.items()}


def entry_spec(vlm: "VLM", entry: Entry) -> SiteSpec:
    """Site at which the image tokens are replaced."""
    names = {"vision": ("vision",), "projector": ("projector", "projector.0")}[entry]
    for spec in vlm.anatomy.sites:
        if str(spec.site) in names:
            return spec
    raise SiteNotFound(f"{vlm.name} has no site {names[0]!r}.")


class _Reached(Exception):
    """The site has been seen, so the rest of the forward pass is not needed."""


@torch.no_grad()
def tokens_at(vlm: "VLM", spec: SiteSpec, inputs: Mapping[str, Any], pictures: int = 1) -> Tensor:
    """(pictures, tokens, width): the image tokens at a site, those of one picture after the other."""
    seen: list[Tensor] = []

    def look(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        raise _Reached

    with hooked(vlm.model.get_submodule(spec.path), spec, look), suppress(_Reached):
        vlm.forward(inputs)
    hidden = seen[0]
    if _channels_first(hidden, spec):
        hidden = hidden.movedim(1, -1)
    if spec.tokens != "patches":
        hidden = hidden[vlm.spans(inputs).image.to(hidden.device)]
    return hidden.reshape(pictures, -1, hidden.shape[-1])


@contextmanager
def _replacing(vlm: "VLM", spec: SiteSpec, inputs: Mapping[str, Any], values: Tensor) -> Iterator[None]:
    """Put `values` (versions, tokens, width) in the place of the image tokens at a site."""
    columns = vlm.spans(inputs).image[0].nonzero()[:, 0]

    def replace(hidden: Tensor) -> Tensor:
        new = values.to(hidden.device, hidden.dtype)
        if _channels_first(hidden, spec):
            return new.reshape(hidden.movedim(1, -1).shape).movedim(-1, 1)
        if spec.tokens == "patches":
            return new.reshape(hidden.shape)
        return hidden.index_copy(1, columns.to(hidden.device), new)

    with hooked(vlm.model.get_submodule(spec.path), spec, replace):
        yield


def _channels_first(hidden: Tensor, spec: SiteSpec) -> bool:
    """Whether this is (batch, width, rows, columns), as convolutional encoders have it."""
    return hidden.ndim == 4 and hidden.shape[1] == spec.width


@contextmanager
def hooked(module: nn.Module, spec: SiteSpec, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change what enters or leaves a module."""

    def enters(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = what_enters(args, kwargs)
        new = change(hidden)

        def swap(item: Any) -> Any:
            return new if item is hidden else item

        return tuple(map(swap, args)), {name: swap(item) for name, item in kwargs.items()}

    if spec.reads == "input":
        handle = module.register_forward_pre_hook(enters, with_kwargs=True)
    else:
        handle = changing_output(module, change)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _features_once(model: Any, kept: dict[int, Any], *, frozen: bool = False) -> Iterator[None]:
    """Compute the features of each tensor of pixels once, however many names are scored behind them.

    Parameters
    ----------
    kept
        Where they are kept, by the identity of the pixels.
    frozen
        Whether no gradient is needed through them.
    """
    trunk = model.base_model
    compute = getattr(trunk, "get_image_features", None)
    if compute is None:
        yield
        return

    def remembered(*args: Any, **kwargs: Any) -> Any:
        pixels = kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]
        if id(pixels) not in kept:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                kept[id(pixels)] = (pixels, compute(*args, **kwargs))
        return kept[id(pixels)][1]

    trunk.get_image_features = remembered
    try:
        yield
    finally:
        del trunk.get_image_features
