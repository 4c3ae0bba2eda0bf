from dataclasses import replace

import numpy as np
import pytest
from fgdiag_probes import bottleneck
from fgdiag_probes.bottleneck import LossBudget, loss_budget
from fgdiag_probes.curves import probe_layers
from fgdiag_probes.depths import OWN, REFERENCE, Depth

from fgdiag.sites import ATTENTION

SMALL = {"sites": ("vision", "projector", "llm.0", "llm.norm"), "readouts": ("image",)}
PLANTED = {
    "vision encoder": {"signal": 0.0},
    "projector": {"kept": {"projector": 0.55}},
    "language model": {"kept": {"llm.norm": 0.55}},
    "answer": {"answer_kept": 0.5},
    "none": {},
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("stage", PLANTED)
def test_verdict_names_the_planted_stage(planted, stage: str, seed: int) -> None:
    budget = loss_budget(planted(**SMALL, **PLANTED[stage], seed=seed))
    assert budget.verdict.stage == stage


@pytest.fixture(scope="module")
def cut(planted) -> LossBudget:
    """The language model loses the species, and keeps the genus."""
    return loss_budget(planted(**SMALL, kept={"llm.0": 0.5}))


def test_sentence_has_the_numbers_and_the_kind(cut: LossBudget) -> None:
    assert cut.verdict.stage == "language model"
    sentence = str(cut.verdict)
    assert sentence.startswith("The language model loses the fine detail: among look-alikes of the same kind")
    assert "while the kind itself stays readable (100 % to 100 %)" in sentence
    assert "information" not in sentence
    largest = cut.drops.sort_values("drop").iloc[-1]
    assert f"a drop of {largest['drop']:.0f} points" in sentence


def test_drops_chain_the_depths(cut: LossBudget) -> None:
    rows = cut.drops[cut.drops["level"] == "fine|coarse"]
    chain = ["image-only reference", "vision", "projector", "best llm layer", "last llm layer", "answer"]
    assert rows["from"].tolist() == chain[:-1]
    assert rows["to"].tolist() == chain[1:]
    left = cut.depths[cut.depths["level"] == "fine|coarse"].set_index("depth")["accuracy"]
    gone = 100 * (np.asarray(left[rows["from"]]) - np.asarray(left[rows["to"]]))
    np.testing.assert_allclose(np.asarray(rows["drop"]), gone)
    assert len(rows.query("low <= drop <= high")) == 5


def test_json_on_disk_is_what_others_read(planted) -> None:
    run = planted(**SMALL, kept={"projector": 0.5})
    budget = loss_budget(run)
    stored = run.read_json("verdict")
    assert stored == budget.json()
    assert stored["stage"] == "projector"
    assert {"from", "to", "level", "drop", "low", "high", "significant"} <= set(stored["budget"][0])
    assert any("a pooling that is learnt" in line for line in stored["not_tested"])


def test_a_fall_of_everything_is_not_called_specific(planted) -> None:
    budget = loss_budget(planted(**SMALL, kept={"llm.0": 0.4}, kind_kept={"llm.0": 0.3}))
    assert "not specific to fine detail alone" in budget.verdict.sentence


def test_what_is_readable_again_later_was_not_lost(planted) -> None:
    run = planted(**SMALL)
    damaged = planted(**SMALL, kept={"projector": 0.5})
    run._activations["projector", "image"] = damaged._activations["projector", "image"]
    budget = loss_budget(run)
    first = budget.drops.query("to == 'projector'").iloc[0]
    assert first["significant"]
    assert first["made_good"]
    assert budget.verdict.stage == "none"


def test_detail_that_moved_to_another_token_was_not_lost(planted) -> None:
    run = planted(sites=SMALL["sites"])
    damaged = planted(sites=SMALL["sites"], kept={"llm.norm": 0.3})
    run._activations["llm.norm", "last"] = run._activations["llm.norm", "image"]
    run._activations["llm.norm", "image"] = damaged._activations["llm.norm", "image"]
    assert loss_budget(run).verdict.stage == "none"


def test_without_answers_it_says_so(planted) -> None:
    verdict = loss_budget(planted(**SMALL, answer_kept=None)).verdict
    assert verdict.sentence.endswith("The model's own answers were not tested.")
    assert "the model's own answers" in verdict.not_tested


@pytest.mark.parametrize(("last", "named"), [("llm.norm", False), ("llm.29", False), ("llm.4", True)])
def test_layers_behind_the_last_recorded_one_are_not_passed_over(planted, last: str, named: bool) -> None:
    run = planted(sites=("vision", "projector", "llm.2", last), readouts=("image",), answer_kept=0.5)
    run.manifest["llm_blocks"] = 30
    verdict = loss_budget(run, network=False, splits=False).verdict
    assert verdict.stage == "answer"
    line = "the language model behind llm.4: 2 of its 30 blocks were recorded, and what later ones"
    assert any(missing.startswith(line) for missing in verdict.not_tested) is named
    assert ("its last recorded layer (llm.4) still holds" in verdict.sentence) is named
    assert ("at the language model's last layer but" in verdict.sentence) is (last == "llm.norm")


def test_unanswered_images_are_left_out_of_every_depth(planted) -> None:
    run = planted(**SMALL)
    run.write_table("answers", run.read_table("answers").iloc[5:])
    assert set(loss_budget(run).depths["images"]) == {195}


def test_an_encoder_as_good_as_easy_pixels_is_not_blamed(planted) -> None:
    run = planted(**SMALL, answer_kept=0.4)
    run._activations["pixels", "image"] = run._activations["vision", "image"]
    assert loss_budget(run).verdict.stage == "answer"


def test_without_kinds_the_fine_level_decides(planted) -> None:
    run = planted(**SMALL, kept={"projector": 0.4})
    run.images["coarse"] = run.images["fine"]
    run.manifest["images"]["levels"] = ["fine"]
    verdict = loss_budget(run).verdict
    assert verdict.stage == "projector"
    assert "kind" not in verdict.sentence


def refer_to(name: str, better, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an image model that sees what another run's encoder sees be the reference."""
    seen = probe_layers(better).readings["vision", "image"]
    references = {level: Depth(REFERENCE, name, "image, linear probe", seen[level]) for level in seen}
    monkeypatch.setattr(bottleneck, "image_only_reference", lambda run, seed: references)


def test_another_image_model_blames_an_encoder_that_sees_less(
    planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planted(**SMALL, signal=1.0)
    refer_to("good-net", planted(**SMALL), monkeypatch)
    learnt = probe_layers(run)
    readings = {**learnt.readings, ("vision", ATTENTION): learnt.readings["vision", "image"]}
    monkeypatch.setattr(bottleneck, "probe_layers", lambda run, seed: replace(learnt, readings=readings))
    verdict = loss_budget(run).verdict
    assert verdict.stage == "vision encoder"
    assert "good-net (image, linear probe) names" in verdict.sentence
    assert not any("another image model" in line for line in verdict.not_tested)
    assert verdict.agreeing is None
    assert sum("other deals" in line for line in verdict.not_tested) == 1
    assert any("this drop on other deals" in line for line in verdict.not_tested)


def test_without_attention_another_image_model_blames_nobody(
    planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    refer_to("own-net-by-its-hub-name", planted(**SMALL), monkeypatch)
    budget = loss_budget(planted(**SMALL, signal=1.0), network=False, splits=False)
    assert budget.drops.iloc[0]["significant"]
    assert budget.verdict.stage == "none"
    assert budget.heading == "No significant loss"
    assert (
        "where a linear probe on the mean of what the vision encoder hands on names"
        in budget.verdict.sentence
    )
    assert "a better pooling may find" in budget.verdict.sentence
    assert any(line.startswith("a pooling that is learnt (") for line in budget.verdict.not_tested)


def test_the_own_encoder_as_reference_blames_nobody(planted, monkeypatch: pytest.MonkeyPatch) -> None:
    run = planted(**SMALL, signal=1.2)
    refer_to(OWN, planted(**SMALL), monkeypatch)
    assert loss_budget(run).drops.iloc[0]["significant"]
    assert loss_budget(run).verdict.stage == "none"


def test_figure_is_a_waterfall_with_the_kind_beside_it(cut: LossBudget) -> None:
    figure = cut.figure().to_dict()
    bars = {trace["name"]: trace for trace in figure["data"] if trace["type"] == "bar"}
    assert len(bars["left"]["x"]) == 6
    assert [str(tick) for tick in bars["lost"]["x"]] == ["best LLM<br>layer"]
    assert [trace["name"] for trace in figure["data"] if trace["type"] == "scatter"] == [
        "the kind (coarse class)"
    ]
    notes = [note["text"] for note in figure["layout"]["annotations"]]
    assert sum("<b>" in note for note in notes) == 1


def test_a_network_is_named_only_where_it_speaks(cut: LossBudget) -> None:
    steps = [line for line in cut.verdict.numbers if ": a drop of" in line]
    told = ["with the better of probe and small network" in line for line in steps]
    assert told == cut.drops["by_network"].tolist()
