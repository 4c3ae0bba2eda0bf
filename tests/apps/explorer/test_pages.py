"""What the pages show of a tiny run: their functions, called as the shell calls them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fgdiag_explorer.app import PAGES, render_body, render_page
from fgdiag_explorer.choices import Choices, link
from fgdiag_explorer.confused import along_sites, counts, pairs
from fgdiag_explorer.library import Library
from fgdiag_explorer.pages import curves, embedding, images
from fgdiag_explorer.results import Results
from fgdiag_probes import compare_runs
from plotly.utils import PlotlyJSONEncoder


def text_of(shown: Any) -> str:
    return json.dumps(shown, cls=PlotlyJSONEncoder, ensure_ascii=False)


def page(library: Library, name: str, search: str = "", run: str = "birds") -> str:
    return text_of(render_page(library, {"page": name, "run": run}, search))


@pytest.fixture
def results(library: Library) -> Results:
    return library["birds"]


def files(run: Path) -> dict[str, tuple[int, int]]:
    return {
        str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in run.rglob("*") if file.is_file()
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_failure_and_leaves_the_run_as_it_is(library: Library, runs: list[Path], name: str):
    before = files(runs[0])
    assert '"message failed"' not in page(library, name)
    assert files(runs[0]) == before


def test_the_overview_says_the_verdict_as_it_was_written(library: Library, runs: list[Path]):
    kept = json.loads((runs[0] / "results" / "verdict.json").read_text())
    first_words = kept["sentence"][:40]
    assert first_words in page(library, "overview").replace("\N{NO-BREAK SPACE}", " ")
    for line in kept["not_tested"]:
        assert all(text_of(piece).strip('"') in page(library, "overview") for piece in line.split("`"))


def test_what_has_not_been_made_is_said_with_its_command(library: Library, runs: list[Path]):
    assert f"fgdiag report {runs[1]}" in page(library, "overview", run="silent")
    assert "fgdiag embed" in page(library, "embedding")
    assert '"message failed"' not in page(library, "curves", run="silent")


def test_a_page_that_fails_says_so(
    library: Library, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(curves, "body", lambda *_: 1 / 0)
    shown = text_of(render_body(library, {"page": "curves", "run": "birds"}, ""))
    assert "message failed" in shown
    assert "ZeroDivisionError" in shown
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "search",
    [
        "?level=x&metric=y",
        "?at=../../etc/passwd",
        "?image=-1&page=99999999999999",
        "?image=10000000",
        "?around=a_b~c",
    ],
)
def test_an_address_may_say_anything(library: Library, search: str):
    for name in PAGES:
        assert '"message failed"' not in page(library, name, search)


def test_nothing_chosen_is_said(library: Library):
    assert "Nothing is chosen" in page(library, "curves", "?level=")
    assert "No run is chosen" in page(library, "compare", "?runs=")
    assert "No pair is chosen" in page(library, "confusion")
    assert "No image is like that" in page(library, "images", "?fine=nothing")


def test_compared_are_the_numbers_of_the_command(library: Library, runs: list[Path]):
    found = compare_runs(runs)
    shown = page(library, "compare")
    assert "silent was not asked" in shown
    for row in found.differences.query("level == 'fine|coarse'").to_dict("records"):
        assert f"{row['low']:+.1f} to {row['high']:+.1f}".replace("-", "\N{MINUS SIGN}") in shown
    assert "Paired differences" in shown
    assert "kappa of being right" in shown


def test_runs_that_cannot_be_compared_are_told_why(library: Library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(library["silent"].run.manifest, "prompt", "Which bird?")
    shown = page(library, "compare")
    assert "Record both with the same --prompt." in shown
    assert "Paired differences" not in shown
    assert "One run alone" in page(library, "compare", "?runs=birds")


def test_counts_are_those_of_what_was_said(results: Results):
    answers = pd.read_parquet(results.run.path / "results" / "answers.parquet")
    found = counts(results, ("answer", "likelihood"), "fine")
    crossed = pd.crosstab(answers["fine"], answers["said_fine"]).reindex(
        index=results.labels.fine_names, columns=results.labels.fine_names, fill_value=0
    )
    np.testing.assert_array_equal(found, crossed.to_numpy())
    listed = pairs(results, ("answer", "likelihood"), "fine")
    assert listed["taken"].sum() == found.sum() - np.trace(found)
    for row in listed.head(6).to_dict("records"):
        taken = answers[(answers["fine"] == row["truth"]) & (answers["said_fine"] == row["said"])]
        assert set(row["rows"]) <= set(taken["row"])


def test_a_pair_is_followed_through_every_site(results: Results):
    found = along_sites(results, "fine", 0, 1)
    assert found["site"].tolist() == results.sites
    last = counts(results, ("answer", "likelihood"), "fine")
    assert found["there"].iloc[-1] == pytest.approx(100 * last[0, 1] / last[0].sum())


def test_classes_of_a_kind_stand_together(results: Results):
    kinds = results.labels.siblings.argmax(0)[results.order("fine")]
    assert (np.diff(kinds) != 0).sum() == len(np.unique(kinds)) - 1


def test_the_best_readout_is_that_of_the_curves(results: Results):
    for level in results.labels.levels:
        for site in results.sites[:-1]:
            assert results.best(level, site) == results.curves.best(level, [site])


def test_images_right_here_and_wrong_there(results: Results):
    table = images.table(results, Choices("?right=vision&wrong=answer&level=fine"))
    answers = results.answer_table.set_index("row")["said_fine"]
    assert not (table["answer"] == table["class"]).to_numpy().any()
    assert (table["vision"] == table["class"]).to_numpy().all()
    assert all(answers[row] == said for row, said in zip(table["image"], table["answer"], strict=True))
    everything = images.table(results, Choices("?split=all"))
    assert len(everything) == len(results.images)


def test_one_image_is_told_by_every_place(results: Results):
    row = int(results.labels.test[0])
    told = images.said_of(results, Choices(f"?image={row}&level=fine"))
    assert len(told) == len(results.places)
    bits = results.answer_table.set_index("row").loc[row, "bits_fine"]
    assert told["probability"].iloc[-1] == pytest.approx(2.0**-bits)
    of_pixels = told.loc[told["site"] == "pixels", "read from"].tolist()
    assert of_pixels == ["the image, shrunk"]


def test_one_image_is_told_in_the_models_own_words(
    library: Library, results: Results, monkeypatch: pytest.MonkeyPatch
):
    row = int(results.labels.test[0])
    texts = [
        (row, "fine", 1, "another wording"),
        (row, "fine", 0, "A small owl"),
        (row + 1, "fine", 0, "A gull"),
    ]
    table = pd.DataFrame(texts, columns=["row", "level", "wording", "text"])
    monkeypatch.setitem(results.__dict__, "texts", table)
    shown = page(library, "images", f"?image={row}")
    assert "“A small owl”" in shown
    assert "another wording" not in shown
    assert "A gull" not in shown
    monkeypatch.setitem(results.__dict__, "texts", None)
    assert "in its own words" not in page(library, "images", f"?image={row}")


def test_a_pair_that_was_followed_is_drawn_without_a_second_title(library: Library, results: Results):
    first = results.pairs.places.iloc[0]
    search = link("confusion", truth=first["first"], said=first["second"]).partition("confusion")[2]
    shown = page(library, "confusion", search)
    assert "How well each site tells them apart" in shown
    assert "</b><br>" not in shown


def test_points_inside_what_was_drawn():
    square = embedding.corners("0_0~2_0~2_2~0_2")
    assert square is not None
    points = np.array([[1.0, 1.0], [3.0, 1.0], [-1.0, 0.5], [1.9, 0.1]])
    assert embedding.within(points, square).tolist() == [True, False, False, True]
    assert embedding.corners("nan_0~1_1~2_2") is None
    assert embedding.corners(None) is None


def test_a_map_is_drawn_and_its_images_are_found(
    library: Library, results: Results, monkeypatch: pytest.MonkeyPatch
):
    rows = np.arange(len(results.images))
    points = {"vision": pd.DataFrame({"row": rows, "x": rows.astype(float), "y": 0.0})}
    monkeypatch.setitem(results.__dict__, "embedding", points)
    monkeypatch.setitem(
        results.__dict__, "embedding_facts", {"method": "A line", "trustworthiness": {"vision": 0.5}}
    )
    monkeypatch.setattr(Results, "has", lambda *_: True)
    shown = page(library, "embedding", "?around=-1_-1~2.5_-1~2.5_1~-1_1")
    assert "3 images chosen" in shown
    assert "Trustworthiness 0.50" in shown


def test_a_run_that_changed_is_read_anew(tmp_path: Path, runs: list[Path]):
    import shutil

    run = tmp_path / "birds"
    shutil.copytree(runs[0], run)
    library = Library([run])
    first = library["birds"]
    assert library["birds"] is first
    (run / "results" / "new.json").write_text("{}")
    assert library["birds"] is not first


def test_runs_of_one_name_are_told_apart(tmp_path: Path, runs: list[Path]):
    import shutil

    for folder in ("one", "two"):
        shutil.copytree(runs[0], tmp_path / folder / "birds")
    assert list(Library([tmp_path / "one" / "birds", tmp_path / "two" / "birds"])) == [
        "one/birds",
        "two/birds",
    ]


def test_links_leave_out_what_is_not_chosen():
    assert link("images", run="a b", right=["vision"], wrong=[], fine=None) == "images?run=a+b&right=vision"
    assert link("overview") == "overview"
