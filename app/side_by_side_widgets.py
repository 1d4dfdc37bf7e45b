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
from darec.config import PARTS
from darec.runs import read_run
from darec.serving import Recommendation, Recommender

LISTS = 640  # pixels for all lists side by side
BESIDE = 3  # models beside the picked one at first


def describe_run(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What another run is beside the picked one: a baseline, or DARec *retrained without* one of its parts.

    Args:
        own: `run.json` of the picked run.
        other: of the other one.
    """
    if other["kind"] != "darec":
        return "baseline"
    if own["kind"] != "darec":
        return "DARec"
    lacks: dict[bool, list[str]] = {True: [], False: []}
    for section, field, without, part in PARTS:
        mine, theirs = (info["settings"][section][field] == without for info in (own, other))
        if field == "weights" and not all(info["settings"][section]["enabled"] for info in (own, other)):
            continue  # without adapters there is nothing to weigh
        if mine != theirs:
            lacks[theirs].append(part)
    words = [f"{word} {' and '.join(lacks[key])}" for key, word in ((True, "without"), (False, "with")) if lacks[key]]
    return f"retrained {', '.join(words)}" if words else "the same parts, another run"


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
    labels, order = {}, {}
    for name, folder in others.items():
        info = read_run(folder, verify=False)
        labels[name] = describe_run(recommender.info, info)
        baseline = info["name"].casefold()
        order[name] = next(
            (
                place
                for place, word in enumerate(("sasrec", "popularity", "retrained"))
                if _is(word, baseline, labels[name])
            ),
            3,
        )
    names = sorted(others, key=lambda name: order[name])
    chosen = st.multiselect(
        "Beside it",
        names,
        names[:BESIDE],
        key="beside",
        bind="query-params",
        format_func=lambda name: (
            name if name.endswith(labels[name].removeprefix("retrained ")) else f"{name}, {labels[name]}"
        ),
        help="Models on the same data. CF is collaborative filtering: learning from who took what after what.",
    )
    target, shown = selection.target, first_of(recommender, ranked, settings)
    first = {line.item_index for line in shown}
    lists = {st.session_state["run"]: list(shown)}
    label = "the picked model" if settings.collaborative else "the picked model, CF switched off"
    rows = [_summary(st.session_state["run"], label, ranked, shown, first, target)]

    def keep_those_read() -> None:
        st.session_state["beside"] = list(lists)[1:]

    waiting = st.empty()
    if chosen:
        with waiting.container(horizontal=True, vertical_alignment="center"):
            bar = st.empty()
            st.button("Stop", icon=":material/stop:", on_click=keep_those_read)
    for place, name in enumerate(chosen):
        bar.progress(place / len(chosen), f"{name} reads the history, {place + 1} of {len(chosen)}")
        with errors_shown():
            other = resources.load_recommender(others[name]).asked(selection.asked)
            theirs = rank_items(other, None, selection.history, settings, target)
            lists[name] = first_of(other, theirs, settings)
            rows.append(_summary(name, labels[name], theirs, lists[name], first, target))
    waiting.empty()
    table = pd.DataFrame({"#": range(1, max(map(len, lists.values())) + 1)})
    for name, lines in lists.items():
        titles = [("★ " if line.item_index == target else "") + line.title for line in lines]
        table[name] = titles + [""] * (len(table) - len(titles))
    alt = f"The first {len(table)} items by {' and by '.join(lists)}"
    if len(table) <= DRAWN:  # titles whole, in as many lines as they need
        st.table(table.astype(str).map(literal).rename(columns=literal), hide_index=True, alt=alt)
    else:
        widths = {name: st.column_config.TextColumn(width=max(130, LISTS // len(lists))) for name in lists}
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


def _is(word: str, name: str, label: str) -> bool:
    return label.startswith(word) or (label == "baseline" and word in name)


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
