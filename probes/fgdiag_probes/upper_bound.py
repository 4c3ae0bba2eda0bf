"""What any reader finds at the depths of a run: the probe of the depth or a small network, the better of the two.

"Not linearly readable" is not "lost": a drop is called a loss only where this falls with the linear probe.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from fgdiag.store import Run
from fgdiag_probes import reading
from fgdiag_probes.curves import FOLDS, LayerCurves, Place, key_of, resolution_of
from fgdiag_probes.depths import NETWORK, Depth
from fgdiag_probes.labels import Level
from fgdiag_probes.networks import nonlinear
from fgdiag_probes.reading import Readings

METHOD = "1: one hidden layer"


def network(run: Run, curves: LayerCurves, place: Place, *, seed: int = 0) -> Readings:
    """Read a place with a small network (`fgdiag_probes.networks`); what was read before is read back."""
    labels, key = curves.labels, f"{METHOD} {key_of(run, seed)}"
    path = run.result_path(f"networks/{place[0]}.{place[1]}.npz")
    kept = reading.load(path, key, labels)
    if kept is None:
        folds = labels.folds(folds=FOLDS, seed=seed)
        features = run.activations(*place)
        kept = nonlinear(features, labels, folds, resolution=resolution_of(run, place[0]), seed=seed)
        reading.save(path, key, kept)
    return kept


def upper_chain(
    chain: Sequence[Depth], pooled: Sequence[Place | None], level: Level, read: Callable[[Place], Readings]
) -> list[Depth]:
    """Let the better reader speak for each depth, by accuracy on held-out training images.

    Parameters
    ----------
    chain
        Depths as the linear probes see them; the answer among them stays as it is.
    pooled
        For each depth the place whose recorded vectors the network reads; None for the answer.
    read
        Reads a place with the network.

    Returns
    -------
    list
        The depths again; the readout of those for which the network speaks is `NETWORK`.
    """
    return [
        depth if place is None else _better(depth, read(place)[level])
        for depth, place in zip(chain, pooled, strict=True)
    ]


def _better(depth: Depth, rival: reading.Reading) -> Depth:
    linear, other = depth.reading.choice, rival.choice
    if linear is None or other is None or linear.accuracy >= other.accuracy:
        return depth
    return replace(depth, readout=NETWORK, reading=rival)
