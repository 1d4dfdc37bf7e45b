"""Pictures of a data set."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.figures.palette import BLUE, frame, log_axis, plain


def popularity_figure(popularity: np.ndarray, titles: Sequence[str]) -> go.Figure:
    """Interactions of every item, the most popular first, both axes logarithmic; items without any are not drawn.

    Args:
        popularity: [N] training interactions of each item.
        titles: of the catalogue.
    """
    table = popularity_table(popularity, titles).query("interactions > 0")
    line = go.Scatter(
        x=table["place"],
        y=table["interactions"],
        mode="lines",
        line={"color": BLUE, "width": 2},
        text=[plain(title) for title in table["item"]],
        hovertemplate="%{text}<br>place %{x}: %{y} interactions<extra></extra>",
    )
    place = "place by popularity (1 is the most popular)"
    figure = frame(go.Figure(line), "Popularity of the items", place, "training interactions", height=380)
    most = table["interactions"].max() if len(table) else 1
    return figure.update_xaxes(log_axis(max(1, len(table)))).update_yaxes(log_axis(most))


def popularity_table(popularity: np.ndarray, titles: Sequence[str]) -> pd.DataFrame:
    """One row an item, the most popular first: place, item, interactions, cumulative share of all in 0..1."""
    order = np.argsort(-popularity, kind="stable")
    counts = popularity[order]
    return pd.DataFrame(
        {
            "place": np.arange(1, len(counts) + 1),
            "item": [titles[item] for item in order],
            "interactions": counts,
            "cumulative share": counts.cumsum() / max(1, counts.sum()),
        }
    )


def history_lengths_figure(lengths: Sequence[int]) -> go.Figure:
    """Histogram of how many items users have; a bar is one length, or a range of lengths where there are many."""
    table = history_lengths_table(lengths)
    names = [
        f"{low}" if low == high else f"{low} to {high}" for low, high in zip(table["from"], table["to"], strict=True)
    ]
    bars = go.Bar(
        x=(table["from"] + table["to"]) / 2,  # on an axis of numbers: names of thirty ranges stand on end
        y=table["users"],
        width=0.9 * (table["to"] - table["from"] + 1),
        marker_color=BLUE,
        customdata=names,
        hovertemplate="%{customdata} items<br>%{y} users<extra></extra>",
    )
    figure = frame(go.Figure(bars), "Lengths of the histories", "items in a history", "users", height=360)
    figure.update_xaxes(showgrid=False, tickangle=0)
    return figure.update_xaxes(dtick=1) if len(table) <= 10 and names[0].isdigit() else figure


def history_lengths_table(lengths: Sequence[int], bars: int = 30) -> pd.DataFrame:
    """One row a range of lengths, at most `bars`, all as wide: from, to (both included), users."""
    values = np.asarray(lengths, np.int64)
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    width = -(-(high - low + 1) // bars)
    starts = np.arange(low, high + 1, width)
    users = np.bincount((values - low) // width, minlength=len(starts))
    return pd.DataFrame({"from": starts, "to": starts + width - 1, "users": users})
