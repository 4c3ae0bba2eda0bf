import numpy as np
import pytest
from fgdiag_probes import linear
from fgdiag_probes.curves import LayerCurves, probe_layers

from fgdiag.errors import ControlFailed


@pytest.fixture(scope="module")
def run(planted):
    return planted(kept={"llm.2": 0.6})


@pytest.fixture(scope="module")
def curves(run) -> LayerCurves:
    return probe_layers(run)


def test_curve_falls_where_the_signal_was_cut(curves: LayerCurves) -> None:
    before = curves.row("fine|coarse", ("llm.1", "image"))
    after = curves.row("fine|coarse", ("llm.2", "image"))
    assert before["accuracy"] > 0.9
    assert 0.3 < after["accuracy"] < before["low"]
    assert curves.row("coarse", ("llm.2", "image"))["accuracy"] > 0.95


def test_every_score_has_chance_and_an_interval(curves: LayerCurves) -> None:
    table = curves.frame()
    assert len(table) == 3 * 15
    assert len(table.query("low <= accuracy <= high and bits_low <= bits <= bits_high")) == len(table)
    scores = table.drop(columns=["control", "selectivity"])
    assert len(scores.dropna()) == len(table)
    assert table["control"].notna().tolist() == (table["level"] == "coarse").tolist()
    assert table["converged"].to_numpy().all()


def test_sites_are_in_the_order_of_the_forward_pass(curves: LayerCurves) -> None:
    sites = list(dict.fromkeys(curves.table["site"]))
    assert sites == ["pixels", "vision", "projector", "llm.0", "llm.1", "llm.2", "llm.norm"]


def test_pixels_and_tokens_before_the_image_are_near_chance(curves: LayerCurves) -> None:
    for place in [("pixels", "image"), ("llm.1", "pre")]:
        row = curves.row("fine|coarse", place)
        assert row["low"] <= row["chance"] <= row["high"]
    assert curves.control.applies
    assert curves.control.passed


def test_look_alikes_are_judged_among_siblings_only(curves: LayerCurves) -> None:
    labels = curves.labels
    said = curves.readings["vision", "image"]["fine|coarse"].said
    assert (labels.siblings[labels.coarse[labels.test], said]).all()


def test_choices_go_by_training_images(curves: LayerCurves) -> None:
    llm = curves.table.query("level == 'fine' and readout != 'pre' and site.str.startswith('llm')")
    place = curves.best("fine", {"llm.0", "llm.1", "llm.2", "llm.norm"})
    assert place is not None
    assert curves.row("fine", place)["cv_accuracy"] == llm["cv_accuracy"].max()
    assert curves.best("fine", ["llm.99"]) is None


def test_a_second_call_reads_no_activations(run, curves: LayerCurves) -> None:
    reads = run.reads
    again = probe_layers(run)
    assert run.reads == reads
    assert again.table.equals(curves.table)


def test_only_what_is_missing_is_probed_again(run, curves: LayerCurves) -> None:
    reads = run.reads
    run.result_path("probes/llm.1.image.npz").unlink()
    assert probe_layers(run).table.equals(curves.table)
    assert run.reads == reads + 1


def test_another_seed_or_prompt_is_probed_anew(planted) -> None:
    run = planted(sites=("vision",), answer_kept=None, train=6, test=4)
    probe_layers(run)
    reads = run.reads
    probe_layers(run, seed=1)
    run.manifest["prompt"] = "And this?"
    probe_layers(run, seed=1)
    assert run.reads == 3 * reads


def test_readable_tokens_before_the_image_fail_loudly(planted) -> None:
    run = planted(sites=("vision", "llm.0"), answer_kept=None, train=6, test=4)
    run._activations["llm.0", "pre"] = run._activations["vision", "image"]
    with pytest.raises(ControlFailed, match="no number of this run can be believed"):
        probe_layers(run)
    assert run.read_json("probes")["control"]["passed"] is False


def test_control_does_not_apply_where_attention_looks_ahead(planted) -> None:
    run = planted(sites=("vision", "llm.0"), answer_kept=None, train=6, test=4)
    run._activations["llm.0", "pre"] = run._activations["vision", "image"]
    run.manifest["causal"] = False
    assert not probe_layers(run).control.applies


def test_without_kinds_there_is_one_level(planted) -> None:
    run = planted(sites=("vision",), answer_kept=None, train=6, test=4)
    run.images["coarse"] = run.images["fine"]
    run.manifest["images"]["levels"] = ["fine"]
    found = probe_layers(run)
    assert set(found.table["level"]) == {"fine"}
    assert "among all" in found.figure().to_dict()["layout"]["title"]["text"]


def test_unreadable_images_may_be_nan(planted) -> None:
    run = planted(sites=("vision",), answer_kept=None, train=6, test=4)
    run.images.loc[[0, 7], "status"] = "truncated"
    run._activations["vision", "image"][[0, 7]] = np.nan
    assert probe_layers(run).row("coarse", ("vision", "image"))["accuracy"] > 0.8


def test_figure_has_lines_intervals_chance_and_pixels(curves: LayerCurves) -> None:
    figure = curves.figure("fine").to_dict()
    named = {trace.get("name") for trace in figure["data"]} - {None}
    assert named == {"mean over image tokens", "last prompt token", "tokens before the image"}
    assert {note["text"] for note in figure["layout"]["annotations"]} == {"chance", "raw pixels"}
    assert figure["layout"]["xaxis"]["title"]["text"]
    assert "%" in figure["layout"]["yaxis"]["title"]["text"]


def test_solver_settings_are_part_of_what_a_reading_is_made_of() -> None:
    from fgdiag_probes.curves import METHOD

    assert str(linear.PENALTIES) in METHOD
