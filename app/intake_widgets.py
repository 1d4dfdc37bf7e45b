"""One's own tables and public sets, brought into ./data."""

from pathlib import Path
from typing import Any

import streamlit as st

from app import intake_resources, resources
from app.widgets import errors_shown, literal
from darec.data import intake
from darec.data.download import KnownSource, known_sources
from darec.data.sources import PreparedReport
from darec.data.sources.files import SourceFiles
from darec.errors import DataError


def load_own() -> None:
    """Two tables by upload, or a folder or zip by its path; columns; a first look; a name; into ./data."""
    st.markdown(
        "Two tables are needed: **interactions** (who, what, when) and **items** (what, its title). "
        "Every further column of the items is read as text about them. CSV, TSV and Parquet will do, gzipped or not."
    )
    way = "Upload"
    if resources.serves_this_machine_only():
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
    folder = intake_resources.stage_uploads((interactions.file_id, items.file_id), (interactions, items))
    return Path(folder.name), f"{interactions.name} and {items.name}", True


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
    folder = intake_resources.stage_files(str(path), (chosen[0], chosen[1]), tuple(_age(path, name) for name in chosen))
    return Path(folder.name), path.name, True


def _age(path: Path, name: str) -> int:
    return (path / name if path.is_dir() else path).stat().st_mtime_ns


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
    name = (name or "").strip()
    report = _prepare(name, source, "Beginning …", called=called, columns=columns, min_interactions=int(least))
    show_written(name, report)


def show_written(name: str, report: PreparedReport) -> None:
    """What was written, its first rows, and what to do with it."""
    st.success(
        f"Written to {resources.DATA / name}: {report.users:,} users, {report.items:,} items, "
        f"{report.interactions:,} interactions.",
        icon=":material/check_circle:",
    )
    dataset, _ = resources.load_data(resources.DATA / name)
    left, right = st.columns(2, gap="large")
    left.dataframe(dataset.interactions.head(5), hide_index=True, alt="The first interactions, as they were written")
    right.dataframe(dataset.catalog.items.head(5), hide_index=True, alt="The first items, as they were written")
    st.page_link("app/app_pages/training.py", label="Train a model on it here", icon=":material/model_training:")
    st.markdown("Or from a terminal:")
    st.code(
        f"python -m darec train --preset smoke --data {(resources.DATA / name).as_posix()} --out runs/{name}",
        language="bash",
    )


def fetch_public() -> None:
    """A public set by name: what it is, its terms, a confirmation, the download."""
    sources = {source.name: source for source in known_sources()}
    name = st.selectbox(
        "Public data set",
        list(sources),
        format_func=lambda known: sources[known].title,
        key="public",
        bind="query-params",
    )
    source = sources[name]
    with st.container(border=True):
        st.markdown(f"**{literal(source.title)}**")
        if source.files:
            st.markdown(f"{_size(source)} from [{literal(source.homepage)}]({source.homepage})")
        else:
            st.markdown(f"Made on this machine in seconds, nothing is downloaded; `{source.homepage}` describes it.")
        st.markdown(f"Terms: {literal(source.terms)}")
        st.caption(f"Cite: {literal(source.citation)}")
        if (resources.DATA / name).exists():
            st.info(f"It is already here, in {resources.DATA / name}.", icon=":material/check:")
            return
        agreed = not source.files or st.checkbox("I have read the terms and keep to them", key=f"agreed_{name}")
        label = "Fetch" if source.files else "Make"
        if not st.button(label, icon=":material/download:", type="primary", disabled=not agreed):
            return
    with errors_shown():
        beginning = "Asking the server …" if source.files else "Drawing the world …"
        show_written(name, _prepare(name, name, beginning))


def _size(source: KnownSource) -> str:
    if any(file.size is None for file in source.files):
        return f"{len(source.files)} files, their size not published beforehand,"
    return f"{sum(file.size or 0 for file in source.files) / 1e6:.1f} MB"


def _prepare(name: str, source: str | Path, beginning: str, **options: Any) -> PreparedReport:
    """Bring a source into ./data under a bar that shows how far it is, with a button that stops it."""
    place = st.empty()
    with place.container():
        bar = st.progress(0.0, beginning)
        st.button("Stop", icon=":material/stop:")  # any click ends this run of the page at its next sign of progress

    def download(file: str, done: int, total: int | None) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        bar.progress(min(1.0, done / total) if total else 0.0, f"{file}: {done / 1e6:.1f}{of} MB")

    def begin(number: int, of: int, what: str) -> None:
        bar.progress((number - 1) / of, f"{what[0].upper()}{what[1:]} …")

    try:
        return intake.prepare_into(resources.DATA, name, source, on_progress=download, on_stage=begin, **options)
    finally:
        place.empty()
