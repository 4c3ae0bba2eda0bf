"""The projector's start in closed form, against scikit-learn's ridge regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from transformers import AyaVisionConfig
from transformers.models.aya_vision.modeling_aya_vision import AyaVisionMultiModalProjector

from fgdiag.training.warm_start import RIDGE, mean_patch, ridge, start_projector

IMAGES, PATCHES, WIDTH, TEXT_WIDTH = 60, 16, 12, 20


@pytest.fixture
def projector() -> AyaVisionMultiModalProjector:
    torch.manual_seed(0)
    config = AyaVisionConfig(
        vision_config={"model_type": "siglip_vision_model", "hidden_size": WIDTH},
        text_config={"model_type": "llama", "hidden_size": TEXT_WIDTH, "num_attention_heads": 2},
        downsample_factor=2,
        alignment_intermediate_size=64,  # pyright: ignore[reportCallIssue]
    )
    return AyaVisionMultiModalProjector(config)


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(IMAGES, PATCHES, WIDTH, generator=generator) * torch.arange(1, WIDTH + 1)
    return features, torch.randn(IMAGES, TEXT_WIDTH, generator=generator) + 3.0


def test_ridge_is_that_of_scikit_learn():
    features, targets = drawn()
    X, Y = features.mean(1), targets
    slope, offset = ridge(X, Y)
    scaled = StandardScaler().fit(X)
    standard = scaled.transform(X) * np.sqrt((IMAGES - 1) / IMAGES)  # torch's standard deviation has n - 1
    expected = Ridge(alpha=RIDGE * IMAGES).fit(standard, Y).predict(standard)
    np.testing.assert_allclose(X @ slope + offset, expected, atol=1e-4)


def test_the_mean_token_is_the_regression_of_the_mean_patch(projector: AyaVisionMultiModalProjector):
    features, targets = drawn()
    with torch.no_grad():
        patches = mean_patch(projector, features)
        start_projector(projector, patches, targets)
        tokens = projector(features).flatten(1, 2).mean(1)
    slope, offset = ridge(patches, targets)
    torch.testing.assert_close(tokens, patches @ slope + offset, atol=1e-3, rtol=1e-4)


def test_a_narrow_projector_keeps_the_largest_directions(projector: AyaVisionMultiModalProjector):
    features, _ = drawn()
    directions = torch.randn(3, TEXT_WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        patches = mean_patch(projector, features)
        targets = patches[:, :3] @ directions
        start_projector(projector, patches, targets)
        error = (projector(features).flatten(1, 2).mean(1) - targets).square().mean() / targets.var()
    assert error < 1e-3
