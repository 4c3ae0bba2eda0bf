from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fgdiag_probes.labels import Labels
from fgdiag_probes.zero_shot import TEMPLATES, embed_names, texts_for, zero_shot
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    SwinModel,
)

from fgdiag.efficientnet import LITE0, LITE2, _config
from fgdiag.errors import FgdiagError, ImagesNotUsable, ModelNotFound, ModelNotSupported
from fgdiag.extraction import extract
from fgdiag.image_features import record_features, recorded_features
from fgdiag.image_models import ImageModel, open_image_model
from fgdiag.images import open_images
from fgdiag.store import Run
from tests.fgdiag import tiny
from tests.fgdiag.recorded import tiny_vlm, write_images

SIDE = tiny.IMAGE_SIDE
PICTURES = [tiny.noise(70, 40, 1), tiny.noise(33, 90, 2), tiny.noise(30, 30, 3)]
TEXTS = ["a photo of a wren.", "owl", "a photo of a very long-named finch."]


def processor() -> BitImageProcessorPil:
    return BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=tiny.SQUARE)


def words() -> tiny.PreTrainedTokenizerFast:
    """Texts begin and end with special tokens, as those of CLIP."""
    made = tiny.tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return made


def clip() -> ImageModel:
    made = words()
    text = {**_text_sizes(made), "eos_token_id": 2}
    config = CLIPConfig(text_config=text, vision_config=tiny.vision_sizes(), projection_dim=24)
    return ImageModel(tiny.seeded(CLIPModel, config), processor(), made, name="tiny/clip")


def siglip() -> ImageModel:
    made = words()
    text = {**_text_sizes(made), "projection_size": tiny.VISION_WIDTH}
    config = SiglipConfig(text_config=text, vision_config=tiny.vision_sizes())
    return ImageModel(tiny.seeded(SiglipModel, config), processor(), made, name="tiny/siglip")


def _text_sizes(made: tiny.PreTrainedTokenizerFast) -> dict:
    sizes = tiny.text_sizes(made, max_position_embeddings=64)
    sizes.pop("num_key_value_heads")
    return sizes


def saved(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    processor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("build", [clip, siglip])
def test_zero_shot_is_the_models_own(build: Callable[[], ImageModel]) -> None:
    model = build()
    found = model.features(PICTURES)
    images = found["embed"] / np.linalg.norm(found["embed"], axis=1, keepdims=True)
    ours = model.scale * images @ model.text_embeddings(TEXTS).T

    tokens = model.tokenizer(TEXTS, padding="max_length", max_length=64, return_tensors="pt")
    if build is siglip:  # as its authors say, texts are filled up and nothing is masked
        tokens = {"input_ids": tokens["input_ids"]}
    pixels = model.processor(images=PICTURES, return_tensors="pt")
    with torch.inference_mode():
        theirs = model.model(**tokens, **pixels).logits_per_image.numpy()
    bias = float(model.model.logit_bias.detach()) if build is siglip else 0.0
    assert np.allclose(ours + bias, theirs, atol=1e-4)
    assert np.ptp(theirs, axis=1).min() > 1e-3


def test_class_token_registers_and_patches_are_told_apart() -> None:
    config = Dinov2WithRegistersConfig(**_shape(), num_register_tokens=4)
    model = ImageModel(tiny.seeded(Dinov2WithRegistersModel, config), processor(), name="dino")
    found = model.features(PICTURES)
    with torch.inference_mode():
        pixels = model.processor(images=PICTURES, return_tensors="pt")
        hidden = model.model(**pixels).last_hidden_state.numpy()
    assert hidden.shape[1] == 1 + 4 + (SIDE // tiny.PATCH) ** 2
    assert np.allclose(found["cls"], hidden[:, 0])
    assert np.allclose(found["image"], hidden[:, 5:].mean(1), atol=1e-6)


def test_models_without_class_token_have_a_mean_alone() -> None:
    swin = SwinConfig(
        image_size=SIDE, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=7
    )
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    for kind, config in ((SwinModel, swin), (ResNetModel, resnet)):
        model = ImageModel(tiny.seeded(kind, config), processor(), name="mean")
        assert {name: vectors.shape for name, vectors in model.features(PICTURES).items()} == {
            "image": (3, 16)
        }


def test_opens_a_folder_by_what_it_holds(tmp_path: Path) -> None:
    from transformers import Dinov2Backbone, Dinov2Config

    config = Dinov2Config(**_shape())
    folder = saved(tiny.seeded(Dinov2Backbone, config), tmp_path / "dino")
    opened = open_image_model(folder, device="cpu")
    assert set(opened.features(PICTURES)) == {"cls", "image"}
    assert not opened.reads_texts
    assert opened.fingerprint == open_image_model(folder, device="cpu").fingerprint


def test_what_is_no_image_model_is_refused(tmp_path: Path) -> None:
    model, made = tiny.llava()
    model.save_pretrained(tmp_path / "llava")
    made.save_pretrained(tmp_path / "llava")
    with pytest.raises(ModelNotSupported, match="whole vision-language model"):
        open_image_model(tmp_path / "llava")
    with pytest.raises(ModelNotFound, match="nowhere"):
        open_image_model(tmp_path / "nowhere")


def test_efficientnet_lite_is_laid_out_as_published() -> None:
    """Blocks and widths of Lite0 and Lite2, and which halve an odd side: 260, 130, 65, 33, 17, 9."""
    first, second = _config(LITE0), _config(LITE2)
    assert first.out_channels == [16, 24, 40, 80, 112, 192, 320]
    assert (first.num_block_repeats, first.depthwise_padding) == ([1, 2, 2, 3, 3, 4, 1], [])
    assert second.out_channels == [16, 24, 48, 88, 120, 208, 352]
    assert (second.num_block_repeats, second.depthwise_padding) == ([1, 3, 3, 4, 4, 5, 1], [4, 7, 15])


@pytest.mark.real
def test_efficientnet_lite_knows_its_weights() -> None:
    """The mean feature of a picture of noise, as `efficientnet-lite-pytorch` 0.1.0 computes it."""
    model = open_image_model("efficientnet-lite0", dtype="float32", device="cpu")
    found = model.features([tiny.noise(300, 300, 0)])["image"]
    assert found.shape == (1, 1280)
    assert found.mean() == pytest.approx(0.107718, rel=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    folder = write_images(tmp_path_factory.mktemp("images"))
    return extract(tiny_vlm(), open_images(folder), tmp_path_factory.mktemp("runs") / "birds", block=8)


def test_features_are_recorded_once_and_gone_on_with(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images, model = open_images(run.manifest["images"]["source"]), clip()
    shown: list[int] = []
    features = model.features

    def counted(pictures: list[Image.Image]) -> dict[str, np.ndarray]:
        if len(shown) == 5:
            raise KeyboardInterrupt
        shown.append(len(pictures))
        return features(pictures)

    monkeypatch.setattr(model, "features", counted)
    with pytest.raises(KeyboardInterrupt):
        record_features(run, model, images, batch_size=3)
    assert not recorded_features(run)
    monkeypatch.setattr(model, "features", features)
    found = record_features(run, model, images, batch_size=3)
    again = recorded_features(run)
    assert [(one.name, one.readouts) for one in again] == [
        ("tiny/clip", {"cls": tiny.VISION_WIDTH, "embed": 24, "image": tiny.VISION_WIDTH})
    ]
    usable = ((run.images["status"] == "ok") & (run.images["split"] != "excluded")).to_numpy()
    embedded = found.read("embed")
    assert np.isfinite(embedded[usable]).all()
    assert np.isnan(embedded[~usable]).all()
    row = int(np.flatnonzero(usable)[11])
    assert np.allclose(embedded[row], features([images.open(row)])["embed"][0], atol=1e-4)

    monkeypatch.setattr(model, "features", None)  # all is there: the model is not asked again
    assert np.array_equal(record_features(run, model, images).read("embed"), embedded, equal_nan=True)


def test_zero_shot_of_a_run(run: Run) -> None:
    images, model = open_images(run.manifest["images"]["source"]), clip()
    features, labels = record_features(run, model, images), Labels.of(run)
    embed_names(model, features, labels, ["a photo of {}."])
    said = zero_shot(features, labels)["fine"].said
    names = [f"a photo of {name.replace('-', ' ')}." for name in labels.fine_names]
    tokens = model.tokenizer(names, padding=True, return_tensors="pt")
    pixels = model.processor(images=[images.open(int(row)) for row in labels.test], return_tensors="pt")
    with torch.inference_mode():
        logits = model.model(**tokens, **pixels).logits_per_image
    assert np.array_equal(said, logits.argmax(1).numpy())

    embed_names(model, features, labels, TEMPLATES)
    kept = features.read_texts()
    assert kept is not None
    assert kept[0] == texts_for(labels, TEMPLATES)
    assert len(kept[0]) == len(TEMPLATES) * len(labels.fine_names)
    with pytest.raises(FgdiagError, match="where the name goes"):
        texts_for(labels, ["a photo"])


def test_images_of_another_run_and_lost_ones_are_refused(run: Run) -> None:
    images, model = open_images(run.manifest["images"]["source"]), siglip()
    with pytest.raises(FgdiagError, match="not the images"):
        record_features(run, model, images.subset(np.arange(4)))
    lost = images.table["source"].iloc[0]
    file = Path(run.manifest["images"]["source"]) / lost
    content = file.read_bytes()
    file.write_bytes(b"")
    try:
        with pytest.raises(ImagesNotUsable, match="an empty file"):
            record_features(run, model, images)
    finally:
        file.write_bytes(content)


def _shape() -> dict:
    return {
        "hidden_size": tiny.VISION_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": tiny.PATCH,
    }
