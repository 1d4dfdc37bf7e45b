"""Figures in large type, and the page's colours beside theirs."""

import ast
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from app.attention_widgets import INK
from app.charts import enlarge
from darec.explain.score_terms import ScoreBreakdown
from darec.figures.data import history_lengths_figure
from darec.figures.effects import rank_changes_figure
from darec.figures.palette import BLUE, GREEN, ITEM_COLORS, ORANGE, PINK, VERMILION
from darec.figures.score_terms import score_terms_figure

ROOT = Path(__file__).parents[2]
THEME = ROOT / ".streamlit" / "config.toml"
DRAWS = re.compile(r"(.*\.)?(\w+_chart|pyplot|draw_figure)|st\.write")


def drawings(folder: Path) -> list[tuple[str, str]]:
    """File and function of every call that can draw a figure by itself, without its table and download."""
    return sorted(
        (path.name, ast.unparse(node.func))
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and DRAWS.fullmatch(ast.unparse(node.func))
    )


def test_every_figure_is_shown_by_the_one_function_that_adds_its_numbers():
    assert drawings(ROOT / "app") == [
        ("charts.py", "draw_figure"),  # by `show_figure`
        ("charts.py", "st.plotly_chart"),  # by `draw_figure`
        ("recommend_widgets.py", "charts.draw_figure"),  # one that grows, until `show_figure` takes its place
    ]


def test_a_figure_that_is_drawn_past_it_is_found(tmp_path: Path):
    (tmp_path / "a.py").write_text("left.line_chart(x)\nst.write(figure)\nplotly_chart(y)\n", encoding="utf-8")
    assert drawings(tmp_path) == [("a.py", "left.line_chart"), ("a.py", "plotly_chart"), ("a.py", "st.write")]


@pytest.fixture
def breakdown() -> ScoreBreakdown:
    ranks = np.array([1, 2])
    return ScoreBreakdown(np.array([0, 1]), np.ones((5, 2)), np.full(2, 5.0), np.zeros(2), ranks, ranks)


def test_the_legend_begins_at_the_figures_edge_below_the_title_and_has_room(breakdown: ScoreBreakdown):
    small = score_terms_figure(breakdown, ["Heat", "Seven"]).layout.height
    layout = enlarge(score_terms_figure(breakdown, ["Heat", "Seven"])).layout
    legend = layout.legend
    assert (legend.xref, legend.x, legend.yref, legend.y, legend.yanchor) == ("container", 0, "container", 0, "bottom")
    assert legend.entrywidth is None  # a share of the axis is too narrow for large letters
    assert layout.height >= 1.25 * small + 6 * 20  # six names, one below the other


def test_a_long_title_is_smaller_but_large():
    def size(change: str) -> int:
        ranks = np.array([1]), np.array([2])
        return enlarge(rank_changes_figure(np.array([0]), *ranks, ["Heat"], change)).layout.title.font.size

    assert 16 < size("switching off 10 adapters") < size("a move")


def test_names_are_smaller_than_numbers():
    ranks = enlarge(rank_changes_figure(np.array([0]), np.array([1]), np.array([2]), ["Heat"])).layout
    lengths = enlarge(history_lengths_figure([3, 4])).layout
    assert ranks.yaxis.tickfont.size == ranks.yaxis2.tickfont.size < lengths.yaxis.tickfont.size
    assert lengths.xaxis.tickfont.size > 12


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_words_have_the_colours_of_the_figures(mode: str):
    theme = tomllib.loads(THEME.read_text(encoding="utf-8"))["theme"][mode]
    named = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "violet": PINK, "red": VERMILION}
    assert {name: theme[f"{name}Color"].upper() for name in named} == named
    assert [named[name] for name in INK] == list(ITEM_COLORS)  # an item's words, and its bars


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_coloured_words_can_be_read_on_the_page_and_on_their_badge(mode: str):
    theme = tomllib.loads(THEME.read_text(encoding="utf-8"))["theme"][mode]
    page = theme["backgroundColor"]
    for name in INK:
        badge = mix(theme[f"{name}Color"], page, {"light": 0.1, "dark": 0.2}[mode])  # as Streamlit makes it
        for ground in (rgb(page), badge):
            assert contrast(rgb(theme[f"{name}TextColor"]), ground) >= 4.5, name


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255


def mix(color: str, ground: str, opacity: float) -> np.ndarray:
    return opacity * rgb(color) + (1 - opacity) * rgb(ground)


def contrast(ink: np.ndarray, ground: np.ndarray) -> float:
    """Of WCAG 2.2: relative luminances, lighter over darker."""

    def luminance(color: np.ndarray) -> float:
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(ink), luminance(ground)])
    return (light + 0.05) / (dark + 0.05)
