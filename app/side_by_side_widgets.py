"""Lists of several models side by side, each called by what it was trained without."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, resources
from app.recommend_widgets import DRAWN, ListSettings, first_of, rank_items
from app.state import Selection
from app.widgets import errors_shown, literal
from darec.runs import read_run
from darec.serving import Recommendation, Recommender

LISTS = 640  # pixels for all lists side by side
ORDER = ("sasrec", "popularity", "retrained")  # of the models offered; others come after
BESIDE = 3  # models beside the picked one at first


def describe_run(info: Mapping[str, Any]) -> str:
    """What a run is, by its `run.json`: a baseline, or DARec, *retrained without* a part where it is."""
    return f"DARec {resources.spell_lack(info)}".rstrip() if info["kind"] == "darec" else "baseline"


def compare_lists(
    run: Path,
    recommender: Recommender,
    selection: Selection,
    ranked: Sequence[Recommendation],
    settings: ListSettings,
) -> None:
    """The lists of other models on the same history, beside the picked one's."""
    others = resources.comparable_runs(run, recommender)
    if not others:
        st.info("There is no other run on the same data. Train one, or add it by `--run`.", icon=":material/compare:")
        return
    infos = {name: read_run(folder, verify=False) for name, folder in others.items()}
    picked = st.session_state["run"]
    labels = {name: resources.label_run(name, folder) for name, folder in [(picked, run), *others.items()]}

    def order(name: str) -> int:
        called = f"{infos[name]['name']} {describe_run(infos[name])}".casefold()
        return next((place for place, word in enumerate(ORDER) if word in called), len(ORDER))

    names = sorted(others, key=order)
    chosen = st.multiselect(
        "Beside it",
        names,
        names[:BESIDE],
        key="beside",
        bind="query-params",
        format_func=lambda name: labels[name] if infos[name]["kind"] == "darec" else f"{name}, baseline",
        help="Models on the same data. CF is collaborative filtering: learning from who took what after what.",
    )
    target, shown = selection.target, first_of(recommender, ranked, settings)
    first = {line.item_index for line in shown}
    lists = {picked: list(shown)}
    label = "the picked model" if settings.collaborative else "the picked model, CF switched off"
    rows = [_summary(labels[picked], label, ranked, shown, first, target)]

    def keep_those_read() -> None:
        st.session_state["beside"] = list(lists)[1:]

    waiting = st.empty()
    if chosen:
        with waiting.container(horizontal=True, vertical_alignment="center"):
            bar = st.empty()
            st.button("Stop", icon=":material/stop:", on_click=keep_those_read)
    for place, name in enumerate(chosen):
        bar.progress(place / len(chosen), f"{labels[name]} reads the history, {place + 1} of {len(chosen)}")
        with errors_shown():
            other = resources.load_recommender(others[name]).asked(selection.asked)
            theirs = rank_items(other, None, selection.history, settings, target)
            lists[name] = first_of(other, theirs, settings)
            what = describe_run(infos[name])
            rows.append(_summary(labels[name], what, theirs, lists[name], first, target))
    waiting.empty()
    table = pd.DataFrame({"#": range(1, max(map(len, lists.values())) + 1)})
    for name, lines in lists.items():
        titles = [("★ " if line.item_index == target else "") + line.title for line in lines]
        table[labels[name]] = titles + [""] * (len(table) - len(titles))
    alt = f"The first {len(table)} items by {' and by '.join(labels[name] for name in lists)}"
    if len(table) <= DRAWN:  # titles whole, in as many lines as they need
        st.table(table.astype(str).map(literal).rename(columns=literal), hide_index=True, alt=alt)
    else:
        widths = {labels[name]: st.column_config.TextColumn(width=max(130, LISTS // len(lists))) for name in lists}
        widths["#"] = st.column_config.NumberColumn(width=40)
        st.dataframe(table, hide_index=True, height=640, column_config=widths, alt=alt)
    summary = pd.DataFrame(rows)
    if target is None:
        summary = summary.drop(columns="★ rank")
    st.dataframe(
        summary,
        hide_index=True,
        height="content",
        column_config={
            "★ rank": st.column_config.NumberColumn(help="Rank of the held-out item among all candidates."),
            "In common": st.column_config.NumberColumn(help="Items that its list shares with the picked model's."),
        },
        alt="Each model: what it is, the rank of the held-out item, items in common",
    )
    charts.download_table(table, "lists-side-by-side")


def _summary(
    name: str,
    label: str,
    ranked: Sequence[Recommendation],
    shown: Sequence[Recommendation],
    first: set[int],
    target: int | None,
) -> dict[str, Any]:
    rank = next((line.rank for line in ranked if line.item_index == target), None)
    common = sum(line.item_index in first for line in shown)
    return {"Model": name, "What it is": label, "★ rank": rank, "In common": common}
