"""Pasted titles: each line found, ambiguous or new text, before they become the history."""

from dataclasses import dataclass, replace
from typing import Literal

import streamlit as st

from app import state
from app.state import Selection
from app.widgets import literal
from darec.data.catalog import Catalog
from darec.serving import Recommender


@dataclass(frozen=True)
class PastedLine:
    """One line of a pasted list.

    Attributes:
        title: as it was written.
        status: `found` one item of this title, `ambiguous` several, or `new text`: none.
        options: item indices to choose from; for a new text, items with a similar title.
    """

    title: str
    status: Literal["found", "ambiguous", "new text"]
    options: tuple[int, ...]


def read_titles(text: str, catalog: Catalog) -> list[PastedLine]:
    """What each line that is not blank names in the catalogue."""
    lines = []
    for title in filter(None, (" ".join(line.split()) for line in text.splitlines())):
        found = catalog.find(title)
        if found:
            lines.append(PastedLine(title, "found" if len(found) == 1 else "ambiguous", tuple(found)))
        else:
            lines.append(PastedLine(title, "new text", tuple(catalog.search(title, 5))))
    return lines


@st.dialog("Paste a list of titles", width="large")
def paste_titles(recommender: Recommender, selection: Selection) -> None:
    """Read a list of titles into the history; each line is found, ambiguous or new text, and says so."""
    text = st.text_area(
        "One title a line, the newest first, as the history is shown",
        key="pasted",
        height=180,
        placeholder="Heat (1995)",
    )
    lines = read_titles(text or "", recommender.catalog)
    entries: list[int | str] = []
    for number, line in enumerate(lines):
        entry = _pasted_row(recommender, number, line)
        if entry is not None:
            entries.append(entry)
    entries.reverse()
    if lines and len(entries) < len(lines):
        st.caption(f"{len(entries)} of {len(lines)} lines can be read; the others are left out.")
    with st.container(horizontal=True):
        replaced = st.button("Replace the history", type="primary", disabled=not entries)
        added = st.button("Add as the newest", disabled=not entries)
    if replaced or added:
        kept = () if replaced else selection.history
        state.change_history(
            recommender, replace(selection, user_id=None) if replaced else selection, [*kept, *entries]
        )
        st.rerun()


def _pasted_row(recommender: Recommender, number: int, line: PastedLine) -> int | str | None:
    """One line with its status; returns what it adds to the history, None where nothing."""
    titles = recommender.catalog.titles
    if line.status == "found":
        st.markdown(f":green-badge[found] {literal(titles[line.options[0]])}")
        return line.options[0]
    kept: list[int | str] = [line.title] if line.status == "new text" and recommender.reads_text else []
    badge = {"ambiguous": ":orange-badge[ambiguous]", "new text": ":blue-badge[new text]"}[line.status]
    if line.status == "new text" and not recommender.reads_text:
        badge += " :gray-badge[not read by this model]"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{badge} {literal(line.title)}")
        if not line.options:
            return kept[0] if kept else None
        return st.selectbox(
            f"What line {number + 1} means",
            [*kept, *line.options],
            0 if kept else None,
            format_func=lambda entry: "read from its words" if isinstance(entry, str) else titles[entry],
            key=f"pasted-{number}-{line.title}",
            placeholder="Which one? Left out until you choose",
            label_visibility="collapsed",
            width=320,
        )
