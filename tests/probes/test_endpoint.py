"""Served models, asked over loopback: whatever a server does, no question is paid for twice, and no key gets out."""

import base64
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fgdiag_probes.asking import Example, Question
from fgdiag_probes.cost import Prices, guess_tokens
from fgdiag_probes.endpoint import REFUSED_IN_A_ROW, Endpoint
from fgdiag_probes.responses import Responses
from PIL import Image

from fgdiag.errors import EndpointFailed, NoSpace, RunMismatch
from tests.probes.served import (
    breaks_off,
    fails,
    hangs_up,
    nonsense,
    says,
    serving,
    slowly,
)

KEY = "sk-very-secret-1234567890"

Open = Callable[..., Endpoint]


@pytest.fixture
def open_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open an endpoint whose responses are kept in the folder of the test."""
    monkeypatch.setenv("FGDIAG_API_KEY", KEY)
    monkeypatch.setenv("FGDIAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    # Backoff is the library's, and tested there.
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("fgdiag_probes.chat.RETRIES", 4)
    return lambda server, model="m", **options: Endpoint(server.url, model, **options)


def questions(count: int, letters: tuple[str, ...] = ()) -> list[Question]:
    pictures = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in range(count)]
    return [Question(lambda p=picture: p, f"What is {i}?", letters) for i, picture in enumerate(pictures)]


def texts(endpoint: Endpoint, asked: list[Question]) -> list[str]:
    return [reply.text for reply in endpoint.replies(asked)]


# --- a server that behaves ------------------------------------------------------------------------------------------


def test_replies_come_in_order_several_at_once_and_never_more_than_allowed(open_endpoint: Open):
    with serving(*[slowly(delay) for delay in (0, 0.2, 0, 0.1, 0, 0.1, 0, 0)]) as server:
        endpoint = open_endpoint(server, at_once=3)
        assert texts(endpoint, questions(12)) == [f"What is {i}?!" for i in range(12)]
        assert 2 <= server.most_at_once <= 3
        assert endpoint.spent.asked == endpoint.spent.requests == 12
        assert endpoint.spent.json(Prices(2, 10))["cost"] == pytest.approx(12 * (300 * 2 + 5 * 10) / 1e6)


def test_a_rerun_costs_nothing(open_endpoint: Open):
    with serving() as server:
        texts(open_endpoint(server), questions(5))
        again = open_endpoint(server)
        assert texts(again, questions(5)) == [f"What is {i}?!" for i in range(5)]
        assert len(server.bodies) == 5
        assert (again.spent.asked, again.spent.kept, again.spent.requests) == (0, 5, 0)


def test_whatever_changes_the_answer_is_asked_anew(open_endpoint: Open):
    [question] = questions(1)
    other_picture = Question(lambda: Image.new("RGB", (10, 20)), question.text)
    with serving() as server:
        texts(open_endpoint(server), [question])
        texts(open_endpoint(server, "another"), [question])
        texts(open_endpoint(server, max_tokens=5), [question])
        texts(open_endpoint(server), [other_picture, Question(question.picture, question.text, ("A", "B"))])
        assert len(server.bodies) == 5
    with serving() as elsewhere:
        texts(open_endpoint(elsewhere), [question])
        assert len(elsewhere.bodies) == 1


def test_letters_are_summed_over_the_tokens_that_write_them(open_endpoint: Open):
    first = {"B": np.log(0.5), " B": np.log(0.25), "A": np.log(0.125), "The": np.log(0.1)}
    with serving(says("B", first=first), says("B"), says("The", first={"The": -0.1})) as server:
        told, silent, other = open_endpoint(server, at_once=1).replies(questions(3, ("A", "B", "C")))
    assert told.letters is not None
    assert told.letters == pytest.approx((np.log(0.125), np.log(0.75), -np.inf))
    assert silent.letters is None
    assert other.letters == (-np.inf,) * 3
    assert server.bodies[0]["top_logprobs"] == 20


def test_a_picture_is_sent_pixel_by_pixel_before_the_question(open_endpoint: Open):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    with serving() as server:
        texts(open_endpoint(server), [Question(lambda: noise, "What?")])
        [body] = server.bodies
    picture, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    assert np.array_equal(np.asarray(_sent(picture)), np.asarray(noise))
    assert body["temperature"] == 0


def test_examples_are_earlier_turns(open_endpoint: Open):
    [question] = questions(1)
    dark, light = (
        Example(lambda p=p: Image.new("L", (9, 9), p).convert("RGB"), "And?", "tit") for p in (0, 255)
    )
    with serving() as server:
        texts(open_endpoint(server), [replace(question, examples=(dark, light))])
        texts(open_endpoint(server), [replace(question, examples=(light, dark)), question])
        assert len(server.bodies) == 3
        texts(open_endpoint(server), [replace(question, examples=(dark, light))])
        assert len(server.bodies) == 3
    said = [(turn["role"], turn["content"]) for turn in server.bodies[0]["messages"]]
    assert [role for role, _ in said] == ["user", "assistant"] * 2 + ["user"]
    assert said[1] == ("assistant", "tit")
    assert [_sent(said[turn][1][0]).getpixel((0, 0))[0] for turn in (0, 2)] == [0, 255]


def test_a_large_picture_is_shrunk(open_endpoint: Open):
    with serving() as server:
        texts(open_endpoint(server), [Question(lambda: Image.new("RGB", (4000, 3000)), "What?")])
        picture = server.bodies[0]["messages"][0]["content"][0]
    assert _sent(picture).size == (2048, 1536)
    assert picture["image_url"]["url"].startswith("data:image/jpeg")


def _sent(picture: dict) -> Any:
    return Image.open(BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))


# --- options that a server does not take ----------------------------------------------------------------------------


def test_options_a_server_does_not_take_are_left_out_from_then_on(open_endpoint: Open):
    complaints = (
        fails(400, "Unsupported value: 'temperature' does not support 0 with this model."),
        fails(422, "Unexpected fields in the request: {'max_completion_tokens'}"),
        fails(400, "top_logprobs must be at most 5"),
        fails(403, "You are not allowed to request logprobs from this model"),
    )
    with serving(*complaints) as server:
        replies = list(open_endpoint(server).replies(questions(3, ("A", "B"))))
        assert [reply.letters for reply in replies] == [None] * 3
        assert "logprobs" in server.bodies[0]
        assert len(server.bodies) == 3 + len(complaints)
        assert [set(body) - {"model", "messages"} for body in server.bodies[-3:]] == [{"max_tokens"}] * 3


# --- a server that misbehaves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        fails(429, Retry_After="0.05"),
        fails(500),
        fails(503),
        hangs_up,
        breaks_off,
        nonsense("<html>Welcome</html>"),
        nonsense("[]"),
        nonsense('{"error": {"message": "upstream is gone"}}'),
        nonsense('{"choices": []}'),
        nonsense('{"choices": [{"message": {"content": 7}}]}'),
    ],
)
@pytest.mark.parametrize("at", [0, 2])
def test_trouble_that_passes_is_outlasted(trouble, at: int, open_endpoint: Open):
    with serving(*[says("fine")] * at, trouble) as server:
        endpoint = open_endpoint(server, at_once=1, timeout=60)
        assert len(texts(endpoint, questions(4))) == 4
        assert endpoint.spent.requests == len(server.bodies) == 5
        assert endpoint.spent.asked == 4


def test_a_slow_answer_is_asked_for_anew(open_endpoint: Open):
    with serving(slowly(3)) as server:
        assert texts(open_endpoint(server, timeout=1.5), questions(2)) == ["What is 0?!", "What is 1?!"]
        assert len(server.bodies) == 3


def test_the_hint_of_the_server_is_kept_to(open_endpoint: Open):
    with serving(fails(429, Retry_After="0.7")) as server:
        started = time.monotonic()
        texts(open_endpoint(server), questions(1))
        assert time.monotonic() - started > 0.7


def test_after_all_sorts_of_trouble_nothing_is_asked_twice(open_endpoint: Open):
    """Two questions are answered, one never is; then the command is started again."""
    lasting = [fails(500, "the cable is cut")] * 5
    with serving(says("one"), hangs_up, says("two"), *lasting) as server:
        endpoint = open_endpoint(server, at_once=1)
        replies = endpoint.replies(questions(6))
        assert [next(replies).text, next(replies).text] == ["one", "two"]
        with pytest.raises(EndpointFailed, match=r"does not answer \(500: the cable is cut\)"):
            next(replies)
        server.behave.clear()
        before = len(server.bodies)
        resumed = open_endpoint(server)
        assert texts(resumed, questions(6)) == ["one", "two", *(f"What is {i}?!" for i in range(2, 6))]
        assert len(server.bodies) - before == 4
        assert (resumed.spent.kept, resumed.spent.asked) == (2, 4)


def test_what_is_on_its_way_when_another_question_fails_is_kept(open_endpoint: Open):
    """One of four fails for good while three are on their way; these are answered later, and not asked again."""
    with serving(says("first"), fails(402, "no credit"), *[slowly(0.5)] * 3) as server:
        endpoint = open_endpoint(server, at_once=4)
        with pytest.raises(EndpointFailed, match="402: no credit"):
            texts(endpoint, questions(20))
        asked = len(server.bodies)
        assert endpoint.spent.asked == asked - 1
        assert len(texts(open_endpoint(server), questions(20))) == 20
        assert len(server.bodies) == 20 + 1


def test_whoever_stops_listening_loses_no_answer(open_endpoint: Open):
    with serving(says("first"), *[slowly(0.2)] * 3) as server:
        replies: Any = open_endpoint(server, at_once=3).replies(questions(30))
        assert next(replies).text == "first"
        next(replies)
        replies.close()
        assert len(server.bodies) < 30
        texts(open_endpoint(server), questions(30))
        assert len(server.bodies) == 30


def test_a_killed_process_leaves_its_responses(open_endpoint: Open, tmp_path: Path):
    """Killed while the fifth question waits for its answer: four are kept, whole."""
    script = """
import sys
from PIL import Image
from fgdiag_probes.asking import Example, Question
from fgdiag_probes.endpoint import Endpoint

pictures = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in range(8)]
questions = [Question(lambda p=picture: p, f"What is {i}?") for i, picture in enumerate(pictures)]
for reply in Endpoint(sys.argv[1], "m", at_once=1).replies(questions):
    print(reply.text, flush=True)
"""
    with serving(*[says(str(i)) for i in range(4)], slowly(60)) as server:
        command = [sys.executable, "-c", script, server.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(4)]
        while len(server.bodies) < 5:
            time.sleep(0.01)
        process.kill()
        process.wait()
        process.stdout.close()
        resumed = open_endpoint(server)
        assert texts(resumed, questions(8))[:4] == [text.strip() for text in seen] == ["0", "1", "2", "3"]
        assert (resumed.spent.kept, resumed.spent.asked) == (4, 4)


def test_a_server_that_never_answers_is_given_up(open_endpoint: Open):
    with serving(*[slowly(0.5)] * 9) as server:
        with pytest.raises(EndpointFailed, match=r"did not answer within 0.1 s.*--timeout"):
            texts(open_endpoint(server, timeout=0.1), questions(3))
        assert len(server.bodies) == 4


def test_no_server_there(open_endpoint: Open):
    with serving() as server:
        endpoint = open_endpoint(server)
    with pytest.raises(
        EndpointFailed, match=r"does not answer .*Check --endpoint, and whether the server runs"
    ):
        texts(endpoint, questions(3))


def test_a_wait_of_hours_is_not_waited(open_endpoint: Open):
    with serving(fails(429, "daily quota", Retry_After="7200")) as server:
        with pytest.raises(EndpointFailed, match=r"no more questions through for now \(429: daily quota\)"):
            texts(open_endpoint(server), questions(3))
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (fails(401, f"Incorrect API key provided: {KEY}"), "refuses the key in FGDIAG_API_KEY"),
        (fails(404, "The model does not exist"), r"has no model 'm'.*Check --model and --endpoint"),
        (fails(402, "Insufficient credits"), r"402: Insufficient credits"),
        (says("", finish="length"), "without a word of an answer.*--max-tokens"),
    ],
)
def test_what_would_meet_every_question_stops_at_the_first(trouble, words: str, open_endpoint: Open):
    with serving(trouble) as server:
        with pytest.raises(EndpointFailed, match=words):
            texts(open_endpoint(server), questions(9))
        assert len(server.bodies) == 1


def test_a_question_that_is_refused_does_not_stop_the_others(open_endpoint: Open):
    with serving(fails(400, "content_filter"), says("a"), fails(400, "content_filter")) as server:
        endpoint = open_endpoint(server, at_once=1)
        assert texts(endpoint, questions(4)) == ["", "a", "", "What is 3?!"]
        assert endpoint.spent.refused == 2
        assert endpoint.spent.words(Prices()).startswith(
            "2 questions answered in 4 requests, 0 answered before, 2 ref"
        )


def test_a_server_that_refuses_everything_is_not_asked_for_long(open_endpoint: Open):
    with serving(*[fails(400, "no pictures please")] * 99) as server:
        with pytest.raises(EndpointFailed, match=r"20 questions in a row .*no pictures please"):
            texts(open_endpoint(server), questions(60))
        assert len(server.bodies) == REFUSED_IN_A_ROW


# --- the key --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        fails(401, KEY),
        fails(404, KEY),
        fails(402, KEY),
        fails(429, KEY, Retry_After="9999"),
        fails(400, KEY),
        nonsense(f'{{"your key": "{KEY}"}}'),
    ],
)
def test_the_key_is_in_no_log_no_file_and_no_error(
    trouble, open_endpoint: Open, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    caplog.set_level(logging.DEBUG)
    with serving(says("a"), *[trouble] * 40) as server:
        endpoint = open_endpoint(server, at_once=2)
        with pytest.raises(EndpointFailed) as caught:
            texts(endpoint, questions(60))
        assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in f"{caught.value} {caught.getrepr(chain=True)} {endpoint!r}"
    assert len(caplog.records) > 3
    assert KEY not in caplog.text
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_the_key_of_fgdiag_comes_before_that_of_openai(open_endpoint: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with serving() as server:
        texts(open_endpoint(server), questions(1))
        monkeypatch.delenv("FGDIAG_API_KEY")
        texts(open_endpoint(server, "n"), questions(1))
        monkeypatch.delenv("OPENAI_API_KEY")
        texts(open_endpoint(server, "o"), questions(1))
        assert server.keys == {f"Bearer {KEY}", "Bearer sk-other", "Bearer none"}


def test_a_server_that_wants_a_key_where_there_is_none(open_endpoint: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FGDIAG_API_KEY")
    with serving(fails(401)) as server, pytest.raises(EndpointFailed, match="FGDIAG_API_KEY is not set"):
        texts(open_endpoint(server), questions(1))


@pytest.mark.parametrize("key", ["sk-ä", "sk-a sk-b", "sk-a\nsk-b"])
def test_what_cannot_be_a_key_is_not_repeated(key: str, open_endpoint: Open, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGDIAG_API_KEY", key)
    with serving() as server, pytest.raises(EndpointFailed) as caught:
        open_endpoint(server)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://a/v1", "http://", f"http://me:{KEY}@a/v1", f"http://a/v1?key={KEY}"]
)
def test_an_address_that_is_none_or_holds_a_key(url: str):
    with pytest.raises(EndpointFailed) as caught:
        Endpoint(url, "m")
    assert KEY not in str(caught.value)


# --- what it will cost, and where responses are kept ----------------------------------------------------------------


def test_the_estimate_asks_nothing_and_learns_from_what_was_asked(open_endpoint: Open):
    prices = Prices(input=2, output=10)
    with serving() as server:
        endpoint = open_endpoint(server, max_tokens=50)
        guess = endpoint.estimate(questions(10), prices)
        assert server.bodies == []
        assert (guess.questions, guess.kept, guess.measured) == (10, 0, False)
        assert guess.input_tokens == round(10 * guess_tokens(20, 10, "What is 0?"))
        assert guess.output_tokens == 500
        assert guess.cost == pytest.approx((2 * guess.input_tokens + 10 * 500) / 1e6)
        texts(endpoint, questions(4))
        better = endpoint.estimate(questions(10), prices)
        assert (better.kept, better.measured) == (4, True)
        assert (better.input_tokens, better.output_tokens) == (6 * 300, 6 * 5)
        texts(endpoint, questions(10))
        assert endpoint.estimate(questions(10), prices).cost == 0
        assert len(server.bodies) == 10


def test_a_large_picture_takes_more_tokens_than_a_small_one():
    assert guess_tokens(1024, 1024, "") == pytest.approx(1024**2 / 750, rel=0.02)
    assert guess_tokens(100, 100, "") < guess_tokens(600, 600, "") < guess_tokens(600, 600, "x" * 400)


def test_a_picture_that_several_questions_are_about_is_hashed_once(open_endpoint: Open):
    opened = []

    def picture() -> Image.Image:
        opened.append(1)
        return Image.new("RGB", (9, 9))

    with serving() as server:
        asked = [Question(picture, f"{i}?") for i in range(5)]
        texts(open_endpoint(server), asked)
        opened.clear()
        texts(open_endpoint(server), asked)
        assert len(opened) == 1


def test_a_file_that_is_no_cache_is_named(tmp_path: Path):
    path = tmp_path / "responses.sqlite"
    path.write_text("dear diary" * 100)
    with pytest.raises(RunMismatch, match=r"responses\.sqlite is no file of responses"):
        Responses(path)
    with pytest.raises(NoSpace, match="is a file"):
        Responses(path / "below")
    kept = Responses(tmp_path / "other.sqlite")
    kept.path.unlink()
    kept.path.mkdir()
    with pytest.raises(NoSpace, match="cannot be kept"):
        kept.mean_tokens("http://a/v1", "m")


def test_responses_say_what_was_asked(open_endpoint: Open, tmp_path: Path):
    with serving(says("a", first={"A": -0.5})) as server:
        texts(open_endpoint(server), questions(1, ("A",)))
    with sqlite3.connect(tmp_path / "cache" / "responses.sqlite") as file:
        [row] = file.execute("select endpoint, model, question, input_tokens from responses").fetchall()
    file.close()
    assert row == (server.url, "m", "What is 0?", 300)
