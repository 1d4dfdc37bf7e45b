"""Tags and notes on cases, each under a name."""

from pathlib import Path

import pandas as pd
import streamlit as st

from app import charts, resources
from app.case_widgets import case_table, point_to_pages
from app.widgets import errors_shown, literal
from darec.annotations import COLUMNS, NotedCase
from darec.evaluation.error_analysis import identify_run
from darec.serving import Recommender

TAGS = ["too popular", "wrong genre", "sequel missed", "cold item", "order matters", "plausible"]


def read_notes(recommender: Recommender) -> pd.DataFrame:
    """All notes on this data's cases; where they cannot be read, that is said and the page goes on without."""
    with errors_shown():
        return resources.open_notes().read(recommender.info["data_fingerprint"])
    return pd.DataFrame(columns=list(COLUMNS))


@st.fragment
def note_form(run: Path, recommender: Recommender, case: pd.Series, notes: pd.DataFrame) -> None:
    """Tags and a note on one case, under a name that the session remembers; below it what others noted."""
    run_id, run_name = identify_run(run), st.session_state["run"]
    user_id = str(case["user_id"])
    # Live, so that leaving the field changes nothing: a page that moves under a click on the button loses the click.
    # Leaving the fields below changes nothing either, but what was written in them is known here with every name.
    author = st.text_input(
        "Your name", key="author", persist_state="session", live=True, placeholder="Notes stand under a name"
    )
    mine = notes[(notes["author"] == author.strip()) & (notes["run_id"] == run_id)]
    saved = [tag for tags in mine["tags"] for tag in tags], "".join(mine["note"])
    # Keys name the case, so that another one has fields of its own, and not the author: her note is opened in the place
    # of another's that was opened before, but never in the place of what was typed and not saved.
    opened, *fields = (f"{part} {run_id} {user_id}" for part in ("opened", "tags", "note"))
    written = tuple(map(st.session_state.get, fields))
    if None in written or written == st.session_state[opened] != saved:
        st.session_state.update({opened: saved, **dict(zip(fields, saved, strict=True))})
    options = list(dict.fromkeys([*TAGS, *(tag for own in notes["tags"] for tag in own)]))
    chosen = st.multiselect(
        "Tags",
        options,
        key=fields[0],
        accept_new_options=True,
        placeholder="Choose, or write your own",
        on_change="ignore",
    )
    text = st.text_area("Note", key=fields[1], height=90, on_change="ignore")
    if len(mine) and st.session_state[opened] != saved:
        before = literal(" · ".join([saved[1], *saved[0]]))
        st.caption(f"Saved under this name before, and replaced when you save: {before}")
    if st.button("Save the note", icon=":material/save:"):
        noted = NotedCase(
            recommender.info["data_fingerprint"],
            user_id,
            run_id,
            run_name,
            str(recommender.catalog.item_ids[case["target"]]),
            int(case["rank"]),
        )
        with errors_shown():
            resources.open_notes().write(noted, author, chosen, text or "")
            st.session_state[opened] = chosen, text
            st.rerun()
    for _, other in notes.drop(mine.index).iterrows():
        badges = " ".join(f":gray-badge[{literal(tag)}]" for tag in other["tags"])
        st.markdown(
            f"**{literal(other['author'])}**, on {literal(other['run_name'])} {badges}  \n{literal(other['note'])}"
        )


def show_notes(notes: pd.DataFrame, cases: pd.DataFrame, recommender: Recommender, user_id: str | None) -> None:
    """All notes on the cases shown, with their export; a row opens its user, as `user_id` is open now, on all pages."""
    noted = notes[notes["user_id"].isin(cases["user_id"])].reset_index(drop=True)
    if noted.empty:
        st.info("Nobody has noted anything on these users yet. Open a case and be the first.", icon=":material/edit:")
        return
    titles = dict(zip(recommender.catalog.item_ids, recommender.catalog.titles, strict=True))
    noted.insert(5, "title", noted["target_item_id"].map(titles))
    case_table(
        noted,
        ("author", "user_id", "title", "run_name", "rank", "tags", "note", "written_at"),
        "notes",
        "Notes on test users; a selected row opens its user on all pages",
    )
    point_to_pages(user_id)
    charts.download_table(noted, "notes")
