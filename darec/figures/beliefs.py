"""A picture of what a model believes of a simulated viewer, beside what is true of her."""

import plotly.graph_objects as go

from darec.explain.beliefs import Beliefs
from darec.figures.paired_dots import paired_dots
from darec.figures.palette import frame, plain

_ROW = 28  # pixels


def beliefs_figure(beliefs: Beliefs) -> go.Figure:
    """Two dots an item, joined by a line: how likely it truly is, and how likely the model holds it."""
    table = beliefs.table
    values = 100 * table[["true", "believed"]].set_axis(["truly", "in the model's view"], axis=1)
    hovers = [f"%{{y}}, {label}: %{{x:.2f}} %, place %{{customdata}}<extra></extra>" for label in values]
    names = [plain(title) for title in table["title"]]
    figure = paired_dots(names, values, hovers, table[["true_rank", "believed_rank"]].to_numpy())
    layout = {"height": 140 + _ROW * len(table), "margin": {"l": 10, "r": 10, "t": 80, "b": 10}}
    return frame(figure, "How likely each film is to come next", "probability (%)", "film", **layout)
