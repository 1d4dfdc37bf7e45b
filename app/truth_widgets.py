"""What a simulated viewer truly likes, beside what the model believes; only the demo's world has such a truth."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from app import charts, resources
from app.state import Selection
from app.widgets import literal
from darec.explain.beliefs import LIST, compare_beliefs
from darec.figures.beliefs import beliefs_figure
from darec.serving import Recommendation, Recommender


def has_truth(recommender: Recommender, selection: Selection) -> bool:
    """Whether the history is that of a simulated viewer, as she left it."""
    return (
        selection.user_id is not None
        and selection.history == selection.user_history
        and resources.is_simulated(recommender.info)
    )


def show_truth(recommender: Recommender, selection: Selection, ranked: Sequence[Recommendation]) -> None:
    """The viewer's tastes in words, and the films that are likeliest in truth and in the model's view."""
    assert selection.user_id is not None
    believed = np.full(len(recommender.catalog), np.nan)
    for line in ranked:
        believed[line.item_index] = line.probability
    truth = resources.load_truth(resources.list_runs()[st.session_state["run"]])
    position = len(selection.user_history)
    beliefs = compare_beliefs(believed, recommender.catalog.titles, truth, selection.user_id, position)
    tastes = "".join(f"\n- {literal(part)}" for part in beliefs.tastes.split("; "))
    st.markdown(f"This simulated viewer\n{tastes}")
    st.caption(
        f"Of the {LIST} films that they were truly likeliest to choose next, the model has {beliefs.agreed} among its "
        f"first {LIST}. No model could know all of it: the mood of the moment and a taste that has just moved are in "
        "no history."
    )
    charts.show_figure(
        beliefs_figure(beliefs),
        beliefs.table.drop(columns="item").set_index("title"),
        "truth",
        f"How likely films are to be chosen next by {selection.user_id}, truly and in the model's view",
    )
