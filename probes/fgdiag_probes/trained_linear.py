"""A linear layer trained by Adam, as Zhang et al. (NeurIPS 2024, arXiv 2405.18415) probe: no penalty, no shuffling."""

import numpy as np
import torch
from torch import nn

RATE = 1e-3
BATCH = 512
EPOCHS = 500


def train_linear(
    X: np.ndarray, y: np.ndarray, tested: np.ndarray, *, classes: int, seed: int = 0, epochs: int = EPOCHS
) -> np.ndarray:
    """Train on `X` and say after every epoch what the test images show.

    Parameters
    ----------
    X, y
        (rows, width) features and (rows,) codes below `classes`, passed through in this order every epoch.
    tested
        (test, width).
    seed
        Of the first weights.

    Returns
    -------
    ndarray
        (epochs, test) int32 codes.
    """
    features, codes, others = (
        torch.from_numpy(X).float(),
        torch.from_numpy(y),
        torch.from_numpy(tested).float(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(X.shape[1], classes)
    adam = torch.optim.Adam(layer.parameters(), lr=RATE)
    said = np.empty((epochs, len(tested)), np.int32)
    for epoch in range(epochs):
        for batch, truth in zip(features.split(BATCH), codes.split(BATCH), strict=True):
            adam.zero_grad()
            nn.functional.cross_entropy(layer(batch), truth).backward()
            adam.step()
        with torch.inference_mode():
            said[epoch] = layer(others).argmax(1).numpy()
    return said
