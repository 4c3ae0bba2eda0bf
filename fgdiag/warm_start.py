"""Start the projector in closed form, so that training through the LLM begins where a linear probe ends.

From random weights, or from ones fitted by gradient descent, a projector of millions of weights learns a few thousand
images by heart. Ridge regression of the class names' embeddings on the mean patch does not.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers.models.aya_vision.modeling_aya_vision import AyaVisionMultiModalProjector

RIDGE = 1e-3
"""In units of the variance of a standardised feature."""
OPEN_GATE = 2.0
"""Bias of the gates, which starts the gated layer as a linear one."""


def mean_patch(projector: "AyaVisionMultiModalProjector", features: Tensor) -> Tensor:
    """Mean over an image's patches as the projector's first linear layer sees them.

    Parameters
    ----------
    features
        (images, patches, width) what the projector is fed.

    Returns
    -------
    Tensor
        (images, width).
    """
    cells = projector.layernorm(projector.pixel_shuffle(features)).flatten(1, 2)
    return cells.unflatten(-1, (-1, features.shape[-1])).mean((1, 2))


@torch.no_grad()
def start_projector(projector: "AyaVisionMultiModalProjector", patches: Tensor, targets: Tensor) -> None:
    """Set the weights so that the mean of an image's tokens is the ridge regression of its target.

    All patches that are merged into one token start with the same weights.

    Parameters
    ----------
    patches
        (images, width) of `mean_patch`.
    targets
        (images, text width), such as embeddings of class names.
    """
    slope, offset = ridge(patches, targets)
    left, size, right = torch.linalg.svd(slope, full_matrices=False)
    units = min(projector.linear_2.in_features, int((size > 1e-6 * size[0]).sum()))
    merged = projector.linear_1.in_features // len(slope)
    root, gate = size[:units].sqrt(), F.silu(torch.tensor(OPEN_GATE))
    values, gates = projector.linear_1.weight.chunk(2)
    values[:units] = (left[:, :units] * root).T.repeat(1, merged) / merged
    gates.zero_()
    projector.linear_1.bias.copy_(torch.cat([torch.zeros(len(values)), torch.full((len(gates),), OPEN_GATE)]))
    projector.linear_2.weight.zero_()
    projector.linear_2.weight[:, :units] = (right[:units].T * root) / gate
    projector.linear_2.bias.copy_(offset)


def ridge(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Slope (width, targets) and offset (targets,) of the ridge regression of Y on standardised X."""
    mean, spread, centre = X.mean(0), X.std(0).clamp_min(1e-6), Y.mean(0)
    standard = (X - mean) / spread
    gram = standard.T @ standard / len(X) + RIDGE * torch.eye(X.shape[1])
    slope = torch.linalg.solve(gram, standard.T @ (Y - centre) / len(X)) / spread[:, None]
    return slope, centre - mean @ slope
