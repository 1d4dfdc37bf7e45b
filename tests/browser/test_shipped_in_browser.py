"""The app as a stranger finds it: nothing configured, no network, the shipped model."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from benchmarks.chromium import fits, rest, settle

pytestmark = pytest.mark.browser

PAGES = ("", "layers", "attention", "errors", "training", "data", "method")
SERIOUS = ("serious", "critical")


def open_settled(open_page, address: str, **options):
    """A page whose script has come to its end."""
    page = open_page(address, **options)
    settle(page)
    return page


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (800, "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_on_the_shipped_model(served_demo: str, open_page, name: str, width: int, color_scheme: str):
    page = open_settled(open_page, f"{served_demo}/{name}", width=width, color_scheme=color_scheme)
    assert page.get_by_test_id("stException").count() == 0
    rest(page)
    assert fits(page)
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in SERIOUS] == []


def test_after_two_parts_of_a_trilogy_the_third_stands_at_the_top(served_demo: str, open_page):
    parts = "the-lord-of-the-rings-the-fellowship-of-the-ring-2001~the-lord-of-the-rings-the-two-towers-2002"
    page = open_settled(open_page, f"{served_demo}/?history={parts}")
    first = page.get_by_text("The Return of the King").first
    first.wait_for()
    assert page.get_by_role("combobox", name="Model").input_value() == "Demo: DARec"
