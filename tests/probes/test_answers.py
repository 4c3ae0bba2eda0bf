"""The answers with, without, and corrected for the want of an image."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fgdiag_probes import Answers, answer, answers, blind
from fgdiag_probes.blind import blind_scores
from fgdiag_probes.likelihood import answer_ids, name_likelihood
from fgdiag_probes.prior import WEIGHTS, choose_correction, training_prior, training_sample

from fgdiag.extraction import extract
from fgdiag.images import ImageSet, open_images
from fgdiag.prompts import COARSE_QUESTION, FINE_QUESTION, with_answer
from fgdiag.store import Run
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

KINDS = {"owl": ("barn owl", "eagle owl", "little owl"), "tit": ("blue tit", "coal tit")}
SPECIES = sorted(fine for classes in KINDS.values() for fine in classes)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    model, processor = tiny.llava()
    return open_vlm(model, device="cpu", processor=processor)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("birds")
    for kind, classes in KINDS.items():
        for label, fine in enumerate(classes):
            (folder / kind / fine).mkdir(parents=True)
            for index in range(6 + 2 * label):
                seed = 100 * SPECIES.index(fine) + index
                tiny.noise(40, 30, seed).save(folder / kind / fine / f"{index}.png")
    return open_images(folder, test_share=0.5)


def new_run(vlm: VLM, images: ImageSet, folder: Path) -> Run:
    return extract(vlm, images, folder / "run", sites=["llm.norm"])


@pytest.fixture(scope="module")
def run(vlm: VLM, images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = new_run(vlm, images, tmp_path_factory.mktemp("answered"))
    answer(run, vlm, images)
    return run


def blind_by_hand(vlm: VLM, names: list[str], question: str) -> np.ndarray:
    """Log P(name | question), each name and its prompt as one text without an image."""
    prompt, scores = vlm.chat(question, image=False), []
    assert "<image>" not in prompt
    for name in names:
        ids = vlm.inputs([], with_answer(prompt, name))["input_ids"]
        count = len(answer_ids(vlm, prompt, name))
        with torch.no_grad():
            logs = vlm.model(input_ids=ids).logits[0].log_softmax(-1)
        at = torch.arange(ids.shape[1] - count, ids.shape[1])
        scores.append(float(logs[at - 1, ids[0, at]].sum()))
    return np.array(scores)


def test_the_blind_scores_are_those_of_the_text_alone(run: Run, vlm: VLM):
    kept = run.read_json("blind")
    assert kept["skipped"] is None
    for level, names, question in (("fine", SPECIES, FINE_QUESTION), ("coarse", [*KINDS], COARSE_QUESTION)):
        found = [kept["scores"][level][name] for name in names]
        np.testing.assert_allclose(found, blind_by_hand(vlm, names, question), atol=2e-4, rtol=1e-4)


def test_blind_is_always_the_same_name_and_right_where_that_is_the_label(run: Run, vlm: VLM):
    table, found = run.read_table("answers"), Answers(run.read_table("answers"))
    fine, coarse = (
        blind_by_hand(vlm, *what) for what in ((SPECIES, FINE_QUESTION), ([*KINDS], COARSE_QUESTION))
    )
    said = SPECIES[int(fine.argmax())]
    assert set(table["said_fine_blind"]) == {said}
    assert found.accuracy("blind")["fine"] == pytest.approx((table["fine"] == said).mean())
    kind = [*KINDS][int(coarse.argmax())]
    assert found.accuracy("blind")["coarse"] == pytest.approx((table["coarse"] == kind).mean())
    likeliest = {kind: max(of, key=lambda name: fine[SPECIES.index(name)]) for kind, of in KINDS.items()}
    within = table["said_fine_within_coarse_blind"]
    assert within.tolist() == [likeliest[kind] for kind in table["coarse"]]
    assert found.accuracy("blind")["fine|coarse"] == pytest.approx((within == table["fine"]).mean())


def test_the_correction_undoes_a_liking_for_one_name(
    vlm: VLM, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A model that knows every bird, and says `coal tit` all the same."""
    run = new_run(vlm, images, tmp_path)
    fine, test = run.images["fine"].to_numpy(str), np.flatnonzero(run.images["split"] == "test")
    truth = iter(fine[[*training_sample(run.images), *test]])

    def liking(asked: Any, pictures: list, names: list[str], question: str) -> np.ndarray:
        scores = np.where(np.array(names) == "coal tit", 9.0, 0.0) - np.log(len(names))
        scores = np.tile(scores, (len(pictures), 1)).astype(np.float32)
        if question == FINE_QUESTION and not isinstance(asked, blind._Blinded):
            for row in scores:
                row[names.index(next(truth))] += 3
        return scores

    monkeypatch.setattr(answers, "name_likelihood", liking)
    monkeypatch.setattr(blind, "name_likelihood", liking)
    found = answer(run, vlm, images)
    assert set(found.table["said_fine"]) == {"coal tit"}
    assert found.accuracy("corrected")["fine"] == found.accuracy("corrected")["fine|coarse"] == 1
    assert found.accuracy("blind")["fine"] == found.accuracy()["fine"] < 0.5
    kept = run.read_json("prior")["fine"]
    assert (kept["prior"], kept["weight"]) == ("blind", 0.75)
    assert set(found.table["weight_fine"]) == {0.75} == {found.json()["weights"]["fine"]}
    assert [row["weight"] for row in kept["tried"]] == list(np.repeat(WEIGHTS, 2))


@pytest.mark.parametrize("build", [tiny.blip2, tiny.paligemma])
def test_a_model_that_needs_an_image_is_answered_for_without_the_controls(
    build: Any, tmp_path: Path, capsys: pytest.CaptureFixture
):
    model, processor = build()
    run = Run(tmp_path, {"prompt": FINE_QUESTION})
    assert blind_scores(run, open_vlm(model, processor=processor), {"fine": np.array(SPECIES)}) == {}
    assert run.read_json("blind")["skipped"].startswith("it cannot run so (")
    assert "not asked without an image: it cannot run so" in capsys.readouterr().err
    assert blind_scores(run, SimpleNamespace(), {"fine": np.array(SPECIES)}) == {}  # pyright: ignore[reportArgumentType]


def test_running_out_of_memory_is_no_reason_to_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vlm: VLM
):
    def full(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(blind, "name_likelihood", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        blind_scores(Run(tmp_path, {"prompt": FINE_QUESTION}), vlm, {"fine": np.array(SPECIES)})
    assert not (tmp_path / "results" / "blind.json").exists()


def test_the_mean_is_that_over_the_tokens(run: Run, vlm: VLM, images: ImageSet):
    table = run.read_table("answers")
    scores = name_likelihood(vlm, [images.open(int(row)) for row in table["row"]], SPECIES, FINE_QUESTION)
    prompt = vlm.chat(FINE_QUESTION)
    mean = scores / [len(answer_ids(vlm, prompt, name)) for name in SPECIES]
    assert table["said_fine_mean"].tolist() == [SPECIES[k] for k in mean.argmax(1)]
    assert table["said_fine"].tolist() == [SPECIES[k] for k in scores.argmax(1)]
    assert Answers(table).accuracy("mean")["fine"] == (table["said_fine_mean"] == table["fine"]).mean()


def test_the_sample_is_of_training_images_and_takes_each_class_in_turn():
    rng = np.random.default_rng(0)
    images = pd.DataFrame({"fine": rng.choice(list("abc"), 500, p=[0.9, 0.09, 0.01])})
    images["split"] = np.where(np.arange(500) % 2, "train", "test")
    images["status"] = np.where(np.arange(500) % 5, "ok", "unreadable")
    rows = training_sample(images, seed=3)
    assert rows.tolist() == training_sample(images, seed=3).tolist() == sorted(rows)
    assert rows.tolist() != training_sample(images, seed=4).tolist()
    assert (images.loc[rows, "split"] == "train").all()
    assert (images.loc[rows, "status"] == "ok").all()
    usable = images.query("split == 'train' and status == 'ok'")["fine"].value_counts()
    assert images.loc[rows, "fine"].value_counts().to_dict() == usable.clip(upper=4).to_dict()
    many = pd.DataFrame({"fine": [f"{k:03}" for k in range(150)] * 3, "split": "train", "status": "ok"})
    drawn = many.loc[training_sample(many), "fine"].value_counts()
    assert len(drawn) == 150
    assert (len(training_sample(many)), drawn.max()) == (200, 2)
    assert len(training_sample(images.assign(split="test"))) == 0


def test_a_useless_prior_gets_no_weight_and_a_true_one_all_of_it():
    rng = np.random.default_rng(1)
    names, truth = np.array([*"abcdef"]), rng.integers(0, 6, 200)
    evidence = 3 * np.eye(6)[truth] + rng.normal(size=(200, 6))
    habit, nonsense = 6 * rng.normal(size=6), 6 * rng.normal(size=6)
    kept = choose_correction(evidence, truth, names, {"blind": nonsense})
    assert (kept.prior, kept.weight) == ("blind", 0)
    kept = choose_correction(evidence + habit, truth, names, {"blind": nonsense, "training": habit})
    assert (kept.prior, kept.weight) == ("training", 1)
    best = kept.tried.loc[kept.tried["accuracy"].idxmax(), "accuracy"]
    assert (kept(evidence + habit).argmax(1) == truth).mean() == best


def test_the_prior_of_training_images_is_the_mean_probability():
    share = np.array([[0.5, 0.5], [0.1, 0.9]])
    np.testing.assert_allclose(training_prior(np.log(share) - 40), np.log([0.3, 0.7]), rtol=1e-5)


def test_a_model_that_needs_an_image_is_corrected_by_training_images(tmp_path: Path, images: ImageSet):
    model, processor = tiny.blip2()
    vlm = open_vlm(model, device="cpu", processor=processor)
    few = images.subset(np.arange(0, len(images), 4))
    run = new_run(vlm, few, tmp_path)
    found = answer(run, vlm, few)
    assert {kept["prior"] for kept in run.read_json("prior").values()} == {"training"}
    assert list(found.frame()) == ["level", "accuracy", "mean", "corrected"]
    assert set(found.accuracy("corrected")) == set(found.accuracy())


def test_answers_of_an_older_fgdiag_lack_the_controls_and_its_parts_are_left_alone(
    run: Run, vlm: VLM, images: ImageSet, tmp_path: Path
):
    whole = run.read_table("answers")
    new = [name for name in whole if name.endswith(("_corrected", "_blind", "_mean")) or "weight_" in name]
    old = whole.drop(columns=new)
    assert Answers(old).accuracy() == Answers(whole).accuracy()
    assert Answers(old).accuracy("blind") == {}
    assert list(Answers(old).frame()) == ["level", "accuracy"]
    assert Answers(old).json() == {"images": len(whole), "accuracy": Answers(whole).accuracy()}
    interrupted = new_run(vlm, images, tmp_path)
    old.to_parquet(interrupted.result_path("answers/000000.parquet"))
    pd.testing.assert_frame_equal(answer(interrupted, vlm, images).table, whole)


def test_frame_and_json_hold_every_way(run: Run):
    found = Answers(run.read_table("answers"))
    frame, plain = found.frame(), found.json()
    assert list(frame) == ["level", "accuracy", "mean", "corrected", "blind"]
    assert dict(zip(frame["level"], frame["blind"], strict=True)) == plain["blind"] == found.accuracy("blind")
    assert (
        set(plain["corrected"])
        == set(plain["mean"])
        == set(plain["weights"])
        == {"fine", "coarse", "fine|coarse"}
    )
