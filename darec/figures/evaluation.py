"""Pictures of metrics by slice, and of two models user by user."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.errors import DataError
from darec.figures.palette import CATEGORIES, GREY, NEGATIVE, POSITIVE, frame, interval_bars, log_axis, plain, wrap

_AXES = {
    "history_length": "items in the history",
    "target_popularity": "training interactions of the target",
    "cold_target": "training interactions of the target",
}


def slices_figure(
    models: Mapping[str, Sequence[dict[str, Any]]], slice_name: str, metric: str = "ndcg@10"
) -> go.Figure:
    """A dot a class and model with its 95 % interval; classes too small to be a result are hollow.

    Args:
        models: name -> rows of `evaluation.slices.slice_metrics`.
        slice_name: which slice, such as `history_length`.
        metric: `ndcg@10` or `hr@10`.

    Raises:
        DataError: no model has such a slice.
    """
    table = slices_table(models, slice_name, metric)
    figure = go.Figure()
    for number, (name, rows) in enumerate(table.groupby("model", sort=False)):
        color = CATEGORIES[number % len(CATEGORIES)]
        figure.add_scatter(
            x=rows["class"],
            y=rows["mean"],
            mode="markers",
            name=plain(str(name)),
            marker={
                "color": color,
                "size": 11,
                "symbol": ["circle" if reliable else "circle-open" for reliable in rows["reliable"]],
            },
            error_y=interval_bars(rows),
            customdata=rows[["low", "high", "users"]],
            hovertemplate=f"{plain(str(name))}<br>%{{x}}: %{{y:.3f}} (%{{customdata[0]:.3f}} to %{{customdata[1]:.3f}})"
            "<br>%{customdata[2]} users<extra></extra>",
        )
    title = f"{metric.upper()} by {slice_name.replace('_', ' ')} (hollow: under 100 users)"
    frame(figure, title, _AXES.get(slice_name, slice_name), metric.upper(), scattermode="group", height=400)
    figure.update_layout(showlegend=True, margin={"l": 10, "r": 10, "t": 80, "b": 10})
    return figure.update_xaxes(
        type="category", categoryorder="array", categoryarray=table.sort_values("from")["class"].unique().tolist()
    ).update_yaxes(rangemode="tozero")


def slices_table(
    models: Mapping[str, Sequence[dict[str, Any]]], slice_name: str, metric: str = "ndcg@10"
) -> pd.DataFrame:
    """One row a model and class: model, class (in words), from, users, reliable, mean, low, high.

    Raises:
        DataError: no model has such a slice.
    """
    rows = [
        {
            "model": name,
            "class": _class_name(row["from"], row["to"]),
            **{key: row[key] for key in ("from", "users", "reliable")},
            **row[metric],
        }
        for name, slices in models.items()
        for row in slices
        if row["slice"] == slice_name
    ]
    if not rows:
        known = sorted({row["slice"] for slices in models.values() for row in slices})
        raise DataError(f"There is no slice {slice_name!r}. Known: {', '.join(known) or 'none'}.")
    return pd.DataFrame(rows)


def wins_and_losses_figure(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> go.Figure:
    """A dot a user: the target's rank with one model against its rank with the other, both axes logarithmic.

    Args:
        first: rank file of one model; see `evaluation.protocol.rank_cases`.
        second: of the other, of the same users.
        names: of the two.

    Raises:
        DataError: the two rank other cases.
    """
    pairs = _pair(first, second)
    figure = go.Figure()
    winners = {1: (f"{names[0]} ranks it higher", POSITIVE), -1: (f"{names[1]} ranks it higher", NEGATIVE)}
    for sign, (label, color) in {**winners, 0: ("both alike", GREY)}.items():
        rows = pairs[np.sign(pairs["second"] - pairs["first"]) == sign]
        figure.add_scatter(
            x=rows["second"],
            y=rows["first"],
            mode="markers",
            name=wrap(f"{plain(label)}: {len(rows):,}"),
            marker={"color": color, "size": 6, "opacity": 0.5},
            text=[plain(user) for user in rows["user_id"]],
            hovertemplate=f"user %{{text}}<br>{plain(names[0])} %{{y}}, {plain(names[1])} %{{x}}<extra></extra>",
        )
    last = int(pairs[["first", "second"]].to_numpy().max(initial=1))
    figure.add_scatter(
        x=[1, last], y=[1, last], mode="lines", line={"color": GREY, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    x, y = (wrap(f"rank of the target with {plain(name)} (1 is first)", 30) for name in (names[1], names[0]))
    frame(figure, "Two models, user by user", x, y, height=560, margin={"l": 10, "r": 10, "t": 130, "b": 10})
    return figure.update_xaxes(log_axis(last)).update_yaxes(log_axis(last))


def wins_and_losses_table(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """One row an outcome: outcome, users, share in 0..1 (all sum to 1), median ranks of both.

    Raises:
        DataError: the two rank other cases.
    """
    pairs = _pair(first, second)
    sign = np.sign(pairs["second"] - pairs["first"])
    rows = []
    for value, outcome in ((1, f"{names[0]} wins"), (0, "tie"), (-1, f"{names[1]} wins")):
        part = pairs[sign == value]
        rows.append((outcome, len(part), len(part) / len(pairs), part["first"].median(), part["second"].median()))
    return pd.DataFrame(rows, columns=["outcome", "users", "share", *(f"median rank, {name}" for name in names)])


def _pair(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One row a user: user_id, first, second."""
    keys = ["user_id", "target"]
    pairs = first[[*keys, "rank"]].merge(second[[*keys, "rank"]], on=keys, suffixes=("_first", "_second"))
    if not len(pairs) == len(first) == len(second) or not len(pairs):
        raise DataError(
            f"Two models are compared on the same users and targets; they share {len(pairs)} of {len(first)} and "
            f"{len(second)}. Evaluate both on the same data."
        )
    return pairs.rename(columns={"rank_first": "first", "rank_second": "second"})


def _class_name(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} and more"
    return f"{low}" if low == high else f"{low} to {high}"
