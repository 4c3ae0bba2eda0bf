from dataclasses import replace

import numpy as np
from fgdiag_probes.depths import Depth
from fgdiag_probes.drops import drops_between, scores_at
from fgdiag_probes.networks import nonlinear
from fgdiag_probes.reading import read
from fgdiag_probes.upper_bound import upper_chain

from tests.probes.labelled import exclusive_or, labelled


def test_the_network_speaks_where_it_is_better_and_tables_say_so() -> None:
    features, fine, test = exclusive_or(480)
    labels = labelled(fine, test)
    folds = labels.folds(folds=3, seed=0)
    line, network = read(features, labels, folds, resolution=0.0), nonlinear(features, labels, folds)
    assert network["fine"].choice
    sure = replace(network["fine"], choice=replace(network["fine"].choice, accuracy=1.0))
    chain = [
        Depth("vision", "vision", "image", sure),
        Depth("projector", "projector", "image", line["fine"]),
        Depth("answer", "answer", "likelihood", line["fine"]),
    ]
    places = [("vision", "image"), ("projector", "image"), None]
    asked = np.ones(len(labels.test), bool)

    upper = upper_chain(chain, places, "fine", lambda place: network)
    assert [depth.readout for depth in upper] == ["image", "network", "likelihood"]
    scores = scores_at(chain, labels, "fine", asked, upper)
    assert scores["by_network"].tolist() == [False, True, False]
    falls = drops_between(chain, labels, "fine", asked, upper)
    assert falls["by_network"].tolist() == [True, True]
    first = falls.iloc[0]
    assert first["drop"] > 30
    assert abs(first["drop_nonlinear"]) < 10

    unread = drops_between(chain, labels, "fine", asked, chain)
    assert unread["by_network"].tolist() == [False, False]
