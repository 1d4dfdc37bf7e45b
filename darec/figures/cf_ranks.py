"""A picture of what the CF path does to ranks."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from darec.explain.score_terms import ScoreBreakdown
from darec.figures.palette import BLUE, LINE, VERMILION, frame, labels, log_axis

ON, OFF = "CF on", "CF off"


def cf_ranks_figure(breakdown: ScoreBreakdown, titles: Sequence[str]) -> go.Figure:
    """A line an item from its rank with the CF path to its rank with that path switched off, ranks logarithmic."""
    table = cf_ranks_table(breakdown, titles)
    names = labels(table["item"].tolist(), table[ON].tolist(), width=28)
    figure = go.Figure()
    for name, on, off in zip(names, table[ON], table[OFF], strict=True):
        figure.add_scatter(
            x=[on, off],
            y=[name, name],
            mode="lines",
            line={"color": LINE, "width": 3},
            showlegend=False,
            hoverinfo="skip",
        )
    for column, color, symbol in ((ON, BLUE, "circle"), (OFF, VERMILION, "diamond")):
        figure.add_scatter(
            x=table[column],
            y=names,
            mode="markers",
            name=column,
            marker={"color": color, "symbol": symbol, "size": 11},
            hovertemplate=f"%{{y}}<br>rank, {column}: %{{x}}<extra></extra>",
        )
    frame(figure, "Ranks with CF on, and switched off", "rank (1 is first)", "", height=160 + 28 * len(names))
    figure.update_layout(margin={"l": 10, "r": 10, "t": 80, "b": 10})
    return figure.update_yaxes(autorange="reversed", showgrid=False, title_text="item").update_xaxes(
        log_axis(table[[ON, OFF]].to_numpy().max()), zeroline=False
    )


def cf_ranks_table(breakdown: ScoreBreakdown, titles: Sequence[str]) -> pd.DataFrame:
    """One row an item: item, rank with CF on, rank with CF off."""
    items = [titles[item] for item in breakdown.items]
    return pd.DataFrame({"item": items, ON: breakdown.rank, OFF: breakdown.rank_cf_off})
