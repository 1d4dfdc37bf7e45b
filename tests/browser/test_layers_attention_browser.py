"""The Layers and the Attention page as a person uses them."""

import re
from urllib.parse import parse_qs, urlparse

import pytest
from conftest import pause, wait_for_link
from playwright.sync_api import expect

from benchmarks.chromium import fits, rest

pytestmark = pytest.mark.browser


def in_link(page, name: str) -> str | None:
    return parse_qs(urlparse(page.url).query).get(name, [None])[0]


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (800, "dark")])
def test_words_are_hidden_by_a_click_and_by_the_keyboard_and_a_link_shows_the_same(
    served_model: str, open_page, width: int, color_scheme: str
):
    page = open_page(f"{served_model}/attention?history=f0~f3&hidden=", width=width, color_scheme=color_scheme)
    page.get_by_text("No word is hidden").wait_for()
    page.get_by_role("button", name="Harbour", exact=False).first.click()
    page.get_by_text("What is expected for “Harbour”").wait_for()
    first = in_link(page, "hidden")
    page.get_by_role("radio", name="Changes ranks").click()
    page.get_by_text("Ranks before and after hiding 1 word").wait_for()
    ghosts = page.get_by_role("button", name="Ghosts", exact=False).first
    ghosts.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Ranks before and after hiding 2 words").wait_for()
    assert in_link(page, "hidden").split(".")[0] == first
    page.reload()
    page.get_by_text("Ranks before and after hiding 2 words").wait_for()
    other = open_page(page.url, width=width)
    other.get_by_text("Ranks before and after hiding 2 words").wait_for()
    assert fits(page)
    page.get_by_role("button", name="Show all words").click()
    page.get_by_text("No word is hidden").wait_for()


def test_back_shows_a_hidden_word_again(served_model: str, open_page):
    page = open_page(f"{served_model}/attention?history=f0~f3&hidden=&hiding=Changes+ranks")
    page.get_by_text("No word is hidden").wait_for()
    page.get_by_role("button", name="Harbour", exact=False).first.click()
    page.get_by_text("Ranks before and after hiding 1 word").wait_for()
    one = in_link(page, "hidden")
    page.get_by_role("button", name="Ghosts", exact=False).first.click()
    page.get_by_text("Ranks before and after hiding 2 words").wait_for()
    page.go_back()
    page.get_by_text("Ranks before and after hiding 1 word", exact=True).wait_for()
    assert in_link(page, "hidden") == one
    page.go_back()
    page.get_by_text("No word is hidden").wait_for()
    assert in_link(page, "hidden") is None  # an empty one
    assert in_link(page, "history") == "f0~f3"


def test_hidden_words_and_switches_stay_with_their_history_and_page(served_model: str, open_page):
    page = open_page(f"{served_model}/attention?history=f0~f3&hidden=&hiding=Changes+ranks")
    page.get_by_role("button", name="Harbour", exact=False).first.click()
    page.get_by_text("Ranks before and after hiding 1 word", exact=True).wait_for()
    hidden = in_link(page, "hidden")
    pause(page)
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name="Remove: ").first.click()
    wait_for_link(page, "history", "f0")
    wait_for_link(page, "hidden", None)
    pause(page)
    page.go_back()  # one step: to the history and its words
    wait_for_link(page, "history", "f0~f3")
    assert in_link(page, "hidden") == hidden
    pause(page)
    page.get_by_role("link", name="Layers").first.click()
    page.get_by_role("radio", name="Switch off").click()
    page.get_by_role("button", name="parallel bottleneck").click()
    wait_for_link(page, "off", "1.parallel")
    pause(page)
    page.get_by_role("link", name="Attention").first.click()
    wait_for_link(page, "hidden", hidden)
    page.get_by_text("Ranks before and after hiding 1 word", exact=True).wait_for()
    pause(page)
    page.get_by_role("link", name="Layers").first.click()
    page.get_by_text("Switched off, not retrained").wait_for()


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "dark"), (800, "light")])
def test_every_view_of_attention_opens(served_model: str, open_page, width: int, color_scheme: str):
    page = open_page(f"{served_model}/attention", width=width, color_scheme=color_scheme)
    for view, title in (
        ("One head", "Layer 2, mean over heads, context mask"),
        ("All heads", "All heads, context mask"),
        ("Items", "Items look at items, all layers, context mask"),
        ("Shares", "Where attention goes, by layer, context mask"),
        ("Mask", "The context mask: who may look at whom"),
    ):
        page.get_by_role("radio", name=view, exact=True).click()
        page.get_by_text(title).wait_for()
        assert fits(page)
    page.get_by_role("radio", name="Causal mask").click()
    page.get_by_text("The causal mask: who may look at whom").wait_for()


def test_a_click_on_a_cell_of_items_opens_its_words(served_model: str, open_page):
    page = open_page(f"{served_model}/attention?attention_view=One+head&head=2&history=f0~f3~f5")
    page.get_by_text("Layer 2, head 2, context mask").wait_for()
    pause(page)
    page.get_by_role("radio", name="Items").click()
    page.get_by_text("Items look at items, all layers, context mask").wait_for()
    rest(page)
    plot = page.locator(".js-plotly-plot .nsewdrag").bounding_box()
    # Of 4 by 4 cells, prefix first, the one in which the third item looks at the first.
    page.mouse.click(plot["x"] + plot["width"] * 1.5 / 4, plot["y"] + plot["height"] * 3.5 / 4)
    wait_for_link(page, "pair", "3.1")
    page.get_by_text("Layer 2, mean over heads, context mask").wait_for()  # as items are; not the head seen before
    rest(page)
    shown = page.locator(".js-plotly-plot .ytick text").all_inner_texts()
    pause(page)
    page.get_by_role("button", name="Show all words").click()
    wait_for_link(page, "pair", None)
    page.wait_for_function("n => document.querySelectorAll('.js-plotly-plot .ytick text').length > n", arg=len(shown))
    pause(page)
    page.go_back()
    wait_for_link(page, "pair", "3.1")
    page.get_by_role("button", name="History").click()
    page.get_by_role("button", name="Remove: ").first.click()
    wait_for_link(page, "history", "f0~f3")
    wait_for_link(page, "pair", None)  # of another history they would be other items


def test_a_pair_of_items_is_chosen_by_the_keyboard(served_model: str, open_page):
    page = open_page(f"{served_model}/attention?attention_view=Items&history=f0~f3~f5")
    page.get_by_text("Items look at items, all layers, context mask").wait_for()
    pause(page)
    page.get_by_role("combobox", name="Layer").focus()
    page.keyboard.press("Tab")
    menu = page.get_by_role("combobox", name="Words of two items")
    expect(menu).to_be_focused()
    page.keyboard.type("3 ")
    expect(page.get_by_role("option").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("/^[0-3]\\.[0-3]$/.test(new URLSearchParams(location.search).get('pair'))")
    page.get_by_text("Layer 2, mean over heads, context mask").wait_for()
    pause(page)
    looks, looked_at = in_link(page, "pair").split(".")
    page.go_back()
    expect(menu).to_have_value(re.compile(f"^{looks} .* looks at {looked_at} "))
    pause(page)
    page.go_back()
    wait_for_link(page, "pair", None)
    expect(menu).to_have_value("")


def test_switches_are_this_sessions_and_the_history_is_changed_in_place(served_model: str, open_page):
    mine = open_page(f"{served_model}/layers?layers_view=Switch+off")
    other = open_page(f"{served_model}/layers?layers_view=Switch+off", width=800, color_scheme="dark")
    for page in (mine, other):
        page.get_by_text("Every adapter is at work").wait_for()
    mine.get_by_role("button", name="parallel bottleneck").click()
    mine.get_by_text("Switched off, not retrained").wait_for()
    wait_for_link(mine, "off", "1.parallel")
    mine.get_by_role("button", name="Layer 2 off").click()
    mine.get_by_text("Ranks before and after switching off 2 adapters").first.wait_for()
    other.reload()
    other.get_by_text("Every adapter is at work").wait_for()
    mine.get_by_role("button", name="History").click()
    mine.get_by_role("button", name="Remove: The Paper Astronaut").first.click()
    mine.wait_for_function("new URLSearchParams(location.search).has('history')")
    mine.get_by_text("Ranks before and after switching off 2 adapters").first.wait_for()
    mine.keyboard.press("Escape")
    mine.get_by_role("button", name="All on").click()
    mine.get_by_text("Every adapter is at work").wait_for()
    assert fits(mine)
    assert fits(other)


def test_what_is_switched_off_stands_in_the_link_and_nowhere_else(served_model: str, open_page):
    page = open_page(f"{served_model}/layers?layers_view=Switch+off")
    page.get_by_text("Every adapter is at work").wait_for()
    pause(page)
    page.get_by_role("button", name="parallel bottleneck").click()
    wait_for_link(page, "off", "1.parallel")
    page.get_by_text("Ranks before and after switching off 1 adapter", exact=True).wait_for()
    page.reload()  # a session of its own, which knows the link alone
    page.get_by_text("Ranks before and after switching off 1 adapter", exact=True).wait_for()
    other = open_page(page.url, width=800)
    other.get_by_text("Ranks before and after switching off 1 adapter", exact=True).wait_for()
    pause(other)
    other.get_by_role("button", name="All on").click()
    other.get_by_text("Every adapter is at work").wait_for()
    page.reload()
    page.get_by_text("Ranks before and after switching off 1 adapter", exact=True).wait_for()


def test_weights_stand_beside_the_average_of_users(served_model: str, open_page):
    page = open_page(f"{served_model}/layers?layers_view=Weights", width=800)
    page.get_by_role("button", name="Average").click()
    page.get_by_text("average of 50 test users").first.wait_for()
    page.get_by_text("Largest difference").wait_for()
    assert fits(page)


def test_a_click_on_a_small_picture_opens_its_head(served_model: str, open_page):
    page = open_page(f"{served_model}/attention?history=f0~f3&attention_view=All+heads")
    ticks = page.locator(".js-plotly-plot g.xtick text")
    ticks.first.wait_for()
    rest(page)
    wall = page.locator(".js-plotly-plot .nsewdrag")
    size, heads, layers = wall.bounding_box(), ticks.count(), page.locator(".js-plotly-plot g.ytick text").count()
    # Beside its upper right corner: all of a picture can be clicked, not its centre alone.
    wall.click(position={"x": 1.96 * size["width"] / heads, "y": 0.06 * size["height"] / layers})
    page.get_by_role("radio", name="One head", checked=True).wait_for()
    page.locator(".js-plotly-plot .gtitle", has_text="Layer 1, head 2").wait_for()
    page.reload()
    page.locator(".js-plotly-plot .gtitle", has_text="Layer 1, head 2").wait_for()
