"""Pictures of what a recommendation rests on, and of ranks that move."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.explain.effects import HistoryEffects
from darec.figures.palette import GREY, LINE, NEGATIVE, POSITIVE, frame, labels, name_of, plain, sign_colors

TOTAL = "All but the newest, together"
REMAINDER = "Remainder: what does not add up"
_ROW = 20  # pixels


def effects_figure(effects: HistoryEffects, titles: Sequence[str]) -> go.Figure:
    """Bars of the effects, newest entry on top, with the total and the remainder below; pending ones have no bar."""
    table = effects_table(effects, titles)
    values = table["effect"].to_numpy(float)
    entries = [name_of(entry, titles) for entry in effects.entries]
    names = [*labels(entries)[::-1], TOTAL, REMAINDER]
    bars = go.Bar(
        x=values,
        y=names,
        orientation="h",
        marker_color=[*sign_colors(values[:-2].tolist()), GREY, GREY],
        customdata=np.exp(values),
        hovertemplate="%{y}<br>%{x:+.3f} nats: probability times %{customdata:.2f}<extra></extra>",
    )
    figure = frame(
        go.Figure(bars),
        f"What “{plain(titles[effects.item])}” rests on: each item left out in turn",
        "change of log-probability (nats)",
        "place in the history, item",
        height=max(300, 170 + 24 * len(names)),
    )
    return figure.update_yaxes(autorange="reversed", showgrid=False, categoryarray=names)


def effects_table(effects: HistoryEffects, titles: Sequence[str]) -> pd.DataFrame:
    """One row an entry, newest first, then total and remainder: place (1 is the oldest), entry, effect in nats."""
    rows = [(place, name_of(entry, titles)) for place, entry in enumerate(effects.entries, start=1)][::-1]
    table = pd.DataFrame(rows, columns=["place", "entry"]).assign(effect=effects.effects[::-1])
    sums = [[np.nan, TOTAL, effects.total], [np.nan, REMAINDER, effects.remainder]]
    return pd.concat([table, pd.DataFrame(sums, columns=list(table.columns))], ignore_index=True)


def rank_changes_figure(
    items: np.ndarray, before: np.ndarray, after: np.ndarray, titles: Sequence[str], change: str = "the change"
) -> go.Figure:
    """A line an item from its rank before to its rank after, the best on top; an item without a rank has one end only.

    Every rank that occurs on either side has a row of its own, so that no two names meet however close or far apart
    ranks are; a dotted line stands where ranks are left out. Names are labels of the axes, which make room for them.

    Args:
        items: [m] item indices.
        before: [m] ranks from 1; 0 where the item has none.
        after: [m] the same.
        titles: of the catalogue.
        change: what lies between, in words.
    """
    ranks = np.unique(np.concatenate([before, after]))
    ranks = ranks[ranks > 0]
    figure = go.Figure()
    for item, old, new in zip(items.tolist(), before.tolist(), after.tolist(), strict=True):
        name = plain(titles[item])
        color = GREY if old == new or not (old and new) else POSITIVE if new < old else NEGATIVE
        figure.add_scatter(
            x=["before", "after"],
            y=[int(np.searchsorted(ranks, rank)) + 1 if rank else None for rank in (old, new)],
            customdata=[old, new],
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 8},
            name=name,
            hovertemplate=f"{name}<br>rank %{{customdata:,}} %{{x}}<extra></extra>",
            showlegend=False,
        )
    figure.add_scatter(x=["after"], y=[None], yaxis="y2", showlegend=False, hoverinfo="skip")  # or no axis is drawn
    figure.update_layout(
        yaxis=_names_axis(ranks, items, before, titles),
        yaxis2={**_names_axis(ranks, items, after, titles), "side": "right", "overlaying": "y", "matches": "y"},
    )
    gaps = np.flatnonzero(np.diff(ranks) > 1) + 1.5
    dotted = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": {"color": LINE, "width": 1, "dash": "dot"}}
    frame(
        figure,
        f"Ranks before and after {plain(change)}",
        "reading of the history",
        "rank, 1 is first (dotted: gaps)",
        height=max(340, 130 + _ROW * len(ranks)),
        shapes=[{**dotted, "y0": y, "y1": y} for y in gaps.tolist()],
    )
    figure.update_yaxes(title_text=None, selector={"side": "right"})
    return figure.update_xaxes(showgrid=False, range=[-0.08, 1.08])


def _names_axis(ranks: np.ndarray, items: np.ndarray, own: np.ndarray, titles: Sequence[str]) -> dict[str, Any]:
    """An axis with a row a rank of `ranks`, on which the items that have one in `own` stand by rank and title."""
    ranked = own > 0
    return {
        "range": [len(ranks) + 0.7, 0.3],
        "tickvals": np.searchsorted(ranks, own[ranked]) + 1,
        "ticktext": labels([titles[item] for item in items[ranked]], (f"{rank:,}" for rank in own[ranked]), width=18),
        "showgrid": False,
        "zeroline": False,
    }


def rank_changes_table(items: np.ndarray, before: np.ndarray, after: np.ndarray, titles: Sequence[str]) -> pd.DataFrame:
    """One row an item: item, before, after, rises (ranks won, negative where lost); empty where there is no rank."""
    table = pd.DataFrame({"item": [titles[item] for item in items], "before": before, "after": after})
    ranks = table[["before", "after"]].astype("Int64").replace(0, pd.NA)
    return table.assign(before=ranks["before"], after=ranks["after"], rises=ranks["before"] - ranks["after"])
