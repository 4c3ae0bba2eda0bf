"""Training assembled VLMs of tiny random parts: they learn, resume exactly, and end as ordinary folders."""

import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pandas as pd
import pytest
import torch
from fgdiag_probes import name_likelihood
from safetensors.torch import load_file

from fgdiag.assemble import Projector, assemble, write_assembled
from fgdiag.errors import (
    ImagesNotUsable,
    ModelNotFound,
    ModelNotSupported,
    RunBusy,
    RunMismatch,
    TrainingDiverged,
)
from fgdiag.image_set import ImageSet
from fgdiag.prompts import FINE_QUESTION
from fgdiag.store import locked
from fgdiag.training import Plan, Stage, Teaching, train
from fgdiag.training.plan import PlanNotUsable
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

running: Any = sys.modules["fgdiag.training.stage"]
PLAN = Plan((Stage(epochs=4),), batch_size=4, views=2)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(before: Path, after: Path) -> set[str]:
    """Parts of the model that are not what they were."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    names = {name for name in old if not torch.equal(old[name], new[name])}
    parts = ("vision_tower", "multi_modal_projector", "language_model")
    return {part for part in parts if any(part in name for name in names)}


def surprise(vlm: VLM, images: ImageSet) -> float:
    """Bits by which the true names of the test images surprise the model, of the three names."""
    names = sorted(images.table["fine"].unique())
    rows = np.flatnonzero(images.table["split"] == "test")
    scores = name_likelihood(vlm, [images.open(int(row)) for row in rows], names, FINE_QUESTION)
    true = [names.index(fine) for fine in images.table["fine"].iloc[rows]]
    own = scores[np.arange(len(rows)), true]
    return float(np.mean(np.logaddexp.reduce(scores, axis=1) - own) / np.log(2))


@pytest.mark.parametrize("projector", ["pixel-shuffle", "mlp", "linear"])
def test_a_projector_learns_and_the_folder_opens_as_any_vlm(
    projector: Projector, encoder: Path, llm: Path, colours: ImageSet, tmp_path: Path
):
    before = write_assembled(*assemble(encoder, llm, projector=projector), tmp_path / "joined")
    plan = Plan((Stage(epochs=60, learning_rate=1e-2),), batch_size=6)
    after = train(before, [Teaching(colours)], tmp_path / "vlm", plan)
    old, new = (surprise(open_vlm(folder, dtype="float32"), colours) for folder in (before, after))
    assert new < 0.7 * min(old, np.log2(3)), f"{old:.2f} bits before, {new:.2f} after"
    assert changed(before, after) == {"multi_modal_projector"}


@pytest.mark.parametrize(
    ("parts", "moved"),
    [
        (("llm-lora",), {"language_model"}),
        (("llm",), {"language_model"}),
        (("encoder",), {"vision_tower"}),
        (("projector", "encoder", "llm-lora"), {"vision_tower", "multi_modal_projector", "language_model"}),
    ],
)
def test_what_a_stage_trains_learns_and_nothing_else_moves(
    parts: Any, moved: set[str], joined: Path, colours: ImageSet, tmp_path: Path
):
    plan = Plan((Stage(parts, epochs=30, learning_rate=3e-3),), batch_size=6, warm_start=False)
    after = train(joined, [Teaching(colours)], tmp_path / "vlm", plan)
    history = pd.read_csv(after / "training" / "history.csv")
    losses = history["train nats per token"]
    assert losses.iloc[-1] < 0.95 * losses.iloc[0]
    assert changed(joined, after) == moved


def test_a_convolutional_encoder_is_trained_too(
    convolutional: Path, gemma: Path, colours: ImageSet, tmp_path: Path
):
    before = write_assembled(*assemble(convolutional, gemma, projector="mlp"), tmp_path / "joined")
    plan = Plan((Stage(epochs=2), Stage(("projector", "encoder"), epochs=1)), batch_size=6)
    after = train(before, [Teaching(colours)], tmp_path / "vlm", plan)
    assert changed(before, after) == {"multi_modal_projector", "vision_tower"}
    assert np.isfinite(surprise(open_vlm(after), colours))


def test_the_gradient_does_not_depend_on_how_a_batch_is_cut(joined: Path, colours: ImageSet, tmp_path: Path):
    plans = [replace(PLAN, accumulate=parts, batch_size=6) for parts in (1, 3, 4)]
    found = [
        weights(train(joined, [Teaching(colours)], tmp_path / str(plan.accumulate), plan)) for plan in plans
    ]
    for other in found[1:]:
        for name, weight in found[0].items():
            torch.testing.assert_close(other[name], weight, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("parts", [("projector",), ("projector", "llm-lora")])
def test_interrupted_and_resumed_it_ends_where_it_would_have(
    parts: Any, joined: Path, colours: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = replace(PLAN, stages=(Stage(epochs=2), Stage(parts, epochs=2)))
    whole = train(joined, [Teaching(colours)], tmp_path / "whole", plan)
    monkeypatch.setattr(running, "CHECKPOINT_EVERY_SECONDS", 0.0)
    real_step, steps = running.RunningStage._descend, 0

    def stops_at(at: int):
        def step(self: Any, rate: float) -> float:
            nonlocal steps
            if steps == at:
                raise KeyboardInterrupt
            steps += 1
            return real_step(self, rate)

        return step

    for at in (3, 11, 14):
        monkeypatch.setattr(running.RunningStage, "_descend", stops_at(at))
        with pytest.raises(KeyboardInterrupt):
            train(joined, [Teaching(colours)], tmp_path / "parts", plan)
    monkeypatch.setattr(running.RunningStage, "_descend", real_step)
    resumed = train(joined, [Teaching(colours)], tmp_path / "parts", plan)
    expected, found = weights(whole), weights(resumed)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=0, rtol=0)
    again = train(joined, [Teaching(colours)], tmp_path / "parts", plan)
    assert changed(resumed, again) == set()


def test_it_stops_where_validation_no_longer_improves(joined: Path, colours: ImageSet, tmp_path: Path):
    plan = Plan((Stage(("llm",), epochs=60, learning_rate=0.3, patience=2),), batch_size=6)
    out = train(joined, [Teaching(colours)], tmp_path / "vlm", plan)
    history = pd.read_csv(out / "training" / "history.csv")
    losses = history["validation nats per token"].to_numpy()
    assert len(losses) < 60
    assert losses.argmin() == len(losses) - 3
    assert not (out / "training" / "best.safetensors").exists()


def test_killed_after_its_last_step_a_stage_still_ends_with_its_best_weights(
    joined: Path, colours: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = Plan((Stage(("llm",), epochs=60, learning_rate=0.3, patience=2),), batch_size=6)
    whole = train(joined, [Teaching(colours)], tmp_path / "whole", plan)
    real_save = running.checkpoint.save

    def killed_at_the_end(file: Path, *rest: Any) -> None:
        if file.name == "stage-1.safetensors":
            raise KeyboardInterrupt
        real_save(file, *rest)

    monkeypatch.setattr(running.checkpoint, "save", killed_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        train(joined, [Teaching(colours)], tmp_path / "killed", plan)
    monkeypatch.setattr(running.checkpoint, "save", real_save)
    resumed = train(joined, [Teaching(colours)], tmp_path / "killed", plan)
    assert changed(whole, resumed) == set()


def test_a_stage_of_some_minutes_ends_with_them(joined: Path, colours: ImageSet, tmp_path: Path):
    out = train(joined, [Teaching(colours)], tmp_path / "vlm", Plan((Stage(minutes=0.02),), batch_size=6))
    history = pd.read_csv(out / "training" / "history.csv")
    assert history["step"].iloc[-1] > 3
    assert history["learning rate"].iloc[-1] < 0.2 * history["learning rate"].max()


def test_a_stage_leaves_no_optimiser_and_no_gradient_behind(
    joined: Path, colours: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real_run, optimisers, gradients = running.RunningStage.run, [], []

    def run(self: Any) -> None:
        optimisers.append(ref(self.optimiser))
        real_run(self)
        gradients.extend(name for name, weight in self.model.named_parameters() if weight.grad is not None)

    monkeypatch.setattr(running.RunningStage, "run", run)
    alive_at_start: list[list[bool]] = []
    real_begin = running.RunningStage._begin

    def begin(self: Any) -> None:
        alive_at_start.append([one() is not None for one in optimisers])
        real_begin(self)

    monkeypatch.setattr(running.RunningStage, "_begin", begin)
    plan = replace(PLAN, stages=(Stage(("llm",), steps=1), Stage(steps=1)))
    train(joined, [Teaching(colours)], tmp_path / "vlm", plan)
    assert alive_at_start == [[True], [False, True]]
    assert gradients == []


def test_a_loss_of_nan_stops_the_training_and_leaves_its_last_checkpoint(
    joined: Path, colours: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real_forward, calls = running.AnswerLoss.forward, count()

    def turns_to_nan(self: Any, batch: Any) -> torch.Tensor:
        return real_forward(self, batch) * (1 if next(calls) < 3 else float("nan"))

    monkeypatch.setattr(running, "CHECKPOINT_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(running.AnswerLoss, "forward", turns_to_nan)
    said = "loss of stage 1 is no longer a number after 3 steps.* learning_rate lower than 0.001"
    with pytest.raises(TrainingDiverged, match=said):
        train(joined, [Teaching(colours)], tmp_path / "vlm", PLAN)
    kept = tmp_path / "vlm" / "training" / "checkpoint.safetensors"
    assert running.checkpoint.progress_of(kept).step == 3
    assert all(torch.isfinite(weight).all() for weight in load_file(kept).values())


def test_labels_that_answer_a_question_of_their_own_are_learnt(
    joined: Path, colours: ImageSet, tmp_path: Path
):
    asked = Teaching(colours, ("Which colour is it?",))
    assert {asked.draw(0, {"coarse": 1}, np.random.default_rng(k)) for k in range(4)} == {
        ("Which colour is it?", colours.table["fine"].iloc[0])
    }
    train(joined, [asked], tmp_path / "vlm", replace(PLAN, stages=(Stage(steps=2),)))


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("caption", "A picture of Teal, a kind of cold."),
        ("caption-without-names", "A picture of cold."),
        ("coarse", "cold"),
    ],
)
def test_captions_can_name_the_class_or_not(kind: str, answer: str, colours: ImageSet):
    row = int(np.flatnonzero(colours.table["fine"] == "Teal")[0])
    assert Teaching(colours).draw(row, {kind: 1.0}, np.random.default_rng(0))[1] == answer


def test_another_plan_is_refused(joined: Path, colours: ImageSet, tmp_path: Path):
    train(joined, [Teaching(colours)], tmp_path / "vlm", replace(PLAN, stages=(Stage(steps=1),)))
    with pytest.raises(RunMismatch, match="a training with views = 2, but 1 is asked now"):
        train(joined, [Teaching(colours)], tmp_path / "vlm", replace(PLAN, stages=(Stage(steps=1),), views=1))


def test_a_folder_has_a_config_only_when_it_is_whole(
    joined: Path, colours: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from transformers import LlavaProcessor

    def stops(*_args: Any, **_kwargs: Any) -> None:
        raise KeyboardInterrupt

    plan, out = Plan((Stage(steps=1),)), tmp_path / "vlm"
    with monkeypatch.context() as patched:
        patched.setattr(LlavaProcessor, "save_pretrained", stops)
        with pytest.raises(KeyboardInterrupt):
            train(joined, [Teaching(colours)], out, plan)
    assert not (out / "config.json").exists()
    train(joined, [Teaching(colours)], out, plan)
    assert open_vlm(out).anatomy.model_type == "aya_vision"
    assert not list(out.glob(".writing-*"))


def test_two_trainings_in_one_folder_are_refused(joined: Path, colours: ImageSet, tmp_path: Path):
    with locked(tmp_path / "vlm" / "training"), pytest.raises(RunBusy, match="written by another process"):
        train(joined, [Teaching(colours)], tmp_path / "vlm", PLAN)


def test_a_model_that_was_not_assembled_is_refused(colours: ImageSet, tmp_path: Path):
    model, processor = tiny.llava_next()
    model.save_pretrained(tmp_path / "next")
    processor.save_pretrained(tmp_path / "next")
    with pytest.raises(ModelNotSupported, match="'llava_next' model; expected one that `fgdiag assemble`"):
        train(tmp_path / "next", [Teaching(colours)], tmp_path / "vlm", PLAN)


def test_images_without_training_images_are_refused(joined: Path, colours: ImageSet, tmp_path: Path):
    tested = colours.subset((colours.table["split"] == "test").to_numpy())
    with pytest.raises(ImagesNotUsable, match="No training image can be read"):
        train(joined, [Teaching(tested)], tmp_path / "vlm", PLAN)


def test_patience_without_validation_images_is_refused(joined: Path, colours: ImageSet, tmp_path: Path):
    unscored = Teaching(colours.subset((colours.table["split"] != "val").to_numpy()))
    patient = Plan((Stage(steps=1, patience=2),))
    with pytest.raises(
        PlanNotUsable, match=r"patience = 2, but no image of a split `val`.* leave patience out"
    ):
        train(joined, [unscored], tmp_path / "vlm", patient)
    train(
        joined, [unscored], tmp_path / "vlm", Plan((Stage(steps=1),))
    )  # the refusal has left no plan behind


def test_a_device_that_is_not_there_is_refused(joined: Path, colours: ImageSet, tmp_path: Path):
    with pytest.raises(ModelNotFound, match="No device 'cuda:99' on this machine: choose from auto, cpu"):
        train(joined, [Teaching(colours)], tmp_path / "vlm", PLAN, device="cuda:99")
