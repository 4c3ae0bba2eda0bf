"""Open a vision-language model with its processor, and prove on one drawn image that every site is there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BatchFeature,
    PreTrainedModel,
    ProcessorMixin,
)

from fgdiag.anatomy import Anatomy, find_anatomy
from fgdiag.errors import ModelNotFound, ModelNotSupported, SiteNeverRan
from fgdiag.family_table import quirk_of
from fgdiag.fingerprint import fingerprint_of
from fgdiag.hooks import capture
from fgdiag.loading import initialise, load, load_processor, name_of_twin
from fgdiag.placement import device_for, dtype_for, quantization_for, stored_dtype
from fgdiag.prompts import FINE_QUESTION, plain_prompt, with_answer
from fgdiag.readouts import TokenSpans
from fgdiag.sources import source_of


class VLM:
    """A vision-language model, its processor, and where its parts are. Made by `open_vlm`."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        *,
        name: str,
        revision: str | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.revision = revision
        self.anatomy: Anatomy = find_anatomy(model)
        self.anatomy = _proven(self)

    def __repr__(self) -> str:
        anatomy = self.anatomy
        return (
            f"VLM({self.name!r}, {anatomy.family}, {len(anatomy.sites)} sites, {self.dtype}, {self.device})"
        )

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.dtype

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that change with the config or with any weight tensor (1024 values of each are hashed)."""
        return fingerprint_of(self.model)

    def inputs(
        self,
        images: Sequence[Image.Image | Sequence[Image.Image]],
        text: str | Sequence[str],
        *,
        padding_side: str = "left",
    ) -> BatchFeature:
        """Prepare a batch: tokens and pixels, on the model's device and in its dtype.

        Parameters
        ----------
        images
            One for each text, or a list where a text has several; none for a prompt without an image.
        text
            Prompts, as `chat` makes them. A single one is asked of every image.
        padding_side
            `left` or `right`; nothing captured depends on it.
        """
        prompts = [text] * max(1, len(images)) if isinstance(text, str) else list(text)
        options: dict[str, Any] = {"return_tensors": "pt", "padding": True, "padding_side": padding_side}
        if _begins_with_bos(prompts[0], self.processor):
            options["add_special_tokens"] = False
        if images:
            options["images"] = [[i] if isinstance(i, Image.Image) else list(i) for i in images]
        batch = self.processor(text=prompts, **options).to(self.device, self.dtype)
        batch.pop("labels", None)  # PaliGemma's processor adds them, and its model would compute a loss
        return batch

    def chat(
        self,
        question: str,
        answer: str | None = None,
        *,
        image: bool = True,
        before: Sequence[tuple[str, str]] = (),
    ) -> str:
        """Write a prompt: the image, the question, and the place where the answer begins.

        Parameters
        ----------
        question
            What is asked.
        answer
            Appended as the model's own words, where given.
        image
            Whether the prompt has an image, which then comes first.
        before
            Earlier turns, (question, answer), each about an image of its own.

        Raises
        ------
        ModelNotSupported
            There are earlier turns, and the model has no chat template that could write them.
        """
        if getattr(self.processor, "chat_template", None):
            turns = [turn for asked, said in before for turn in (_asks(asked), _says(said))]
            turns.append(_asks(question, image=image))
            prompt = str(
                self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            )
        elif before:
            raise ModelNotSupported(
                f"{self.name} has no chat template, so its prompt cannot hold examples. Ask it without."
            )
        else:
            image_token = getattr(self.processor, "image_token", None)
            prompt = plain_prompt(self.anatomy.model_type, question, image_token, image=image)
        return prompt if answer is None else with_answer(prompt, answer)

    def spans(self, inputs: Mapping[str, Tensor]) -> TokenSpans:
        """Find which tokens of the LLM's sequence are the image's, before it, and last."""
        spans = TokenSpans.of(inputs, self.anatomy.image_token_id)
        if quirk_of(self.anatomy.model_type).cross_attends:
            return replace(spans, image=torch.zeros_like(spans.image))
        return spans

    def forward(self, inputs: Mapping[str, Any]) -> Any:
        """Run the model without its language-model head where it can be left out, and without a cache."""
        trunk = self.model.base_model
        options: dict[str, Any] = {"use_cache": False}
        text_config = self.model.config.get_text_config()
        if getattr(text_config, "is_encoder_decoder", False):
            start = torch.full_like(inputs["input_ids"][:, :1], text_config.decoder_start_token_id)
            options["decoder_input_ids"] = start
        elif trunk is self.model:
            options["logits_to_keep"] = 1
        return trunk(**inputs, **options)


def open_vlm(
    model: str | Path | PreTrainedModel,
    *,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantization: Literal["4bit", "8bit"] | None = None,
    processor: ProcessorMixin | None = None,
    random_weights: bool = False,
    seed: int = 0,
) -> VLM:
    """Open a VLM and check, by one small forward pass, that every site is where it should be.

    Parameters
    ----------
    model
        Hub id, folder, `"demo"`, or a model object (then give its `processor`).
    dtype
        `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own on a GPU; on a CPU float32, unless the
        CPU computes in bfloat16 (AVX-512 BF16, AMX) and the checkpoint is in 16 bits: then bfloat16.
    device
        `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: a GPU where there is one.
    device_map
        How to spread the model over devices, as in transformers; it overrides `device`.
    attn_implementation
        As in transformers: `sdpa`, `eager`, `flash_attention_2`.
    revision
        Branch, tag or commit on the hub.
    trust_remote_code
        Whether code that comes with the model may run on this machine.
    quantization
        `4bit` or `8bit` weights by bitsandbytes.
    processor
        The processor of a model object.
    random_weights
        Take the architecture, the dtype and the processor, but draw the weights anew, as `transformers` does
        before training; the trained ones are not loaded. What such a model shows is what an architecture passes
        on without having learnt anything: a control for probes. Its name says so.
    seed
        Of those weights.

    Raises
    ------
    ModelNotFound
        No such model, no processor with it, or it cannot be loaded as asked.
    ModelNotSupported
        Not a vision-language model.
    SiteNeverRan
        A site did not run, or its vectors have another width or are not finite.
    """
    if isinstance(model, PreTrainedModel):
        if processor is None:
            raise ModelNotFound("A model object needs its processor: open_vlm(model, processor=processor).")
        if random_weights:
            raise ModelNotFound(
                "A model object has its weights already: give its folder or its hub id instead."
            )
        return VLM(model, processor, name=model.config._name_or_path or type(model).__name__)
    name, source = str(model), source_of(str(model))
    place = device_for(device)
    hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = load(AutoConfig, source, hub)
    if type(config) not in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not trust_remote_code:
        raise ModelNotSupported(
            f"{name} is a {config.model_type!r} model, which does not take an image and text together. "
            "Give a vision-language model, such as LLaVA or Qwen2-VL."
        )
    processor = processor or load_processor(source, hub)
    revision = getattr(config, "_commit_hash", None) or revision
    if random_weights:
        if device_map or quantization:
            raise ModelNotFound(
                "Random weights are made on one device and not quantized: give `device` instead."
            )
        twin = _random_twin(config, dtype, place, attn_implementation, trust_remote_code, seed)
        return VLM(twin, processor, name=name_of_twin(name, seed), revision=revision)
    options = {
        "dtype": dtype_for(dtype, place, config),
        "device_map": device_map or {"": str(place)},
        "attn_implementation": attn_implementation,
        "quantization_config": quantization_for(quantization),
    }
    loaded = load(
        AutoModelForImageTextToText, source, hub | {k: v for k, v in options.items() if v is not None}
    )
    return VLM(loaded, processor, name=name, revision=revision)


def _random_twin(
    config: Any, dtype: str, place: torch.device, attention: str | None, trust_remote_code: bool, seed: int
) -> PreTrainedModel:
    asked = dtype_for(dtype, place, config)
    options = {
        "dtype": stored_dtype(config) if asked == "auto" else asked,
        "attn_implementation": attention,
        "trust_remote_code": trust_remote_code,
    }
    return initialise(AutoModelForImageTextToText, config, options, seed=seed).to(place)


def _proven(vlm: VLM) -> Anatomy:
    """Run one drawn image through, and return the anatomy as it really is; `SiteNeverRan` where it is not."""
    inputs = vlm.inputs([_noise_image()], vlm.chat(FINE_QUESTION))
    expected = vlm.anatomy
    seen: dict[str, dict[str, Tensor]] = {}
    try:
        for (site, readout), vectors in capture(
            vlm, inputs, sites=[str(s.site) for s in expected.sites]
        ).items():
            seen.setdefault(site, {})[readout] = vectors
    except SiteNeverRan as error:
        raise SiteNeverRan(f"{error} {_versions()}") from error
    sites = []
    for spec in expected.sites:
        vectors = seen.get(str(spec.site), {})
        widths = {vector.shape[-1] for vector in vectors.values()}
        if len(widths) != 1 or spec.width not in (0, *widths):
            raise SiteNeverRan(
                f"Site {spec.site} (module {spec.path!r}) gave vectors of width {sorted(widths)}, expected "
                f"{spec.width}. {_versions()}"
            )
        if not all(bool(vector.isfinite().all()) for vector in vectors.values()):
            raise SiteNeverRan(
                f"Site {spec.site} (module {spec.path!r}) gave values that are not finite in {vlm.dtype}: try "
                f"another dtype, such as float32. {_versions()}"
            )
        readouts = tuple(name for name in spec.readouts if name in vectors)
        sites.append(replace(spec, width=widths.pop(), readouts=readouts))
    return replace(expected, sites=tuple(sites), image_tokens=int(vlm.spans(inputs).image.sum()))


def _versions() -> str:
    return f"(torch {torch.__version__}, transformers {transformers.__version__})"


def _noise_image() -> Image.Image:
    """320 x 240 pixels of noise, always the same."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8))


def _asks(question: str, *, image: bool = True) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}] * image + [{"type": "text", "text": question}]}


def _says(answer: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}


def _begins_with_bos(prompt: str, processor: Any) -> bool:
    """Whether a chat template has written the begin token already, so that the tokenizer must not add another."""
    bos = getattr(processor.tokenizer, "bos_token", None)
    return bos is not None and prompt.startswith(bos)
