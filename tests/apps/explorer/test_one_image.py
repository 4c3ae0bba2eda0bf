"""One image in a real browser: its maps and its token lens, made from the page, by link, by keyboard, by two people."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fgdiag_explorer import create_app
from fgdiag_explorer.tasks import LensTask

from tests.apps.explorer.conftest import served
from tests.apps.explorer.test_browser import Visit, serious

pytest.importorskip("playwright")

MAKE_LENS = "Open the model and read the tokens as words"
MAKE_MAP = "Open the model and make this map"
PATIENCE = 60_000


@pytest.fixture(scope="module")
def own_address(runs: list[Path]) -> Iterator[str]:
    """A server of its own, whose model nobody has opened."""
    yield from served(create_app(runs, device="cpu"))


@pytest.fixture
def visit(browser: Any, own_address: str) -> Iterator[Visit]:
    visit = Visit(browser, own_address, viewport={"width": 1280, "height": 900})
    yield visit
    visit.context.close()
    assert not visit.wrong


def test_a_lens_is_made_and_its_layer_chosen_by_keyboard_and_kept_in_the_link(
    visit: Visit, browser: Any, own_address: str
) -> None:
    page = visit.open("images?image=4")
    page.get_by_role("button", name=MAKE_LENS).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-steps-of=layer]", timeout=PATIENCE)
    assert page.get_by_text("Logit lens at llm.3").count() == 1
    slider = page.get_by_role("slider", name="Layer, in the order of the forward pass")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=Logit lens at llm.2")
    page.keyboard.press("ArrowLeft")  # it still has the focus
    page.wait_for_selector("text=Logit lens at llm.1")
    page.get_by_text("Nearest word vector", exact=True).click()
    page.wait_for_selector("text=Nearest word vector at llm.1")
    assert "image=4" in page.url
    other = Visit(browser, own_address)
    again = other.open(page.url.rpartition("/")[2])
    again.wait_for_selector("text=Nearest word vector at llm.1")
    assert again.get_by_role("slider", name="Layer").get_attribute("aria-valuenow") == "2"
    again.go_back()
    other.context.close()
    assert not other.wrong
    assert serious(page) == []


def test_the_words_are_shown_on_hovering(visit: Visit) -> None:
    page = visit.open("images?image=0&layer=projector")
    page.wait_for_selector("text=Logit lens at projector")
    page.wait_for_selector(".on-picture .textpoint")
    page.locator(".on-picture").scroll_into_view_if_needed()
    box = page.locator(".on-picture .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 - 4, box["y"] + box["height"] / 3, steps=4)
    page.wait_for_selector(".on-picture .hovertext")
    assert re.search(
        r"%.*rank \d+", page.locator(".on-picture .hovertext").first.text_content() or "", re.DOTALL
    )


def test_a_contrast_is_chosen_made_and_kept_in_the_link(visit: Visit, browser: Any, own_address: str) -> None:
    page = visit.open("images?image=6")
    assert page.locator(".map").count() == 0
    page.get_by_role("textbox", name="Method").click()
    page.get_by_role("option", name="Input × gradient").click()
    page.wait_for_url("**method=ixg*")
    page.get_by_role("textbox", name="and not for").click()
    page.get_by_role("option", name="eagle owl").click()
    page.wait_for_url("**against=eagle-owl*")
    page.get_by_text("There is no map yet of what speaks for", exact=False).wait_for()
    page.get_by_role("button", name=re.compile("make this map", re.IGNORECASE)).click()
    page.wait_for_selector(".map.meant", timeout=PATIENCE)
    assert page.get_by_role("button", name=re.compile("make this map", re.IGNORECASE)).count() == 0
    other = Visit(browser, own_address)
    again = other.open(page.url.rpartition("/")[2])
    again.wait_for_selector(".map.meant")
    assert again.get_by_text("“eagle owl”").count() >= 1
    other.context.close()
    assert not other.wrong
    assert serious(page) == []


def test_a_map_says_whether_it_passed_its_check(visit: Visit) -> None:
    page = visit.open("images?image=0&method=ixg&against=eagle-owl&for=barn+owl")
    told = page.locator(".map.meant .checks > p").inner_text()
    assert told == "Passes its check." or told.startswith("Not to be believed:")
    assert "moved elsewhere at most" in page.locator(".map.meant").inner_text()


def test_two_people_one_works_and_stops_and_the_other_is_not_kept_waiting(
    browser: Any, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    started, steps = threading.Event(), []

    def never_ends(_task: LensTask, _opened: Any, told: Any) -> None:
        started.set()
        while True:
            told(len(steps), 1000)
            steps.append(1)
            time.sleep(0.02)

    monkeypatch.setattr(LensTask, "make", never_ends)
    for address in served(create_app(runs, device="cpu")):
        one, other = (Visit(browser, address) for _ in range(2))
        one.open("images?image=10").get_by_role("button", name=MAKE_LENS).click()
        one.page.get_by_role("button", name="Stop").wait_for(timeout=PATIENCE)
        assert started.wait(60)
        one.page.get_by_text("of about 1000").wait_for(timeout=PATIENCE)
        page = other.open("images?image=10")
        assert page.get_by_role("button", name="Stop").count() == 0
        assert page.get_by_role("button", name="Read the tokens as words").count() == 1
        began = time.monotonic()
        page.get_by_role("link", name="Curves").click()
        page.wait_for_selector("h1:text('Curves')")
        assert time.monotonic() - began < 10  # it is not waited for what never ends
        one.page.reload()
        one.settle()
        one.page.get_by_role("button", name="Stop").click()
        one.page.get_by_role("button", name="Read the tokens as words").wait_for()
        time.sleep(0.5)
        count = len(steps)
        time.sleep(0.3)
        assert len(steps) == count
        for visit in (one, other):
            visit.context.close()
            assert not visit.wrong


def test_a_model_that_cannot_be_opened_is_told_with_the_command(visit: Visit, runs: list[Path]) -> None:
    page = visit.open("images?run=silent&image=5")
    page.get_by_role("button", name=MAKE_LENS).click()
    page.get_by_text("There is no folder /nowhere/tiny-llava").wait_for(timeout=PATIENCE)
    assert page.get_by_text(f"fgdiag lens {runs[1]} --image 5").count() == 1


def test_nothing_is_opened_by_looking(visit: Visit, own_address: str) -> None:
    page = visit.open("images?run=silent&image=7")
    assert page.get_by_role("button", name=MAKE_LENS).count() == 1
    assert page.get_by_role("button", name=MAKE_MAP).count() == 1
    visit.page.wait_for_timeout(1200)
    assert page.get_by_role("button", name="Stop").count() == 0


@pytest.mark.parametrize(
    "search",
    ["for=../../x&against=<script>", "method=rm&target=probe:../..", "layer=99&read=x&grid=-1&name=0"],
)
def test_an_address_may_say_anything(visit: Visit, search: str) -> None:
    page = visit.open(f"images?image=0&{search}")
    assert page.locator(".message.failed").count() == 0
    assert page.locator(".portrait").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_light_and_dark(browser: Any, own_address: str, scheme: str) -> None:
    visit = Visit(browser, own_address, viewport={"width": 420, "height": 900}, color_scheme=scheme)
    page = visit.open("images?image=0&method=ixg&against=eagle-owl&for=barn+owl")
    page.wait_for_selector(".on-picture .textpoint")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert serious(page) == []
    visit.context.close()
    assert not visit.wrong
