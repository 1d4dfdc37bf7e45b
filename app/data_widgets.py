"""Pieces of the Data page: a data set in numbers and pictures, one's own tables, public sets."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app import resources, state
from app.charts import show_figure
from app.widgets import errors_shown, literal, page_header
from darec.data import intake, overview
from darec.data.download import KnownSource, known_sources
from darec.data.interactions import Dataset, fingerprint
from darec.data.sources import PreparedReport
from darec.data.sources.files import SourceFiles
from darec.data.splits import Split
from darec.errors import DataError
from darec.figures.data import (
    history_lengths_figure,
    history_lengths_table,
    popularity_figure,
    popularity_table,
)
from darec.runs import part_of
from darec.serving import Recommender

DATA = resources.DATA
HEIGHT = 380  # pixels, of charts that stand side by side
TITLE, CAPTION = "What is learned from?", "The data set behind the model, your own, and public ones."
OF_THE_MODEL = "The model's own"

MEANINGS = {
    "Users": "People, sessions or accounts with at least one interaction.",
    "Items": "Everything that can be recommended, interactions or not.",
    "Interactions": "Rows: one user, one item, one moment.",
    "Median history": "Half of the users have at least so many interactions.",
    "Cold items": "Items without a training interaction: the model knows them by their text alone.",
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
    prepared = overview.find_prepared(DATA)
    names = [*([OF_THE_MODEL] if recommender else []), *prepared]
    if not names:
        return None
    name = names[0]
    if len(names) > 1:
        name = st.selectbox("Data set", names, key="dataset", bind="query-params", width=320)
    if name == OF_THE_MODEL and recommender is not None:
        folder = part_of(resources.list_runs()[st.session_state["run"]], "data")
        report = overview.read_report(folder) or _report_on(recommender.info["data_fingerprint"], prepared.values())
        return ShownData(recommender.dataset, recommender.split, report, True)
    folder = prepared[name]
    dataset, parts = resources.load_data(folder)
    return ShownData(dataset, parts, overview.read_report(folder), False)


def _report_on(data_fingerprint: str, folders: Iterable[Path]) -> PreparedReport | None:
    """What was noted on the same data in one of the folders: a run's copy has the pair alone."""
    same = (folder for folder in folders if fingerprint(folder) == data_fingerprint)
    return next(filter(None, map(overview.read_report, same)), None)


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
    with st.container(horizontal=True):
        for label, value in values.items():
            st.metric(label, value, help=MEANINGS[label], border=True, width="content")
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
        st.markdown(f"**{literal(report.source)}**, read as {literal(report.format)}.")
        st.markdown(f"Terms: {literal(report.terms)}")
        if report.citation:
            st.caption(f"Cite: {literal(report.citation)}")


def show_sequences(shown: ShownData) -> None:
    """Users with their most recent items; a row of the model's own test users opens on all pages."""
    st.subheader("Sequences", anchor=False)
    table = overview.list_sequences(shown.dataset)
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
            "sequence": st.column_config.TextColumn("Most recent items, the newest last", width=900),
        },
        alt="The first users with their most recent items; a selected row opens its user on all pages",
        **options,
    )
    user_id = st.query_params.get("user")
    if user_id in linked:
        query = {"run": st.session_state["run"], "user": user_id}
        label = f"See what is recommended to user {literal(user_id)}"
        st.page_link("app/app_pages/recommend.py", label=label, icon=":material/recommend:", query_params=query)
    elif linked:
        st.caption("Select a row to take its user along to the other pages.")


# -- one's own tables --------------------------------------------------------------------------------------------------


def load_own() -> None:
    """Two tables by upload, or a folder or zip by its path; columns; a first look; a name; into ./data."""
    st.markdown(
        "Two tables are needed: **interactions** (who, what, when) and **items** (what, its title). "
        "Every further column of the items is read as text about them. CSV, TSV and Parquet will do, gzipped or not."
    )
    way = "Upload"
    if st.get_option("server.address") in ("127.0.0.1", "localhost", "::1"):  # else visitors could name files here
        options = ["Upload", "Path on this machine"]
        way = st.segmented_control("From", options, default="Upload", required=True, key="own_from")
    with errors_shown():
        found = _uploaded_pair() if way == "Upload" else _pair_at_path()
        if found is None:
            return
        source, called, by_hand = found
        columns = _map_columns(SourceFiles(source)) if by_hand else None
        _write(source, called, columns)


def _uploaded_pair() -> tuple[Path, str, bool] | None:
    left, right = st.columns(2, gap="large")
    types = [suffix.removeprefix(".") for suffix in intake.TABLE_SUFFIXES]
    interactions = left.file_uploader("Interactions", types, key="own_interactions")
    items = right.file_uploader("Items", types, key="own_items")
    if interactions is None or items is None:
        return None
    folder = _stage((interactions.file_id, items.file_id), (interactions, items))
    return Path(folder.name), f"{interactions.name} and {items.name}", True


@st.cache_resource(max_entries=4, show_spinner=False)
def _stage(file_ids: tuple[str, str], _uploads: Sequence[Any]) -> tempfile.TemporaryDirectory:
    """The uploads as files, for as long as this is cached; their folder then goes by itself."""
    folder = tempfile.TemporaryDirectory(prefix="darec-")
    for upload in _uploads:
        upload.seek(0)
    interactions, items = _uploads
    intake.stage_pair(Path(folder.name), (interactions.name, interactions), (items.name, items))
    return folder


def _pair_at_path() -> tuple[Path, str, bool] | None:
    text = st.text_input(
        "Folder or zip",
        key="own_path",
        placeholder="/home/me/films",
        help="Holds the two tables, or a set in the layout of MovieLens, Amazon reviews or RecBole.",
    )
    if not text:
        return None
    path = Path(text.strip()).expanduser()
    tables = intake.table_names(SourceFiles(path))  # says what is wrong with the path
    by_hand = st.toggle(
        "Say which column is which", key="own_by_hand", disabled=len(tables) < 2, help="Otherwise the files tell."
    )
    if not by_hand or len(tables) < 2:
        return path, path.name, False
    left, right = st.columns(2, gap="large")
    chosen = [
        column.selectbox(label, tables, index=min(place, len(tables) - 1), key=f"own_file_{place}")
        for place, (column, label) in enumerate(((left, "Interactions"), (right, "Items")))
    ]
    if chosen[0] == chosen[1]:
        raise DataError(
            f"Interactions and items are two files; {chosen[0]} is chosen for both. Choose another for one."
        )
    folder = _stage_from(str(path), (chosen[0], chosen[1]), tuple(_age(path, name) for name in chosen))
    return Path(folder.name), path.name, True


def _age(path: Path, name: str) -> int:
    return (path / name if path.is_dir() else path).stat().st_mtime_ns


@st.cache_resource(max_entries=4, show_spinner=False)
def _stage_from(path: str, names: tuple[str, str], written_at: tuple[int, ...]) -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="darec-")
    files = SourceFiles(Path(path))
    with files.open(names[0]) as interactions, files.open(names[1]) as items:
        plain = [name.removesuffix(".gz") for name in names]  # `open` has ungzipped them
        intake.stage_pair(Path(folder.name), (plain[0], interactions), (plain[1], items))
    return folder


def _map_columns(files: SourceFiles) -> dict[str, str]:
    """Menus for the needed columns, each table's first rows below; the choice as `prepare` takes it."""
    chosen: dict[str, dict[str, str | None]] = {}
    for side, table in zip(st.columns(2, gap="large"), intake.NEEDED, strict=True):
        with side:
            rows = intake.peek(files, next(name for name in files.names if name.startswith(f"{table}.")))
            columns = list(map(str, rows.columns))
            guessed = intake.guess_columns(columns, table)
            chosen[table] = {}
            for place, ours in zip(st.columns(len(guessed)), guessed, strict=True):
                theirs = guessed[ours]
                chosen[table][ours] = place.selectbox(
                    ours,
                    columns,
                    index=None if theirs is None else columns.index(theirs),
                    key=f"own_{table}_{ours}_{'|'.join(columns)}",
                    placeholder="Choose",
                )
            st.dataframe(rows.astype(str), hide_index=True, alt=f"The first rows of the {table}, as the file has them")
    return intake.name_columns(chosen)


def _write(source: Path, called: str, columns: dict[str, str] | None) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Name", key="own_name", placeholder="my-films", width=220)
        least = st.number_input(
            "Least interactions",
            min_value=0,
            value=0,
            key="own_least",
            width=160,
            help="Users and items with fewer are left out, again and again until nobody has fewer (a k-core).",
        )
        pressed = st.button("Check and write", icon=":material/save:", type="primary")
    if not pressed:
        return
    with st.spinner("Checking every row …"):
        report = intake.prepare_into(
            DATA, name or "", source, called=called, columns=columns, min_interactions=int(least)
        )
    show_written((name or "").strip(), report)


def show_written(name: str, report: PreparedReport) -> None:
    """What was written, its first rows, and what to do with it."""
    st.success(
        f"Written to {DATA / name}: {report.users:,} users, {report.items:,} items, "
        f"{report.interactions:,} interactions.",
        icon=":material/check_circle:",
    )
    dataset, _ = resources.load_data(DATA / name)
    left, right = st.columns(2, gap="large")
    left.dataframe(dataset.interactions.head(5), hide_index=True, alt="The first interactions, as they were written")
    right.dataframe(dataset.catalog.items.head(5), hide_index=True, alt="The first items, as they were written")
    st.page_link("app/app_pages/training.py", label="Train a model on it here", icon=":material/model_training:")
    st.markdown("Or from a terminal:")
    st.code(
        f"python -m darec train --preset smoke --data {(DATA / name).as_posix()} --out runs/{name}", language="bash"
    )


# -- public sets -------------------------------------------------------------------------------------------------------


def fetch_public() -> None:
    """A public set by name: what it is, its terms, a confirmation, the download."""
    sources = {source.name: source for source in known_sources()}
    name = st.selectbox("Public data set", list(sources), format_func=lambda known: sources[known].title, key="public")
    source = sources[name]
    with st.container(border=True):
        st.markdown(f"**{literal(source.title)}**")
        if source.files:
            st.markdown(f"{_size(source)} from [{literal(source.homepage)}]({source.homepage})")
        else:
            st.markdown(f"Made on this machine in seconds, nothing is downloaded; `{source.homepage}` describes it.")
        st.markdown(f"Terms: {literal(source.terms)}")
        st.caption(f"Cite: {literal(source.citation)}")
        if (DATA / name).exists():
            st.info(f"It is already here, in {DATA / name}.", icon=":material/check:")
            return
        agreed = not source.files or st.checkbox("I have read the terms and keep to them", key=f"agreed_{name}")
        label = "Fetch" if source.files else "Make"
        if not st.button(label, icon=":material/download:", type="primary", disabled=not agreed):
            return
    with errors_shown():
        show_written(name, _fetch(source))


def _size(source: KnownSource) -> str:
    if any(file.size is None for file in source.files):
        return f"{len(source.files)} files, their size not published beforehand,"
    return f"{sum(file.size or 0 for file in source.files) / 1e6:.1f} MB"


def _fetch(source: KnownSource) -> PreparedReport:
    bar = st.progress(0.0, "Asking the server …" if source.files else "Drawing the world …")
    st.button("Stop", icon=":material/stop:")  # any click ends this run of the page at its next sign of progress

    def advance(file: str, done: int, total: int | None) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        bar.progress(min(1.0, done / total) if total else 0.0, f"{file}: {done / 1e6:.1f}{of} MB")

    try:
        return intake.prepare_into(DATA, source.name, source.name, on_progress=advance)
    finally:
        bar.empty()


def explain_no_data() -> None:
    """What to do when there is nothing to show."""
    with st.container(border=True):
        st.subheader("No data set yet", anchor=False)
        st.markdown("Load two tables of your own, or fetch a public set: both are a click away, above.")
