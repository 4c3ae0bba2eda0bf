import numpy as np
import pytest
from fgdiag_probes.curves import probe_layers
from fgdiag_probes.depths import Depth
from fgdiag_probes.drops import drops_between
from fgdiag_probes.reading import Reading
from fgdiag_probes.stability import SPLITS, Stability, deal_anew
from fgdiag_probes.verdict import STEADY
from fgdiag_probes.verdict_words import others_say

from tests.probes.labelled import labelled

FORTY_CLASSES = {"kinds": 8, "per_kind": 5, "train": 14, "test": 6}


@pytest.fixture(scope="module")
def dealt(planted) -> Stability:
    """What other deals say of a projector that loses 15 points among look-alikes, on 240 test images."""
    sites = ("vision", "projector", "llm.norm")
    run = planted(
        **FORTY_CLASSES,
        sites=sites,
        readouts=("image",),
        signal=2.0,
        kept={"projector": 0.8},
        answer_kept=0.9,
        seed=1,
    )
    return deal_anew(run, probe_layers(run))


def test_a_drop_of_15_points_is_named_by_most_deals(dealt: Stability) -> None:
    left = dict(dealt.frame()[["depth", "accuracy"]].itertuples(index=False, name=None))
    assert 100 * (left["vision"] - left["projector"]) == pytest.approx(15, abs=2)
    assert dealt.agreeing("projector") >= STEADY * SPLITS


def test_only_the_answer_is_judged_on_fewer_images(dealt: Stability) -> None:
    answer = dealt.table["depth"] == "answer"
    images = dealt.table["images"].to_numpy()
    assert set(images[~answer]) == {240}
    least, most = images[answer].min(), images[answer].max()
    assert 50 < least < most < 100
    said = f"recorded readouts on 240 test images each (the answer on {least} to {most} of them), name: "
    assert said in others_say(dealt)


def test_a_drop_is_measured_where_both_its_depths_say_something() -> None:
    fine = np.tile(np.arange(4), 10)
    labels = labelled(fine, np.full(40, True))
    bits = np.ones(40, np.float32)
    wrong = np.where(np.arange(40) < 20, (fine + 1) % 4, fine)
    asked = np.arange(40) >= 10
    chain = [
        Depth("vision", "vision", "image", Reading(fine, bits)),
        Depth("projector", "projector", "image", Reading(wrong, bits)),
        Depth(
            "answer",
            "answer",
            "likelihood",
            Reading(np.where(asked, fine, -1), np.where(asked, bits, np.nan)),
        ),
    ]
    drops = drops_between(chain, labels, "fine", np.full(40, True))
    assert drops["drop"].tolist() == pytest.approx([50.0, -100 / 3])
    assert drops["made_good"].tolist() == [True, False]
