"""`fgdiag answer --endpoint`, with a server on loopback: asked once, told before what it costs, no key in sight."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.apps.conftest import Ended, draw_images, type_in
from tests.probes.served import Server, fails, serving

KEY = "sk-very-secret-1234567890"
SAMPLE = 3


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the folder of the test, and keep responses there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FGDIAG_CACHE", str(tmp_path))
    monkeypatch.setenv("FGDIAG_API_KEY", KEY)


def ask(server: Server, *words: str) -> Ended:
    return type_in("answer", *words, "--endpoint", server.url, "--model", "m", "--sample", str(SAMPLE))


def test_images_without_a_run(tmp_path: Path):
    draw_images(tmp_path / "birds")
    out = tmp_path / "served"
    prices = ("--price-in", "2", "--price-out", "10", "--json")
    with serving() as server:
        plan = ask(server, "birds", "--dry-run", *prices)
        assert plan.code == 0, plan.err
        assert server.bodies == []
        assert plan.json()["kept"] == 0
        assert plan.json()["cost"] > 0

        first = ask(server, "birds", "-o", str(out), *prices)
        assert first.code == 0, first.err
        found, asked = first.json(), len(server.bodies)
        assert found["spent"]["requests"] == asked <= plan.json()["questions"]
        assert found["spent"]["cost"] == pytest.approx(asked * (300 * 2 + 5 * 10) / 1e6)
        assert found["choice"]["images"] == found["text"]["images"] == SAMPLE
        assert set(pd.read_parquet(out / "results" / "choices.parquet")["row"]) == set(
            pd.read_parquet(out / "results" / "free_text.parquet")["row"]
        )

        again = ask(server, "birds", "-o", str(out), *prices)
        elsewhere = ask(server, "birds", "-o", str(tmp_path / "other"), *prices)
        for ended in (again, elsewhere):
            assert ended.code == 0, ended.err
            assert ended.json()["choice"] == found["choice"]
            assert (ended.json()["spent"]["requests"], ended.json()["spent"]["cost"]) == (0, 0)
        assert len(server.bodies) == asked
        assert ask(server, "birds", "--dry-run", *prices).json()["cost"] == 0
    probed = type_in("probe", str(out))
    assert probed.code == 1
    assert "holds answers alone" in probed.told
    shown = "".join(ended.out + ended.err for ended in (plan, first, again, elsewhere))
    assert KEY not in shown
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_the_answers_of_another_model_stand_beside_those_of_the_run(
    bench: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(bench)
    own = (bench / "runs" / "birds" / "results" / "answers.parquet").read_bytes()
    with serving() as server:
        ended = ask(server, "runs/birds", "--ask", "text")
        assert ended.code == 0, ended.err
        assert len(server.bodies) > 0
    results = bench / "runs" / "birds" / "results"
    assert (results / "answers.parquet").read_bytes() == own
    assert json.loads((results / "served" / "m" / "free_text.json").read_text())["images"] == SAMPLE
    assert f"m at {server.url}" in (results / "served" / "m" / "free_text.json").read_text()
    assert "questions answered in" in ended.out


def test_mistakes_are_told_in_one_line(tmp_path: Path):
    draw_images(tmp_path / "birds")
    out = str(tmp_path / "served")
    with serving(fails(401, KEY)) as server:
        wrong_key = ask(server, "birds", "-o", out)
        assert len(server.bodies) == 1
        mistakes = [
            (wrong_key, "refuses the key in FGDIAG_API_KEY"),
            (ask(server, "birds"), "-o RUN"),
            (ask(server, out, "-o", "elsewhere"), "leave out -o"),
            (ask(server, "birds", "-o", out, "--ask", "likelihood"), "by choice or text"),
            (type_in("answer", "birds", "-o", out, "--endpoint", server.url), "--model NAME"),
            (type_in("answer", "birds", "--endpoint", "localhost", "--model", "m"), "is no address"),
        ]
        assert len(server.bodies) == 1
    for ended, words in mistakes:
        assert ended.code == 1
        assert words in ended.told
        assert KEY not in ended.out + ended.err
