"""Pictures of what a recommendation rests on, and of ranks that move."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.explain.effects import HistoryEffects
from darec.figures.palette import GREY, NEGATIVE, POSITIVE, frame, labels, name_of, plain, sign_colors

TOTAL = "All but the newest, together"
REMAINDER = "Remainder: what does not add up"
_LINEAR_UP_TO = 30  # ranks; beyond, the axis is logarithmic


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

    Args:
        items: [m] item indices.
        before: [m] ranks from 1; 0 where the item has none.
        after: [m] the same.
        titles: of the catalogue.
        change: what lies between, in words.
    """
    lines = []
    for item, old, new in zip(items.tolist(), before.tolist(), after.tolist(), strict=True):
        name = plain(titles[item])
        color = GREY if old == new or not (old and new) else POSITIVE if new < old else NEGATIVE
        lines.append(
            go.Scatter(
                x=["before", "after"],
                y=[old or None, new or None],
                mode="lines+markers",
                line={"color": color, "width": 2},
                marker={"size": 8},
                name=name,
                hovertemplate=f"{name}<br>rank %{{y}} %{{x}}<extra></extra>",
                showlegend=False,
            )
        )
    figure = frame(go.Figure(lines), f"Ranks before and after {plain(change)}", "", "rank (1 is first)")
    figure.update_layout(height=max(340, 160 + 22 * len(items)))
    last = int(max(before.max(initial=1), after.max(initial=1)))
    logarithmic = last > _LINEAR_UP_TO
    if logarithmic:
        figure.update_yaxes(type="log", range=[np.log10(1.2 * last), np.log10(0.8)])
    else:
        figure.update_yaxes(range=[last + 0.7, 0.3], dtick=max(1, last // 8), tick0=1)
    figure.update_yaxes(showgrid=False, showticklabels=False)  # each end carries its rank and name
    figure.update_xaxes(title_text="reading of the history", showgrid=False, range=[-0.9, 1.9])
    sides = ((before, "before", "right", -8), (after, "after", "left", 8))
    for ranks, x, anchor, shift in sides:
        for item, rank in zip(items.tolist(), ranks.tolist(), strict=True):
            if rank:
                y = np.log10(rank) if logarithmic else rank
                name = labels([titles[item]], [rank], width=22)[0]
                figure.add_annotation(x=x, y=y, text=name, xanchor=anchor, xshift=shift, showarrow=False)
    return figure


def rank_changes_table(items: np.ndarray, before: np.ndarray, after: np.ndarray, titles: Sequence[str]) -> pd.DataFrame:
    """One row an item: item, before, after, rises (ranks won, negative where lost); empty where there is no rank."""
    table = pd.DataFrame({"item": [titles[item] for item in items], "before": before, "after": after})
    ranks = table[["before", "after"]].astype("Int64").replace(0, pd.NA)
    return table.assign(before=ranks["before"], after=ranks["after"], rises=ranks["before"] - ranks["after"])
