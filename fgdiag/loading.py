"""Load something of `transformers` from a folder or the hub, or say in one line why not; or make its random twin."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from fgdiag.errors import ModelNotFound

if TYPE_CHECKING:
    from transformers import ProcessorMixin


def load(loader: Any, source: str | Path, options: dict[str, Any] | None = None) -> Any:
    """Call `loader.from_pretrained`.

    Raises
    ------
    ModelNotFound
        There is no such model, or its files are broken.
    """
    try:
        return loader.from_pretrained(source, **options or {})
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelNotFound(
            f"{source} cannot be loaded: {first_line(error)}{_advice(source, error)}"
        ) from error


def load_processor(source: str, hub: dict[str, Any]) -> "ProcessorMixin":
    """Load the processor of images and text that lies beside a model; `ModelNotFound` where there is none."""
    from transformers import AutoProcessor, ProcessorMixin

    try:
        processor = AutoProcessor.from_pretrained(source, **hub)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError) as error:
        raise ModelNotFound(
            f"{source} has a model but no processor of images and text that can be loaded: save it there with "
            f"`processor.save_pretrained`, or give it as `processor=` ({first_line(error)})."
        ) from error
    if not isinstance(processor, ProcessorMixin):
        raise ModelNotFound(
            f"{source} has a {type(processor).__name__} but no processor of images and text: save it there with "
            "`processor.save_pretrained`, or give it as `processor=`."
        )
    return processor


def initialise(loader: Any, config: Any, options: dict[str, Any], *, seed: int) -> Any:
    """Call `loader.from_config`: the architecture of a model with the weights that its training began with.

    They are drawn on the CPU, so that a seed gives the same ones on every machine.

    Raises
    ------
    ModelNotFound
        The architecture cannot be built as asked.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return loader.from_config(config, **options)
        except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
            raise ModelNotFound(
                f"A {config.model_type!r} model cannot be made with random weights: {first_line(error)}."
            ) from error


def name_of_twin(name: str, seed: int) -> str:
    """Name of the randomly initialised twin of a model, so that a run of it is never taken for the model's own."""
    return f"{name} with random weights (seed {seed})"


def twin_of(name: str) -> tuple[str, int | None]:
    """Take such a name apart: the model, and the seed of its random weights; None where it has its own."""
    match = re.fullmatch(r"(.+) with random weights \(seed (\d+)\)", name)
    return (name, None) if match is None else (match[1], int(match[2]))


def first_line(error: Exception) -> str:
    """First line of a message of `transformers`, up to where it guesses what might be wrong."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return re.split(r"(?<=\S)\.? If you were trying", line)[0].rstrip(".")


def _advice(source: str | Path, error: Exception) -> str:
    if not Path(source).is_dir():
        return ". Check the name and the network, or give a folder that `save_pretrained` has written."
    broken = isinstance(error, (OSError, SafetensorError))
    return ". Save the model there again, or give another folder." if broken else "."
