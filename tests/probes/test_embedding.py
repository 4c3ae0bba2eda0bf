"""Maps of planted runs: what is alike lies together, and stays where it was from site to site."""

import numpy as np
import pytest
from fgdiag_probes.embedding import Embedding, embed, telling_sites

from fgdiag.errors import SiteNotFound
from fgdiag.store import Run

SITES = ("vision", "projector", "llm.0", "llm.1", "llm.2", "llm.3", "llm.4", "llm.norm")


@pytest.fixture(scope="module")
def mapped(planted) -> tuple[Run, Embedding]:
    run = planted(sites=SITES, readouts=("image",), kinds=3, per_kind=2, train=12, test=6)
    return run, embed(run, ["projector", "vision"], seed=1)


def test_images_of_a_kind_lie_together(mapped: tuple[Run, Embedding]) -> None:
    run, found = mapped
    kinds = run.images["coarse"].to_numpy(str)
    for _, points in found.table.groupby("site"):
        at, own = points[["x", "y"]].to_numpy(), kinds[points["row"]]
        apart = np.square(at[:, None] - at[None]).sum(2)
        np.fill_diagonal(apart, np.inf)
        assert np.mean(own[apart.argmin(1)] == own) > 0.95
    assert list(found.trust) == ["vision", "projector"]
    assert min(found.trust.values()) > 0.8


def test_images_stay_where_they_were(mapped: tuple[Run, Embedding]) -> None:
    one, other = (points[["x", "y"]].to_numpy() for _, points in mapped[1].table.groupby("site"))
    moved = np.linalg.norm(one - other, axis=1)
    assert np.median(moved) < 0.5 * np.linalg.norm(one - one.mean(0), axis=1).mean()


def test_what_is_kept_is_what_the_explorer_reads(mapped: tuple[Run, Embedding]) -> None:
    run, found = mapped
    assert run.read_table("embedding").equals(found.table)
    assert list(found.table) == ["site", "row", "x", "y"]
    assert run.read_json("embedding") == found.json()
    assert found.json()["drawn"] == found.json()["images"] == len(run.images)
    assert len(found.figure(run.images["coarse"].to_numpy(str)).to_dict()["data"]) == 2


def test_sites_are_spread_over_the_model(planted) -> None:
    run = planted(sites=SITES, readouts=("image",))
    assert telling_sites(run) == ["vision", "projector", "llm.0", "llm.2", "llm.3", "llm.norm"]
    with pytest.raises(SiteNotFound, match=r"llm\.9"):
        embed(run, ["llm.9"])
