import re

import pytest

pytestmark = pytest.mark.browser


def test_a_training_outlives_a_page_switch_is_stopped_by_another_session_and_goes_on(served: str, open_page):
    page = open_page(f"{served}/training")
    page.get_by_text("60 users").wait_for()
    epochs = page.get_by_role("spinbutton", name="Epochs")
    epochs.fill("60")
    epochs.press("Enter")
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name="classroom is learning").wait_for()

    page.get_by_role("link", name="Recommend").click()
    page.get_by_role("heading", name="Recommendations").wait_for()
    page.get_by_role("link", name="Training").click()
    page.get_by_text(re.compile(r"Epoch \d+ of 60, step \d+")).wait_for(timeout=240_000)
    page.locator(".js-plotly-plot .main-svg").first.wait_for()

    other = open_page(f"{served}/training", width=800, color_scheme="dark")
    other.get_by_role("heading", name="classroom is learning").wait_for()
    other.get_by_role("button", name="Stop").click()
    other.get_by_text("Stopped.").wait_for(timeout=60_000)
    page.get_by_text("Stopped.").wait_for()  # it looks by itself
    assert other.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    page.get_by_role("button", name="Resume").click()
    page.get_by_text("is finished").wait_for(timeout=240_000)
    page.get_by_role("link", name="Open on Recommend").click()
    page.get_by_role("heading", name="Recommendations").wait_for(timeout=60_000)
    assert "run=classroom" in page.url
