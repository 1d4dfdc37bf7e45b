"""Pictures of a training log and of what four bits do to weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from darec.errors import DataError
from darec.figures.palette import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, frame

_LOSSES = ("loss", "next_item", "next_item_without_late", "collaborative", "title", "mask", "balance")
_VALIDATION = {"ndcg@10": "NDCG@10", "ndcg@10_cf_off": "NDCG@10, CF off"}
# No two alike: all stand in one legend.
_LINES = (
    *((BLUE, "solid"), (ORANGE, "solid"), (GREEN, "solid"), (PINK, "solid"), (SKY, "solid"), (BLUE, "dash")),
    *((ORANGE, "dot"), (VERMILION, "solid"), (GREY, "solid")),
)


def training_curves_figure(events: Sequence[dict[str, Any]]) -> go.Figure:
    """Losses by step above, validation by step below.

    Args:
        events: the lines of a run's metrics.jsonl; stages other than training and validation are left out.
    """
    table = training_curves_table(events)
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.6, 0.4])
    names = {name: name.replace("_", " ") for name in _LOSSES}
    names["balance"] = "adaption weights, from equal"
    series = [(1, *item) for item in names.items()] + [(2, *item) for item in _VALIDATION.items()]
    for (row, column, name), (color, dash) in zip(series, _LINES, strict=True):
        values = table[["step", column]].dropna() if column in table else table[:0]
        if not len(values):
            continue
        figure.add_scatter(
            x=values["step"],
            y=values[column],
            name=name,
            mode="lines" if row == 1 else "lines+markers",
            line={"color": color, "dash": dash, "width": 3 if column == "loss" else 1.5},
            hovertemplate=f"{name} %{{y:.4f}}<br>step %{{x}}<extra></extra>",
            row=row,
            col=1,
        )
    frame(figure, "Training", "", "", height=520, margin={"l": 10, "r": 10, "t": 90, "b": 10})
    figure.update_yaxes(title_text="loss (nats)", row=1, col=1).update_yaxes(
        title_text="NDCG@10", rangemode="tozero", row=2, col=1
    )
    return figure.update_xaxes(title_text="step", row=2, col=1)


def training_curves_table(events: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a logged step or validation: stage, epoch, step, losses in nats, NDCG@10; empty where not measured."""
    known = ["stage", "epoch", "step", *_LOSSES, *_VALIDATION]
    rows = [event for event in events if event.get("stage") in ("training", "validation")]
    return pd.DataFrame([{key: event[key] for key in known if key in event} for event in rows], columns=known)


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
