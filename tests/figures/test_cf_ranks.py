import numpy as np
import pytest

from darec.explain.score_terms import ScoreBreakdown
from darec.figures.cf_ranks import cf_ranks_figure, cf_ranks_table

NOTHING = np.zeros(2)
RANKS = ScoreBreakdown(
    np.array([2, 0]), np.zeros((4, 2)), NOTHING, NOTHING, rank=np.array([1, 2]), rank_cf_off=np.array([300, 1])
)


def test_an_item_is_drawn_from_its_rank_with_cf_to_the_one_without():
    table = cf_ranks_table(RANKS, ["Heat", "Seven", "<b>Up</b>"])
    assert table.to_numpy().tolist() == [["<b>Up</b>", 1, 300], ["Heat", 2, 1]]
    figure = cf_ranks_figure(RANKS, ["Heat", "Seven", "<b>Up</b>"])
    drawn = {trace.name: list(trace.x) for trace in figure.data if trace.mode == "markers"}
    assert drawn == {"CF on": [1, 2], "CF off": [300, 1]}
    assert figure.data[0].y[0] == "1 &lt;b&gt;Up&lt;/b&gt;"
    assert [list(trace.x) for trace in figure.data if trace.mode == "lines"] == [[1, 300], [2, 1]]


@pytest.mark.parametrize("axis", ["xaxis", "yaxis"])
def test_the_axes_are_named(axis: str):
    assert cf_ranks_figure(RANKS, ["Heat", "Seven", "Up"]).layout[axis].title.text
