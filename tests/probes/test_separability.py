import json

import numpy as np
import pytest
from fgdiag_probes.separability import pair_curves

from fgdiag.errors import ClassNotFound, ImagesNotUsable
from tests.probes.conftest import SITES

A, B = "species 05", "species 06"
SMALL = {"readouts": ("image",), "train": 12, "test": 20, "signal": 3.0, "kinds": 3}


def merge(run, sites, *, answers: bool = True) -> None:
    """Let two classes look alike at some sites, and be named by lot: their images change places."""
    rng, swapped = np.random.default_rng(1), np.arange(len(run.images))
    for split in ("train", "test"):
        rows = np.flatnonzero(run.images["fine"].isin([A, B]) & (run.images["split"] == split))
        swapped[rows] = rng.permutation(rows)
    for site in sites:
        features = run.activations(site, "image")
        features[:] = features[swapped]
    if answers:
        table = run.read_table("answers")
        both = table["fine"].isin([A, B])
        for said in ("said_fine", "said_fine_within_coarse"):
            table.loc[both, said] = rng.choice([A, B], int(both.sum()))
        run.write_table("answers", table)


@pytest.mark.parametrize("at", ["projector", "llm.1", "llm.norm"])
def test_classes_merged_at_a_site_are_lost_exactly_there(planted, at: str) -> None:
    run = planted(**SMALL)
    merge(run, SITES[SITES.index(at) :])
    found = pair_curves(run, [(A, B), ("species 00", "species 01")])
    lost, kept = found.places.to_dict("records")
    assert (lost["outcome"], lost["by"], lost["kind"]) == ("lost", at, "genus 1")
    assert lost["after"] == SITES[SITES.index(at) - 1]
    assert lost["low"] > 0
    assert kept["outcome"] == "nowhere"
    curve = found.curves[found.curves["first"] == A].set_index("site")
    assert curve.loc["vision", "low"] > 0.75
    assert curve.loc[at, "low"] < 0.5


def test_what_only_the_answer_confuses_is_lost_in_the_answer(planted) -> None:
    run = planted(**SMALL)
    merge(run, [])
    [place] = pair_curves(run, top=1).places.to_dict("records")
    assert {place["first"], place["second"]} == {A, B}
    assert (place["outcome"], place["after"], place["by"], place["stage"]) == (
        "lost",
        "llm.norm",
        "answer",
        "answer",
    )
    assert "are lost between llm.norm and answer" in place["sentence"]


def test_what_a_later_site_brings_back_is_not_lost(planted) -> None:
    run = planted(**SMALL)
    merge(run, ["projector", "llm.0"], answers=False)
    [place] = pair_curves(run, [(A, B)]).places.to_dict("records")
    assert place["outcome"] == "nowhere"


def test_what_no_site_shows_was_never_readable(planted) -> None:
    run = planted(**SMALL)
    merge(run, SITES)
    [place] = pair_curves(run, [(A, B)]).places.to_dict("records")
    assert place["outcome"] in ("never readable", "nowhere")


def test_a_run_without_answers_or_kinds_ends_at_the_last_layer(planted) -> None:
    run = planted(**SMALL, answer_kept=None)
    merge(run, SITES[2:], answers=False)
    found = pair_curves(run, [(A, B)])
    assert found.places["by"].tolist() == ["llm.0"]
    assert found.curves["site"].iloc[-1] == "llm.norm"


def test_the_next_pair_reads_no_activations_again(planted) -> None:
    run = planted(**SMALL)
    first = pair_curves(run, [(A, B)])
    reads = run.reads
    again = pair_curves(run, [("Species-05", "SPECIES_06")])
    assert run.reads == reads
    assert again.json()["curves"] == first.json()["curves"]
    pair_curves(run, [("species 00", "species 01")])
    assert [pair["first"] for pair in run.read_json("pairs")["pairs"]] == ["species 00", A]
    json.dumps(again.json(), allow_nan=False)
    assert len(again.figure().to_dict()["data"])


def test_mistakes_are_named(planted) -> None:
    run = planted(**SMALL)
    with pytest.raises(ClassNotFound, match="did you mean 'species 05'"):
        pair_curves(run, [("specis 05", B)])
    with pytest.raises(ImagesNotUsable, match="twice"):
        pair_curves(run, [(A, A)])
