"""Pictures of a training log and of what four bits do to weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from darec.errors import DataError
from darec.figures.palette import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, frame

LOSSES = ("loss", "next_item", "next_item_without_late", "collaborative", "title", "mask", "balance")
_LOSS_NAMES = {name: name.replace("_", " ") for name in LOSSES} | {
    "loss": "weighted sum of all",
    "balance": "adaption weights, from equal",
}
_RANKINGS = (  # stage, column, how it is called
    ("collaborative", "ndcg@10", "CF model alone"),
    ("short way", "ndcg@10", "short way alone"),
    ("validation", "ndcg@10", "DARec"),
    ("validation", "ndcg@10_cf_off", "DARec, CF off"),
)
# No two alike: all stand in one legend.
_LINES = (
    *((BLUE, "solid"), (ORANGE, "solid"), (GREEN, "solid"), (PINK, "solid"), (SKY, "solid"), (BLUE, "dash")),
    *((ORANGE, "dot"), (GREY, "dash"), (GREEN, "dot"), (VERMILION, "solid"), (GREY, "solid")),
)


def training_curves_figure(table: pd.DataFrame) -> go.Figure:
    """Losses of the joint training above, how validation is ranked below: by the CF model, the short way, then DARec.

    Args:
        table: from `training_curves_table`, or some rows and losses of it.
    """
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.5, 0.5])
    series = [(1, "training", *item) for item in _LOSS_NAMES.items()] + [(2, *ranking) for ranking in _RANKINGS]
    for (row, stage, column, name), (color, dash) in zip(series, _LINES, strict=True):
        values = table[table["stage"] == stage].dropna(subset=column)
        if not len(values):
            continue
        figure.add_scatter(
            x=values["minutes"],
            y=values[column],
            name=name,
            mode="lines" if row == 1 else "lines+markers",
            line={"color": color, "dash": dash, "width": 3 if column in ("next_item", "ndcg@10") else 1.5},
            customdata=values["step" if row == 1 else "epoch"],
            hovertemplate=f"{name} %{{y:.4f}}<br>{'step' if row == 1 else 'epoch'} %{{customdata}}<extra></extra>",
            row=row,
            col=1,
        )
    frame(figure, "Training", "", "", height=520, margin={"l": 10, "r": 10, "t": 90, "b": 10})
    figure.update_yaxes(title_text="loss (nats)", row=1, col=1).update_yaxes(
        title_text="validation NDCG@10", rangemode="tozero", row=2, col=1
    )
    return figure.update_xaxes(title_text="time (minutes)", row=2, col=1)


def training_curves_table(events: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row an event of a run's metrics.jsonl: what was measured in it, empty where it was not.

    Columns: minutes that the training had taken by then; stage (`collaborative`, `short way`, `training` or
    `validation`), epoch, step; losses in nats, of the joint training but where the stage is another; NDCG@10.
    """
    known = ["stage", "epoch", "step", *LOSSES, "ndcg@10", "ndcg@10_cf_off"]
    table = pd.DataFrame([{key: event[key] for key in known if key in event} for event in events], columns=known)
    table.insert(0, "minutes", np.cumsum([event.get("seconds", 0.0) for event in events]) / 60)
    return table


def four_bit_weights_figure(weights: np.ndarray, levels: np.ndarray, block: int = 64) -> go.Figure:
    """Histogram of weights over their block's largest magnitude, against the 16 levels that four bits can hold.

    Args:
        weights: any shape, float; row by row in blocks.
        levels: [16] float in -1..1, the codebook.
        block: values that share a scale; a last block that is not whole is left out.

    Raises:
        DataError: there is not one whole block.
    """
    scaled, nearest = _scale(weights, levels, block)
    counts, edges = _bars(scaled)
    centres = (edges[1:] + edges[:-1]) / 2
    figure = go.Figure(
        [
            go.Bar(
                x=centres,
                y=100 * counts / scaled.size,
                width=edges[1] - edges[0],
                name="weights",
                marker_color=BLUE,
                opacity=0.7,
                hovertemplate="about %{x:.2f}<br>%{y:.2f} % of weights<extra></extra>",
            ),
            go.Scatter(
                x=np.repeat(levels, 3),
                y=np.tile([0.0, 100 * counts.max() / scaled.size, np.nan], len(levels)),
                mode="lines",
                line={"color": VERMILION, "width": 1},
                name="levels",
                hoverinfo="skip",
            ),
            go.Scatter(
                x=levels,
                y=100 * np.bincount(nearest, minlength=len(levels)) / scaled.size,
                mode="markers",
                name="share that becomes this level",
                marker={"color": ORANGE, "size": 9},
                hovertemplate="level %{x:.3f}<br>%{y:.2f} % of weights<extra></extra>",
            ),
        ]
    )
    title = f"Weights and the {len(levels)} levels of four bits"
    x = f"weight over the largest of its block of {block}"
    return frame(figure, title, x, "share of weights (%)", height=420, margin={"l": 10, "r": 10, "t": 80, "b": 10})


def four_bit_weights_table(weights: np.ndarray, levels: np.ndarray, block: int = 64) -> pd.DataFrame:
    """One row a level, then one a bar: where it stands, its weights, their share in 0..1, mean distance to the level.

    The shares of the levels sum to 1, and so do those of the bars.

    Raises:
        DataError: there is not one whole block.
    """
    scaled, nearest = _scale(weights, levels, block)
    counts = np.bincount(nearest, minlength=len(levels))
    moved = np.bincount(nearest, np.abs(scaled - levels[nearest]), minlength=len(levels)) / np.maximum(counts, 1)
    bars, edges = _bars(scaled)
    rows = {
        "level": pd.DataFrame({"at": levels, "weights": counts, "mean move": moved}),
        "bar": pd.DataFrame({"at": (edges[1:] + edges[:-1]) / 2, "weights": bars}),
    }
    table = pd.concat(rows, names=["what"]).reset_index("what")
    table.insert(3, "share", table["weights"] / scaled.size)
    return table.reset_index(drop=True)


def _bars(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many values lie in each of the histogram's bars, and the bars' edges."""
    return np.histogram(scaled, bins=81, range=(-1, 1))


def _scale(weights: np.ndarray, levels: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights in -1..1, and the number of the level nearest to each; both flat."""
    flat = np.asarray(weights, np.float64).ravel()
    if flat.size < block:
        raise DataError(f"A histogram of weights needs one whole block of {block}; got {flat.size} weights.")
    blocks = flat[: flat.size // block * block].reshape(-1, block)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    scaled = (blocks / np.where(largest > 0, largest, 1)).ravel()
    borders = (levels[1:] + levels[:-1]) / 2
    return scaled, np.searchsorted(borders, scaled)
