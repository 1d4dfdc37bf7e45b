"""Pictures of explanations averaged over slices of users."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from darec.explain.averages import UserAverage
from darec.figures.palette import CATEGORIES, frame, interval_bars, plain
from darec.figures.score_terms import TERM_NAMES

_SYMBOLS = ("circle", "square-open", "diamond", "x")
_DASHES = ("solid", "dot", "dash", "dashdot")


def averages_figure(slices: Mapping[str, UserAverage], title: str, y: str) -> go.Figure:
    """Means with their 95 % intervals: attention shares over layers, or score terms side by side.

    Args:
        slices: name -> average; all of the same quantity. A slice has a symbol, a column of its values a colour.
        title: of the figure.
        y: title of the y axis, with its unit.
    """
    table = averages_table(slices)
    silent = set(TERM_NAMES.values()) - set(table.loc[(table["low"] != 0) | (table["high"] != 0), "column"])
    table = table[~table["column"].isin(silent)]  # without terms that say nothing of anybody
    by_layer = table["row"].nunique() > 1
    figure = go.Figure()
    for number, (name, average) in enumerate(slices.items()):
        own = table[table["slice"] == name]
        columns = own["column"].unique()
        parts = [(f"{column}, ", own[own["column"] == column]) for column in columns] if by_layer else [("", own)]
        for place, (prefix, rows) in enumerate(parts):
            color = CATEGORIES[(place if by_layer else number) % len(CATEGORIES)]
            label = f"{prefix}{plain(name)} (n = {average.users})"
            figure.add_scatter(
                x=rows["row"] if by_layer else rows["column"],
                y=rows["mean"],
                error_y=interval_bars(rows),
                mode="lines+markers" if by_layer else "markers",
                line={"dash": _DASHES[number % len(_DASHES)], "color": color},
                marker={"symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 10, "color": color},
                name=label,
                customdata=rows[["low", "high"]],
                hovertemplate=f"{label}<br>%{{x}}: %{{y:.3f}} (%{{customdata[0]:.3f}} to %{{customdata[1]:.3f}})"
                "<extra></extra>",
            )
    frame(figure, title, "layer" if by_layer else "term", y, margin={"l": 10, "r": 10, "t": 110, "b": 10}, height=430)
    if by_layer:
        return figure.update_xaxes(dtick=1)
    return figure.update_layout(scattermode="group")


def averages_table(slices: Mapping[str, UserAverage], seed: int = 0) -> pd.DataFrame:
    """One row a slice, row and column: slice, users, row (layer from 1), column, mean, low, high (95 % over users)."""
    rows = []
    for name, average in slices.items():
        intervals = average.intervals(seed)
        for row, cells in enumerate(intervals, start=1):
            rows += [
                (name, average.users, row, TERM_NAMES.get(column, column), *cell)
                for column, cell in zip(average.names, cells, strict=True)
            ]
    return pd.DataFrame(rows, columns=["slice", "users", "row", "column", "mean", "low", "high"])
