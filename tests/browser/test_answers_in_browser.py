"""What the pages answer, read off by a person: compared lists, reasons, averages, downloads."""

import csv
import io
import re
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from conftest import pause, wait_for_link

from benchmarks.chromium import rest, settle

pytestmark = pytest.mark.browser
# At once: on a fast machine all is done before a pointer has come there. The page's own: after half a second of
# running, Streamlit's header has a Stop as well, which ends the script and not the work.
CLICK_STOP = """() => {
    const buttons = [...document.querySelectorAll('[data-testid="stMain"] button')];
    const stop = buttons.find(button => button.innerText.endsWith('Stop'));
    stop?.click();
    return stop !== undefined;
}"""
LONG_HISTORY = "viewer-0021"  # of 79 films
TRILOGY = "the-lord-of-the-rings-the-fellowship-of-the-ring-2001~the-lord-of-the-rings-the-two-towers-2002"


def test_an_item_is_swapped_for_the_first_of_the_list(served_model: str, open_page):
    page = open_page(f"{served_model}/?panel=What+if&history=f0~f3~f5")
    settle(page)
    page.get_by_role("button", name="Swap", exact=True).click()
    wait_for_link(page, "pinned", "f0~f3~f5")
    page.wait_for_function(r"/^f0~f3~f(?!5$)\d+$/.test(new URLSearchParams(location.search).get('history'))")
    page.get_by_text("The pinned list after swapping").wait_for()
    page.get_by_text("Ranks before and after").first.wait_for()


def test_lists_stand_side_by_side_with_whole_titles_and_what_each_model_is(served_demo: str, open_page):
    page = open_page(f"{served_demo}/?panel=Compare&history={TRILOGY}")
    lists = page.get_by_test_id("stTable")
    lists.get_by_text("The Lord of the Rings: The Return of the King (2003)").first.wait_for()
    heads = lists.locator("th").all_inner_texts()
    assert [head for head in heads if "SASRec" in head]
    assert [head for head in heads if "Popularity" in head]
    summary = page.get_by_role("region", name="Each model: what it is")
    for what in ("the picked model", "baseline", re.compile("retrained without")):
        summary.get_by_text(what).first.wait_for(state="attached")


def test_effects_and_remainder_add_up_to_their_total(served_model: str, open_page):
    page = open_page(f"{served_model}/?panel=Why+this+one&history=f0~f3~f5~f7")
    told = page.get_by_text("All items but the newest change the log-probability by")
    told.wait_for()
    total, summed, remainder = map(float, re.findall(r"[+-]\d+\.\d+", told.inner_text()))
    assert total == pytest.approx(summed + remainder, abs=0.0021)  # three figures, each rounded to a thousandth


def test_what_takes_long_is_stopped_and_goes_on(served_demo: str, open_page):
    page = open_page(f"{served_demo}/?panel=Why+this+one&user={LONG_HISTORY}")
    page.wait_for_function(CLICK_STOP, polling=20)
    stopped = page.get_by_text("items left out so far")
    stopped.wait_for()
    known, items = map(int, re.findall(r"\d+", stopped.inner_text()))
    assert 0 <= known < items == 79
    pause(page)
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("All items but the newest change the log-probability by").wait_for()


@pytest.mark.parametrize(
    "link", ["errors?view=Explanations&averaged_users=200", "layers?layers_view=Weights&averaged_weights=200"]
)
def test_an_average_is_stopped_and_asked_for_no_more(served_demo: str, open_page, link: str):
    page = open_page(f"{served_demo}/{link}")
    page.get_by_role("button", name="Average", exact=True).click()
    page.wait_for_function("new URLSearchParams(location.search).has('average')")
    page.wait_for_function(CLICK_STOP, polling=20)
    wait_for_link(page, "average", None)
    pause(page)
    assert page.get_by_role("progressbar").count() == 0
    assert page.get_by_role("button", name="Average", exact=True).is_enabled()


def test_users_weights_are_averaged_to_the_end(served_demo: str, open_page):
    page = open_page(f"{served_demo}/layers?layers_view=Weights&averaged_weights=20")  # a user whose time is known
    page.get_by_role("button", name="Average", exact=True).click()
    page.locator(".js-plotly-plot .annotation-text", has_text="average of 20 test users").wait_for()
    pause(page)
    assert page.get_by_role("progressbar").count() == 0


def test_averages_over_a_slice_come_along_in_the_link(served_demo: str, open_page):
    page = open_page(f"{served_demo}/errors?view=Explanations&averaged_users=20&cold=cold")
    page.get_by_role("button", name="Average", exact=True).click()
    figure = page.locator(".js-plotly-plot .gtitle", has_text="these users")
    figure.wait_for()
    other = open_page(page.url)  # a session of its own, in which nobody has clicked
    other.locator(".js-plotly-plot .gtitle", has_text="these users").wait_for()


def test_two_models_are_compared_and_a_row_leads_to_every_page(served_demo: str, open_page):
    page = open_page(f"{served_demo}/errors?view=Two+models&compared=Demo%3A+Popularity")
    page.get_by_text("this model is clearly better on these users").wait_for()
    settle(page)
    rest(page)
    table = page.get_by_role("region", name=re.compile("^Cases of this model"))
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 35 * 1.5)  # the first row's mark
    page.wait_for_function("new URLSearchParams(location.search).has('user')")
    user = page.evaluate("new URLSearchParams(location.search).get('user')")
    address = page.url
    for name, heading in (("Layers", "What does each layer add?"), ("Attention", "Where does it look?")):
        page.goto(address)
        settle(page)
        page.get_by_test_id("stMain").get_by_role("link", name=name).click()
        page.get_by_role("heading", name=heading).wait_for()
        page.get_by_text(f"Test user {user}:").wait_for()


def test_notes_are_saved_as_cells_that_no_spreadsheet_runs(served_demo: str, open_page):
    page = open_page(f"{served_demo}/errors?user=viewer-0007")
    page.get_by_role("heading", name="User viewer-0007").wait_for()
    settle(page)
    page.get_by_text("Notes (0)").click()
    page.get_by_label("Note", exact=True).fill("=1+1")
    page.get_by_label("Your name").fill("@Ada")
    page.get_by_role("button", name="Save the note").click()
    page.get_by_text("Notes (1)").wait_for()
    page.get_by_role("radio", name="Notes").click()
    page.get_by_role("region", name="Notes on test users").wait_for()
    pause(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "notes.csv"
    content = Path(download.value.path()).read_text(encoding="utf-8-sig")
    [row] = csv.DictReader(io.StringIO(content, newline=""))
    assert (row["note"], row["author"], row["user_id"]) == ("'=1+1", "'@Ada", "viewer-0007")


def test_the_list_is_saved_as_it_stands(served_demo: str, open_page):
    page = open_page(f"{served_demo}/?history={TRILOGY}&k=12")
    pause(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "recommendations.csv"
    content = Path(download.value.path()).read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [int(row["rank"]) for row in rows] == list(range(1, 13))
    assert rows[0]["item_id"] == "the-lord-of-the-rings-the-return-of-the-king-2003"
    assert 0 < float(rows[1]["probability"]) < float(rows[0]["probability"]) < 1


def test_attention_over_a_full_window_is_drawn_and_saved(served_demo: str, open_page):
    page = open_page(f"{served_demo}/attention?user={LONG_HISTORY}&attention_view=One+head&layer=2&head=3")
    figure = page.get_by_test_id("stPlotlyChart")
    figure.locator(".gtitle", has_text="Layer 2, head 3").wait_for()
    pause(page)
    figure.hover()
    with page.expect_download() as download:
        page.locator("[data-title^='Download plot']").click()
    assert Path(download.value.path()).read_text(encoding="utf-8").lstrip().startswith("<svg")
    page.get_by_text("The numbers").first.click()
    page.get_by_test_id("stDataFrame").first.wait_for()
    pause(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    given: dict[int, float] = {}
    with Path(download.value.path()).open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            given[int(row["from position"])] = given.get(int(row["from position"]), 0.0) + float(row["weight"])
    assert len(given) > 100  # words of the window
    assert all(abs(sum_of_row - 1) < 1e-3 for sum_of_row in given.values())


@pytest.mark.parametrize("table", ["errors", "data"])
def test_a_row_that_is_selected_by_the_keyboard_opens_its_user_on_all_pages(served_demo: str, open_page, table: str):
    page = open_page(f"{served_demo}/{table}")
    rows = page.locator("[data-testid=stDataFrame]:visible").first
    rows.wait_for()
    pause(page)
    rows.locator("canvas").first.focus()
    for key in ("ArrowDown", "ArrowDown", "Shift+Space"):
        page.keyboard.press(key)
    page.wait_for_function("new URLSearchParams(location.search).has('user')")
    user = parse_qs(urlparse(page.url).query)["user"][0]
    for name in ("Recommend", "Attention", "Method"):
        page.get_by_role("link", name=name, exact=True).first.click()
        wait_for_link(page, "user", user)
        settle(page)
    page.get_by_role("link", name="Recommend", exact=True).first.click()
    page.get_by_text(f"items of test user {user}").first.wait_for()


def test_a_chart_is_saved_as_svg(served_model: str, open_page):
    page = open_page(f"{served_model}/data")
    figure = page.locator(".js-plotly-plot").first
    figure.locator(".main-svg").first.wait_for()
    pause(page)
    figure.hover()
    with page.expect_download() as download:
        figure.locator("[data-title^='Download']").click()
    assert download.value.suggested_filename.endswith(".svg")
    assert Path(download.value.path()).read_text(encoding="utf-8").lstrip().startswith("<svg")


def test_a_link_to_a_default_view_opens_it_whatever_was_open_before(served_model: str, open_page):
    page = open_page(f"{served_model}/?panel=What+if&history=f0~f3")
    page.get_by_text("will be pinned").wait_for()
    settle(page)
    page.get_by_role("link", name="Method").click()
    page.get_by_role("heading", name="How does it work?").wait_for()
    settle(page)
    page.get_by_role("radio", name="Exercises").click()
    page.get_by_role("link", name="Open this history").click()
    page.get_by_role("radio", name="List", checked=True).wait_for()
