"""The command `fgdiag compare` on recorded runs of tiny models."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.apps.conftest import Fgdiag


@pytest.fixture(scope="module")
def runs(bench: Path) -> tuple[str, str]:
    """The diagnosed run, and a copy of it in which some answers are turned wrong."""
    run, other = bench / "runs" / "birds", bench / "runs" / "less"
    shutil.copytree(run, other)
    answers = pd.read_parquet(other / "results" / "answers.parquet")
    answers["said_fine"] = [
        names[(names.index(fine) + 1) % len(names)]
        for fine in answers["fine"]
        for names in [sorted(set(answers["fine"]))]
    ]
    answers.to_parquet(other / "results" / "answers.parquet")
    return "runs/birds", "runs/less"


def test_tables_say_how_much_less_is_right(fgdiag: Fgdiag, runs: tuple[str, str]):
    ended = fgdiag("compare", *runs)
    assert ended.code == 0, ended.err
    assert "note: The same weights: birds, less." in ended.out
    assert "less \N{MINUS SIGN} birds" in ended.out
    assert "no difference" in ended.out
    assert "Do they fail alike?" in ended.out


def test_json_has_it_all(fgdiag: Fgdiag, runs: tuple[str, str], bench: Path):
    found = fgdiag("compare", *runs, "--json").json()
    before, after = (
        pd.read_parquet(bench / run / "results" / "answers.parquet").query("said_fine == fine")
        for run in runs
    )
    row = next(r for r in found["differences"] if (r["level"], r["depth"]) == ("fine", "answer"))
    assert row["difference"] == pytest.approx(100 * (len(after) - len(before)) / found["images"])
    assert {"runs", "notes", "depths", "agreement", "curves"} <= set(found)
    assert [run["run"] for run in found["runs"]] == ["birds", "less"]


def test_a_page_of_figures_and_a_table_for_a_paper(fgdiag: Fgdiag, runs: tuple[str, str], tmp_path: Path):
    page = tmp_path / "compared.html"
    ended = fgdiag("compare", *runs, "-o", str(page), "--format", "latex")
    assert ended.code == 0
    assert ended.out.startswith(r"\begin{table}")
    assert page.read_text().count("plotly-graph-div") == 3


def test_what_cannot_be_compared_is_said_in_a_line(fgdiag: Fgdiag, runs: tuple[str, str], bench: Path):
    other = bench / "runs" / "asked-otherwise"
    shutil.copytree(bench / runs[0], other, dirs_exist_ok=True)
    manifest = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(manifest | {"prompt": "Which bird?"}))
    ended = fgdiag("compare", runs[0], "runs/asked-otherwise")
    assert ended.code == 1
    assert ended.told.startswith("fgdiag: birds and asked-otherwise cannot be compared. Another question:")
    assert ended.told.endswith("Record both with the same --prompt.")


def test_one_run_is_not_enough(fgdiag: Fgdiag, runs: tuple[str, str]):
    assert fgdiag("compare", runs[0], f"./{runs[0]}").told == (
        "fgdiag: Got 1 run, expected two or more; name another."
    )
    assert fgdiag("compare", *runs, "--json", "--format", "csv").code == 2
