"""From parts to an ablation as a user types it, with tiny random parts; and grids that cannot be meant."""

import json
import shutil
from pathlib import Path

import pytest
from fgdiag_probes.grid import Grid, GridNotUsable
from fgdiag_probes.lab import _folder

from fgdiag.errors import RunIncomplete
from tests.apps.conftest import type_in
from tests.fgdiag.conftest import colours, encoder, joined, llm  # noqa: F401

GRID = """
seeds = [0]
learn = ["{images}", "{images}?Which colour?"]
limit = 2

[encoder]
large = "{encoder}"
small = {{ encoder = "{encoder}", resolution = 56, merge = 2 }}

[llm]
whole = "{llm}"

[plan.lora]
stage = [{{ train = ["projector", "llm-lora"], steps = 2 }}]

[fine]
colours = "{images}"

[general]
kinds = {{ images = "{images}", level = "coarse" }}
asked = "{images}?Which colour?"
"""


@pytest.fixture
def grid(encoder: Path, llm: Path, colours, tmp_path: Path) -> Path:  # noqa: F811
    file = tmp_path / "grid.toml"
    file.write_text(GRID.format(images=colours.source, encoder=encoder, llm=llm))
    return file


def test_a_grid_is_trained_measured_and_ruled_on(grid: Path, tmp_path: Path):
    out = tmp_path / "ablation"
    planned = type_in("ablate", str(grid), "-o", str(out), "--dry-run")
    assert "2 of 2 cells to do" in planned.out
    ended = type_in("ablate", str(grid), "-o", str(out), "--json", "--figure", str(tmp_path / "a.html"))
    assert ended.code == 0, ended.err
    found = ended.json()
    assert len(found["cells"]) == 2
    for effort in found["efforts"]:
        assert effort["training, minutes"] > 0
        assert effort["measuring, minutes"] > 0
    assert {"colours, all names", "colours, five names", "kinds, all names", "asked, all names"} < set(
        found["cells"][0]
    )
    assert [one["ruling"] for one in found["claims"]] == [
        one["ruling"] for one in json.loads((out / "ablation.json").read_text())["claims"]
    ]
    assert (tmp_path / "a.html").stat().st_size > 10_000
    cell = out / "cells" / "large+whole+lora+seed0"
    assert (cell / "runs" / "colours" / "run.json").exists()
    assert not (cell / "joined").exists()
    again = type_in("ablate", str(grid), "-o", str(out))
    assert again.code == 0
    assert "training" not in again.err
    assert "A better vision encoder lifts fine-grained scores out of proportion." in again.out
    assert "What each cell took" in again.out
    (out / "cells" / "small+whole+lora+seed0" / "scores.parquet").unlink()
    assert ", in about " in type_in("ablate", str(grid), "-o", str(out), "--dry-run").out
    assert type_in("ablate", str(grid), "-o", str(out)).code == 0
    assert "0 of 2 cells to do." in type_in("ablate", str(grid), "-o", str(out), "--dry-run").out


def test_a_cell_that_another_process_does_is_left_to_it(grid: Path, tmp_path: Path):
    from fgdiag_probes.lab import ablate

    from fgdiag.store import locked

    asked, out = Grid.read(grid), tmp_path / "ablation"
    others = [locked(_folder(out, cell)) for cell in asked.cells]
    for other in others:
        other.__enter__()
    with pytest.raises(RunIncomplete, match="no measured cell yet"):
        ablate(asked, out)
    for other in others:
        other.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[fine]", "[fines]"), "A grid has no 'fines'; expected some of encoder, llm"),
        (('colours = "{images}"', ""), "A grid has no fine"),
        (('[fine]\ncolours = "', '[fine]\ncolours = "x?'), "needs a fine benchmark without a question"),
        (("resolution", "size"), "encoder small has no 'size'; expected some of encoder, resolution"),
        (('level = "coarse"', 'level = "all"'), "level = 'all'; expected fine or coarse"),
        (("steps = 2", "step = 2"), "A stage has no 'step'"),
        (("[encoder]", "[encoder"), "cannot be read as a grid"),
        (("images =", "image ="), "Benchmark kinds has no 'image'"),
        (("kinds =", "colours ="), "A grid has two benchmarks named 'colours'"),
        (
            ("seeds = [0]", "seeds = 3"),
            "A grid has seeds = 3; expected a list of numbers from 0 on, each once",
        ),
        (("seeds = [0]", "seeds = [0, 0]"), "A grid has seeds = [0, 0]"),
        (("limit = 2", "limit = -1"), "A grid has limit = -1; expected a number of images, 0 for all"),
        (
            ("limit = 2", "limit = 2\njoint = { foo = 1 }"),
            "joint has no 'foo'; expected some of projector, merge",
        ),
        (("limit = 2", 'limit = 2\njoint = "mlp"'), "joint is 'mlp'; expected a table"),
        (("[llm]", "[llm]\nodd = 5"), "llm odd is 5; expected a table"),
        (("[general]", "[general]\nodd = 5"), "Benchmark odd is 5; expected a table"),
    ],
)
def test_a_grid_that_cannot_be_meant(change: tuple[str, str], said: str, grid: Path):
    text = grid.read_text()
    old, new = change
    if "{images}" in old:
        old = next(line for line in text.splitlines() if line.startswith("colours = "))
    assert old in text
    grid.write_text(text.replace(old, new, 1))
    ended = type_in("ablate", str(grid), "-o", str(grid.parent / "out"))
    assert ended.code == 1
    assert said in ended.told


def test_cells_of_another_grid_are_not_taken_for_those_of_this_one(grid: Path, tmp_path: Path):
    from fgdiag_probes.cell import measure

    from fgdiag.errors import RunMismatch

    asked, folder = Grid.read(grid), tmp_path / "cell"
    folder.mkdir()
    (folder / "scores.parquet").touch()
    measure(asked.cells[0], asked, asked.digests(), folder, tmp_path)
    grid.write_text(grid.read_text().replace("limit = 2", "limit = 3"))
    with pytest.raises(RunMismatch, match="holds a cell with limit = 2, but 3 is asked now"):
        measure(asked.cells[0], Grid.read(grid), asked.digests(), folder, tmp_path)
    others = {source: f"{digest} redrawn" for source, digest in asked.digests().items()}
    with pytest.raises(RunMismatch, match="holds a cell with learn"):
        measure(asked.cells[0], asked, others, folder, tmp_path)


def test_sources_beside_the_grid_are_found_from_there(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "pictures").mkdir()
    text = grid.read_text()
    place = next(line for line in text.splitlines() if line.startswith("colours = ")).split('"')[1]
    grid.write_text(text.replace(place, "pictures"))
    monkeypatch.chdir("/")
    assert Grid.read(grid).learn[0] == str(tmp_path / "pictures")
    assert Grid.read(grid).benchmarks[-1].question == "Which colour?"


def test_nothing_is_measured_of_a_grid_without_images(grid: Path):
    with pytest.raises(GridNotUsable, match="A grid has plan = 3; expected a table"):
        Grid.of({"encoder": {"a": "x"}, "llm": {"b": "y"}, "plan": 3, "fine": {"f": "z"}, "learn": ["z"]})
    with pytest.raises(GridNotUsable, match="A grid has no learn"):
        Grid.of({"encoder": {"a": "x"}, "llm": {"b": "y"}, "plan": {"p": {}}, "fine": {"f": "z"}})


def test_scenes_are_drawn_with_their_questions(tmp_path: Path):
    ended = type_in("scenes", str(tmp_path / "scenes"), "--per-answer", "1")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert f"{tmp_path}/scenes/count?How many birds are there?" in lines
    assert len(lines) == 5


def test_what_cannot_be_done_or_read_does_not_stop_the_rest(grid: Path, tmp_path: Path):
    text = grid.read_text()
    pictures = Path(next(line for line in text.splitlines() if line.startswith("colours = ")).split('"')[1])
    own = tmp_path / "own"
    shutil.copytree(pictures, own)
    cut = next((own / "test").rglob("*.png"))
    cut.write_bytes(cut.read_bytes()[:60])
    (tmp_path / "broken").mkdir()
    small = next(line for line in text.splitlines() if line.startswith("small = "))
    text = text.replace(str(pictures), str(own)).replace(small, f'broken = "{tmp_path / "broken"}"')
    grid.write_text(text)
    out = tmp_path / "ablation"
    ended = type_in("ablate", str(grid), "-o", str(out))
    assert ended.code == 1
    assert "left out: " in ended.err
    assert "1 of 2 cells are measured" in ended.out
    assert "broken+whole+lora+seed0 cannot be done: " in ended.out
    cell = out / "cells" / "large+whole+lora+seed0"
    (cell / "scores.parquet").unlink()
    assert "left out: " not in type_in("ablate", str(grid), "-o", str(out)).err, "what was asked is kept"
