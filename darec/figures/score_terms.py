"""Pictures of what scores are made of."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.explain.score_terms import TERMS, ScoreBreakdown
from darec.figures.palette import BLUE, GREEN, GREY, ORANGE, PINK, SKY, frame, labels

TERM_NAMES = {
    "text": "text",
    "collaborative": "collaborative",
    "prior": "prior",
    "late": "CF model's own",
    "followed": "what often follows",
}
TERM_HEADS = {  # of narrow columns
    "text": "Text",
    "collaborative": "Collab",
    "prior": "Prior",
    "late": "CF",
    "followed": "Follows",
}
TERM_MEANINGS = {
    "text": "how well the item's words fit what was read",
    "collaborative": "how well its place among all items fits, learned with the language model from who chose what",
    "prior": "what it has whatever was read: its popularity and, while it is new, a lift",
    "late": "what the model of collaborative filtering (CF) scores by itself",
    "followed": "how often it came after items of this history in others' histories",
}
_COLORS = {"text": BLUE, "collaborative": ORANGE, "prior": PINK, "late": GREEN, "followed": SKY}


def spoken_terms(breakdown: ScoreBreakdown) -> dict[str, np.ndarray]:
    """The terms that say something of any of the items, by name: [m] float64 each."""
    return {term: values for term, values in zip(TERMS, breakdown.terms, strict=True) if values.any()}


def score_terms_figure(breakdown: ScoreBreakdown, titles: Sequence[str]) -> go.Figure:
    """Signed bars of the terms, side by side from zero outwards, with a mark at their sum."""
    names = labels([titles[item] for item in breakdown.items], breakdown.rank.tolist(), width=28)
    bars = [
        go.Bar(
            x=values,
            y=names,
            orientation="h",
            name=TERM_NAMES[term],
            marker_color=_COLORS[term],
            hovertemplate=f"%{{y}}<br>{TERM_NAMES[term]} %{{x:+.2f}}<extra></extra>",
        )
        for term, values in spoken_terms(breakdown).items()
    ]
    total = go.Scatter(
        x=breakdown.score,
        y=names,
        mode="markers",
        name="score",
        marker={"symbol": "diamond", "size": 10, "color": GREY, "line": {"width": 1, "color": "white"}},
        customdata=breakdown.rank_cf_off,
        hovertemplate="%{y}<br>score %{x:+.2f}<br>rank, CF off: %{customdata}<extra></extra>",
    )
    figure = frame(
        go.Figure([*bars, total]),
        "What the scores are made of",
        "score above the mean<br>(log-odds)",
        "rank, item",
        barmode="relative",
        height=160 + 26 * len(names) + 20 * (len(bars) + 1),
    )
    # Below, one under the other: long titles leave the axis too short for names side by side.
    figure.update_layout(legend={"xref": "container", "x": 0, "yref": "container", "y": 0})
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def score_terms_table(breakdown: ScoreBreakdown, titles: Sequence[str]) -> pd.DataFrame:
    """One row an item: item, rank, rank with CF off (0: no candidate), all terms, and the score, their sum."""
    terms = {TERM_NAMES[term]: values for term, values in zip(TERMS, breakdown.terms, strict=True)}
    return pd.DataFrame(
        {
            "item": [titles[item] for item in breakdown.items],
            "rank": breakdown.rank,
            "rank, CF off": breakdown.rank_cf_off,
            **terms,
            "score": breakdown.score,
        }
    )
