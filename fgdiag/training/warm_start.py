"""Start the projector in closed form, so that training through the LLM begins where a linear probe ends.

From random weights, or from ones fitted by gradient descent, a projector of millions of weights learns a few thousand
images by heart. Ridge regression of the class names' embeddings on the mean patch does not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.activations import LinearActivation

from fgdiag.progress import track
from fgdiag.prompts import spoken
from fgdiag.training.school import Classes

RIDGE = 1e-3
"""In units of the variance of a standardised feature."""
WORDS = 50_000
"""Over how many words the mean word embedding is taken, at most."""
OPEN_GATE = 2.0
"""Bias of the gates, which starts the gated layer as a linear one."""

COARSE_WEIGHT = 0.5
"""Of the coarse name beside the fine one, in what the projector starts from."""


@torch.no_grad()
def start_from_names(model: Any, processor: Any, classes: Classes) -> None:
    """Start the projector so that the mean of an image's tokens points at the embeddings of its class names.

    Parameters
    ----------
    model, processor
        The assembled VLM.
    classes
        Its training images, with the features of its frozen encoder.
    """
    school, projector = classes.school, model.model.multi_modal_projector
    named = [k for k, one in enumerate(school.teachings) if not one.questions] or range(len(school.teachings))
    rows = [(k, row) for k, row in school.train_rows if k in named]
    views, size = range(school.plan.views), classes.batch_size
    parts = [(rows[at : at + size], view) for view in views for at in range(0, len(rows), size)]
    device = model.device
    patches = [
        mean_patch(projector, classes.seen(part, view).to(device))
        for part, view in track(parts, description="starting the projector", total=len(parts), unit="batches")
    ]
    tables = [one.images.table for one in school.teachings]
    embeddings = _Embeddings(model, processor.tokenizer)
    targets = embeddings.of([tables[k]["fine"].iloc[row] for k, row in rows])
    targets += COARSE_WEIGHT * embeddings.of([tables[k]["coarse"].iloc[row] for k, row in rows])
    start_projector(projector, torch.cat(patches), (embeddings.mean + targets).repeat(len(views), 1))


class _Embeddings:
    """Embeddings of names as they enter the LLM."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.embed, self.tokenizer, self.device = model.get_input_embeddings(), tokenizer, model.device
        # A slice, because Gemma's layer scales what it looks up and a quarter of a million words are a gigabyte.
        some = torch.linspace(0, len(tokenizer) - 1, min(len(tokenizer), WORDS)).long()
        self.mean = self.embed(some.to(self.device)).float().mean(0)

    def of(self, labels: Sequence[str]) -> Tensor:
        """(labels, width) mean embedding of the tokens of each label's name, less the mean over names."""
        names = sorted(set(labels))
        means = torch.stack([self._mean(spoken(name)) for name in names])
        place = {name: k for k, name in enumerate(names)}
        return (means - means.mean(0))[[place[label] for label in labels]]

    def _mean(self, name: str) -> Tensor:
        ids = self.tokenizer(name, add_special_tokens=False)["input_ids"]
        return self.embed(torch.tensor(ids, device=self.device)).float().mean(0)


def mean_patch(projector: Any, features: Tensor) -> Tensor:
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
    if not hasattr(projector, "pixel_shuffle"):
        return features.mean(1)
    cells = projector.layernorm(projector.pixel_shuffle(features)).flatten(1, 2)
    return cells.unflatten(-1, (-1, features.shape[-1])).mean((1, 2))


@torch.no_grad()
def start_projector(projector: Any, patches: Tensor, targets: Tensor) -> None:
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
    found = int((size > 1e-6 * size[0]).sum())
    root = size[:found].sqrt()
    fill = _fill_gated if hasattr(projector, "pixel_shuffle") else _fill_plain
    fill(projector, (left[:, :found] * root).T, right[:found].T * root)
    projector.linear_2.bias.copy_(offset)


def _fill_gated(projector: Any, into: Tensor, out: Tensor) -> None:
    """Aya Vision's: values times open gates; `into` (units, width) and `out` (text width, units)."""
    units = min(projector.linear_2.in_features, len(into))
    merged = projector.linear_1.in_features // into.shape[1]
    gate = F.silu(torch.tensor(OPEN_GATE)).item()
    values, gates = projector.linear_1.weight.chunk(2)
    values[:units] = into[:units].repeat(1, merged) / merged
    gates.zero_()
    projector.linear_1.bias[: len(values)] = 0.0
    projector.linear_1.bias[len(values) :] = OPEN_GATE
    projector.linear_2.weight.zero_()
    projector.linear_2.weight[:, :units] = out[:, :units] / gate


def _fill_plain(projector: Any, into: Tensor, out: Tensor) -> None:
    """LLaVA's and FastVLM's: two layers, and between them nothing or GELU, of which gelu(x) - gelu(-x) = x."""
    signs = (1.0,) if isinstance(projector.act, LinearActivation) else (1.0, -1.0)
    units = min(projector.linear_1.out_features // len(signs), len(into))
    projector.linear_1.bias.zero_()
    projector.linear_2.weight.zero_()
    for number, sign in enumerate(signs):
        taken = slice(number * units, (number + 1) * units)
        projector.linear_1.weight[taken] = sign * into[:units]
        projector.linear_2.weight[:, taken] = sign * out[:, :units]


def ridge(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Slope (width, targets) and offset (targets,) of the ridge regression of Y on standardised X."""
    mean, spread, centre = X.mean(0), X.std(0).clamp_min(1e-6), Y.mean(0)
    standard = (X - mean) / spread
    gram = standard.T @ standard / len(X) + RIDGE * torch.eye(X.shape[1], device=X.device)
    slope = torch.linalg.solve(gram, standard.T @ (Y - centre) / len(X)) / spread[:, None]
    return slope, centre - mean @ slope
