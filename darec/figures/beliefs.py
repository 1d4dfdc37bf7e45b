"""A picture of what a model believes of a simulated viewer, beside what is true of her."""

import plotly.graph_objects as go

from darec.explain.beliefs import Beliefs
from darec.figures.palette import BLUE, GREY, ORANGE, frame, plain

_ROW = 28  # pixels


def beliefs_figure(beliefs: Beliefs) -> go.Figure:
    """Two dots an item, joined by a line: how likely it truly is, and how likely the model holds it."""
    table, figure = beliefs.table, go.Figure()
    names = [plain(title) for title in table["title"]]
    for name, pair in zip(names, 100 * table[["true", "believed"]].to_numpy(float), strict=True):
        figure.add_scatter(
            x=pair, y=[name] * 2, mode="lines", line={"color": GREY, "width": 2}, hoverinfo="skip", showlegend=False
        )
    for column, label, color, symbol in (
        ("true", "truly", BLUE, "circle"),
        ("believed", "in the model's view", ORANGE, "diamond"),
    ):
        figure.add_scatter(
            x=100 * table[column],
            y=names,
            mode="markers",
            name=label,
            marker={"color": color, "size": 11, "symbol": symbol},
            customdata=table[f"{column}_rank"],
            hovertemplate=f"%{{y}}, {label}: %{{x:.2f}} %, place %{{customdata}}<extra></extra>",
        )
    layout = {"height": 140 + _ROW * len(table), "margin": {"l": 10, "r": 10, "t": 80, "b": 10}}
    frame(figure, "How likely each film is to come next", "probability in %", "film", **layout)
    return figure.update_yaxes(autorange="reversed", type="category").update_xaxes(rangemode="tozero")
