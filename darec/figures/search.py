"""Pictures of a search for adapters: how it went, what it weighed, what mattered, what it chose."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.config import ADAPTER_KINDS, ADAPTER_SIZES, parse_adapter
from darec.figures.layers import KIND_NAMES
from darec.figures.palette import BLUE, CATEGORIES, GREEN, GREY, LINE, ORANGE, SKY, VERMILION, frame, ink_on
from darec.search.results import BAYESIAN, RANDOM, WARM_START, SearchResult, read_architecture

_SAMPLERS = {  # as they are called, and drawn
    BAYESIAN: ("Bayesian optimization", BLUE, "circle"),
    RANDOM: ("random", GREY, "circle-open"),
    WARM_START: ("uniform LoRA", ORANGE, "diamond"),
}
_MATCHED = "uniform LoRA, as large as the chosen"
_LOSS, _LAYER = "cross-entropy in the supernet (nats)", "layer, from the words upwards"


def best_so_far_figure(result: SearchResult) -> go.Figure:
    """The lowest cross-entropy after each trial: the search, random search as a band, and uniform LoRA as a line; as a
    point, uniform LoRA as large as what was chosen.
    """
    table = best_so_far_table(result)
    figure = go.Figure()
    hover = "after %{x} trials: %{y:.4f} nats"
    if table["random_median"].notna().any():
        band = {"mode": "lines", "line": {"width": 0}, "legendgroup": "random", "hoverinfo": "skip"}
        figure.add_scatter(x=table["trial"], y=table["random_high"], showlegend=False, **band)
        figure.add_scatter(
            x=table["trial"],
            y=table["random_low"],
            fill="tonexty",
            fillcolor="rgba(138,143,145,0.25)",
            name="random search, 5 to 95 %",
            **band,
        )
        figure.add_scatter(
            x=table["trial"],
            y=table["random_median"],
            mode="lines",
            line={"color": GREY, "dash": "dash"},
            name="random search, median",
            hovertemplate=f"random search, {hover}<extra></extra>",
        )
    figure.add_scatter(
        x=table["trial"],
        y=table["searched"],
        mode="lines",
        line={"color": BLUE, "width": 3, "shape": "hv"},
        name="Bayesian optimization",
        hovertemplate=f"Bayesian optimization, {hover}<extra></extra>",
    )
    figure.add_scatter(
        x=table["trial"],
        y=table["best uniform LoRA"],
        mode="lines",
        line={"color": ORANGE, "dash": "dot"},
        name="best uniform LoRA",
        hovertemplate="best uniform LoRA: %{y:.4f} nats<extra></extra>",
    )
    figure.add_scatter(
        x=table["trial"].tail(len(result.matched)),
        y=result.matched["cross_entropy"],
        mode="markers",
        marker={"color": ORANGE, "symbol": "diamond", "size": 11, "line": {"color": LINE, "width": 1}},
        name=_MATCHED,
        hovertemplate=f"{_MATCHED}: %{{y:.4f}} nats<extra></extra>",
    )
    layout = {"height": 420, "margin": {"l": 10, "r": 10, "t": 90, "b": 10}}
    return frame(figure, "Best architecture so far", "trials", _LOSS, **layout)


def best_so_far_table(result: SearchResult) -> pd.DataFrame:
    """One row a trial: trial, searched, random_low, random_median, random_high, best uniform LoRA; all in nats, as is
    uniform LoRA of the chosen size, where it was scored.
    """
    table = result.best_so_far.assign(**{"best uniform LoRA": result.uniform["cross_entropy"].min()})
    if len(result.matched):
        table[_MATCHED] = float(result.matched["cross_entropy"].iloc[0])
    return table


def pareto_figure(result: SearchResult) -> go.Figure:
    """A dot a trial: its cross-entropy against its parameters; a line joins those that no trial of the search beats."""
    table = pareto_table(result)
    figure = go.Figure()
    for sampler in (RANDOM, BAYESIAN, WARM_START):
        name, color, symbol = _SAMPLERS[sampler]
        rows = table[table["found by"] == name]
        if len(rows):
            figure.add_scatter(
                x=rows["parameters"],
                y=rows["cross_entropy"],
                mode="markers",
                name=name,
                marker={"color": color, "symbol": symbol, "size": 8},
                customdata=rows[["ndcg@10", "architecture"]],
                hovertemplate="%{y:.4f} nats, %{x:,} parameters<br>NDCG@10 %{customdata[0]:.4f}<br>%{customdata[1]}"
                f"<extra>{name}</extra>",
            )
    figure.add_scatter(
        x=result.matched["parameters"],
        y=result.matched["cross_entropy"],
        mode="markers",
        marker={"color": ORANGE, "symbol": "diamond-open", "size": 12, "line": {"width": 2}},
        name=_MATCHED,
        hovertemplate=f"{_MATCHED}: %{{y:.4f}} nats, %{{x:,}} parameters<extra></extra>",
    )
    front = result.pareto
    figure.add_scatter(
        x=front["parameters"],
        y=front["cross_entropy"],
        mode="lines",
        line={"color": VERMILION, "shape": "hv"},
        name="Pareto front of the search",
        hoverinfo="skip",
    )
    layout = {"height": 460, "margin": {"l": 10, "r": 10, "t": 90, "b": 10}}
    return frame(figure, "Quality against size", "parameters of the adapters", _LOSS, **layout)


def pareto_table(result: SearchResult) -> pd.DataFrame:
    """One row a trial: found by, parameters, cross_entropy (nats), ndcg@10, on the front (bool), architecture."""
    table = result.trials[["parameters", "cross_entropy", "ndcg@10"]].copy()
    table.insert(0, "found by", [_SAMPLERS[sampler][0] for sampler in result.trials["sampler"]])
    keys = set(zip(result.pareto["sampler"], result.pareto["number"], strict=True))
    own = zip(result.trials["sampler"], result.trials["number"], strict=True)
    table["on the front"] = [key in keys for key in own]
    table["architecture"] = [_in_words(read_architecture(text)) for text in result.trials["architecture"]]
    return table.reset_index(drop=True)


def importances_figure(result: SearchResult) -> go.Figure:
    """Bars: how much of the variance of cross-entropy the kind, and the size, of each block of layers explains."""
    table = importances_table(result)
    bars = [
        go.Bar(
            x=rows["layers"],
            y=100 * rows["explained"],
            name=str(choice),
            marker_color=color,
            customdata=rows[["trials"]],
            hovertemplate=f"{choice} in layers %{{x}}: %{{y:.1f}} %<br>%{{customdata[0]}} trials<extra></extra>",
        )
        for (choice, rows), color in zip(table.groupby("choice", sort=False), (BLUE, SKY), strict=False)
    ]
    y = "variance explained by this choice alone (%)"
    figure = frame(go.Figure(bars), "Which choices mattered", _LAYER, y, barmode="group")
    return figure.update_xaxes(type="category", showgrid=False).update_yaxes(rangemode="tozero")


def importances_table(result: SearchResult) -> pd.DataFrame:
    """One row a choice: layers (from 1, as text), choice (kind or size), explained (0..1, NaN unknown), trials."""
    step, num_layers = (result.summary["space"][name] for name in ("layers_per_block", "layers"))
    rows = []
    for variable, explained, trials in result.importances[["variable", "explained", "trials"]].itertuples(index=False):
        choice, _, block = variable.partition("_")
        first, last = int(block) * step + 1, min(int(block) * step + step, num_layers)
        rows.append((f"{first}" if first == last else f"{first} to {last}", choice, explained, trials))
    return pd.DataFrame(rows, columns=["layers", "choice", "explained", "trials"])


def architecture_figure(layers: Sequence[Sequence[str]]) -> go.Figure:
    """Layers from the words upwards, kinds of adapters across; where a layer has one, a square as large as its size.

    Args:
        layers: as in the setting `adapters.layers`.

    Raises:
        ValueError: an adapter is not written kind:size.
    """
    table = architecture_table(layers)
    figure = go.Figure()
    for kind, color in zip(ADAPTER_KINDS, CATEGORIES, strict=False):
        rows = table[table["adapter"] == KIND_NAMES[kind]]
        figure.add_scatter(
            x=[KIND_NAMES[kind]] * len(rows),
            y=rows["layer"],
            mode="markers+text",
            marker={
                "color": color,
                "symbol": "square",
                "size": 18 + 26 * np.sqrt(rows["size"].to_numpy(float) / ADAPTER_SIZES[-1]),
                "line": {"color": LINE, "width": 1},
                "opacity": 1,  # of marks of many sizes, plotly's own is less
            },
            text=rows["size"].astype(str),
            textfont={"color": ink_on(color)},
            hovertemplate=f"layer %{{y}}: {KIND_NAMES[kind]}, size %{{text}}<extra></extra>",
            showlegend=False,
        )
    empty = [number for number, entries in enumerate(layers, start=1) if not entries]
    figure.add_scatter(
        x=[KIND_NAMES[ADAPTER_KINDS[0]]] * len(empty),
        y=empty,
        mode="text",
        text=["no adapter"] * len(empty),
        hoverinfo="skip",
        showlegend=False,
    )
    height = 140 + 56 * max(1, len(layers))
    frame(figure, "Adapters of each layer", "kind of adapter, its size in the square", _LAYER, height=height)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(KIND_NAMES.values()))
    figure.update_xaxes(range=[-0.5, len(KIND_NAMES) - 0.5])
    return figure.update_yaxes(dtick=1, range=[0.4, len(layers) + 0.6])


def architecture_table(layers: Sequence[Sequence[str]]) -> pd.DataFrame:
    """One row an adapter: layer (from 1), adapter (its kind in words), size."""
    rows = [
        (number, KIND_NAMES[kind], size)
        for number, entries in enumerate(layers, start=1)
        for kind, size in map(parse_adapter, entries)
    ]
    return pd.DataFrame(rows, columns=["layer", "adapter", "size"])


def retrained_figure(result: SearchResult) -> go.Figure:
    """A dot an architecture that was trained alone: NDCG@10 of all validation users against its parameters."""
    table = retrained_table(result)
    figure = go.Figure()
    for winner, name, color in ((True, "chosen", GREEN), (False, "others", BLUE)):
        rows = table[table["winner"] == winner]
        figure.add_scatter(
            x=rows["parameters"],
            y=rows["ndcg@10"],
            mode="markers+text",
            text=rows["label"],
            textposition="top center",
            name=name,
            marker={"color": color, "size": 12},
            hovertemplate="%{text}: NDCG@10 %{y:.4f}, %{x:,} parameters<extra></extra>",
        )
    title = "Trained alone, for as many epochs"
    return frame(figure, title, "parameters of the adapters", "NDCG@10, all validation users", height=420)


def retrained_table(result: SearchResult) -> pd.DataFrame:
    """One row an architecture: label, parameters, cross_entropy (nats, in the supernet), ndcg@10, epochs, winner."""
    return result.retrained[["label", "parameters", "cross_entropy", "ndcg@10", "epochs", "winner"]]


def _in_words(architecture: Sequence[Sequence[str]]) -> str:
    """`1: lora_attention:8, parallel:8; 2: none`."""
    return "; ".join(f"{number}: {', '.join(entries) or 'none'}" for number, entries in enumerate(architecture, 1))
