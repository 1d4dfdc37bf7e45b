"""What the pages that look into the model share: how they open, and ranks before and after a change."""

import numpy as np
import streamlit as st

from app import state, widgets
from app.charts import show_figure
from app.history_widgets import history_editor
from app.state import Selection
from app.widgets import literal, metric_cards
from darec.figures.effects import rank_changes_figure, rank_changes_table
from darec.model.recommender import DarecModel
from darec.serving import Recommender

FIRST = 10  # recommendations that are pinned


def open_page(title: str, caption: str) -> tuple[Recommender, DarecModel, Selection]:
    """Title, model picker and the history, which can be changed in place; ends the page where nothing can be read."""
    recommender = widgets.page_header(title, caption)
    selection = state.read_selection(recommender)
    recommender = recommender.asked(selection.asked)
    widgets.show_complaints(selection)
    model = recommender.scorer
    if not isinstance(model, DarecModel):
        st.info(
            f"{literal(recommender.name)} is no language model, so there is nothing to look into. "
            "Pick a DARec model above.",
            icon=":material/model_training:",
        )
        st.stop()
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
        with st.popover("History", icon=":material/history:", width=150):
            history_editor(recommender, selection)
        st.markdown(describe_history(recommender, selection), width="stretch")
    if not selection.history:
        st.info("Add a title under History, or draw a test user there.", icon=":material/history:")
        st.stop()
    return recommender, model, selection


def describe_history(recommender: Recommender, selection: Selection) -> str:
    """The newest entries of the history, and whose it is, in one line."""
    titles, newest = recommender.catalog.titles, selection.history[:-4:-1]
    names = [literal(entry if isinstance(entry, str) else titles[entry]) for entry in newest]
    more = len(selection.history) - len(names)
    whose = "" if selection.user_id is None else f":gray[Test user {literal(selection.user_id)}:] "
    return whose + " ← ".join(f"**{name}**" for name in names) + (f" :gray[and {more} earlier]" if more else "")


def show_rank_changes(
    recommender: Recommender, selection: Selection, before: np.ndarray, after: np.ndarray, change: str
) -> None:
    """What a change does to the pinned list, to those who enter it, to the item in focus and to the held-out one.

    Args:
        recommender: whose ranks they are.
        selection: for which the ranks are.
        before: [N] ranks, 0 for items that are no candidates.
        after: [N] the same after the change.
        change: in words, such as `hiding 1 word`.
    """
    pinned = np.argsort(np.where(before > 0, before, before.max() + 1), kind="stable")[:FIRST]
    pinned = pinned[before[pinned] > 0]
    first = np.flatnonzero((after > 0) & (after <= len(pinned)))
    newcomers = np.setdiff1d(first, pinned)
    items = np.concatenate([pinned, newcomers[np.argsort(after[newcomers])]])
    target = selection.target
    cards = [
        (
            f"First {len(pinned)} that stay",
            f"{len(pinned) - len(newcomers)} of {len(pinned)}",
            f"{len(newcomers)} {'newcomer' if len(newcomers) == 1 else 'newcomers'}",
            f"How many of the first {len(pinned)} are still among the first {len(pinned)} after {change}.",
        )
    ]
    if target is not None and before[target]:
        meaning = f"{literal(recommender.catalog.titles[target])}. 1 is best."
        cards.append(("★ Held-out item's rank", f"{after[target]:,}", f"{before[target]:,} before", meaning))
    metric_cards(cards)
    also = (item for item in (selection.focus, target) if item is not None and before[item] and item not in items)
    items = np.append(items, list(dict.fromkeys(also))).astype(np.int64)
    titles = list(recommender.catalog.titles)
    if target is not None:
        titles[target] = f"★ {titles[target]}"
    show_figure(
        rank_changes_figure(items, before[items], after[items], titles, change),
        rank_changes_table(items, before[items], after[items], titles),
        "ranks",
        f"Ranks of the first recommendations before and after {change}",
    )
    st.caption("Ranks are among unseen items, with CF where the model has it, whatever the options of Recommend are.")
