"""Where the parts of a VLM are: its sites, their module paths and widths, and how big each part is.

Nothing here knows a model by class. `transformers` hands over the vision encoder and the LLM
(`get_encoder(modality="image")`, `get_decoder()`); the projector is what stands between them; and what matters
is read off the hooks: what the projector is fed, and the embeddings the LLM is given.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from torch import nn
from transformers import PreTrainedModel

from fgdiag.errors import ModelNotSupported, SiteNotFound
from fgdiag.family_table import family_of, quirk_of
from fgdiag.sites import Readout, Site

_CLASS_TOKEN = re.compile(r"(^|\.)(class_embedding|cls_token)$")
_FINAL_NORM = re.compile(r"^(norm|ln_f|final_\w*norm|final_norm|layer_norm)$")


@dataclass(frozen=True)
class SiteSpec:
    """One site of an opened model."""

    site: Site
    width: int
    """Length of its vectors; 0 where the config does not say, until a forward pass has shown it."""
    path: str
    """Module that is hooked, as `model.get_submodule` takes it."""
    readouts: tuple[Readout, ...]
    reads: Literal["input", "output"] = "output"
    """Whether the site is what enters that module or what leaves it."""
    tokens: Literal["patches", "prompt", "answer"] = "prompt"
    """The encoder's tokens, the LLM's prompt, or (in an encoder-decoder) the first token of the answer."""
    class_token: bool = False
    """Whether the first of the encoder's tokens is its class token."""
    class_path: str | None = None
    """Module whose output holds the class token, where it is dropped before the projector."""


@dataclass(frozen=True)
class PartSize:
    """How big a part is. A head that shares its weights with the embeddings is counted once."""

    parameters: int
    bytes: int


@dataclass(frozen=True)
class Anatomy:
    """The sites and parts of one opened model."""

    model_type: str
    family: str
    sites: tuple[SiteSpec, ...]
    """Every site along the forward pass, encoder blocks included."""
    parts: dict[str, PartSize]
    """By `vision encoder`, `projector` (all that stands between), `language model`."""
    image_token_id: int | None
    image_tokens: int = 0
    """Image tokens in the LLM's sequence in the forward pass on opening; 0 where it has none."""

    def site(self, name: str | Site) -> SiteSpec:
        """Look a site up by name; `SiteNotFound` names the nearest one."""
        for spec in self.sites:
            if str(spec.site) == str(name):
                return spec
        raise SiteNotFound.among(str(name), [str(spec.site) for spec in self.sites])

    @property
    def default_sites(self) -> tuple[str, ...]:
        """Names of all sites but the single encoder blocks, which are recorded on request."""
        return tuple(str(spec.site) for spec in self.sites if not _is_encoder_block(spec.site))

    @property
    def encoder_block_sites(self) -> tuple[str, ...]:
        """Names of the single encoder blocks, `vision.0` first."""
        return tuple(str(spec.site) for spec in self.sites if _is_encoder_block(spec.site))


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """Find the parts of a VLM by what `transformers` says of it.

    The sites are those *expected*: a forward pass has yet to prove them (`open_vlm` does).

    Raises
    ------
    ModelNotSupported
        Where there is no vision encoder, no LLM, or nothing that looks like their blocks.
    """
    parts = _Parts(model)
    return Anatomy(
        model_type=model.config.model_type,
        family=family_of(model.config),
        sites=tuple(
            sorted(
                (*parts.vision_sites(), *parts.projector_sites(), *parts.llm_sites()),
                key=lambda spec: spec.site,
            )
        ),
        parts=parts.sizes(),
        image_token_id=_image_token_id(model.config),
    )


def _is_encoder_block(site: Site) -> bool:
    return site.part == "vision" and site.index is not None


def _image_token_id(config: Any) -> int | None:
    for name in ("image_token_id", "image_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    return None


class _Parts:
    """The modules of one model, found once."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.config = model, model.config
        self.quirk = quirk_of(model.config.model_type)
        self.path = {id(module): name for name, module in model.named_modules()}
        self.encoder = model.get_encoder(modality="image")
        self.llm = model.get_decoder()
        if self.encoder is model or self.llm is model or id(self.encoder) not in self.path:
            raise ModelNotSupported(
                f"{type(model).__name__} ({self.config.model_type}) is not a vision-language model: no vision "
                "encoder in it. Give a model that takes an image and text, such as LLaVA or Qwen2-VL."
            )
        self.stacks = _language_stacks(self.llm)
        self.projector, self.injectors = self._find_projector()

    def _find_projector(self) -> tuple[nn.Module, list[nn.Module]]:
        """Find what is fed the encoder's output, and the further projectors of models that inject at more depths."""
        trunk = self.model.get_submodule(self.path[id(self.encoder)].rpartition(".")[0])
        for child in trunk.children():
            if (
                child is self.encoder
                or self._holds(child, self.llm)
                or not any(True for _ in child.parameters())
            ):
                continue
            return child, []
        merger = getattr(self.encoder, "merger", None)
        if merger is None:
            raise ModelNotSupported(
                f"{type(self.model).__name__} ({self.config.model_type}) has nothing between its vision encoder "
                f"{self.path[id(self.encoder)]!r} and its LLM {self.path[id(self.llm)]!r} that fgdiag knows as a "
                "projector. Please report the model."
            )
        return merger, list(getattr(self.encoder, "deepstack_merger_list", []))

    def _holds(self, module: nn.Module, inner: nn.Module) -> bool:
        return any(part is inner for part in module.modules())

    # --- sites -----------------------------------------------------------------------------------------------

    def vision_sites(self) -> Iterator[SiteSpec]:
        """`vision`, and one site per encoder block."""
        has_class = any(_CLASS_TOKEN.search(name) for name, _ in self.encoder.named_parameters())
        dropped = has_class and getattr(self.config, "vision_feature_select_strategy", "full") == "default"
        seen: tuple[Readout, ...] = ("image", "cls") if has_class else ("image",)
        yield SiteSpec(
            Site("vision"),
            self._vision_width(),
            self.path[id(self.projector)],
            seen,
            reads="input",
            tokens="patches",
            class_token=has_class and not dropped,
            class_path=self.path[id(self.encoder)] if dropped else None,
        )
        width = getattr(self.config.vision_config, "hidden_size", 0) if self.quirk.vision_width is None else 0
        for index, block in enumerate(self._encoder_blocks()):
            yield SiteSpec(
                Site("vision", index),
                width,
                self.path[id(block)],
                seen,
                tokens="patches",
                class_token=has_class,
            )

    def _encoder_blocks(self) -> list[nn.Module]:
        if not self.quirk.block_lists:
            return _blocks(self.encoder)
        return [block for name in self.quirk.block_lists for block in _flat(self.encoder.get_submodule(name))]

    def _vision_width(self) -> int:
        if self.quirk.vision_width is not None:
            return self.quirk.vision_width(self.config)
        layers = getattr(self.config, "vision_feature_layer", -1)
        used = len(layers) if isinstance(layers, list | tuple) else 1
        return used * getattr(self.config.vision_config, "hidden_size", 0)

    def projector_sites(self) -> Iterator[SiteSpec]:
        """`projector`, or `projector.0` and so on where image features are injected at several depths."""
        width = self.config.get_text_config().hidden_size
        entry = self.path[id(self.stacks[0])]
        if self.quirk.cross_attends:
            yield SiteSpec(
                Site("projector"), width, self.path[id(self.projector)], ("image",), tokens="patches"
            )
            return
        first = Site("projector", 0) if self.injectors else Site("projector")
        yield SiteSpec(first, width, entry, ("image",), reads="input")
        for index, injector in enumerate(self.injectors, start=1):
            path = self.path[id(injector)]
            yield SiteSpec(Site("projector", index), width, path, ("image",), tokens="patches")

    def llm_sites(self) -> Iterator[SiteSpec]:
        """`llm.k` after each block (those of the text encoder first, where there is one), and `llm.norm`."""
        width = self.config.get_text_config().hidden_size
        readouts: tuple[Readout, ...] = (
            ("last", "pre") if self.quirk.cross_attends else ("image", "last", "pre")
        )
        last, has_text_encoder = self.stacks[-1], len(self.stacks) > 1
        index = 0
        for stack in self.stacks:
            for block in _blocks(stack):
                answers = has_text_encoder and stack is last
                yield self._llm_site(Site("llm", index), width, block, readouts, answers)
                index += 1
        norm = _final_norm(last)
        if norm is not None:
            yield self._llm_site(Site("llm", "norm"), width, norm, readouts, has_text_encoder)

    def _llm_site(
        self, site: Site, width: int, module: nn.Module, readouts: tuple[Readout, ...], answers: bool
    ) -> SiteSpec:
        path = self.path[id(module)]
        if answers:
            return SiteSpec(site, width, path, ("last",), tokens="answer")
        return SiteSpec(site, width, path, readouts)

    # --- sizes -----------------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, PartSize]:
        """Count each parameter once, in the part it belongs to."""
        stage_of = self._stages()
        counted = {stage: [0, 0] for stage in ("vision encoder", "projector", "language model")}
        for parameter in self.model.parameters():
            total = counted[stage_of.get(id(parameter), "projector")]
            total[0] += _true_size(parameter)
            total[1] += parameter.numel() * parameter.element_size()
        return {stage: PartSize(parameters, size) for stage, (parameters, size) in counted.items()}

    def _stages(self) -> dict[int, str]:
        """Part of each parameter; the projector may lie inside the encoder, so it has the last word."""
        head = self.model.get_output_embeddings()
        owners: list[tuple[nn.Module | None, str]] = [
            (self.encoder, "vision encoder"),
            (self.llm, "language model"),
            (head, "language model"),
            *((module, "projector") for module in (self.projector, *self.injectors)),
        ]
        return {id(p): stage for module, stage in owners if module is not None for p in module.parameters()}


def _true_size(parameter: nn.Parameter) -> int:
    """Count what a quantized weight stands for, not the bytes it is packed in."""
    state = getattr(parameter, "quant_state", None)
    return prod(state.shape) if state is not None else parameter.numel()


def _language_stacks(llm: nn.Module) -> tuple[nn.Module, ...]:
    """Return the module that holds the decoder blocks; for an encoder-decoder, the text encoder before it."""
    inner: Any = llm
    while True:
        if getattr(inner.config, "is_encoder_decoder", False) and inner.get_encoder() is not inner:
            return inner.get_encoder(), inner.get_decoder()
        deeper = inner.get_decoder()
        if deeper is inner:
            return (inner,)
        inner = deeper


def _blocks(stack: nn.Module) -> list[nn.Module]:
    """Return the longest list of modules in a stack: its blocks, in order."""
    lists = [module for module in stack.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelNotSupported(f"{type(stack).__name__} has no list of blocks that fgdiag could hook.")
    return list(max(lists, key=len))


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    """Walk the modules of lists within lists."""
    if isinstance(module, nn.ModuleList):
        for child in module:
            yield from _flat(child)
    else:
        yield module


def _final_norm(stack: nn.Module) -> nn.Module | None:
    """Return the norm behind the last block; models that normalise inside each block have none."""
    norms = [child for name, child in stack.named_children() if _FINAL_NORM.match(name)]
    return norms[-1] if norms else None
