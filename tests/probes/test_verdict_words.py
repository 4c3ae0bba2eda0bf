from typing import Any

import pytest
from fgdiag_probes.verdict_words import kind, lost, nothing_lost

from fgdiag.sites import ATTENTION


def depth(name: str, accuracy: float, **more: Any) -> dict[str, Any]:
    """A row of `LossBudget.depths`."""
    shares = {"accuracy": accuracy, "chance": 0.1, "above_chance": True}
    return {"level": "fine|coarse", "depth": name, "site": name, "readout": "image", **shares, **more}


def drop(size: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    """A row of `LossBudget.drops`: what the projector loses."""
    between = {"level": "fine|coarse", "from": "vision", "to": "projector", "stage": "projector"}
    fall = {"drop": size, "low": low, "high": high, "significant": low > 0, "lost": True}
    return {**between, **fall, **more}


def by_network(size: float, low: float, high: float) -> dict[str, Any]:
    """The columns of a drop that tell what is left where a network may read too."""
    return {"drop_nonlinear": size, "low_nonlinear": low, "high_nonlinear": high, "lost": low > 0}


def said(fall: dict[str, Any], *depths: dict[str, Any]) -> str:
    rows = depths or (depth("vision", 0.8), depth("projector", 0.7))
    return lost(fall, {(row["level"], row["depth"]): row for row in rows})


def test_a_network_not_seen_to_fall_does_not_prove_that_nothing_is_lost() -> None:
    sentence = said(drop(9.2, 5.6, 13.0, **by_network(6.3, -0.3, 12.3)))
    assert "does not lose it" not in sentence
    assert sentence.startswith(
        "The projector makes the fine detail harder to read; whether it is lost too is not seen"
    )
    assert sentence.endswith(
        "with the better of probe and small network the drop is 6.3 points (-0.3 to 12.3)"
    )


@pytest.mark.parametrize(
    ("linear", "high", "kept"), [(30.0, 4.9, True), (30.0, 5.1, False), (6.0, 2.9, True), (6.0, 3.1, False)]
)
def test_what_is_next_to_nothing_beside_the_linear_drop_is_not_lost(
    linear: float, high: float, kept: bool
) -> None:
    sentence = said(drop(linear, 2.0, 40.0, **by_network(1.0, -2.0, high)))
    assert ("does not lose it" in sentence) is kept


def test_the_network_is_said_to_read_only_where_it_speaks() -> None:
    fall = drop(20.0, 12.0, 28.0, **by_network(1.0, -2.0, 3.0))
    before = depth("vision", 0.8, nonlinear=0.8, by_network=False)
    spoken = said(fall, before, depth("projector", 0.6, nonlinear=0.79, by_network=True))
    silent = said(
        fall, before | {"by_network": True}, depth("projector", 0.6, nonlinear=0.6, by_network=False)
    )
    assert spoken.endswith("3.0), for a small network still names 79 % there")
    assert silent.endswith("3.0)")


def test_attention_is_not_called_a_linear_probe() -> None:
    fall = drop(54.0, 44.0, 64.0)
    attended = (depth("vision", 0.98, readout=ATTENTION), depth("projector", 0.44, readout=ATTENTION))
    assert said(fall, *attended).startswith(
        "The projector loses the fine detail: among look-alikes of the same kind, a probe with learnt attention names "
        "98 % of test images right at the output of the vision encoder but 44 % at the projector (a drop of 54"
    )
    mixed = said(fall, attended[0], depth("projector", 0.44))
    assert "vision encoder but a linear probe 44 % at the projector" in mixed
    assert "linear" not in said(fall, *attended)
    assert "attention" not in said(fall)


def test_where_nothing_is_lost_each_probe_is_named_once() -> None:
    chain = [
        depth("vision", 0.98, readout=ATTENTION),
        depth("projector", 0.97),
        depth("last llm layer", 0.96) | {"site": "llm.norm"},
    ]
    assert nothing_lost(chain).endswith(
        "a probe with learnt attention names right 98 % at the output of the vision encoder, a linear probe 97 % at "
        "the projector, 96 % at the language model's last layer."
    )


def said_of_the_kind(low: float, high: float, *, significant: bool) -> str:
    fine = drop(40.0, 30.0, 50.0)
    coarse = drop((low + high) / 2, low, high) | {"level": "coarse", "significant": significant}
    rows = (depth("vision", 0.8), depth("projector", 0.4))
    kinds = (depth("vision", 0.89) | {"level": "coarse"}, depth("projector", 0.61) | {"level": "coarse"})
    at = {(row["level"], row["depth"]): row for row in (*rows, *kinds)}
    return kind(fine, [fine, coarse], at)


@pytest.mark.parametrize(
    ("low", "high", "significant", "words"),
    [
        (-2.0, 4.0, False, ", while the kind itself stays readable (89 % to 61 %)."),
        (-2.0, 58.0, False, "; whether the kind falls too is not seen (89 % to 61 %)."),
        (10.0, 29.0, True, ", while the kind itself falls less (89 % to 61 %)."),
        (
            20.0,
            36.0,
            True,
            "; this is not specific to fine detail alone, for the kind itself falls too (89 % to 61 %).",
        ),
    ],
)
def test_of_the_kind_no_more_is_said_than_is_seen(
    low: float, high: float, significant: bool, words: str
) -> None:
    assert said_of_the_kind(low, high, significant=significant) == words
