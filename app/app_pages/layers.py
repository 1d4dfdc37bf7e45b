"""Layers: what the adapters of each layer do for this history, their weights, and ranks with some of them off."""

import streamlit as st

from app import explain_widgets, layer_widgets, resources, widgets

recommender, model, selection = explain_widgets.open_page(
    "What does each layer add?",
    "What the adapters of every layer do while this history is read, and how items rank without them.",
)
if not model.plan:
    st.info("This model was trained without adapters. Pick another above.", icon=":material/layers_clear:")
    st.stop()
layer_widgets.keep_switches()
run = resources.list_runs()[st.session_state["run"]]
views = ["Contributions", "Weights", "Switch off"]
view = widgets.choose_view("View", [*views, "Search"] if layer_widgets.comes_from_search(run) else views, "layers_view")
with widgets.errors_shown():
    if view == "Contributions":
        layer_widgets.show_contributions(model, selection)
    elif view == "Weights":
        layer_widgets.show_weights(recommender, model, selection)
    elif view == "Search":
        layer_widgets.show_search(run)
    else:
        layer_widgets.show_switches(recommender, model, selection)
