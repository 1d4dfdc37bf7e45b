"""A picture of adaption weights."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from darec.config import ADAPTER_KINDS
from darec.figures.layers import KIND_NAMES
from darec.figures.palette import CATEGORIES, GREY, frame, ink_on, plain

_COLORS: dict[str, str] = {"none": GREY, **dict(zip(ADAPTER_KINDS, CATEGORIES, strict=False))}


def weights_figure(sides: Mapping[str, np.ndarray], options: Sequence[str]) -> go.Figure:
    """Bars by layer, parts of which are a layer's options; one panel a side.

    Args:
        sides: name -> [L, O] weights as `read_weights` has them; one or two.
        options: names of the columns.
    """
    names = [plain(name) for name in sides]
    figure = make_subplots(cols=len(sides), shared_yaxes=True, subplot_titles=names, horizontal_spacing=0.06)
    for column, weights in enumerate(sides.values(), start=1):
        layers = list(range(1, len(weights) + 1))
        for option, shares in zip(options, weights.T, strict=True):
            name = KIND_NAMES.get(option, option)  # the kinds of adapters by their names; none is called none
            bars = go.Bar(
                x=100 * np.nan_to_num(shares),  # a bar without a length would break the stack
                y=layers,
                orientation="h",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker_color=_COLORS[option],
                text=["" if np.isnan(share) else f"{100 * share:.0f}" for share in shares],
                textposition="inside",
                insidetextfont={"color": ink_on(_COLORS[option])},
                insidetextanchor="middle",
                textangle=0,
                hovertemplate=f"Layer %{{y}}, {name}<br>weight %{{x:.1f}} %<extra></extra>",
            )
            figure.add_trace(bars, row=1, col=column)
    frame(
        figure,
        "Adaption weights by layer",
        "weight (%)",
        "",
        barmode="stack",
        height=210 + 42 * max(map(len, sides.values())),
        margin={"l": 10, "r": 24, "t": 110, "b": 10},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.2, "x": 0, "traceorder": "normal"},
    )
    figure.update_yaxes(dtick=1, showgrid=False).update_xaxes(range=[0, 100])
    figure.update_layout(uniformtext={"minsize": 10, "mode": "hide"})  # a number that cannot be read is none
    return figure.update_yaxes(title_text="layer, from the words upwards", col=1)


def weights_table(sides: Mapping[str, np.ndarray], options: Sequence[str]) -> pd.DataFrame:
    """One row a layer (from 1) and option: layer, option, then each side's weight, 0 to 1; those of a layer sum to 1.

    Of two sides, `difference` is the first less the second.
    """
    num_layers = len(next(iter(sides.values())))
    rows = [(layer + 1, KIND_NAMES.get(option, option)) for layer in range(num_layers) for option in options]
    table = pd.DataFrame(rows, columns=["layer", "option"])
    table = table.assign(**{name: weights.ravel() for name, weights in sides.items()})
    if len(sides) == 2:
        first, second = sides
        table["difference"] = table[first] - table[second]
    return table.dropna(ignore_index=True)
