"""The history and what changes it: search over the catalogue, paste, order, removal."""

import math
from collections.abc import Callable

import streamlit as st

from app import state
from app.state import Selection
from app.widgets import literal
from darec.data.overview import name_day
from darec.serving import Recommender

RESULTS = 8  # search results shown at once
ENTRIES = 20  # history entries on a page
# A button that shows its icon alone still needs a name for those who do not see it: its label is there, out of sight.
ICONS_ALONE = """<style>[class*="st-key-row-"] button [data-testid="stMarkdownContainer"] {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}</style>"""


def history_editor(
    recommender: Recommender, selection: Selection, paste: Callable[[Recommender, Selection], None] | None = None
) -> None:
    """The history, most recent first, with what is needed to change it; `paste` opens a form for many titles."""
    entries = len(selection.history)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("History", anchor=False, width="stretch")
        if len(recommender.split.test):
            st.button(
                "Draw a test user",
                icon=":material/casino:",
                on_click=state.draw_user,
                args=(recommender, selection),
                help="Someone whose last item was held out: it is marked in the list when the model finds it.",
            )
    search_box(recommender, selection)
    if paste and st.button("Paste a list of titles", icon=":material/content_paste:", type="tertiary"):
        paste(recommender, selection)
    if not entries:
        return
    with st.container(horizontal=True, wrap=False, vertical_alignment="center"):
        when = (
            "The day on which this user made the held-out choice; DARec judges by it which items are new."
            if selection.asked is not None
            else None
        )
        st.caption(_describe_history(selection), help=when, width="stretch")
        st.button("Clear", type="tertiary", on_click=state.change_history, args=(recommender, selection, ()))
    pages = math.ceil(entries / ENTRIES)
    page = min(pages, st.pagination(pages, key="history_page", bind="query-params")) if pages > 1 else 1
    newest = entries - 1 - (page - 1) * ENTRIES
    st.html(ICONS_ALONE)
    with st.container(border=True, gap=None, key="history_rows"):
        for position in range(newest, max(-1, newest - ENTRIES), -1):
            _history_row(recommender, selection, position)


def _describe_history(selection: Selection) -> str:
    count, own = len(selection.history), selection.user_history
    if selection.user_id is None:
        whose = f"{count} {'item' if count == 1 else 'items'}"
    elif selection.history == own:
        whose = f"All {count} items of test user {literal(selection.user_id)}"
    elif selection.history == own[-count:]:
        whose = f"Last {count} of {len(own)} items of test user {literal(selection.user_id)}"
    else:
        whose = f"{count} items, changed from test user {literal(selection.user_id)}"
    asked = "" if selection.asked is None else f" · asked on {name_day(selection.asked)}"
    return f"{whose} · newest first{asked}"


def _history_row(recommender: Recommender, selection: Selection, position: int) -> None:
    entry = selection.history[position]
    if isinstance(entry, str):
        name = entry
        note = " :orange-badge[new text]" if recommender.reads_text else " :gray-badge[not read by this model]"
    else:
        name, note = recommender.catalog.titles[entry], ""
    last = len(selection.history) - 1
    # Keys name the place, not the item: the browser then keeps its buttons, and with them the keyboard focus.
    with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="xxsmall", key=f"row-{position}"):
        st.markdown(f":gray[{position + 1}]  {literal(name)}{note}", width="stretch")
        for label, icon, change, disabled, args in (
            ("Move up", "arrow_upward", state.move_entry, position == last, (position, 1)),
            ("Move down", "arrow_downward", state.move_entry, position == 0, (position, -1)),
            ("Remove", "close", state.remove_entry, False, (position,)),
        ):
            st.button(
                f"{label}: {literal(name)}",
                key=f"{label.split()[-1].casefold()}-{position}",
                icon=f":material/{icon}:",
                type="tertiary",
                disabled=disabled,
                on_click=change,
                args=(recommender, selection, *args),
            )


@st.fragment
def search_box(recommender: Recommender, selection: Selection) -> None:
    """Type-ahead over the whole catalogue; only this piece reruns while somebody types."""
    query = st.text_input(
        "Add an item",
        type="search",
        live=True,
        key="query",
        placeholder="Search or type a title" if recommender.reads_text else "Search for a title",
        label_visibility="collapsed",
    )
    query = (query or "").strip()
    if not query:
        return
    found = recommender.catalog.search(query, RESULTS)
    with st.container(border=True, gap=None):
        for item in found:
            st.button(
                literal(recommender.catalog.titles[item]),
                key=f"add-{item}",
                icon=":material/add:",
                type="tertiary",
                wrap=False,
                on_click=_add,
                args=(recommender, selection, item),
            )
        if not found:
            st.caption("No title of the catalogue has these words.")
        if recommender.reads_text and not recommender.catalog.find(query):
            st.button(
                f"Add “{literal(query)}” as a new title, read from its words",
                key="add-text",
                icon=":material/edit_note:",
                type="tertiary",
                wrap=False,
                on_click=_add,
                args=(recommender, selection, query),
            )


def _add(recommender: Recommender, selection: Selection, entry: int | str) -> None:
    state.add_entry(recommender, selection, entry)
    st.session_state["query"] = ""
    st.session_state["history_page"] = 1
    st.rerun()  # the whole page, not only the search box
