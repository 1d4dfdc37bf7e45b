import numpy as np
import pandas as pd
import pytest

from darec.data.catalog import Catalog
from darec.evaluation.error_analysis import category_metrics, list_cases, recommended_instead
from darec.figures.categories import categories_figure, instead_figure

CATEGORIES = [("Drama",), ("War", "Drama"), ("$5 & <b>",)]


@pytest.fixture
def cases() -> pd.DataFrame:
    ranks = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in range(120)],
            "target": [0] * 110 + [1] * 5 + [2] * 5,
            "rank": [1, 20] * 60,
            "target_popularity": 7,
            "top_items": [[1, 2]] * 120,
        }
    )
    return list_cases(ranks, Catalog(pd.DataFrame({"item_id": list("abc"), "title": list("ABC")})))


def test_the_dots_are_the_metrics_and_small_categories_are_hollow(cases: pd.DataFrame):
    rows = category_metrics(cases, CATEGORIES, "genres")
    trace = categories_figure(rows, "hr@10").data[0]
    assert list(trace.y) == ["Drama", "&#36;5 &amp; &lt;b&gt;", "War"]
    np.testing.assert_allclose(trace.x, [row["hr@10"]["mean"] for row in rows])
    np.testing.assert_allclose(trace.x + trace.error_x.array, [row["hr@10"]["high"] for row in rows])
    np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, [row["hr@10"]["low"] for row in rows])
    assert list(trace.marker.symbol) == ["circle", "circle-open", "circle-open"]
    ndcg = categories_figure(rows).data[0].x
    np.testing.assert_allclose(ndcg, [row["ndcg@10"]["mean"] for row in rows])


def test_both_shares_are_drawn_in_percent_and_joined(cases: pd.DataFrame):
    table = recommended_instead(cases, CATEGORIES)
    *lines, held_out, recommended = instead_figure(table, "genres").data
    np.testing.assert_allclose(held_out.x, 100 * table["of_targets"])
    np.testing.assert_allclose(recommended.x, 100 * table["of_lists"])
    assert (held_out.name, recommended.name) == ("held out", "recommended instead")
    assert [tuple(line.x) for line in lines] == list(zip(held_out.x, recommended.x, strict=True))
    assert held_out.x.sum() == pytest.approx(100)


def test_only_the_largest_differences_are_drawn_in_the_order_of_the_table():
    names = [f"c{number:02}" for number in range(30)]
    difference = np.linspace(0.3, -0.2, 30)
    table = pd.DataFrame({"category": names, "of_targets": 0.2, "of_lists": 0.2 + difference, "difference": difference})
    drawn = list(instead_figure(table, "genres", limit=10).data[-1].y)
    assert drawn == ["c00", "c01", "c02", "c03", "c04", "c05", "c06", "c07", "c28", "c29"]
