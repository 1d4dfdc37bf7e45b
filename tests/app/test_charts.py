"""Figures in large type."""

import numpy as np
import pytest

from app.charts import enlarge
from darec.explain.score_terms import ScoreBreakdown
from darec.figures.data import history_lengths_figure
from darec.figures.effects import rank_changes_figure
from darec.figures.score_terms import score_terms_figure


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
