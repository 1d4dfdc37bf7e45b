"""Pieces of the Recommend page: how the list is shown, what it rests on, what would change it, others beside it."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import charts, resources, state
from app.state import Selection
from app.widgets import errors_shown, literal
from darec.data.catalog import Catalog, History
from darec.errors import DataError
from darec.runs import read_run
from darec.serving import Recommendation, Recommender

if TYPE_CHECKING:
    from darec.explain.effects import HistoryEffects
    from darec.explain.score_terms import ScoreBreakdown
    from darec.model.recommender import DarecModel

LABEL, MARGINS = 16, 140  # pixels: height of a label, and what a figure's height holds beside its plot
DRAWN = 30  # items in a figure: more rows are no picture any more
LISTS = 520  # pixels for all lists side by side
BESIDE = 3  # models beside the picked one at first
CANDIDATES = 5  # in a vote, the model's first among them
VOTED_AMONG = 100  # ranks from which the other candidates are drawn
PARTS = (  # section and field of the settings, the value without the part, how the part is called
    ("masking", "enabled", False, "context masking"),
    ("collaborative", "enabled", False, "CF"),
    ("adapters", "enabled", False, "adapters"),
    ("adapters", "weights", "fixed", "dynamic adaption"),
)


@dataclass(frozen=True)
class ListSettings:
    """How the list is shown.

    Attributes:
        k: how many items.
        exclude_seen: whether the items of the history are left out.
        collaborative: whether the CF path takes part.
        categories: only items of these are shown, each written as `genres: drama`; all where empty.
    """

    k: int
    exclude_seen: bool
    collaborative: bool
    categories: tuple[str, ...]


def explained_model(recommender: Recommender) -> "DarecModel | None":
    """The model behind a recommender where it is a DARec, whose answers can be taken apart."""
    if recommender.kind != "darec":
        return None
    from darec.model.recommender import DarecModel  # with torch, which takes seconds to import

    return recommender.scorer if isinstance(recommender.scorer, DarecModel) else None


def choose_settings(recommender: Recommender, model: "DarecModel | None") -> tuple[ListSettings, bool]:
    """The heading of the list with its number of items and a fold of options; also whether the class votes first."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Recommendations", anchor=False, width="stretch")
        with st.popover("Options", icon=":material/tune:"):
            k = st.number_input(
                "How many",
                min_value=1,
                max_value=len(recommender.catalog),
                value=min(10, len(recommender.catalog)),
                key="k",
                bind="query-params",
            )
            exclude_seen = st.toggle("Leave out seen items", True, key="exclude_seen", bind="query-params")
            collaborative = True
            if model is not None and model.settings.collaborative.enabled:
                collaborative = st.toggle(
                    "Use collaborative knowledge",
                    True,
                    key="cf",
                    bind="query-params",
                    help="Off: the same model ranks from text alone. Switched off, not retrained.",
                )
            members = resources.load_members(recommender.info["data_fingerprint"], recommender)
            categories: list[str] = []
            if members:
                categories = st.multiselect(
                    "Only items of",
                    list(members),
                    key="only",
                    bind="query-params",
                    placeholder="Any attribute",
                    help="Of one attribute, any of the chosen; of several, each.",
                )
            vote = st.toggle(
                "Vote first",
                key="vote",
                bind="query-params",
                help="The list stays hidden until the class has voted among five items.",
            )
    return ListSettings(k, exclude_seen, collaborative, tuple(categories)), vote


def rank_items(
    recommender: Recommender, model: "DarecModel | None", history: History, settings: ListSettings
) -> list[Recommendation]:
    """All candidates in order, whatever their category.

    Raises:
        DarecError: see `Recommender.recommend`.
    """
    if model is not None and not settings.collaborative:
        recommender = replace(recommender, scorer=_TextAlone(model))
    return recommender.recommend(list(history), len(recommender.catalog), exclude_seen=settings.exclude_seen)


@dataclass(frozen=True)
class _TextAlone:
    model: "DarecModel"

    def score(self, histories: Sequence[History]) -> np.ndarray:
        return self.model.score_without_collaborative(histories)


def first_of(
    recommender: Recommender, ranked: Sequence[Recommendation], settings: ListSettings
) -> list[Recommendation]:
    """The first k of the chosen categories; they keep their ranks among all candidates."""
    members = resources.load_members(recommender.info["data_fingerprint"], recommender)
    wanted: dict[str, np.ndarray] = {}
    for name in settings.categories:
        attribute = name.partition(": ")[0]
        wanted[attribute] = members[name] | wanted.get(attribute, False)
    chosen = (line for line in ranked if all(items[line.item_index] for items in wanted.values()))
    return list(islice(chosen, settings.k))


def find_focus(
    selection: Selection, ranked: Sequence[Recommendation], shown: Sequence[Recommendation]
) -> Recommendation:
    """The recommendation in focus: the chosen one while it is a candidate, or else the first one shown."""
    return next((line for line in ranked if line.item_index == selection.focus), shown[0])


def describe_focus(recommender: Recommender, focus: Recommendation, breakdown: "ScoreBreakdown | None") -> None:
    """The recommendation in focus: what is known of it, and its score taken apart."""
    item = focus.item_index
    about = recommender.catalog.full_texts[item].removeprefix(focus.title).lstrip(". ")
    with st.container(border=True, gap="xsmall"):
        st.markdown(f"**{literal(focus.title)}**, rank **{focus.rank:,}**, probability {focus.probability:.2%}")
        if about:
            st.caption(literal(about))
        if breakdown is None:
            return
        from darec.explain.score_terms import TERMS
        from darec.figures.score_terms import TERM_NAMES

        row = breakdown.items.tolist().index(item)
        terms = " · ".join(
            f"{TERM_NAMES[term]} **{value:+.2f}**" for term, value in zip(TERMS, breakdown.terms[:, row], strict=True)
        )
        st.markdown(
            f"{terms} · score **{breakdown.score[row]:+.2f}**",
            help="Signed terms, each minus its mean over the catalogue; they sum to the score, in log-odds.",
        )


def explain_list(
    model: "DarecModel | None",
    history: History,
    shown: Sequence[Recommendation],
    focus: Recommendation,
    settings: ListSettings,
) -> "ScoreBreakdown | None":
    """The scores of the items shown and of the one in focus, taken apart; None where the model has no terms."""
    if model is None:
        return None
    from darec.explain.score_terms import explain_scores

    items = list(dict.fromkeys([*(line.item_index for line in shown), focus.item_index]))
    return explain_scores(model, history, items, exclude_seen=settings.exclude_seen)


def show_terms(recommender: Recommender, breakdown: "ScoreBreakdown", settings: ListSettings) -> None:
    """What the scores of the first items are made of."""
    from darec.explain.score_terms import ScoreBreakdown
    from darec.figures.score_terms import score_terms_figure, score_terms_table

    if len(breakdown.items) > DRAWN:
        st.caption(f"The first {DRAWN} are drawn; the CSV of the list has all.")
    if not settings.collaborative:
        st.caption("Terms and ranks here are those of the whole model, collaborative knowledge included.")
    first = ScoreBreakdown(
        breakdown.items[:DRAWN],
        breakdown.terms[:, :DRAWN],
        *(part[:DRAWN] for part in (breakdown.score, breakdown.log_probability, breakdown.rank, breakdown.rank_cf_off)),
    )
    titles = recommender.catalog.titles
    charts.show_figure(
        score_terms_figure(first, titles),
        score_terms_table(first, titles),
        "score-terms",
        "Signed terms of the first items' scores: text, collaborative, prior, and the CF model's own",
    )


def choose_focus(
    recommender: Recommender, selection: Selection, focus: Recommendation, shown: Sequence[Recommendation]
) -> None:
    """A menu of the items shown, the one in focus and the held-out one."""
    items = [line.item_index for line in shown]
    held_out = [selection.target] if selection.target is not None and selection.target not in selection.history else []
    options = list(dict.fromkeys([*items, focus.item_index, *held_out]))
    titles = recommender.catalog.titles
    st.session_state["focus_choice"] = focus.item_index
    st.selectbox(
        "Recommendation",
        options,
        key="focus_choice",
        format_func=lambda item: ("★ " if item == selection.target else "") + titles[item],
        on_change=lambda: state.focus_on(recommender, st.session_state["focus_choice"]),
    )


def show_effects(
    recommender: Recommender,
    model: "DarecModel",
    selection: Selection,
    focus: Recommendation,
    settings: ListSettings,
) -> None:
    """Leave-one-out effects of the history on the recommendation in focus, drawn while they are computed."""
    from darec.explain.effects import leave_one_out
    from darec.figures.effects import effects_table

    titles = recommender.catalog.titles
    asked = (
        st.session_state["run"],
        recommender.info["data_fingerprint"],
        id(model),
        selection.history,
        focus.item_index,
        settings.exclude_seen,
        settings.collaborative,
    )
    found, effects = st.session_state.get("effects", ((), None))
    if found != asked:
        place, bar = st.empty(), st.progress(0.0)
        for effects in leave_one_out(
            model,
            selection.history,
            focus.item_index,
            collaborative=settings.collaborative,
            exclude_seen=settings.exclude_seen,
        ):
            known = int((~np.isnan(effects.effects)).sum())
            figure = draw_effects(effects, titles)
            place.plotly_chart(figure, key=f"effects-{known}", alt="Effects known so far")
            bar.progress(known / len(effects.effects), f"{known} of {len(effects.effects)} items left out in turn")
        bar.empty()
        place.empty()
        st.session_state["effects"] = asked, effects
    st.markdown(_sum_up(effects), help="In nats: +0.69 doubles the probability. Nothing reads an empty history.")
    charts.show_figure(
        draw_effects(effects, titles),
        effects_table(effects, titles),
        "leave-one-out",
        f"Leave-one-out effects of the history's items on {titles[focus.item_index]}",
    )


def draw_effects(effects: "HistoryEffects", titles: Sequence[str]) -> go.Figure:
    """The effects with titles that half a page has room for; the sentence above the figure says the rest."""
    from darec.figures.effects import effects_figure

    figure = retitle(effects_figure(effects, titles), "Each item left out in turn")
    return figure.update_xaxes(title_text="change (nats)")


def _sum_up(effects: "HistoryEffects") -> str:
    return (
        f"All items but the newest change the log-probability by **{effects.total:+.3f}** together. Left out one by "
        f"one they sum to **{effects.summed:+.3f}**; the remainder, what they do only jointly, is "
        f"**{effects.remainder:+.3f}**."
    )


def show_changes(
    recommender: Recommender,
    model: "DarecModel",
    selection: Selection,
    shown: Sequence[Recommendation],
    settings: ListSettings,
) -> None:
    """Change the history in one click, and see who rises and falls against the pinned list."""
    if not selection.pinned:
        state.pin(recommender, selection.history)
    pinned = selection.pinned or selection.history
    change_entry(recommender, selection, shown)
    if selection.history == pinned:
        st.info(
            "The list of this history is pinned. Drop, swap or move an item, here or on the left, and see which "
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
    )
    change = describe_change(pinned, selection.history, recommender.catalog)
    st.markdown(f"The pinned list after **{literal(change)}**; what comes among the first {len(before)} is shown too.")
    drawn = changes.items, changes.before, changes.after, recommender.catalog.titles
    charts.show_figure(
        spread_labels(retitle(rank_changes_figure(*drawn, change), "Ranks before and after")),
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


def retitle(figure: go.Figure, title: str) -> go.Figure:
    """A figure with a title short enough for half a page, from the figure's left edge on."""
    return figure.update_layout(title={"text": title, "xref": "container", "x": 0})


def spread_labels(figure: go.Figure) -> go.Figure:
    """A figure of rank changes whose labels, which name the ranks themselves, do not cover each other."""
    bottom, top = figure.layout.yaxis.range
    room = figure.layout.height - MARGINS
    for side in ("before", "after"):
        own = sorted((note for note in figure.layout.annotations if note.x == side), key=lambda note: note.y)
        places = [(note.y - bottom) / (top - bottom) * room for note in own]  # rank 1, the highest, comes first
        lowest = LABEL * np.arange(len(own))[::-1]
        above = room
        for note, place, least in zip(own, places, lowest, strict=True):
            shown = max(min(place, above), least)
            note.yshift = shown - place
            above = shown - LABEL
    figure.update_annotations(font_size=11).update_xaxes(range=[-1.9, 2.9])
    return figure.update_yaxes(showticklabels=False, showgrid=False)


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
        # The key names the length: a place that a shorter history lacks would be no option any more.
        position = st.selectbox("Item", range(last, -1, -1), format_func=name, key=f"entry-{last}", width="stretch")
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
    """How one history became another, in a few words, where it is one drop, swap or move."""

    def name(entry: int | str) -> str:
        return f"“{entry if isinstance(entry, str) else catalog.titles[entry]}”"

    old, new = list(before), list(after)
    if len(new) == len(old) - 1:
        for position in range(len(old)):
            if old[:position] + old[position + 1 :] == new:
                return f"dropping {name(old[position])}"
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
    return "several changes"


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
        format_func=lambda name: f"{name}, {labels[name]}",
    )
    target, shown = selection.target, first_of(recommender, ranked, settings)
    first = {line.item_index for line in shown}
    lists = {st.session_state["run"]: list(shown)}
    label = "the picked model" if settings.collaborative else "the picked model, CF switched off"
    rows = [_summary(st.session_state["run"], label, ranked, shown, first, target)]
    for name in chosen:
        with st.spinner(f"{name} reads the history …"), errors_shown():
            other = resources.load_recommender(others[name])
            theirs = other.recommend(list(selection.history), len(other.catalog), exclude_seen=settings.exclude_seen)
            lists[name] = first_of(other, theirs, settings)
            rows.append(_summary(name, labels[name], theirs, lists[name], first, target))
    table = pd.DataFrame({"#": range(1, max(map(len, lists.values())) + 1)})
    for name, lines in lists.items():
        titles = [("★ " if line.item_index == target else "") + line.title for line in lines]
        table[name] = titles + [""] * (len(table) - len(titles))
    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= DRAWN else 640,
        column_config={
            "#": st.column_config.NumberColumn(width=40),
            **{name: st.column_config.TextColumn(width=max(130, LISTS // len(lists))) for name in lists},
        },
        alt=f"The first {len(table)} items by {' and by '.join(lists)}",
    )
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


def list_table(
    recommender: Recommender, shown: Sequence[Recommendation], breakdown: "ScoreBreakdown | None", target: int | None
) -> pd.DataFrame:
    """The list with all that is known of it, for download: ids, attributes, probability, terms, rank without CF."""
    items = [line.item_index for line in shown]
    table = pd.DataFrame(
        {
            "rank": [line.rank for line in shown],
            "item_id": [line.item_id for line in shown],
            "title": [line.title for line in shown],
            "text": [recommender.catalog.full_texts[item] for item in items],
            "probability": [line.probability for line in shown],
            "held_out": [item == target for item in items],
        }
    )
    if breakdown is not None:
        from darec.figures.score_terms import score_terms_table

        terms = score_terms_table(breakdown, recommender.catalog.titles).iloc[: len(items)]
        table = table.join(terms.drop(columns=["item", "rank"]).rename(columns={"text": "text term"}))
    return table


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


def draw_candidates(history: History, ranked: Sequence[Recommendation]) -> list[Recommendation]:
    """The model's first and up to four others of its first hundred, in an order that depends on the history alone."""
    generator = random.Random(repr(tuple(history)))
    others = generator.sample(ranked[1:VOTED_AMONG], min(CANDIDATES - 1, len(ranked[1:VOTED_AMONG])))
    candidates = [ranked[0], *others]
    generator.shuffle(candidates)
    return candidates


def vote_first(recommender: Recommender, selection: Selection, ranked: Sequence[Recommendation]) -> bool:
    """A vote among five items before the list is shown; returns whether it has been revealed.

    Votes and whether they were revealed are of this session and this history: another history hides its list again.
    """
    asked = (st.session_state["run"], selection.history)
    candidates = draw_candidates(selection.history, ranked)
    if st.session_state.get("vote_on") != asked:
        st.session_state.update(vote_on=asked, votes=[0] * len(candidates), revealed=False)
    votes: list[int] = st.session_state["votes"]

    def count(place: int) -> None:
        votes[place] += 1

    if not st.session_state["revealed"]:
        st.markdown("**What comes next?** One of these five is the model's first. Each click is a vote.")
        for place, line in enumerate(candidates):
            with st.container(horizontal=True, vertical_alignment="center", key=f"candidate-{place}"):
                st.button(literal(line.title), key=f"vote-{place}", on_click=count, args=(place,), width="stretch")
                st.markdown(f"**{votes[place]}**", width=40)
        st.button(
            "Reveal",
            icon=":material/visibility:",
            type="primary",
            on_click=lambda: st.session_state.update(revealed=True),
        )
        return False
    right = next(place for place, line in enumerate(candidates) if line.rank == 1)
    voters = sum(votes)
    told = f"**{votes[right]} of {voters}** votes went to it" if voters else "nobody has voted"
    ranks = " · ".join(
        f"{literal(line.title)} rank {line.rank:,} ({votes[place]})" for place, line in enumerate(candidates)
    )
    with st.container(border=True, gap="xsmall"):
        st.markdown(f"The model's first is **{literal(candidates[right].title)}**; {told}.")
        st.caption(f"{ranks}; votes in brackets")
        st.button("Vote again", type="tertiary", on_click=lambda: st.session_state.pop("vote_on"))
    return True
