"""What if: an entry dropped, moved or swapped, and the ranks of the pinned list before and after."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app import charts, state
from app.recommend_widgets import DRAWN, ListSettings, first_of, rank_items, wanted_items, wrap_title
from app.state import Selection
from app.widgets import errors_shown, literal
from darec.data.catalog import Catalog, History
from darec.errors import DataError
from darec.serving import Recommendation, Recommender

if TYPE_CHECKING:
    from darec.model.recommender import DarecModel

NAMED = 2  # entries that a change is told by; more are counted


def show_changes(
    recommender: Recommender,
    model: "DarecModel",
    selection: Selection,
    shown: Sequence[Recommendation],
    settings: ListSettings,
) -> None:
    """Change the history in one click, and see who rises and falls against the pinned list."""
    pinned = selection.pinned or selection.history
    change_entry(recommender, selection, shown)
    if selection.history == pinned:
        st.info(
            "The list of this history will be pinned. Drop, swap or move an item, here or on the left, and see which "
            "recommendations rise and fall.",
            icon=":material/keep:",
        )
        return
    from darec.explain.effects import compare_histories
    from darec.figures.effects import rank_changes_figure, rank_changes_table

    before = first_of(recommender, rank_items(recommender, model, pinned, settings), settings)[:DRAWN]
    changes = compare_histories(
        model,
        pinned,
        selection.history,
        [line.item_index for line in before],
        collaborative=settings.collaborative,
        exclude_seen=settings.exclude_seen,
        shown=wanted_items(recommender, settings),
    )
    change = describe_change(pinned, selection.history, recommender.catalog)
    st.markdown(f"The pinned list after **{literal(change)}**; what comes among the first {len(before)} is shown too.")
    drawn = changes.items, changes.before, changes.after, recommender.catalog.titles
    charts.show_figure(
        wrap_title(rank_changes_figure(*drawn, change)),
        rank_changes_table(*drawn),
        "rank-changes",
        f"Ranks of the pinned list and of newcomers before and after {change}",
    )
    with st.container(horizontal=True):
        st.button(
            "Back to the pinned history",
            icon=":material/undo:",
            on_click=state.change_history,
            args=(recommender, selection, pinned),
        )
        st.button("Pin this list", icon=":material/keep:", on_click=state.pin, args=(recommender, selection.history))


def change_entry(recommender: Recommender, selection: Selection, shown: Sequence[Recommendation]) -> None:
    """Drop an entry of the history, swap it for another item or a new title, or move it, each by one click."""
    from darec.explain.effects import drop, move, swap

    history, titles = selection.history, recommender.catalog.titles
    last = len(history) - 1

    def name(position: int) -> str:
        entry = history[position]
        return f"{position + 1}  {entry if isinstance(entry, str) else titles[entry]}"

    def change(history: History) -> None:
        state.change_history(recommender, selection, history)

    with st.container(horizontal=True, vertical_alignment="bottom"):
        # The key names the history: a place kept from another one would be another item's.
        key = f"entry-{state.encode_history(history, recommender.catalog)}"
        position = st.selectbox("Item", range(last, -1, -1), format_func=name, key=key, width="stretch")
        st.button(
            "Drop",
            icon=":material/close:",
            disabled=last == 0,
            on_click=lambda: change(drop(history, position)),
        )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        to = st.number_input(
            "Place", 1, last + 1, last + 1 if position < last else 1, key=f"to-{last}-{position}", width=80
        )
        st.button("Move", icon=":material/swap_vert:", on_click=lambda: change(move(history, position, to - 1)))
        other = st.selectbox(
            "Swap it for",
            [line.item_index for line in shown],
            format_func=lambda item: item if isinstance(item, str) else titles[item],
            accept_new_options=True,
            key=f"other-{state.encode_history(history, recommender.catalog)}",
            width=250,
            help="An item of the list, or any title: one that the catalogue lacks is read as text.",
        )
        swapped = st.button("Swap", icon=":material/swap_horiz:")
    if swapped:
        with errors_shown():
            change(swap(history, position, find_entry(other, recommender.catalog)))
            st.rerun()


def find_entry(title: int | str, catalog: Catalog) -> int | str:
    """The item that a written title names, or the title where the catalogue lacks it.

    Raises:
        DataError: several items bear the title.
    """
    if not isinstance(title, str):
        return title
    found = catalog.find(title)
    if len(found) > 1:
        names = ", ".join(catalog.titles[item] for item in found)
        raise DataError(f"Several items are called {title!r}: {names}. Write one of them with its year.")
    return found[0] if found else title


def describe_change(before: History, after: History, catalog: Catalog) -> str:
    """How one history became another, in a few words: one drop, swap or move, or what went, came and changed place."""

    def name(entry: int | str) -> str:
        return f"“{entry if isinstance(entry, str) else catalog.titles[entry]}”"

    def tell(verb: str, entries: Iterable[int | str]) -> str:
        few = list(entries)
        return f"{verb} {' and '.join(map(name, few)) if len(few) <= NAMED else f'{len(few)} items'}"

    old, new = list(before), list(after)
    if len(new) == len(old):
        changed = [position for position in range(len(old)) if old[position] != new[position]]
        if len(changed) == 1:
            return f"swapping {name(old[changed[0]])} for {name(new[changed[0]])}"
        if changed:
            first, last = changed[0], changed[-1]
            if old[first + 1 : last + 1] == new[first:last] and old[first] == new[last]:
                return f"moving {name(old[first])} from {first + 1} to {last + 1}"
            if old[first:last] == new[first + 1 : last + 1] and old[last] == new[first]:
                return f"moving {name(old[last])} from {last + 1} to {first + 1}"
    gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
    changes = [tell(verb, found.elements()) for verb, found in (("dropping", gone), ("adding", come)) if found]
    kept = ([entry for entry in entries if entry not in gone | come] for entries in (old, new))
    if next(kept) != next(kept):
        changes.append("changing the order")
    return ", ".join(changes)
