"""Pieces of the Data page: a data set in numbers and pictures, one's own tables, public sets."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import resources, state
from app.charts import show_figure
from app.widgets import literal, metric_cards, page_header
from darec.data import overview
from darec.data.interactions import Dataset
from darec.data.sources import MADE_HERE, PreparedReport
from darec.data.splits import Split
from darec.figures.data import (
    history_lengths_figure,
    history_lengths_table,
    popularity_figure,
    popularity_table,
)
from darec.runs import part_of
from darec.serving import Recommender

HEIGHT = 380  # pixels, of charts that stand side by side
TITLE, CAPTION = "What is learned from?", "The data set behind the model, your own, and public ones."
OF_THE_MODEL = "The model's own"

MEANINGS = {
    "Users": "People, sessions or accounts with at least one interaction.",
    "Items": "Everything that can be recommended, interactions or not.",
    "Interactions": "Rows: one user, one item, one moment.",
    "Median history": "Half of the users have at least so many interactions.",
    "Cold items": "Items with fewer than 5 training interactions: little but their text is known of them.",
    "Top tenth": "Share of all training interactions that the most popular tenth of items has.",
}


@dataclass(frozen=True, eq=False)
class ShownData:
    """A data set as the page shows it.

    Attributes:
        dataset: the pair.
        parts: its split.
        report: what `prepare` noted, if it is there.
        of_model: whether the model that is picked was trained on it.
    """

    dataset: Dataset
    parts: Split
    report: PreparedReport | None
    of_model: bool


def open_page() -> Recommender | None:
    """The page's head; the model that is picked, or None where there is no model yet."""
    if resources.list_runs():
        return page_header(TITLE, CAPTION)
    st.title(TITLE, anchor=False)
    st.caption(CAPTION)
    return None


def choose_data(recommender: Recommender | None) -> ShownData | None:
    """The model's data, or a data set in ./data; None where there is neither."""
    prepared = overview.find_prepared(resources.DATA)
    names = [*([OF_THE_MODEL] if recommender else []), *prepared]
    if not names:
        return None
    name = names[0]
    if len(names) > 1:
        name = st.selectbox("Data set", names, key="dataset", bind="query-params", width=320)
    if name == OF_THE_MODEL and recommender is not None:
        folder = part_of(resources.list_runs()[st.session_state["run"]], "data")
        return ShownData(recommender.dataset, recommender.split, overview.read_report(folder), True)
    folder = prepared[name]
    dataset, parts = resources.load_data(folder)
    return ShownData(dataset, parts, overview.read_report(folder), False)


def show_numbers(shown: ShownData) -> None:
    """The counts, and one line on time and split."""
    facts = overview.summarize_dataset(shown.dataset, shown.parts)
    values = {
        "Users": f"{facts.users:,}",
        "Items": f"{facts.items:,}",
        "Interactions": f"{facts.interactions:,}",
        "Median history": f"{facts.median_length:,.0f}",
        "Cold items": f"{facts.cold_items:,}",
        "Top tenth": f"{facts.top_tenth:.0%}",
    }
    metric_cards((label, value, None, MEANINGS[label]) for label, value in values.items())
    when = f"From {facts.period[0]} to {facts.period[1]}. " if facts.period else ""
    rule = (
        "The data set brings its own split into training, validation and test."
        if facts.published_split
        else "Each user's last item is the test, the one before it the validation, all others are training."
    )
    st.caption(when + rule)


def show_charts(shown: ShownData) -> None:
    """Popularity and history lengths, side by side."""
    titles, popularity = shown.dataset.catalog.titles, shown.parts.popularity
    lengths = overview.history_lengths(shown.dataset).tolist()
    left, right = st.columns(2, gap="large")
    with left:
        show_figure(
            popularity_figure(popularity, titles).update_layout(height=HEIGHT),
            popularity_table(popularity, titles),
            "popularity",
            "Training interactions of every item, from the most popular to the least",
        )
    with right:
        show_figure(
            history_lengths_figure(lengths).update_layout(height=HEIGHT),
            history_lengths_table(lengths),
            "history-lengths",
            "How many users have a history of which length",
        )


def show_parts(shown: ShownData) -> None:
    """The sizes of the split, and beside them where the data come from."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Three parts", anchor=False)
        sizes = overview.split_sizes(shown.parts)
        counts = {name: sizes[name].map("{:,}".format) for name in ("users", "interactions")}
        names = {"part": "Part", "users": "Users", "interactions": "Interactions", "use": "What it serves"}
        st.table(
            sizes.assign(**counts).rename(columns=names),
            border="horizontal",
            hide_index=True,
            alt="Users and interactions of training, validation and test",
        )
    with right:
        st.subheader("Where it comes from", anchor=False)
        report = shown.report
        if report is None:
            st.markdown(
                "This copy carries no note on its source. Ask whoever made it what it may be used for: its terms hold "
                "for every model trained on it too."
            )
            return
        origin = report.format if report.format == MADE_HERE else f"read as {report.format}"
        st.markdown(f"**{literal(report.source)}**, {literal(origin)}.")
        st.markdown(f"Terms: {literal(report.terms)}")
        if report.citation:
            st.caption(f"Cite: {literal(report.citation)}")


def show_sequences(shown: ShownData) -> None:
    """Users with their most recent items; a row of the model's own test users opens on all pages."""
    st.subheader("Sequences", anchor=False)
    table, users = overview.list_sequences(shown.dataset), shown.dataset.interactions["user_id"].nunique()
    if len(table) < users:
        st.caption(f"The first {len(table):,} of {users:,} users.")
    linked = set(shown.parts.test.user_ids) if shown.of_model else set()

    def open_row() -> None:
        for row in st.session_state["sequences"]["selection"]["rows"]:
            if table["user_id"].iat[row] in linked:
                state.show_user(str(table["user_id"].iat[row]))

    options: dict[str, Any] = {"on_select": open_row, "selection_mode": "single-row"} if linked else {}
    st.dataframe(
        table,
        hide_index=True,
        height=300,
        key="sequences",
        column_config={
            "user_id": st.column_config.TextColumn("User", width=90),
            "length": st.column_config.NumberColumn("Items", width=60),
            "sequence": st.column_config.TextColumn("Most recent items, newest first", width=900),
        },
        alt="The first users with their most recent items; a selected row opens its user on all pages",
        **options,
    )
    user_id = st.query_params.get("user")
    if user_id in linked and not state.is_of_other_data():
        query = state.link_of(user_id)
        label = f"See what is recommended to user {literal(user_id)}"
        st.page_link("app/app_pages/recommend.py", label=label, icon=":material/recommend:", query_params=query)
    elif linked:
        st.caption("Select a row, by a click or by Shift and Space, to take its user along to the other pages.")


# -- one's own tables --------------------------------------------------------------------------------------------------


# -- public sets -------------------------------------------------------------------------------------------------------


def explain_no_data() -> None:
    """What to do when there is nothing to show."""
    with st.container(border=True):
        st.subheader("No data set yet", anchor=False)
        st.markdown("Load two tables of your own, or fetch a public set: both are a click away, above.")
