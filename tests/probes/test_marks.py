import numpy as np
import pandas as pd
import pytest
from fgdiag_probes.marks import MarkSizes, _rank_correlation, mark_sizes, marks_between

from fgdiag.errors import ImagesNotUsable
from fgdiag.fieldguide import SPECIES


def test_marks_of_two_species_are_those_written_by_hand() -> None:
    assert marks_between("Capped-Larkfinch", "Ruby Larkfinch") == "crown black / red"
    assert (
        marks_between("Ringed Larkfinch", "Barred Larkfinch") == "eye ring white / plain, wing plain / bars"
    )
    assert marks_between("Coral Pondfisher", "Snowy Pondfisher") == "bill red / plain, crown plain / white"
    assert marks_between("Ruby Barkpecker", "Ruby Larkfinch") == "all parts: Barkpecker / Larkfinch"
    assert marks_between("Granny-Smith", "Ruby Larkfinch") is None


def pairs(confused_where_small: float, *, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = [(a.name, b.name) for a in SPECIES for b in SPECIES if a.genus == b.genus and a.name < b.name]
    size = rng.uniform(1, 30, len(names))
    confused = rng.uniform(0, 30, len(names)) - confused_where_small * size
    first, second = zip(*names, strict=True)
    return pd.DataFrame({"first": first, "second": second, "size": size, "vision": confused})


def test_small_marks_that_are_confused_are_seen_and_luck_is_not() -> None:
    found = _rank_correlation(pairs(2.0), "vision", 0)
    assert found["correlation"] < -0.7
    assert found["p_value"] < 0.001
    alarms = [_rank_correlation(pairs(0.0, seed=seed), "vision", 0)["p_value"] < 0.05 for seed in range(10)]
    assert sum(alarms) <= 2


def test_the_figure_says_what_was_found() -> None:
    table = pairs(2.0).assign(marks="", parts=2, genus="")
    ranks = pd.DataFrame([{"depth": "vision", "correlation": -0.8, "p_value": 0.0002}])
    [trace] = MarkSizes(table, ranks).figure().to_dict()["data"]
    assert trace["name"] == "vision (rank correlation -0.80, p < 0.001)"


def test_other_images_have_no_known_marks(planted) -> None:
    run = planted(sites=("vision", "llm.norm"), readouts=("image",), train=8, test=4)
    run.images["source"] = run.images["id"]
    run.manifest["images"]["source"] = str(run.path)
    with pytest.raises(ImagesNotUsable, match="'species 00' is no species"):
        mark_sizes(run)
