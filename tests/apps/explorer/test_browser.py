"""The explorer in a real browser: no error on any page, links that lead back, two people, accessibility."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fgdiag_explorer import create_app
from fgdiag_explorer.app import PAGES

from tests.apps.explorer.conftest import served

pytest.importorskip("playwright")

VIEWS = {
    "overview": "overview",
    "curves": "curves?metric=bits&level=fine",
    "confusion": "confusion?level=fine",
    "images": "images?wrong=answer",
    "image": "images?image=0",
    "embedding": "embedding",
    "compare": "compare",
    "data": "data",
}


class Visit:
    """A browser window of its own, that remembers what went wrong in it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page, self.address, self.wrong = self.context.new_page(), address, []
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def open(self, view: str) -> Any:
        self.page.goto(f"{self.address}/{view}")
        self.settle()
        return self.page

    def settle(self) -> None:
        self.page.wait_for_selector("#body, .message.failed")
        self.page.wait_for_load_state("networkidle")


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address, viewport={"width": 1280, "height": 900})
    yield visit
    visit.context.close()
    assert not visit.wrong


def serious(page: Any) -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def figures(page: Any, count: int) -> None:
    """Wait until so many figures are shown."""
    from playwright.sync_api import expect

    expect(page.locator("figure.card")).to_have_count(count, timeout=20_000)


@pytest.mark.parametrize("view", VIEWS)
def test_a_page_is_shown_whole_and_can_be_used_by_everyone(visit: Visit, view: str):
    page = visit.open(VIEWS[view])
    assert page.locator(".message.failed").count() == 0
    assert page.locator("h1").count() == 1
    assert page.locator("nav [aria-current=page]").inner_text().lower() == VIEWS[view].partition("?")[0]
    assert serious(page) == []


@pytest.mark.parametrize("view", ["overview", "confusion", "image", "compare"])
def test_dark_and_narrow_as_well(browser: Any, address: str, view: str):
    visit = Visit(browser, address, viewport={"width": 420, "height": 900}, color_scheme="dark")
    page = visit.open(VIEWS[view])
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert serious(page) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    visit.context.close()
    assert not visit.wrong


def test_the_present_page_is_in_sight_on_a_phone(browser: Any, address: str):
    visit = Visit(browser, address, viewport={"width": 420, "height": 900})
    box = visit.open("data").locator("nav [aria-current=page]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 420
    visit.context.close()
    assert not visit.wrong


def test_a_link_that_may_not_be_copied_is_shown(visit: Visit):
    page, shown = visit.open("curves?metric=bits"), []
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as without https
    page.on("dialog", lambda dialog: (shown.append(dialog.default_value), dialog.dismiss()))
    page.get_by_role("button", name="Copy link").click()
    assert shown == [page.url]


def test_choices_stand_in_the_address_and_back_takes_them_back(visit: Visit):
    page = visit.open("curves")
    page.get_by_text("Coarse", exact=True).click()
    page.wait_for_url("**/curves?level=*")
    chosen = page.url
    figures(page, 2)
    page.get_by_role("link", name="Images").click()
    page.wait_for_selector(".wall")
    page.go_back()
    page.wait_for_selector("h1:text('Curves')")
    assert page.url == chosen
    figures(page, 2)
    page.go_back()
    figures(page, 3)
    again = visit.open(chosen.rpartition("/")[2])
    figures(again, 2)
    assert not again.locator("input[value=coarse]").is_checked()


def test_an_image_is_reached_by_keyboard(visit: Visit):
    page = visit.open("images")
    first = page.locator("a.picture").first
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".portrait")
    one = page.url
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: url != one)
    page.keyboard.press("Escape")
    page.wait_for_selector(".wall > figure")


def test_two_people_do_not_see_each_others_choices(browser: Any, address: str):
    one, other = (Visit(browser, address) for _ in range(2))
    one.open("images?run=birds&fine=barn+owl")
    other.open("images?run=silent")
    one.page.get_by_text("Table", exact=True).click()
    one.page.wait_for_selector(".ag-root-wrapper")
    other.page.reload()
    other.settle()
    assert "run=silent" in other.page.url
    assert "view=table" not in other.page.url
    assert other.page.locator(".wall").count() == 1
    for visit in (one, other):
        visit.context.close()
        assert not visit.wrong


def test_light_and_dark_are_kept(visit: Visit):
    page = visit.open("overview")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.reload()
    visit.settle()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_a_figure_is_downloaded(visit: Visit):
    page = visit.open("overview")
    page.wait_for_selector(".js-plotly-plot")
    with page.expect_download() as download:
        page.get_by_role("button", name="as SVG").first.click()
    assert download.value.suggested_filename == "birds-budget.svg"


def test_below_a_prefix_with_a_token(browser: Any, runs: list[Path]):
    for address in served(create_app(runs, prefix="/x/", token="secret")):
        visit = Visit(browser, address)
        page = visit.open("x/?token=secret")
        assert "token" not in page.url
        page.get_by_role("link", name="Data").click()
        page.wait_for_selector("h1:text('Data')")
        assert page.url.startswith(f"{address}/x/data")
        visit.context.close()
        assert not visit.wrong


def test_every_page_is_looked_at():
    assert {view.partition("?")[0] for view in VIEWS.values()} == set(PAGES)
