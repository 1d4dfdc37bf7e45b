from collections.abc import Iterator
from itertools import product
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pandas as pd
import pytest
from conftest import serve, wait_for_link
from playwright.sync_api import expect

from app.state import choose_example
from benchmarks.chromium import fits, settle
from darec.baselines import write_baseline_run
from darec.data.interactions import validated
from darec.serving import Recommender

pytestmark = pytest.mark.browser


def wait_for_history(page, *titles: str) -> None:
    """Wait until exactly these titles are shown, most recent first."""
    expected = [f"{number} {title}" for number, title in zip(range(len(titles), 0, -1), titles, strict=True)]
    rows = page.locator(".st-key-history_rows").get_by_test_id("stMarkdown")
    for _ in range(200):
        if [" ".join(text.split()) for text in rows.all_inner_texts()] == expected:
            return
        page.wait_for_timeout(50)
    assert rows.all_inner_texts() == expected


def action(page, name: str, position: int):
    """The button `up`, `down` or `remove` of the entry at a position; 0 is the oldest."""
    return page.locator(f".st-key-{name}-{position} button:visible")


def wait_for_list(page, *cells: tuple[str, str]) -> None:
    """Wait until the list shows exactly these titles and percentages, as assistive technology reads them."""
    rows = page.get_by_test_id("stDataFrame").locator("tbody tr")
    for _ in range(200):
        shown = [tuple(row.locator("td").all_text_contents()[1:3]) for row in rows.all()]
        if shown == list(cells):
            return
        page.wait_for_timeout(50)
    assert shown == list(cells)


def expected_list(run: Path, history: list[int], k: int = 10, *, exclude_seen: bool = True) -> list[tuple[str, str]]:
    found = Recommender.load(run).recommend(history, k, exclude_seen=exclude_seen)
    return [(line.title, repr(100 * line.probability)) for line in found]


LIGHTHOUSE, HARBOUR, KITE = "The Lighthouse Keeper (1951)", "Harbour of Ghosts (1966)", "Kite Season (2019)"
LIGHTNING = "Lightning over Harbour (1958)"


@pytest.mark.parametrize("width", [1280, 800])
def test_a_history_is_built_reordered_kept_and_passed_on(served: str, open_page, film_run: Path, width: int):
    page = open_page(f"{served}/?history=f0~f3", width=width)
    wait_for_history(page, HARBOUR, LIGHTHOUSE)

    page.get_by_role("searchbox", name="Add an item").press_sequentially("kit")
    page.get_by_role("button", name=KITE).click()
    wait_for_history(page, KITE, HARBOUR, LIGHTHOUSE)
    expect(page.get_by_role("searchbox", name="Add an item")).to_have_value("")

    action(page, "up", 0).click()
    wait_for_history(page, KITE, LIGHTHOUSE, HARBOUR)
    action(page, "remove", 0).click()
    wait_for_history(page, KITE, LIGHTHOUSE)
    wait_for_link(page, "history", "f0~f19")
    recommended = expected_list(film_run, [0, 19])
    wait_for_list(page, *recommended)

    page.reload()
    wait_for_history(page, KITE, LIGHTHOUSE)
    other = open_page(page.url, width=width)
    wait_for_history(other, KITE, LIGHTHOUSE)
    wait_for_list(page, *recommended)
    wait_for_list(other, *recommended)
    assert fits(page)


def test_the_keyboard_alone_adds_moves_and_removes(served: str, open_page):
    page = open_page(f"{served}/?history=f0~f3")
    wait_for_history(page, HARBOUR, LIGHTHOUSE)
    page.get_by_role("searchbox", name="Add an item").focus()
    page.keyboard.type("light")
    page.get_by_role("button", name=LIGHTNING).focus()
    page.keyboard.press("Enter")
    wait_for_history(page, LIGHTNING, HARBOUR, LIGHTHOUSE)
    action(page, "up", 0).focus()
    page.keyboard.press("Enter")
    wait_for_history(page, LIGHTNING, LIGHTHOUSE, HARBOUR)
    page.keyboard.press("Enter")  # the focus has stayed in its place
    wait_for_history(page, LIGHTNING, HARBOUR, LIGHTHOUSE)
    page.keyboard.press("Tab")  # past the idle `down` of the oldest entry, onto its `remove`
    page.keyboard.press("Enter")
    wait_for_history(page, LIGHTNING, HARBOUR)


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_the_held_out_item_of_a_test_user_is_marked(served: str, open_page, film_run: Path, color_scheme: str):
    model = Recommender.load(film_run)
    case = model.split.test.user_ids.index("user 7")
    target = model.catalog.titles[model.split.test.targets[case]]
    recommended = expected_list(film_run, model.split.test.histories[case].tolist(), k=20)
    page = open_page(f"{served}/?user=user+7&k=20", color_scheme=color_scheme)
    wait_for_list(page, *((f"★ {title}" if title == target else title, share) for title, share in recommended))


def test_how_the_list_is_shown_travels_in_the_link(served: str, open_page, film_run: Path):
    page = open_page(f"{served}/?history=f0&k=3&exclude_seen=false")
    wait_for_list(page, *expected_list(film_run, [0], 3, exclude_seen=False))
    page.get_by_role("button", name="Options").click()
    expect(page.get_by_role("switch", name="Leave out seen items")).not_to_be_checked()


def test_buttons_with_an_icon_alone_have_a_name(served: str, open_page):
    page = open_page(f"{served}/?history=f0~f3")
    wait_for_history(page, HARBOUR, LIGHTHOUSE)
    page.get_by_role("button", name=f"Remove: {LIGHTHOUSE}").click()
    wait_for_history(page, HARBOUR)


def test_a_pasted_list_becomes_the_history(served: str, open_page):
    page = open_page(f"{served}/?history=f0")
    page.get_by_role("button", name="Paste a list of titles").click()
    page.get_by_label("One title a line").fill("Kite Season\nLightning over Harbour")
    page.get_by_label("One title a line").press("Control+Enter")
    page.get_by_role("dialog").get_by_text("found").nth(1).wait_for()
    page.get_by_role("button", name="Replace the history").click()
    wait_for_history(page, KITE, LIGHTNING)


def test_large_type_stays_on_another_page_and_reset_opens_the_example(served: str, open_page, film_run: Path):
    def type_size() -> str:
        return page.evaluate("getComputedStyle(document.documentElement).fontSize")

    page = open_page(f"{served}/?history=f0~f3&k=3")
    wait_for_history(page, HARBOUR, LIGHTHOUSE)
    assert type_size() == "16px"
    page.get_by_text("Presenter mode").click()
    page.wait_for_function("getComputedStyle(document.documentElement).fontSize == '20px'")
    page.get_by_role("link", name="Errors").first.click()
    page.get_by_role("heading", name="Where does it fail?").wait_for()
    assert type_size() == "20px"
    page.get_by_role("link", name="Reset").click()
    page.get_by_role("heading", name="What comes next?").wait_for()
    model = Recommender.load(film_run)
    example = model.split.test.histories[choose_example(model.split.test)].tolist()
    wait_for_history(page, *(model.catalog.titles[item] for item in example[::-1]))
    assert set(parse_qs(urlparse(page.url).query)) <= {"presenter"}


@pytest.fixture(scope="module")
def served_large(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the app with popularity over 20,000 items; three titles, far apart, hold a word from `zep` on."""
    folder = tmp_path_factory.mktemp("served_large")
    (folder / "data").mkdir()
    colours = ["Amber", "Black", "Copper", "Dusty", "Emerald", "Faded", "Golden", "Hollow", "Ivory", "Jade"]
    things = ["Anchor", "Bridge", "Candle", "Door", "Engine", "Forest", "Garden", "House", "Island", "Journey"]
    titles = [f"{colour} {thing} {number}" for number, colour, thing in product(range(200), colours, things)]
    titles[7], titles[12_345], titles[19_999] = "The Last Zeppelin", "Zephyr", "Letters to Zephyrine"
    items = pd.DataFrame({"item_id": [f"i{number}" for number in range(20_000)], "title": titles})
    rows = [(f"u{user}", f"i{(37 * user + step) % 50}", step) for user in range(40) for step in range(6)]
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    validated(interactions, items, source="invented").save(folder / "data")
    write_baseline_run("popularity", folder / "data", folder / "large")
    assert len(Recommender.load(folder / "large").catalog) == 20_000
    yield from serve(folder, "--", "--run", str(folder / "large"))


def test_three_letters_find_titles_among_20000_and_one_is_added(served_large: str, open_page):
    page = open_page(f"{served_large}/?history=i3~i4")
    wait_for_history(page, "Amber Engine 0", "Amber Door 0")
    page.get_by_role("searchbox", name="Add an item").press_sequentially("zep")
    suggestions = page.locator('[class*="st-key-add-"] button')
    suggestions.nth(2).wait_for()
    found = [text.splitlines()[-1] for text in suggestions.all_inner_texts()]
    assert found == ["Zephyr", "The Last Zeppelin", "Letters to Zephyrine"]  # titles that begin so come first
    suggestions.nth(2).click()
    wait_for_history(page, "Letters to Zephyrine", "Amber Engine 0", "Amber Door 0")
    wait_for_link(page, "history", "i3~i4~i19999")


def test_back_shows_the_history_again_as_it_was(served: str, open_page, film_run: Path):
    page = open_page(f"{served}/?history=f0~f3~f19")
    wait_for_history(page, KITE, HARBOUR, LIGHTHOUSE)
    action(page, "remove", 1).click()
    wait_for_history(page, KITE, LIGHTHOUSE)
    action(page, "remove", 0).click()
    wait_for_history(page, KITE)
    page.go_back()
    wait_for_history(page, KITE, LIGHTHOUSE)
    wait_for_list(page, *expected_list(film_run, [0, 19]))
    page.go_back()
    wait_for_history(page, KITE, HARBOUR, LIGHTHOUSE)
    wait_for_list(page, *expected_list(film_run, [0, 3, 19]))
    page.go_forward()
    wait_for_history(page, KITE, LIGHTHOUSE)
    wait_for_link(page, "history", "f0~f19")
    page.get_by_role("link", name="Errors").first.click()
    page.get_by_role("heading", name="Where does it fail?").wait_for()
    page.wait_for_url("**/errors?history=f0~f19&fingerprint=*")
    settle(page)  # a page that is still being drawn may write its address once more, over the one gone back to
    page.go_back()
    if page.url == f"{served}/errors":
        page.go_back()  # on a busy machine streamlit at times makes a new page's bare address a step of its own
    page.get_by_role("heading", name="What comes next?").wait_for()
    wait_for_history(page, KITE, LIGHTHOUSE)


@pytest.mark.parametrize("query", ["", "?user=user+7", "?user=user+7&history=f0~f3&pinned=f0"])
def test_one_step_back_undoes_one_click(served: str, open_page, query: str):
    page = open_page(f"{served}/{query}")
    rows = page.locator(".st-key-history_rows").get_by_test_id("stMarkdown")
    rows.first.wait_for()
    settle(page)  # rows come one by one
    before = [text.split(maxsplit=1)[1] for text in rows.all_inner_texts()]
    address = page.url
    action(page, "remove", 0).click()
    wait_for_history(page, *before[:-1])
    page.go_back()
    wait_for_history(page, *before)
    assert page.url == address
    page.go_forward()
    wait_for_history(page, *before[:-1])
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Search for a title on the left").wait_for()
    page.go_back()
    wait_for_history(page, *before[:-1])


def test_what_draws_tables_and_figures_is_fetched_before_the_first_of_them(served: str, open_page):
    page = open_page(f"{served}/?history=f0~f3")
    for script in ("/DataFrame.", "/PlotlyChart."):
        page.wait_for_function(
            "name => performance.getEntriesByType('resource').some(entry => entry.name.includes(name))", arg=script
        )
        assert page.locator(f"link[rel=modulepreload][href*='{script}']").count() >= 1  # streamlit may add its own
    assert page.locator(".js-plotly-plot").count() == 0
