"""What if, and what a class does together, as a person uses them."""

import pytest
from conftest import wait_for_link
from playwright.sync_api import expect

from benchmarks.chromium import settle

pytestmark = pytest.mark.browser


def test_two_changes_in_a_row_are_of_the_items_named_and_are_taken_back_one_by_one(served_model: str, open_page):
    page = open_page(f"{served_model}/?panel=What+if&history=f0~f3~f5")
    settle(page)
    page.get_by_role("button", name="Move", exact=True).click()  # the newest item to the first place
    wait_for_link(page, "history", "f5~f0~f3")
    wait_for_link(page, "pinned", "f0~f3~f5")
    page.get_by_text("The pinned list after").wait_for()
    page.get_by_role("button", name="Drop", exact=True).click()  # now the newest is another
    wait_for_link(page, "history", "f5~f0")
    page.go_back()
    wait_for_link(page, "history", "f5~f0~f3")
    page.go_back()
    wait_for_link(page, "history", "f0~f3~f5")
    wait_for_link(page, "pinned", None)
    page.get_by_text("will be pinned").wait_for()


def test_an_unseen_title_is_typed_and_added(served_model: str, open_page):
    page = open_page(f"{served_model}/?history=f0~f3")
    settle(page)
    page.get_by_role("searchbox", name="Add an item").press_sequentially("A Film of Tomorrow")
    page.get_by_role("button", name="as a new title").click()
    wait_for_link(page, "history", "f0~f3~.A Film of Tomorrow")
    page.locator(".st-key-history_rows").get_by_text("new text").wait_for()


def test_a_class_votes_before_the_list_is_revealed(served_model: str, open_page):
    page = open_page(f"{served_model}/?history=f0~f3&vote=true")
    settle(page)
    assert page.get_by_test_id("stDataFrame").count() == 0
    page.locator(".st-key-candidate-2").get_by_role("button").click()
    page.locator(".st-key-candidate-2").get_by_text("1", exact=True).wait_for()
    page.get_by_role("button", name="Reveal").click()
    page.get_by_text("votes in brackets").wait_for()
    page.get_by_test_id("stDataFrame").first.wait_for()


def test_a_run_that_is_not_there_is_named_and_another_picked_stays_on_every_page(served_model: str, open_page):
    page = open_page(f"{served_model}/?run=nowhere&history=f0~f3")
    page.get_by_text("There is no run 'nowhere' here").wait_for()
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option").last.click()
    settle(page)
    picked = page.evaluate("new URLSearchParams(location.search).get('run')")
    expect(page.get_by_role("combobox", name="Model")).to_have_value(picked)
    page.go_back()
    page.get_by_text("There is no run 'nowhere' here").wait_for()
    settle(page)
    page.go_forward()
    expect(page.get_by_role("combobox", name="Model")).to_have_value(picked)
    settle(page)
    page.get_by_role("link", name="Errors").first.click()
    page.get_by_role("heading", name="Where does it fail?").wait_for()
    wait_for_link(page, "run", picked)


def test_a_run_that_a_link_names_stays_on_every_page(served_demo: str, open_page):
    page = open_page(f"{served_demo}/errors?run=Demo%3A+SASRec")
    for name, heading in (("Recommend", "What comes next?"), ("Training", "Watch it learn"), ("Data", "What is")):
        settle(page)
        page.get_by_role("link", name=name).first.click()
        page.get_by_role("heading", name=heading).wait_for()
        wait_for_link(page, "run", "Demo: SASRec")
    expect(page.get_by_role("combobox", name="Model")).to_have_value("Demo: SASRec")
