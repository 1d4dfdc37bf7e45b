"""Pictures of categories of items: how well each is found, and which are recommended in the place of which."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from darec.figures.paired_dots import paired_dots
from darec.figures.palette import BLUE, frame, interval_bars, plain

_ROW = 24  # pixels


def categories_figure(rows: Sequence[dict[str, Any]], metric: str = "ndcg@10") -> go.Figure:
    """A dot a category with its 95 % interval; categories too small to be a result are hollow.

    Args:
        rows: of `category_metrics`, the first at the top.
        metric: `ndcg@10` or `hr@10`.
    """
    name = rows[0]["slice"]
    table = pd.DataFrame([{"users": row["users"], **row[metric]} for row in rows])
    figure = go.Figure()
    figure.add_scatter(
        x=table["mean"],
        y=[plain(row["category"]) for row in rows],
        mode="markers",
        marker={
            "color": BLUE,
            "size": 10,
            "symbol": ["circle" if row["reliable"] else "circle-open" for row in rows],
        },
        error_x=interval_bars(table),
        customdata=table[["low", "high", "users"]],
        hovertemplate="%{y}: %{x:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})<br>%{customdata[2]} users"
        "<extra></extra>",
    )
    title = f"{metric.upper()} by {plain(name)} (hollow: under 100 users)"
    frame(figure, title, metric.upper(), plain(name), height=120 + _ROW * len(rows))
    return figure.update_yaxes(autorange="reversed", type="category").update_xaxes(rangemode="tozero")


def instead_figure(table: pd.DataFrame, name: str, limit: int = 20) -> go.Figure:
    """Two dots a category, joined by a line: its share among the held-out items, and among what was recommended.

    Args:
        table: from `recommended_instead`.
        name: of the attribute, such as `genres`.
        limit: categories drawn, those with the largest difference either way.
    """
    largest = table["difference"].abs().nlargest(limit).index
    shown = table[table.index.isin(largest)]  # keeps the table's order
    names = [plain(category) for category in shown["category"]]
    values = 100 * shown[["of_targets", "of_lists"]].set_axis(["held out", "recommended instead"], axis=1)
    hovers = [f"%{{y}}, {label}: %{{x:.1f}} %<extra></extra>" for label in values]
    figure = paired_dots(names, values, hovers, values.to_numpy())
    title = f"{plain(name).capitalize()} held out, and recommended instead"
    layout = {"height": 130 + _ROW * len(shown), "margin": {"l": 10, "r": 10, "t": 80, "b": 10}}
    return frame(figure, title, "share of items (%)", plain(name), **layout)
