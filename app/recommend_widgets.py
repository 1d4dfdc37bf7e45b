"""Pieces of the Recommend page: how the list is shown, and what it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import charts, resources, state
from app.state import Selection
from app.widgets import literal
from darec.data.catalog import History
from darec.figures.palette import wrap
from darec.serving import Recommendation, Recommender

if TYPE_CHECKING:
    from darec.explain.effects import HistoryEffects
    from darec.explain.score_terms import ScoreBreakdown
    from darec.model.recommender import DarecModel

TITLE_LETTERS, LINE_HEIGHT = 56, 22  # of a line of a title on half a page; pixels
DRAWN = 30  # items in a figure: more rows are no picture any more


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
    size = len(recommender.catalog)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Recommendations", anchor=False, width="stretch")
        with st.popover("Options", icon=":material/tune:"):
            k = st.number_input(
                "How many",
                min_value=1,
                max_value=size,
                value=min(10, size),
                key="k",
                bind="query-params",
            )
            exclude_seen = st.toggle(
                "Leave out seen items",
                True,
                key="exclude_seen",
                bind="query-params",
                help="Models are trained to rank what was not seen; asked for the rest too, they may put it first.",
            )
            collaborative = True
            if model is not None and model.settings.collaborative.enabled:
                collaborative = st.toggle(
                    "Use collaborative knowledge",
                    True,
                    key="cf",
                    bind="query-params",
                    help="From collaborative filtering (CF): who took what after what. Off: the same model ranks by "
                    "the items' words and their popularity. Switched off, not retrained.",
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
    recommender: Recommender,
    model: "DarecModel | None",
    history: History,
    settings: ListSettings,
    target: int | None = None,
) -> list[Recommendation]:
    """All candidates in order, whatever their category.

    Args:
        recommender: who ranks.
        model: the DARec behind it, if it is one.
        history: oldest first.
        settings: whether seen items and the CF path take part.
        target: item_index of the held-out item, if there is one: as in evaluation, ties count against it, so it stands
            behind the items that are as probable.

    Raises:
        DarecError: see `Recommender.recommend`.
    """
    if model is not None and not settings.collaborative:
        recommender = replace(recommender, scorer=_TextAlone(model))
    ranked = recommender.recommend(list(history), len(recommender.catalog), exclude_seen=settings.exclude_seen)
    if target is None:
        return ranked
    ranked.sort(key=lambda line: (-line.probability, line.item_index == target))  # stable: nothing else moves
    return [replace(line, rank=rank) for rank, line in enumerate(ranked, start=1)]


@dataclass(frozen=True)
class _TextAlone:
    model: "DarecModel"

    def score(self, histories: Sequence[History]) -> np.ndarray:
        return self.model.score_without_collaborative(histories)


def first_of(
    recommender: Recommender, ranked: Sequence[Recommendation], settings: ListSettings
) -> list[Recommendation]:
    """The first k of the chosen categories; they keep their ranks among all candidates."""
    wanted = wanted_items(recommender, settings)
    return list(islice((line for line in ranked if wanted[line.item_index]), settings.k))


def wanted_items(recommender: Recommender, settings: ListSettings) -> np.ndarray:
    """[N] bool: the items of the chosen categories; of one attribute any will do, of several each is asked for."""
    members = resources.load_members(recommender.info["data_fingerprint"], recommender)
    wanted: dict[str, np.ndarray] = {}
    for name in settings.categories:
        attribute = name.partition(": ")[0]
        wanted[attribute] = members[name] | wanted.get(attribute, False)
    return np.logical_and.reduce([np.ones(len(recommender.catalog), bool), *wanted.values()])


def find_focus(
    selection: Selection, ranked: Sequence[Recommendation], shown: Sequence[Recommendation]
) -> Recommendation:
    """The recommendation in focus: the chosen one while it is a candidate, or else the first one shown."""
    return next((line for line in ranked if line.item_index == selection.focus), shown[0])


def describe_focus(recommender: Recommender, focus: Recommendation, breakdown: "ScoreBreakdown | None") -> None:
    """The recommendation in focus: what is known of it, and its score taken apart."""
    item = focus.item_index
    about = recommender.catalog.about(item)
    with st.container(border=True, gap="xsmall"):
        st.markdown(f"**{literal(focus.title)}**, rank **{focus.rank:,}**, probability {focus.probability:.2%}")
        if about:
            st.caption(literal(about))
        if breakdown is None:
            return
        from darec.figures.score_terms import TERM_NAMES, spoken_terms

        row = breakdown.items.tolist().index(item)
        terms = " · ".join(
            f"{TERM_NAMES[term]} **{values[row]:+.2f}**" for term, values in spoken_terms(breakdown).items()
        )
        st.markdown(
            f"{terms} · score **{breakdown.score[row]:+.2f}**",
            help="Signed terms, each minus its mean over the catalogue; they sum to the score, in log-odds. One is "
            "the own score of the collaborative filtering (CF) model.",
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
    return explain_scores(
        model, history, items, collaborative=settings.collaborative, exclude_seen=settings.exclude_seen
    )


def show_terms(recommender: Recommender, breakdown: "ScoreBreakdown") -> None:
    """What the scores of the first items are made of."""
    from darec.explain.score_terms import ScoreBreakdown
    from darec.figures.score_terms import (
        TERM_MEANINGS,
        TERM_NAMES,
        score_terms_figure,
        score_terms_table,
        spoken_terms,
    )

    if len(breakdown.items) > DRAWN:
        st.caption(f"The first {DRAWN} are drawn; the CSV of the list has all.")
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
        f"Signed terms of the first items' scores: {', '.join(TERM_NAMES[term] for term in spoken_terms(first))}",
    )
    st.caption("; ".join(f"**{TERM_NAMES[term]}**: {TERM_MEANINGS[term]}" for term in spoken_terms(first)) + ".")


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
        id(model.backbone),
        selection.asked,
        selection.history,
        focus.item_index,
        settings.exclude_seen,
        settings.collaborative,
    )
    kept = st.session_state.get("effects", ((), None))
    effects: HistoryEffects | None = kept[1] if kept[0] == asked else None
    stopped = st.session_state.get("effects_stopped") == asked
    if not stopped and not (effects and effects.complete):
        place = st.empty()
        with place.container():
            drawn, bar = st.empty(), st.progress(0.0)
            st.button("Stop", icon=":material/stop:", on_click=_stop_effects_of, args=(asked,))
        try:
            for step in leave_one_out(
                model,
                selection.history,
                focus.item_index,
                collaborative=settings.collaborative,
                exclude_seen=settings.exclude_seen,
                known=effects,
            ):
                effects = step
                st.session_state["effects"] = asked, effects
                known, items = effects.known, len(effects.effects)
                with drawn:
                    growing = draw_effects(effects, titles)
                    charts.draw_figure(growing, f"effects-{known}", "leave-one-out", "Effects known so far")
                bar.progress(known / items, f"{known} of {items} items left out in turn")
        finally:
            place.empty()
    if effects and effects.complete:  # though it was stopped, perhaps, in the last step
        st.markdown(_sum_up(effects), help="In nats: +0.69 doubles the probability. Nothing reads an empty history.")
    else:
        known = effects.known if effects else 0
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"Stopped: {known} of {len(selection.history)} items left out so far.", width="stretch")
            st.button("Go on", icon=":material/resume:", on_click=_stop_effects_of, args=(None,))
    if effects is None:
        return
    charts.show_figure(
        draw_effects(effects, titles),
        effects_table(effects, titles),
        "leave-one-out",
        f"Leave-one-out effects of the history's items on {titles[focus.item_index]}",
    )


def _stop_effects_of(asked: object) -> None:
    st.session_state["effects_stopped"] = asked


def draw_effects(effects: "HistoryEffects", titles: Sequence[str]) -> go.Figure:
    """The effects, for half a page."""
    from darec.figures.effects import effects_figure

    figure = wrap_title(effects_figure(effects, titles))
    return figure.update_xaxes(title_text="change (nats)")


def _sum_up(effects: "HistoryEffects") -> str:
    return (
        f"All items but the newest change the log-probability by **{effects.total:+.3f}** together. Left out one by "
        f"one they sum to **{effects.summed:+.3f}**; the remainder, what they do only jointly, is "
        f"**{round(effects.remainder, 3) + 0.0:+.3f}**."
    )


def wrap_title(figure: go.Figure) -> go.Figure:
    """A figure whose title, where it is long, has two lines of as much as half a page holds."""
    first, *rest = wrap(figure.layout.title.text, TITLE_LETTERS).split("<br>")
    if not rest:
        return figure
    text = f"{first}<br>{rest[0]}{'…' if rest[1:] else ''}"
    # Of itself a margin makes room for one line.
    return figure.update_layout(
        title={"text": text, "automargin": False, "y": 1, "yanchor": "top", "pad_t": LINE_HEIGHT},
        margin_t=figure.layout.margin.t + LINE_HEIGHT,
    )


def list_table(
    recommender: Recommender, shown: Sequence[Recommendation], breakdown: "ScoreBreakdown | None", target: int | None
) -> pd.DataFrame:
    """The list with all that is known of it, for download: ids, attributes, probability, terms, rank with CF off."""
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
