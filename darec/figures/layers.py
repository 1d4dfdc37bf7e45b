"""Pictures of the adapters of each layer."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from darec.config import ADAPTER_KINDS
from darec.explain.layers import AdapterReading
from darec.figures.palette import CATEGORIES, frame

KIND_NAMES = {
    "lora_attention": "LoRA on attention",
    "lora_mlp": "LoRA on the MLP",
    "parallel": "parallel bottleneck",
    "serial": "serial bottleneck",
}


_ROOM = 0.8  # of the way from one layer to the next


def contributions_figure(readings: Sequence[AdapterReading], num_layers: int) -> go.Figure:
    """Bars by layer, side by side about its number: how far its output moves when one adapter alone is switched off.

    Args:
        readings: of every adapter there is.
        num_layers: of the model; those without adapters keep their places.
    """
    table = contributions_table(readings)
    count, place = (table.groupby("layer")["adapter"].transform(how) for how in ("size", "cumcount"))
    width = _ROOM / count.max()
    table = table.assign(width=width, offset=width * (place - count / 2))
    bars = []
    for kind, color in zip(ADAPTER_KINDS, CATEGORIES, strict=False):
        own = table[table["adapter"] == KIND_NAMES[kind]]
        if len(own):
            bars.append(
                go.Bar(
                    x=own["layer"],
                    y=100 * own["contribution"],
                    name=KIND_NAMES[kind],
                    marker_color=color,
                    width=own["width"],
                    offset=own["offset"],
                    customdata=own[["size", "parameters", "weight"]],
                    hovertemplate=f"Layer %{{x}}, {KIND_NAMES[kind]}<br>contribution %{{y:.1f}} %<br>"
                    "size %{customdata[0]}, %{customdata[1]:,} parameters<br>"
                    "weight %{customdata[2]:.2f}<extra></extra>",
                )
            )
    figure = frame(
        go.Figure(bars),
        "What each layer's adapters do",
        "layer, from the words upwards",
        "contribution<br>(% of the layer's output)",
        height=380,
        margin={"l": 10, "r": 10, "t": 80, "b": 10},
    )
    return figure.update_xaxes(dtick=1, showgrid=False, range=[0.5, num_layers + 0.5]).update_yaxes(rangemode="tozero")


def contributions_table(readings: Sequence[AdapterReading]) -> pd.DataFrame:
    """One row an adapter: layer (from 1), adapter, size, parameters, weight (0..1) and contribution (a share)."""
    rows = [
        (own.layer + 1, KIND_NAMES[own.kind], own.size, own.parameters, own.weight, own.contribution)
        for own in readings
    ]
    return pd.DataFrame(rows, columns=["layer", "adapter", "size", "parameters", "weight", "contribution"])
