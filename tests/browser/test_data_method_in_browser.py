"""The Data and the Method page as a person uses them."""

from pathlib import Path

import pytest
from conftest import pause
from playwright.sync_api import expect

from app.method_widgets import PARTS
from benchmarks.chromium import fits

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (800, "dark")])
def test_the_data_behind_the_model_is_drawn(served: str, open_page, width: int, color_scheme: str):
    page = open_page(f"{served}/data", width=width, color_scheme=color_scheme)
    page.get_by_text("Popularity of the items").first.wait_for()
    page.get_by_text("Lengths of the histories").first.wait_for()
    page.get_by_text("Where it comes from").wait_for()
    page.get_by_text("The numbers").first.click()
    page.get_by_test_id("stDataFrame").first.wait_for()  # it loads late, and moves the button from under the pointer
    pause(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").first.click()
    assert download.value.suggested_filename == "popularity.csv"
    assert Path(download.value.path()).read_text(encoding="utf-8-sig").startswith("place,item,interactions")
    assert fits(page)


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (800, "dark")])
def test_every_part_has_its_formulas_on_screen(served: str, open_page, width: int, color_scheme: str):
    page = open_page(f"{served}/method", width=width, color_scheme=color_scheme)
    for number, part in enumerate(PARTS, start=1):
        page.get_by_role("radio", name=f"{number} {part.label}").click()
        page.get_by_text(part.question).wait_for()
        page.locator(".katex-display").nth(len(part.formulas) - 1).wait_for()
        assert page.locator(".katex-error").count() == 0
        assert fits(page)


def test_an_exercise_opens_its_page_with_what_it_is_about(served: str, open_page):
    page = open_page(f"{served}/method?part=Exercises&history=f0~f3")
    page.get_by_role("link", name="Open the invented title").click()
    page.get_by_text("Return of Harbour of Ghosts").first.wait_for()
    page = open_page(f"{served}/method?part=Exercises&history=f0~f3")
    page.get_by_role("link", name="Open the context mask").click()
    page.get_by_text(PARTS[1].question).wait_for()
    page.reload()
    page.get_by_text(PARTS[1].question).wait_for()


def test_a_page_is_found_again_in_the_view_where_it_was_left(served: str, open_page):
    page = open_page(f"{served}/method")
    page.get_by_role("radio", name="Assumptions").click()
    page.wait_for_url("**/method?part=Assumptions")
    page.get_by_role("link", name="Data", exact=True).click()
    page.get_by_text("Popularity of the items").first.wait_for()
    page.get_by_role("link", name="Method", exact=True).click()
    page.wait_for_url("**/method?part=Assumptions")
    expect(page.get_by_role("radio", name="Assumptions")).to_be_checked()
