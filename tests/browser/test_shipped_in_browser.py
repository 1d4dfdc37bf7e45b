"""The app as a stranger finds it: nothing configured, no network, the shipped model."""

import re
from itertools import product
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import pause
from playwright.sync_api import expect

from benchmarks.chromium import fits, served, settle

pytestmark = pytest.mark.browser

FOUR = list(product((1280, 800), ("light", "dark")))
PAGES = ("", "layers", "attention", "errors", "training", "data", "method")
VIEWS = (
    *("?panel=Score+terms", "?panel=Why+this+one", "?panel=What+if", "?panel=Compare", "?panel=Truth"),
    *("layers?layers_view=Weights", "layers?layers_view=Search"),
    *("attention?attention_view=Shares", "attention?attention_view=All+heads", "attention?attention_view=One+head"),
    *("attention?attention_view=Items", "attention?attention_view=Mask"),
    *("attention?hiding=Looks+at", "attention?hiding=Changes+ranks"),
    *("errors?view=Slices", "errors?view=Instead", "errors?view=Two+models"),
    *("errors?view=Explanations", "errors?view=Notes", "data?data=Load+your+own"),
    *("training?training_view=Four+bits", "training?training_view=What+each+part+adds"),
    *("data?data=Public+sets", "method?part=4+Dynamic+adaption", "method?part=Exercises"),
    *("method?part=Assumptions", "layers?layers_view=Switch+off"),
    *("method?part=2+Context+masking", "method?part=3+Knowledge+injection"),
)
PRESENTED = (
    *(f"{page}?presenter=true" for page in ("", "attention", "errors", "data")),
    *("?panel=What+if&user=viewer-0010&presenter=true", "layers?layers_view=Switch+off&presenter=true"),
    *("errors?view=Two+models&presenter=true", "training?training_view=Four+bits&presenter=true"),
    *("method?part=3+Knowledge+injection&presenter=true", "?panel=Score+terms&presenter=true"),
)
SHOWN = {  # address below the app's: widths and colour schemes
    **dict.fromkeys(PAGES, FOUR),
    # By turns wide and light, narrow and dark.
    **{view: [FOUR[::3][place % 2]] for place, view in enumerate((*VIEWS, *PRESENTED))},
}
SERIOUS = ("serious", "critical")
# Text of figures, which axe passes over, that does not stand out from the page by the 4.5 that WCAG 2 asks for.
FAINT = """() => {
    const light = color => color.match(/\\d+/g).slice(0, 3).map(part => part / 255)
        .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0.05);
    const paper = light(getComputedStyle(document.querySelector('.stApp')).backgroundColor);
    const parts = ['.xtick text', '.ytick text', '.xtitle', '.ytitle', '.gtitle', '.annotation-text', '.legendtext',
        '.colorbar text'];
    return [...document.querySelectorAll(parts.map(part => '.js-plotly-plot ' + part).join())].filter(text => {
        const ink = light(getComputedStyle(text).fill);
        return Math.max(ink, paper) / Math.min(ink, paper) < 4.5;
    }).map(text => text.textContent);
}"""


# Words and numbers of cards that end in dots for want of room.
CUT = """() => ['Label', 'Value', 'Delta'].flatMap(part => {
    const boxes = [...document.querySelectorAll(`[data-testid="stMetric${part}"]`)];
    return boxes.flatMap(box => [box, ...box.querySelectorAll('*')])
        .filter(box => box.scrollWidth > box.clientWidth + 1 && box.clientWidth && box.innerText)
        .map(box => box.innerText);
})"""

MEASURE_HINT = """field => {
    const style = getComputedStyle(field), pen = document.createElement('canvas').getContext('2d');
    pen.font = style.font;
    const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return [room, pen.measureText(field.placeholder).width];
}"""


def open_at_rest(open_page, address: str, **options):
    """A page that has ended its script, is drawn, and has all it asked for."""
    page = open_page(address, **options)
    pause(page)
    return page


def red_boxes(page) -> list[str]:
    """What a page says in boxes of `st.error`."""
    return page.get_by_test_id("stAlertContentError").all_inner_texts()


def serious_faults(page) -> list[tuple[str, str]]:
    """Rules of accessibility that a page breaks seriously, each with the first place."""
    found = Axe().run(page).response["violations"]
    return [(rule["id"], rule["nodes"][0]["html"]) for rule in found if rule["impact"] in SERIOUS]


@pytest.mark.parametrize(
    ("name", "width", "color_scheme"), [(name, *how) for name, ways in SHOWN.items() for how in ways]
)
def test_every_page_opens_on_the_shipped_model(served_demo: str, open_page, name: str, width: int, color_scheme: str):
    page = open_at_rest(open_page, f"{served_demo}/{name}", width=width, color_scheme=color_scheme)
    assert page.get_by_test_id("stException").count() == 0
    assert red_boxes(page) == []
    view = name.partition("&")[0]
    if view in VIEWS:
        expect(page.get_by_role("radio", name=unquote_plus(view.rpartition("=")[2]), exact=True)).to_be_checked()
    assert fits(page)
    assert page.evaluate(CUT) == []
    assert page.evaluate(FAINT) == []
    assert serious_faults(page) == []


def test_a_card_that_is_cut_is_noticed(served_demo: str, open_page):
    page = open_at_rest(open_page, f"{served_demo}/data")
    page.get_by_test_id("stMetric").nth(5).wait_for()
    assert page.evaluate(CUT) == []
    page.get_by_test_id("stMetric").first.evaluate("card => card.style.width = '60px'")
    assert page.evaluate(CUT)


IN_SIGHT = [  # address below the app's, width, columns that are whole in sight
    ("", 1280, ["#", "Title", "Probability", "About", "Text", "Collab", "Prior"]),
    ("", 800, ["#", "Title", "Probability"]),
    ("errors", 1280, ["User", "Rank", "Held-out item", "Genres", "Recommended first", "History"]),
]


@pytest.mark.parametrize(("name", "width", "columns"), IN_SIGHT)
def test_what_matters_of_a_table_is_in_sight(served_demo: str, open_page, name: str, width: int, columns: list[str]):
    page = open_at_rest(open_page, f"{served_demo}/{name}", width=width)
    heads = page.get_by_test_id("stDataFrame").first.locator("th")  # of columns in sight; the last one may be cut
    assert heads.all_inner_texts()[:-1][: len(columns)] == columns


def test_the_hint_of_the_search_is_read_whole(served_demo: str, open_page):
    field = open_at_rest(open_page, served_demo, width=800).get_by_role("searchbox").first
    room, hint = field.evaluate(MEASURE_HINT)
    assert 0 < hint <= room


ACTS = {  # address below the app's -> what a person then clicks, and what follows
    "?user=viewer-0010&panel=What+if": (".st-key-remove-0 button:visible", "Ranks before and after"),
    "?vote=true": (".st-key-vote-1 button", "Reveal"),
    "?user=viewer-0011": ("button:has-text('Options')", "Leave out seen items"),
    "?user=viewer-0012": ("button:has-text('Paste a list of titles')", "One title a line"),
    "errors?user=viewer-0010": ("summary:has-text('Notes (')", "Your name"),
    "layers?layers_view=Switch+off": ("[class*='st-key-power'] button", "Switched off, not retrained"),
}


@pytest.mark.parametrize(("name", "how"), [(name, FOUR[place % 4]) for place, name in enumerate(ACTS)])
def test_what_opens_by_a_click_can_be_read_and_used_by_everybody(served_demo: str, open_page, name: str, how):
    page = open_at_rest(open_page, f"{served_demo}/{name}", width=how[0], color_scheme=how[1])
    click, follows = ACTS[name]
    page.locator(click).first.click()
    page.get_by_text(follows).first.wait_for()
    pause(page)
    assert red_boxes(page) == []
    assert fits(page)
    assert page.evaluate(FAINT) == []
    assert serious_faults(page) == []


def test_what_goes_wrong_stands_in_a_red_box(browser, open_page, tmp_path: Path):
    (tmp_path / "notes.sqlite").write_text("not a database, " * 100)
    with served(tmp_path, OMP_NUM_THREADS="1") as address:
        page = open_at_rest(open_page, f"{address}/errors")
        page.get_by_text("DAREC_NOTES").wait_for()
        [said] = red_boxes(page)
        assert "DAREC_NOTES" in said
        page.close()  # before the app ends, which a page would complain of


def test_after_two_parts_of_a_trilogy_the_third_stands_at_the_top(served_demo: str, open_page):
    parts = "the-lord-of-the-rings-the-fellowship-of-the-ring-2001~the-lord-of-the-rings-the-two-towers-2002"
    page = open_at_rest(open_page, f"{served_demo}/?history={parts}")
    first = page.locator('[data-testid="stDataFrame"] tbody tr').first
    expect(first).to_contain_text("The Return of the King")
    expect(page.get_by_role("combobox", name="Model")).to_have_value("Demo: DARec")


def test_what_is_too_wide_is_noticed(served_demo: str, open_page):
    page = open_at_rest(open_page, f"{served_demo}/data", width=800)
    assert fits(page)
    page.evaluate("document.querySelector('h1').style.width = '900px'")
    assert not fits(page)


MAP = "model.layers.1.mlp.up_proj.weight"
LINKED = {  # address below the app's -> role, name and value of the widget that must follow it
    "attention?attention_view=Items&item_layer=2": ("combobox", "Layer", "2"),
    "attention?attention_view=One+head&attention_mask=Causal+mask": ("radio", "Causal mask", None),
    "layers?layers_view=Weights&against=Another+user&other_user=viewer-0010": ("textbox", "Test user", "viewer-0010"),
    "method?part=2+Context+masking&method_mask=causal": ("radio", "causal", None),
    f"training?training_view=Four+bits&map={MAP}": ("combobox", "Linear map", MAP),
    "training?training_view=Four+bits&quantized=Demo:+DARec+retrained+without+CF": (
        *("combobox", "Run in 4 bits", "Demo: DARec retrained without CF"),
    ),
    "training?losses=All+losses": ("radio", "All losses", None),
    "data?data=Public+sets&public=Amazon+Video+Games+2018,+5-core": (
        "combobox",
        "Public data set",
        "Amazon Video Games 2018",
    ),
    "errors?view=Two+models&compared=Demo:+SASRec": ("combobox", "Against", "Demo: SASRec"),
}


def test_links_set_the_views_own_menus(served_demo: str, open_page):
    page = open_page(served_demo)
    for link, (role, name, value) in LINKED.items():
        page.goto(f"{served_demo}/{link}")
        settle(page)
        widget = page.get_by_role(role, name=name, exact=True).first
        if value is None:
            expect(widget).to_be_checked()
        else:
            expect(widget).to_have_value(re.compile(f"^{re.escape(value)}"))
        assert red_boxes(page) == []


def test_a_link_opens_the_second_page_of_a_long_history(served_demo: str, open_page):
    page = open_at_rest(open_page, f"{served_demo}/?user=viewer-0021&history_page=2")
    page.get_by_text("All 79 items of test user").wait_for()
    rows = page.locator(".st-key-history_rows")
    expect(rows.get_by_role("button", name="Remove")).to_have_count(20)
    expect(rows).to_have_text(re.compile(r"^\s*59"))
