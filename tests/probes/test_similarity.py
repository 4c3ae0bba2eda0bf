import numpy as np
import pytest
from fgdiag_probes.class_names import class_named
from fgdiag_probes.similarity import ClassOrder

from fgdiag.errors import ClassNotFound


def test_planted_blocks_come_back_in_their_order() -> None:
    rng = np.random.default_rng(0)
    kind_of = rng.permutation(np.repeat([0, 1, 2], 5))
    rank = np.zeros(15)
    for kind in range(3):
        rank[kind_of == kind] = rng.permutation(5)
    means = np.zeros((15, 2))
    means[:, 0] = [0.0, 40.0, 10.0] @ np.eye(3)[kind_of].T  # along a line: kind 0, kind 2, kind 1
    means[:, 1] = 3 * rank  # along another: the classes of a kind
    fine = np.repeat(np.arange(15), 6)
    order = ClassOrder.of(means[fine] + 0.1 * rng.standard_normal((90, 2)), fine, kind_of)
    kinds = [kind for kind, _, _ in order.blocks]
    assert kinds in ([0, 2, 1], [1, 2, 0])
    for _, start, end in order.blocks:
        steps = np.diff(rank[order.classes[start:end]])
        assert set(steps) in ({1.0}, {-1.0})
    assert sorted(order.classes) == list(range(15))


def test_names_are_found_as_they_are_spoken() -> None:
    known = ["Granny-Smith", "Golden_Delicious", "Royal-Gala"]
    assert class_named("Granny Smith", known) == "Granny-Smith"
    assert class_named("golden-delicious", known) == "Golden_Delicious"
    with pytest.raises(ClassNotFound, match="'Granny Smith'"):
        class_named("Grany Smit", known)
    with pytest.raises(ClassNotFound, match="'a b' or 'a-b'"):
        class_named("A B", ["a b", "a-b"])
