"""Two values of each of several names: two dots a row, joined by a line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.figures.palette import BLUE, GREY, ORANGE

SIGNS = ((BLUE, "circle"), (ORANGE, "diamond"))


def paired_dots(names: Sequence[str], values: pd.DataFrame, hovers: Sequence[str], data: np.ndarray) -> go.Figure:
    """The rows of a table with two columns, the first row at the top.

    Args:
        names: of the rows, plain.
        values: two columns, named as the legend shall name them.
        hovers: of each column, what is shown at a dot.
        data: [rows, 2] what the hovers call `customdata`, of each column.
    """
    figure = go.Figure()
    for name, pair in zip(names, values.to_numpy(float), strict=True):
        line: dict[str, Any] = {"color": GREY, "width": 2}
        figure.add_scatter(x=pair, y=[name, name], mode="lines", line=line, hoverinfo="skip", showlegend=False)
    for number, (color, symbol) in enumerate(SIGNS):
        figure.add_scatter(
            x=values.iloc[:, number],
            y=names,
            mode="markers",
            name=values.columns[number],
            marker={"color": color, "size": 11, "symbol": symbol},
            customdata=data[:, number],
            hovertemplate=hovers[number],
        )
    return figure.update_yaxes(autorange="reversed", type="category").update_xaxes(rangemode="tozero")
