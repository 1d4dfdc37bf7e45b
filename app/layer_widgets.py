"""Pieces of the Layers page: what adapters do, their weights against others', switches, and the search."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from plotly.graph_objects import Figure

from app import resources, state
from app.charts import show_figure
from app.explain_widgets import show_rank_changes
from app.state import Selection
from app.widgets import asked_to_average, choose_view, literal, metric_cards, stop_average
from darec.config import AdapterKind
from darec.errors import DataError
from darec.explain.adaption import average_weights, list_options, read_weights, switch_off
from darec.explain.averages import UserAverage
from darec.explain.layers import read_adapters
from darec.figures.adaption import weights_figure, weights_table
from darec.figures.layers import KIND_NAMES, contributions_figure, contributions_table
from darec.figures.search import (
    architecture_figure,
    architecture_table,
    best_so_far_figure,
    best_so_far_table,
    importances_figure,
    importances_table,
    pareto_figure,
    pareto_table,
    retrained_figure,
    retrained_table,
)
from darec.model.recommender import DarecModel
from darec.search.results import SEARCH, SearchResult, read_architecture
from darec.search.space import Architecture
from darec.serving import Recommender

WEIGHTING = {
    "fixed": "This model has plain adapters: their weights are fixed and equal, so every history meets the same ones.",
    "static": "This model's weights were learned, and are the same for every history.",
    "gated": "This model's weights were learned, and follow the history.",
}


def show_contributions(model: DarecModel, selection: Selection) -> None:
    """What each adapter is, and how far it moves its layer's output."""
    readings = read_adapters(model, selection.history)
    own, all_of_it = sum(reading.parameters for reading in readings), sum(p.numel() for p in model.parameters())
    metric_cards(
        [
            ("Adapters", f"{len(readings)}", None, f"In {len({reading.layer for reading in readings})} layers."),
            ("Parameters in them", f"{own:,}", None, "Trained numbers; weights and gates of the bank not counted."),
            ("Of the whole model", f"{100 * own / all_of_it:.1f} %", None, f"Of {all_of_it:,} parameters."),
        ]
    )
    show_figure(
        contributions_figure(readings, len(model.bank.layers)),
        contributions_table(readings),
        "contributions",
        "How far each layer's output moves when one of its adapters alone is switched off",
    )
    st.caption(
        "With $h$ the layer's output and $h'$ the same layer's with this adapter alone off: $|h - h'| / |h|$, the mean "
        f"over the words of this history. {WEIGHTING[model.bank.weighting]} *LoRA* is a pair of thin matrices beside a "
        "layer's linear maps: those of its attention, or of its MLP, the part that works on each word by itself. A "
        "*bottleneck* is a narrow path beside the whole layer (*parallel*) or behind it (*serial*)."
    )


# -- weights -----------------------------------------------------------------------------------------------------------


def show_weights(recommender: Recommender, model: DarecModel, selection: Selection) -> None:
    """Adaption weights of this history beside the users' average, another user's, or the pinned history's."""
    if model.bank.weighting == "fixed":
        st.info(WEIGHTING["fixed"] + " Contributions and switches still tell them apart.", icon=":material/balance:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        against = st.segmented_control(
            "Against",
            ["Users' average", "Another user", "Pinned history"],
            default="Users' average",
            required=True,
            key="against",
            bind="query-params",
        )
        if against == "Pinned history":
            other = _read_pinned(recommender, model, selection)
        else:
            other = _read_other(recommender, model) if against == "Another user" else _average_users(recommender, model)
    sides = {"this history": read_weights(model, [selection.history])[0], **other}
    options = list_options(model)
    alt = "Adaption weights of this history by layer" + "".join(f", and of {name}" for name in other)
    show_figure(weights_figure(sides, options), weights_table(sides, options), "weights", alt)
    if other:
        name, values = next(iter(other.items()))
        st.markdown(_describe_difference(sides["this history"] - values, options, name))
    st.caption(
        "How much a layer takes of each of its adapters, and of *none*: the layer as it was. A layer's weights make "
        "100 %; here they are means over the items of the history. " + WEIGHTING[model.bank.weighting]
    )


def _describe_difference(difference: np.ndarray, options: tuple[str, ...], name: str) -> str:
    layer, option = np.unravel_index(np.nanargmax(np.abs(difference)), difference.shape)
    points = 100 * difference[layer, option]
    if abs(points) < 0.05:
        return f"The weights equal those of {literal(name)}."
    called = KIND_NAMES.get(options[option], "none")
    return (
        f"Largest difference: layer {layer + 1}, {called}, **{points:+.1f}** percentage points against {literal(name)}."
    )


def _read_other(recommender: Recommender, model: DarecModel) -> dict[str, np.ndarray]:
    """The weights of another test user, by name, once there is one."""
    test = recommender.split.test

    def draw() -> None:
        st.session_state["other_user"] = random.choice(test.user_ids)

    user_id = st.text_input("Test user", key="other_user", bind="query-params", placeholder="user_id", width=180)
    st.button("Draw one", icon=":material/casino:", disabled=not len(test), on_click=draw)
    user_id = (user_id or "").strip()
    if not user_id:
        return {}
    if user_id not in test.user_ids:
        raise DataError(f"This model's data has no test user {user_id!r}. Draw one, or take one from the Errors page.")
    history = test.histories[test.user_ids.index(user_id)].tolist()
    return {f"test user {user_id}": read_weights(model, [history])[0]}


def _read_pinned(recommender: Recommender, model: DarecModel, selection: Selection) -> dict[str, np.ndarray]:
    """The weights of the pinned history, once there is one; any history can be pinned."""
    st.button(
        "Pin this history",
        icon=":material/keep:",
        disabled=selection.pinned == selection.history,
        on_click=state.pin,
        args=(recommender, selection.history),
    )
    if not selection.pinned:
        st.caption("No history is pinned. Pin this one, then change it under History.")
        return {}
    return {"the pinned history": read_weights(model, [selection.pinned])[0]}


def _average_users(recommender: Recommender, model: DarecModel) -> dict[str, np.ndarray]:
    """The mean over test users drawn at random, always the same ones; what is done stays when it is stopped."""
    test = recommender.split.test
    users = st.selectbox(
        "Users, at most", (20, 50, 100, 200), 1, key="averaged_weights", bind="query-params", width=140
    )
    link = (st.session_state["run"], recommender.info["data_fingerprint"], users)
    asked = (*link, id(model.backbone))  # a run can be written anew under its name
    found: tuple[Any, UserAverage | None] = st.session_state.get("average weights", ((), None))
    is_whole = found[0] == asked and found[1] is not None and found[1].users == found[1].total
    if asked_to_average(*link, disabled=not len(test)) and not is_whole:
        drawn = random.Random(0).sample(range(len(test)), min(users, len(test)))
        bar = st.progress(0.0, width=260)
        stop_average()
        for average in average_weights(model, [test.histories[place].tolist() for place in drawn]):
            st.session_state["average weights"] = asked, average
            bar.progress(average.users / average.total, f"{average.users} of {average.total} users")
        st.rerun()
    if found[0] != asked or found[1] is None:
        st.caption(
            "*Average* reads so many users' histories, and puts the mean of their weights beside this history's."
        )
        return {}
    return {f"average of {found[1].users} test users": found[1].mean()}


# -- switches ----------------------------------------------------------------------------------------------------------


def keep_switches() -> None:
    """After a change of page, switch off what was off here with this model, unless the link says something else."""
    run, (kept_run, kept) = st.session_state["run"], st.session_state.get("switched off", ("", ""))
    if st.session_state["arrived"] and not st.query_params.get_all("off") and kept and kept_run == run:
        st.query_params["off"] = kept
    st.session_state["switched off"] = run, st.query_params.get("off", "")


def switched_off(model: DarecModel) -> list[tuple[int, AdapterKind]]:
    """The adapters that the link switches off; those that this model has not are named and left out."""
    asked = list(filter(None, st.query_params.get("off", "").split("~")))
    names = {
        f"{layer + 1}.{adapter.kind}": (layer, adapter.kind)
        for layer, adapters in enumerate(model.bank.layers)
        for adapter in adapters
    }
    if unknown := [name for name in asked if name not in names]:
        st.warning(
            literal(f"This model has no adapter {', '.join(unknown)} to switch off."), icon=":material/link_off:"
        )
    return [adapter for name, adapter in names.items() if name in asked]


def show_switches(recommender: Recommender, model: DarecModel, selection: Selection) -> None:
    """Switches of adapters and of whole layers on the left, ranks on the right."""
    grid = st.grid(2, min_column_width=440, gap="large")
    with grid.cell():
        off = _choose_switches(model)
    with grid.cell():
        if not off:
            st.info("Every adapter is at work. Click one on the left to switch it off.", icon=":material/touch_app:")
            return
        before, after = switch_off(model, selection.history, off)
        st.markdown(":orange-badge[:material/power_settings_new: Switched off, not retrained]")
        count = f"{len(off)} {'adapter' if len(off) == 1 else 'adapters'}"
        show_rank_changes(recommender, selection, before, after, f"switching off {count}")
        st.caption(
            "Only for what you see here: nobody else's model changes. A model trained without these adapters may rank "
            "otherwise. Titles of the catalogue stay encoded as they are; only the reading of the history changes."
        )


def _choose_switches(model: DarecModel) -> list[tuple[int, AdapterKind]]:
    off = switched_off(model)

    def keep(gone: list[tuple[int, AdapterKind]]) -> None:
        if gone:
            st.query_params["off"] = "~".join(f"{layer + 1}.{kind}" for layer, kind in sorted(gone))
        else:
            st.query_params.pop("off", None)

    def flip(layer: int, own: list[AdapterKind]) -> None:
        others = [entry for entry in off if entry[0] != layer]
        keep([*others, *((layer, kind) for kind in own if kind not in st.session_state[f"layer {layer}"])])

    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Click an adapter** to switch it off or on.", width="stretch")
        st.button("All on", type="tertiary", disabled=not off, on_click=keep, args=([],))
    bare: list[str] = []
    for layer, adapters in reversed(list(enumerate(model.bank.layers))):
        own = [adapter.kind for adapter in adapters]
        if not own:
            bare.insert(0, str(layer + 1))
            continue
        names = {adapter.kind: f"{KIND_NAMES[adapter.kind]}, {adapter.size}" for adapter in adapters}
        gone = [kind for kind in own if (layer, kind) in off]
        others = [entry for entry in off if entry[0] != layer]
        with st.container(gap="xxsmall"):
            head = st.container(horizontal=True, vertical_alignment="center")
            head.markdown(f"**Layer {layer + 1}**", width="stretch")
            st.session_state[f"layer {layer}"] = [kind for kind in own if kind not in gone]
            st.pills(
                f"Layer {layer + 1}",
                own,
                selection_mode="multi",
                format_func=names.__getitem__,
                key=f"layer {layer}",
                on_change=flip,
                args=(layer, own),
                label_visibility="collapsed",
                wrap=True,
            )
            head.button(
                f"Layer {layer + 1} {'on' if len(gone) == len(own) else 'off'}",
                icon=":material/power_settings_new:",
                key=f"power {layer}",
                type="tertiary",
                on_click=keep,
                args=(others if len(gone) == len(own) else [*others, *((layer, kind) for kind in own)],),
            )
    without = f" No adapters: layer {', '.join(bare)}." if bare else ""
    st.caption("The highest layer on top. Filled is at work; the number is the rank or width." + without)
    return off


# -- search ------------------------------------------------------------------------------------------------------------


def comes_from_search(run: Path) -> bool:
    """Whether the adapters of a run were found by a search, whose trials it keeps."""
    return (run / SEARCH).is_file()


def show_search(run: Path) -> None:
    """One picture of the search that chose this model's adapters."""
    result = resources.load_search(run)
    view = choose_view("Of the search", list(SEARCH_VIEWS), "search_view")
    draw, tabulate, meaning = SEARCH_VIEWS[view]
    show_figure(draw(result), tabulate(result), f"search-{view.split()[0].casefold()}", meaning)
    st.caption(
        f"{meaning} The supernet is one model, trained once, whose weights all candidates share; in it each is tried "
        "without a training of its own. Trained alone, they may come in another order: *Trained alone* tells of a few."
    )


def _winner(result: SearchResult) -> Architecture:
    """The architecture that was chosen in the end."""
    return read_architecture(result.retrained.loc[result.retrained["winner"], "architecture"].iloc[0])


SEARCH_VIEWS: dict[str, tuple[Callable[[SearchResult], Figure], Callable[[SearchResult], pd.DataFrame], str]] = {
    "Best so far": (
        best_so_far_figure,
        best_so_far_table,
        "The lowest cross-entropy after each trial, against random search and uniform LoRA; lower is better.",
    ),
    "Quality and size": (
        pareto_figure,
        pareto_table,
        "Every trial by cross-entropy and parameters; the line joins those that no other of the search beats in both.",
    ),
    "What mattered": (
        importances_figure,
        importances_table,
        "How much of the trials' differences the choice made in each layer explains alone.",
    ),
    "Chosen adapters": (
        lambda result: architecture_figure(_winner(result)),
        lambda result: architecture_table(_winner(result)),
        "The adapters that each layer got in the end, as large as their size.",
    ),
    "Trained alone": (
        retrained_figure,
        retrained_table,
        "The best of the search and its controls, each trained alone for as many epochs; the search's best was chosen. "
        "Each was trained once: a small difference may be the seed's.",
    ),
}
