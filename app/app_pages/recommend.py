"""Recommend: build a history, see how the model ranks the whole catalogue for what comes next, and why."""

import streamlit as st

from app import (
    change_widgets,
    charts,
    history_widgets,
    paste_widgets,
    recommend_widgets,
    resources,
    side_by_side_widgets,
    state,
    truth_widgets,
    vote_widgets,
    widgets,
)

recommender = widgets.page_header("What comes next?", "Build a history; the model ranks every item of the catalogue.")
selection = state.read_selection(recommender)
recommender = recommender.asked(selection.asked)
model = recommend_widgets.explained_model(recommender)
widgets.show_complaints(selection)

left, right = st.columns([4, 9], gap="medium")
with left:
    history_widgets.history_editor(recommender, selection, paste_widgets.paste_titles)

with right:
    settings, vote = recommend_widgets.choose_settings(recommender, model)
    if not selection.history:
        st.info("Search for a title on the left, or draw a test user.", icon=":material/arrow_back:")
        st.stop()
    with widgets.errors_shown():
        ranked = recommend_widgets.rank_items(recommender, model, selection.history, settings, selection.target)
        shown = recommend_widgets.first_of(recommender, ranked, settings)
        if not shown:
            st.info("No candidate is of these categories. Choose others.", icon=":material/filter_list_off:")
            st.stop()
        if vote and not vote_widgets.vote_first(recommender, selection, ranked, settings):
            st.stop()
        st.caption(widgets.describe_target(recommender, selection, ranked))
        if not settings.collaborative:
            st.caption(
                "Collaborative knowledge is switched off, not retrained: the model ranks by the items' words and "
                "popularity."
            )
        views = ["List", "Score terms", "Why this one", state.WHAT_IF, "Compare"] if model else ["List", "Compare"]
        views += ["Truth"] if truth_widgets.has_truth(recommender, selection) else []
        view = widgets.choose_view("View", views, "panel", wrap=True)
        focus = recommend_widgets.find_focus(selection, ranked, shown)
        if view == "Compare":
            run = resources.list_runs()[st.session_state["run"]]
            side_by_side_widgets.compare_lists(run, recommender, selection, ranked, settings)
        elif view == "Truth":
            truth_widgets.show_truth(recommender, selection, ranked)
        elif view == state.WHAT_IF and model:
            change_widgets.show_changes(recommender, model, selection, shown, settings)
        elif view == "Why this one" and model:
            recommend_widgets.choose_focus(recommender, selection, focus, shown)
            recommend_widgets.show_effects(recommender, model, selection, focus, settings)
        else:
            breakdown = recommend_widgets.explain_list(model, selection.history, shown, focus, settings)
            if view == "Score terms" and breakdown:
                recommend_widgets.choose_focus(recommender, selection, focus, shown)
                recommend_widgets.describe_focus(recommender, focus, breakdown)
                recommend_widgets.show_terms(recommender, breakdown)
            else:
                widgets.ranked_list(recommender, shown, selection.target, breakdown)
                recommend_widgets.describe_focus(recommender, focus, breakdown)
                table = recommend_widgets.list_table(recommender, shown, breakdown, selection.target)
                charts.download_table(table, "recommendations")
