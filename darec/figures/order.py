"""Pictures of what the order of a history is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.explain.order import OrderSensitivity
from darec.figures.palette import BLUE, SKY, VERMILION, frame, interval_bars, labels, plain


def order_figure(order: OrderSensitivity, titles: Sequence[str]) -> go.Figure:
    """A strip an item: its rank under each shuffle as dots, under the given order as a diamond."""
    names = labels([titles[item] for item in order.items])
    shuffles, size = order.shuffled.shape
    dots = go.Scatter(
        x=order.shuffled.T.flatten(),
        y=np.repeat(names, shuffles),
        mode="markers",
        name="shuffled",
        marker={"color": SKY, "size": 9, "opacity": 0.5},
        customdata=np.tile(np.arange(1, shuffles + 1), size),
        hovertemplate="%{y}<br>rank %{x} under shuffle %{customdata}<extra></extra>",
    )
    given = go.Scatter(
        x=order.rank,
        y=names,
        mode="markers",
        name="in its order",
        marker={"color": VERMILION, "size": 12, "symbol": "diamond"},
        hovertemplate="%{y}<br>rank %{x} in the given order<extra></extra>",
    )
    height = max(280, 180 + 28 * size)
    figure = frame(go.Figure([dots, given]), f"Ranks under {shuffles} shuffles", "rank (1 is first)", "item")
    figure.update_layout(height=height, margin={"l": 10, "r": 10, "t": 80, "b": 10})
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def order_table(order: OrderSensitivity, titles: Sequence[str]) -> pd.DataFrame:
    """One row an item: rank in order; median, best and worst rank under the shuffles; median change."""
    return pd.DataFrame(
        {
            "item": [titles[item] for item in order.items],
            "rank": order.rank,
            "median shuffled": np.median(order.shuffled, axis=0),
            "best shuffled": order.shuffled.min(axis=0),
            "worst shuffled": order.shuffled.max(axis=0),
            "median change": order.median_change(),
        }
    )


def order_drop_figure(results: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """A dot a model: NDCG@10 lost when every history is shuffled, with its interval; see `protocol.shuffle_test`."""
    table = order_drop_table(results)
    dots = go.Scatter(
        x=table["drop"],
        y=[plain(name) for name in results],
        mode="markers",
        marker={"size": 11, "color": BLUE},
        error_x=interval_bars(table, "drop"),
        customdata=table[["ndcg@10", "shuffled_ndcg@10", "users"]],
        hovertemplate="%{y}<br>drop %{x:.4f}<br>in order %{customdata[0]:.4f}, shuffled %{customdata[1]:.4f}"
        "<br>%{customdata[2]} users<extra></extra>",
    )
    title = "What order is worth: NDCG@10 in order minus shuffled, with 95 % intervals"
    return frame(go.Figure(dots), title, "drop of NDCG@10", "model", height=max(240, 160 + 40 * len(table)))


def order_drop_table(results: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """One row a model: users, ndcg@10, shuffled_ndcg@10, drop, low, high."""
    return pd.DataFrame([{"model": name, **result} for name, result in results.items()])
