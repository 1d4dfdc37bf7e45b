import csv
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote_plus, urlparse

import pandas as pd
import pytest
from conftest import pause, wait_for_link
from playwright.sync_api import TimeoutError, expect

from benchmarks.chromium import fits, rest, settle
from darec.evaluation.error_analysis import list_cases
from darec.serving import Recommender

pytestmark = pytest.mark.browser
HEADER = 35  # pixels; so high is every row, too


@pytest.fixture
def errors(served: str, film_run: Path) -> Iterator[str]:
    """Address of the page for a run that nobody has evaluated."""
    ranks = film_run / "ranks-test.parquet"
    ranks.unlink(missing_ok=True)
    yield f"{served}/errors"
    ranks.unlink(missing_ok=True)


def rank_users(page, film_run: Path) -> pd.DataFrame:
    """Let the page rank its users; the cases it should then show."""
    page.get_by_role("button", name="Rank 60 test users").click()
    page.get_by_text("All 60 test users").wait_for()
    model = Recommender.load(film_run)
    return list_cases(pd.read_parquet(film_run / "ranks-test.parquet"), model.catalog)


def select_row(page, row: int) -> None:
    settle(page)
    rest(page)  # a table that still moves or is drawn anew takes no click
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + HEADER * (row + 1) + HEADER / 2)


def user_of(page) -> str:
    return parse_qs(urlparse(page.url).query)["user"][0]


def wait_for_user(page, user_id: str) -> None:
    page.get_by_role("heading", name=f"User {user_id}", exact=True).wait_for()


def save(page, name: str) -> bytes:
    pause(page)  # streamlit sweeps away what was made on demand whenever a script ends
    with page.expect_download() as download:
        page.get_by_role("button", name=name).first.click()
    return Path(download.value.path()).read_bytes()


def choose(field, typed: str, option) -> None:
    """Type and choose; type again where the list has closed, as it does while a fold unfolds or the page scrolls."""
    for _ in range(12):
        field.fill("")
        field.fill(typed)
        try:
            option.click(timeout=10_000)
            return
        except TimeoutError:
            continue
    raise AssertionError(f"The list of {field} does not stay open.")


@pytest.mark.parametrize(("width", "row"), [(1280, 1), (800, 2)])
def test_users_are_ranked_one_is_opened_noted_and_found_again(
    errors: str, open_page, film_run: Path, width: int, row: int
):
    page = open_page(errors, width=width)
    cases = rank_users(page, film_run).sort_values("rank", ascending=False, kind="stable")
    select_row(page, row)
    chosen = cases["user_id"].iloc[row]
    wait_for_user(page, chosen)
    assert user_of(page) == chosen

    settle(page)  # below the new user's name the last one's form may still stand
    page.get_by_text("Notes (").click()
    author = f"Ada {width}"
    page.get_by_label("Note", exact=True).fill(f"odd at {width}")
    page.get_by_label("Your name").fill(author)  # given last, it must not empty the form
    page.get_by_role("button", name="Save the note").click()
    page.get_by_text("Notes (1)").wait_for()

    page.reload()
    wait_for_user(page, chosen)
    other = open_page(page.url, width=width)
    wait_for_user(other, chosen)
    other.get_by_text(f"odd at {width}").wait_for()
    other.get_by_text(author, exact=True).wait_for()

    other.get_by_role("link", name="Open in Recommend").click()
    other.get_by_role("heading", name="What comes next?").wait_for()
    other.get_by_text(f"items of test user {chosen}").wait_for()
    other.get_by_role("link", name="Errors").click()
    wait_for_user(other, chosen)
    for shown in (page, other):
        assert fits(shown)


def test_tags_of_the_list_and_of_ones_own_survive_a_reload(errors: str, open_page, film_run: Path):
    page = open_page(errors)
    chosen = rank_users(page, film_run).sort_values("rank", kind="stable")["user_id"].iloc[0]
    page = open_page(f"{errors}?user={quote_plus(chosen)}")
    wait_for_user(page, chosen)
    settle(page)
    page.get_by_text("Notes (0)").click()
    tags = page.get_by_role("combobox", name="Tags")
    choose(tags, "sequel", page.get_by_role("option", name="sequel missed"))
    tags.fill("two at once")
    tags.press("Enter")
    page.get_by_label("Your name").fill("Tess")
    page.get_by_role("button", name="Save the note").click()
    page.get_by_text("Notes (1)").wait_for()

    page.reload()
    wait_for_user(page, chosen)
    noted = page.get_by_test_id("stMarkdown").filter(has_text="Tess")
    noted.get_by_text("sequel missed", exact=True).wait_for()
    noted.get_by_text("two at once", exact=True).wait_for()
    page.get_by_label("Your name").fill("Tess")  # in her own form they stand to be changed
    own = page.get_by_test_id("stMultiSelectTagsContainer")
    own.get_by_text("sequel missed", exact=True).wait_for()
    own.get_by_text("two at once", exact=True).wait_for()
    page.get_by_role("radio", name="Notes").click()
    row = page.get_by_test_id("stDataFrame").first.locator("tbody tr").first
    row.get_by_text("sequel missed,two at once").wait_for(state="attached")


def test_another_order_opens_another_user_by_the_same_row(errors: str, open_page, film_run: Path):
    page = open_page(errors)
    cases = rank_users(page, film_run)
    page.get_by_role("radio", name="Easiest first").click()
    easiest = cases.sort_values("rank", kind="stable")["user_id"].iloc[0]
    page.get_by_test_id("stDataFrame").first.locator("tbody tr").first.get_by_text(easiest, exact=True).wait_for(
        state="attached"
    )
    select_row(page, 0)
    wait_for_user(page, easiest)
    wait_for_link(page, "order", "Easiest first")


def test_back_from_another_page_leads_to_the_open_row_and_the_filter(errors: str, open_page, film_run: Path):
    page = open_page(errors)
    rank_users(page, film_run)
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("radio", name="known").click()
    wait_for_link(page, "cold", "known")
    page.keyboard.press("Escape")
    select_row(page, 1)
    page.wait_for_function("new URLSearchParams(location.search).has('user')")
    chosen = user_of(page)
    wait_for_user(page, chosen)
    pause(page)
    page.get_by_role("link", name="Recommend", exact=True).first.click()
    page.get_by_text(f"items of test user {chosen}").first.wait_for()
    pause(page)
    page.go_back()
    wait_for_user(page, chosen)
    pause(page)
    # Streamlit takes what is bound out of the link, in a step of its own, before it leaves a page.
    if not page.evaluate("new URLSearchParams(location.search).has('cold')"):
        page.go_back()
    wait_for_link(page, "cold", "known")
    wait_for_user(page, chosen)
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("radio", name="known")).to_be_checked()


def test_filters_stay_behind_with_the_data_they_are_of(errors: str, served: str, open_page, film_run: Path):
    rank_users(open_page(errors), film_run)
    page = open_page(f"{served}/errors?run=Demo%3A+SASRec")  # whose histories are longer than all of the films'
    page.get_by_text("All 5,500 test users").wait_for()
    settle(page)
    page.get_by_role("link", name="Recommend").first.click()
    page.get_by_role("heading", name="What comes next?").wait_for()
    settle(page)
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="films", exact=True).click()
    wait_for_link(page, "run", None)  # the first run is the default
    settle(page)
    page.get_by_role("link", name="Errors").first.click()
    page.get_by_text("All 60 test users").wait_for()
    assert page.get_by_test_id("stException").count() == 0


def test_all_cases_are_saved_as_csv_that_no_spreadsheet_runs(errors: str, open_page, film_run: Path):
    page = open_page(errors)
    cases = rank_users(page, film_run).set_index("user_id")
    content = save(page, "CSV").decode("utf-8-sig")
    rows = {row["user_id"]: row for row in csv.DictReader(io.StringIO(content, newline=""))}
    assert {user: int(row["rank"]) for user, row in rows.items()} == cases["rank"].to_dict()
    dangerous = [row["title"] for row in rows.values() if "1+1" in row["title"]]
    assert dangerous
    assert all(title.startswith("'=1+1") for title in dangerous)


def test_a_case_is_saved_as_a_page_that_asks_for_nothing(errors: str, open_page, film_run: Path, browser):
    page = open_page(f"{errors}?user=user+7")
    cases = rank_users(page, film_run).set_index("user_id")
    wait_for_user(page, "user 7")
    content = save(page, "Report").decode("utf-8")
    assert f"{errors}?run=films&amp;user=user+7" in content
    context = browser.new_context()
    report, requests, complaints = context.new_page(), [], []
    report.on("request", lambda request: requests.append(request.url))
    report.on("console", lambda message: complaints.append(message.text))
    report.set_content(content)
    case = cases.loc["user 7"]
    report.get_by_role("heading", name=f"{case['title']}: rank {case['rank']}").wait_for()
    expect(report.locator("svg")).to_have_count(2)
    assert all(box["height"] > 100 for box in (svg.bounding_box() for svg in report.locator("svg").all()))
    context.close()
    assert (requests, complaints) == ([], [])


def test_every_view_opens_by_its_link(errors: str, open_page, film_run: Path):
    rank_users(open_page(errors), film_run)
    for view, text in (
        ("Cases", "Hardest first"),
        ("Slices", "Users by"),
        ("Instead", "held-out items are not among the first 10"),
        ("Two models", "There is no other run on the same data"),
        ("Explanations", "Only a DARec run has attention"),
        ("Notes", "Nobody has noted anything on these users yet"),
    ):
        page = open_page(f"{errors}?view={view.replace(' ', '+')}", width=800, color_scheme="dark")
        # Where another test has left a note there is a table in the place of the sentence.
        page.get_by_text(text).or_(page.get_by_role("region", name="Notes on test users")).first.wait_for()
        if view in ("Slices", "Instead"):
            page.locator(".js-plotly-plot .main-svg").first.wait_for()
        expect(page.get_by_role("radio", name=view)).to_be_checked()
        assert fits(page)
