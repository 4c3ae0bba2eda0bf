"""Extraction, with a tiny random LLaVA: the right numbers at the right rows, whatever happens on the way."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fgdiag import batches, forward
from fgdiag.batch_size import fitting_batch
from fgdiag.errors import FgdiagError, ImagesNotUsable, RunBusy, RunMismatch, SiteNeverRan, SiteNotFound
from fgdiag.extraction import OutOfMemory, extract
from fgdiag.hooks import capture
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.prompts import FINE_QUESTION
from fgdiag.store import Run, locked
from fgdiag.vlm import VLM
from tests.fgdiag.recorded import everything, tiny_vlm, write_images

CUT_OFF, EXCLUDED = 13, 40
HOW: dict[str, Any] = {"block": 8, "batch_size": 3}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return open_images(write_images(tmp_path_factory.mktemp("data") / "noise"))


@pytest.fixture(scope="module")
def run(vlm: VLM, images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return extract(vlm, images, tmp_path_factory.mktemp("runs") / "whole", **HOW)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], list[int]]:
    """Put something before each forward pass of the extraction, and list how many images each one had."""

    def watch(before: Callable[[int, int], None]) -> list[int]:
        sizes: list[int] = []

        def watched_capture(vlm: VLM, inputs: Any, **how: Any) -> Any:
            sizes.append(len(inputs["input_ids"]))
            before(len(sizes), sizes[-1])
            return capture(vlm, inputs, **how)

        monkeypatch.setattr(forward, "capture", watched_capture)
        return sizes

    return watch


def places(run: Run) -> list[tuple[str, str]]:
    return [(str(site), readout) for site in run.sites for readout in run.readouts(site)]


def test_every_row_is_what_the_image_gives_on_its_own(run: Run, vlm: VLM, images: ImageSet):
    for row in (0, 7, 8, 27, 39):
        with torch.inference_mode():
            alone = capture(vlm, vlm.inputs([images.open(row)], vlm.chat(FINE_QUESTION)))
        for place, vector in alone.items():
            np.testing.assert_allclose(run.activations(*place)[row], vector[0], atol=2e-5, rtol=2e-5)
    assert {*alone, ("pixels", "image")} == set(places(run))


def test_only_rows_without_an_image_are_nan(run: Run):
    for place in places(run):
        without = np.isnan(run.activations(*place)).all(axis=1)
        assert np.flatnonzero(without).tolist() == [CUT_OFF, EXCLUDED]
        assert np.isfinite(run.activations(*place)[~without]).all()
    status, split = list(run.images["status"]), list(run.images["split"])
    assert status.pop(CUT_OFF).startswith("truncated")
    assert set(status) == {"ok"}
    assert split.index("excluded") == EXCLUDED


def test_pixels_are_means_over_a_grid_in_0_to_1():
    quarters = np.zeros((32, 32, 3), np.uint8)
    quarters[:16, :16] = 255
    quarters[16:, 16:, 1] = 51
    small = batches.shrink(Image.fromarray(quarters)).reshape(16, 16, 3)
    assert small.dtype == np.float32
    np.testing.assert_array_equal(small[:8, :8], np.ones((8, 8, 3)))
    np.testing.assert_allclose(small[8:, 8:], np.broadcast_to([0, 0.2, 0], (8, 8, 3)))
    assert not small[:8, 8:].any()


def test_thumbnails_are_small_and_upright(run: Run, images: ImageSet):
    assert run.thumbnail(0).size == images.open(0).size
    with Image.open(Path(run.path) / "thumbnails" / "00004" / "0000039.jpg") as picture:
        assert picture.format == "JPEG"
    wide = batches.jpeg(Image.new("RGB", (3200, 1000)))
    with Image.open(BytesIO(wide)) as picture:
        assert picture.size == (160, 50)


def test_batches_hold_images_of_one_size_and_every_image_once(images: ImageSet):
    planned = batches.plan(images.table, range(40), 8)
    sizes = images.table[["width", "height"]].to_numpy()
    assert [{tuple(sizes[row]) for row in batch} for batch in planned] == [
        {tuple(sizes[b[0]])} for b in planned
    ]
    assert sorted(row for batch in planned for row in batch) == list(range(40))
    with_excluded, without = (batches.plan(images.table, range(36, end), 8) for end in (41, 40))
    assert with_excluded == without


def test_very_large_images_are_few_in_a_batch(images: ImageSet):
    huge = images.table.head(9).assign(width=8000, height=8000)
    assert [len(batch) for batch in batches.plan(huge, range(9), 8)] == [4, 4, 1]


def test_the_manifest_says_what_it_was(run: Run, vlm: VLM, images: ImageSet):
    made_of = run.manifest
    expected = {
        "model": vlm.name,
        "fingerprint": vlm.fingerprint,
        "dtype": "float32",
        "model_type": "llava",
        "processor": "LlavaProcessor",
        "prompt": FINE_QUESTION,
        "batch_size": 3,
        "block": 8,
        "seed": 0,
        "causal": True,
        "unreadable": 1,
    }
    assert expected.items() <= made_of.items()
    assert made_of["images"]["digest"] == images.digest
    assert made_of["images"]["levels"] == ["fine"]
    assert {"fgdiag", "torch", "transformers", "python"} == set(made_of["versions"])
    assert made_of["parts"]["projector"]["bytes"] == 4 * made_of["parts"]["projector"]["parameters"]
    assert made_of["started"] <= made_of["finished"]


def test_sites_and_readouts_can_be_chosen(vlm: VLM, images: ImageSet, tmp_path: Path):
    run = extract(
        vlm, images, tmp_path / "run", sites=["vision.0", "llm.1"], readouts=["last", "cls"], prompt="Hm?"
    )
    assert places(run) == [("pixels", "image"), ("vision.0", "cls"), ("llm.1", "last")]
    assert run.manifest["batch_size"] == 16
    with pytest.raises(RunMismatch, match="prompt 'Hm"):
        extract(vlm, images, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"readouts": ["lst"]}, SiteNotFound, "No readout 'lst'; expected some of image, last"),
        ({"sites": ["llm.99"]}, SiteNotFound, "No site 'llm.99'"),
        ({"batch_size": 0}, FgdiagError, "batch size is 0"),
        ({"block": 0}, FgdiagError, "block is 0"),
    ],
)
def test_options_that_cannot_be_are_one_line(
    options: dict, error: type, words: str, vlm: VLM, images: ImageSet, tmp_path: Path
):
    with pytest.raises(error, match=words):
        extract(vlm, images, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_opened_and_not_made_again(run: Run, vlm: VLM, images: ImageSet, watched):
    before = everything(run.path)
    sizes = watched(lambda call, size: None)
    assert extract(vlm, images, run.path, **HOW).manifest == run.manifest
    assert sizes == [1]  # the one forward that shows which sites there are
    assert everything(run.path) == before


def test_ctrl_c_keeps_the_finished_blocks(run: Run, vlm: VLM, images: ImageSet, tmp_path: Path, watched):
    def stop(call: int, size: int) -> None:
        if call == 9:
            raise KeyboardInterrupt

    watched(stop)
    with pytest.raises(KeyboardInterrupt):
        extract(vlm, images, tmp_path / "run", **HOW)
    kept = sorted(os.listdir(tmp_path / "run" / "blocks"))
    assert kept == ["00000.json", "00001.json"]
    sizes = watched(lambda call, size: None)
    extract(vlm, images, tmp_path / "run", **HOW)
    assert sum(sizes) == 1 + 40 - 16
    assert everything(tmp_path / "run") == everything(run.path)


def test_when_memory_runs_out_the_batch_is_halved_and_nothing_is_lost(
    run: Run, vlm: VLM, images: ImageSet, tmp_path: Path, watched, capsys
):
    def small_memory(call: int, size: int) -> None:
        if size > 2:
            raise (torch.OutOfMemoryError if call % 2 else MemoryError)("not enough memory: 4 GB")

    sizes = watched(small_memory)
    halved = extract(vlm, images, tmp_path / "run", block=8, batch_size=8)
    assert halved.manifest["batch_size"] == 2
    assert sum(size > 2 for size in sizes) == 2
    assert "Memory ran out with 8 images at once; going on with 4." in capsys.readouterr().err
    for place in places(run):
        np.testing.assert_allclose(halved.activations(*place), run.activations(*place), atol=2e-5, rtol=2e-5)


def test_an_image_too_large_for_memory_is_named(vlm: VLM, images: ImageSet, tmp_path: Path, watched):
    def no_memory(call: int, size: int) -> None:
        if call > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory")

    watched(no_memory)
    with pytest.raises(OutOfMemory, match=r"ran out on one image, class-\d/\d\d\.png \(\d+x\d+ pixels\)"):
        extract(vlm, images, tmp_path / "run", **HOW)


def test_other_errors_of_the_model_are_not_swallowed(vlm: VLM, images: ImageSet, tmp_path: Path, watched):
    def broken(call: int, size: int) -> None:
        if call > 1:
            raise RuntimeError("shapes do not match")

    watched(broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        extract(vlm, images, tmp_path / "run", **HOW)


def test_an_image_the_processor_refuses_is_a_row_with_a_reason(
    run: Run, vlm: VLM, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inputs = VLM.inputs

    def picky(self: VLM, pictures: Any, text: str) -> Any:
        if any(picture.width > 2 * picture.height for picture in pictures):
            raise ValueError("absolute aspect ratio must be smaller than 2")
        return inputs(self, pictures, text)

    monkeypatch.setattr(VLM, "inputs", picky)
    refused = extract(vlm, images, tmp_path / "run", **HOW)
    wide = (images.table["width"] > 2 * images.table["height"]).to_numpy()
    assert wide.sum() == 8
    reasons = set(refused.images["status"].to_numpy()[wide])
    assert reasons == {"the model's processor refuses it: absolute aspect ratio must be smaller than 2"}
    np.testing.assert_allclose(
        refused.activations("vision", "image")[~wide], run.activations("vision", "image")[~wide], atol=2e-5
    )
    assert np.isnan(refused.activations("vision", "image")[wide]).all()


def test_what_is_not_finite_stops_the_run(vlm: VLM, images: ImageSet, tmp_path: Path, monkeypatch):
    def overflowing(vlm: VLM, inputs: Any, **how: Any) -> Any:
        found = capture(vlm, inputs, **how)
        found["llm.2", "last"] = found["llm.2", "last"].clone()
        found["llm.2", "last"][-1, 0] = float("inf")
        return found

    monkeypatch.setattr(forward, "capture", overflowing)
    with pytest.raises(SiteNeverRan, match=r"llm\.2 \(last\) are not finite for class.*bfloat16 or float32"):
        extract(vlm, images, tmp_path / "run", **HOW)


def test_no_readable_image_at_all_is_an_error(vlm: VLM, images: ImageSet, tmp_path: Path):
    nothing = ImageSet("gone", images.table.copy(), read=lambda source: b"")
    with pytest.raises(
        ImagesNotUsable, match=r"None of the 40 images could be read, such as class-0/00\.png"
    ):
        extract(vlm, nothing, tmp_path / "run", **HOW)
    excluded = ImageSet("thin", images.table.assign(split="excluded"), images.read)
    with pytest.raises(ImagesNotUsable, match="thin has no image to extract"):
        extract(vlm, excluded, tmp_path / "run2", **HOW)


def test_a_run_that_another_writes_is_busy(vlm: VLM, images: ImageSet, tmp_path: Path):
    with locked(tmp_path / "run"), pytest.raises(RunBusy):
        extract(vlm, images, tmp_path / "run", **HOW)


@pytest.mark.parametrize(("memory", "expected"), [(9, 8), (35, 16), (64, 32), (10**6, 64), (5, 4)])
def test_the_batch_grows_as_long_as_twice_of_it_will_fit(
    memory: int, expected: int, images: ImageSet, monkeypatch: pytest.MonkeyPatch
):
    used = 0

    def pretended_forward(pictures: list[Image.Image]) -> None:
        nonlocal used
        assert {picture.size for picture in pictures} == {(90, 30)}
        used = len(pictures)
        if used > memory:
            raise torch.OutOfMemoryError("CUDA out of memory")

    pretended = {
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda device: None,
        "mem_get_info": lambda device: (memory, memory),
        "memory_allocated": lambda device: 0,
        "max_memory_allocated": lambda device: used,
    }
    for name, function in pretended.items():
        monkeypatch.setattr(torch.cuda, name, function)
    pretended_forward.vlm = SimpleNamespace(device=torch.device("cuda"))  # pyright: ignore[reportFunctionMemberAccess]
    assert fitting_batch(pretended_forward, images, most=256) == expected  # pyright: ignore[reportArgumentType]


def test_killed_at_twenty_random_moments_it_ends_bit_equal(tmp_path: Path):
    folder = write_images(tmp_path / "noise")
    calm = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tests.fgdiag.recorded", str(tmp_path / "whole"), str(folder), "20", "0"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=os.environ | calm, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["kills"] == 20
    assert report["finished"] >= 1
    assert report["files"] > 200
