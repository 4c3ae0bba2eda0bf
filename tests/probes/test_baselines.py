import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fgdiag_probes import reading
from fgdiag_probes.answered import COLUMNS, read_answers
from fgdiag_probes.baselines import VLM, compare_baselines
from fgdiag_probes.curves import FOLDS
from fgdiag_probes.image_only import LINEAR, MEANS, NEAREST, OWN, PIXELS, image_only_reference, read_baselines
from fgdiag_probes.labels import Labels
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

SMALL = {"sites": ("vision", "llm.norm"), "readouts": ("image",), "train": 8, "test": 6}


def give_image_model(run, features: np.ndarray, name: str = "owner/model") -> None:
    """Record features of an image model by hand, in the layout of `fgdiag.image_features`."""
    run.manifest["block"] = len(run.images)
    folder = run.result_path("baselines/owner_model-00000000/model.json").parent
    np.savez(folder / "00000.npz", image=features.astype(np.float32))
    about = {
        "name": name,
        "revision": None,
        "fingerprint": f"{features.sum():.6f}",
        "dtype": "float32",
        "readouts": {"image": features.shape[1]},
        "scale": None,
    }
    (folder / "model.json").write_text(json.dumps(about))


def one_hot(run) -> np.ndarray:
    """Features that give the class away."""
    codes = np.unique(run.images["fine"], return_inverse=True)[1]
    return np.eye(codes.max() + 1)[codes] + 0.01 * np.random.default_rng(0).standard_normal(
        (len(codes), codes.max() + 1)
    )


@pytest.fixture(scope="module")
def run(planted):
    """A planted run of 240 images, few enough for one block, whose VLM answers at random; and a perfect image model."""
    made = planted(**SMALL, kinds=4, per_kind=4, answer_kept=0.3)
    give_image_model(made, one_hot(made))
    return made


def test_a_perfect_image_model_is_perfect_and_the_reference(run) -> None:
    found = compare_baselines(run)
    for level in found.labels.levels:
        rows = found.table.query("level == @level and model == 'owner/model'")
        assert set(rows["method"]) == {LINEAR, NEAREST, MEANS}
        assert np.all(rows["accuracy"] == 1.0)
        assert found.table.query("level == @level and reference")["model"].tolist() == ["owner/model"]
        depth = image_only_reference(run)[level]
        assert (depth.name, depth.site, depth.readout) == (
            "image-only reference",
            "owner/model",
            "image, linear probe",
        )
        assert depth.reading.correct(found.labels, level)[found.labels.asked(level, found.labels.test)].all()


def test_own_encoder_is_the_reference_where_nothing_else_is(planted) -> None:
    run = planted(**SMALL)
    labels = Labels.of(run)
    folds = labels.folds(folds=FOLDS, seed=0)
    probed = reading.read(run.activations("vision", "image"), labels, folds, resolution=1e-5)
    reference = image_only_reference(run)
    assert set(reference) == set(labels.levels)
    for level, depth in reference.items():
        assert depth.site == OWN
        assert np.array_equal(depth.reading.said, probed[level].said)


def test_readers_are_those_of_scikit_learn(run) -> None:
    labels = Labels.of(run)
    found = {(one.model, one.method): one.readings for one in read_baselines(run, labels, seed=0)}
    assert (PIXELS, MEANS) not in found
    X = run.activations("vision", "image").astype(float)
    train, test = labels.train, labels.test
    space = (X - X[train].mean(0)) / X[train].std(0)
    nearest_mean = NearestCentroid().fit(space[train], labels.fine[train]).predict(space[test])
    assert np.array_equal(found[OWN, MEANS]["fine"].said, nearest_mean)
    ours = np.mean(found[OWN, NEAREST]["fine"].said == labels.fine[test])
    theirs = [
        KNeighborsClassifier(k, metric="cosine", algorithm="brute")
        .fit(space[train], labels.fine[train])
        .score(space[test], labels.fine[test])
        for k in (1, 5, 20)
    ]
    assert min(theirs) - 0.05 < ours < max(theirs) + 0.05


def test_gaps_are_paired_differences(run) -> None:
    found = compare_baselines(run)
    labels, answers = found.labels, read_answers(run, found.labels)
    assert answers is not None
    vlm = answers["fine"].correct(labels, "fine")
    row = found.table.query("level == 'fine' and model == 'owner/model' and method == @LINEAR").iloc[0]
    assert row["gap"] == pytest.approx(100 * (1 - vlm.mean()))
    assert row["gap_low"] < row["gap"] < row["gap_high"]
    own = found.table.query("level == 'fine' and model == @VLM").iloc[0]
    assert own["accuracy"] == pytest.approx(vlm.mean())
    perfect = found.gaps.query("level == 'fine' and model == 'owner/model' and method == @LINEAR")
    for by, codes in {"fine": labels.fine, "coarse": labels.coarse}.items():
        gaps = perfect.loc[perfect["by"] == by]
        wrong = [1 - vlm[codes[labels.test] == code].mean() for code in np.unique(codes)]
        assert np.allclose(gaps["gap"], 100 * np.array(wrong))
        assert np.average(gaps["gap"], weights=gaps["images"]) == pytest.approx(row["gap"])
    kind = perfect.query("by == 'fine'").iloc[0]
    mine = 100 * (1 - vlm[labels.fine[labels.test] == 0])
    spread = mine.std(ddof=1) / len(mine) ** 0.5
    assert kind["high"] - kind["low"] > 2 * 1.96 * spread
    worst = found.worst("fine", by="fine", top=3)
    assert worst["gap"].is_monotonic_decreasing
    assert worst["gap"].iloc[0] == perfect.query("by == 'fine'")["gap"].max()


def test_one_image_decides_nothing_and_all_equal_is_no_gap(planted) -> None:
    """A VLM that says what the reference says has no gap anywhere."""
    run = planted(**SMALL)
    labels = Labels.of(run)
    reference = image_only_reference(run)
    answers = run.read_table("answers")
    for level, (column, _) in COLUMNS.items():
        answers[column] = labels.names(level)[reference[level].reading.said]
    run.write_table("answers", answers)
    found = compare_baselines(run)
    rows = found.table.query("reference")
    assert np.all(rows["gap"] == 0)
    assert np.all(rows["gap_low"] < 0)
    assert np.all(rows["gap_high"] > 0)
    assert np.all(found.gaps.query("reference")["gap"] == 0)


def test_what_was_read_is_read_back(run) -> None:
    first = compare_baselines(run)
    reads = run.reads
    second = compare_baselines(run)
    assert run.reads == reads
    pd.testing.assert_frame_equal(first.table, second.table)


def test_without_answers_there_are_no_gaps(planted) -> None:
    run = planted(**SMALL, answer_kept=None)
    found = compare_baselines(run)
    assert len(found.gaps) == 0
    assert np.isnan(found.table["gap"]).all()
    assert len(found.worst()) == 0
    assert VLM not in set(found.table["model"])
    assert found.gap_figure().to_dict()


def test_figures_and_json(run) -> None:
    found = compare_baselines(run)
    drawn = found.figure("fine").to_dict()["data"]
    assert {trace["name"] for trace in drawn} == {LINEAR, NEAREST, MEANS, VLM, "chance"}
    assert found.gap_figure("fine").layout.yaxis.categoryarray[-1] == found.worst("fine")["of"].iloc[0]
    assert json.loads(json.dumps(found.json(), allow_nan=False))["gaps"]
    assert Path(run.result_path("baselines.json")).exists()
