"""Recommend: build a history, see how the model ranks the whole catalogue for what comes next."""

import streamlit as st

from app import state, widgets

recommender = widgets.page_header("What comes next?", "Build a history; the model ranks every item of the catalogue.")
selection = state.read_selection(recommender)
for complaint in selection.complaints:
    st.warning(complaint, icon=":material/link_off:")

left, right = st.columns([5, 7], gap="large")
with left:
    widgets.history_editor(recommender, selection)

with right:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Recommendations", anchor=False, width="stretch")
        k = st.number_input(
            "How many",
            min_value=1,
            max_value=len(recommender.catalog),
            value=min(10, len(recommender.catalog)),
            key="k",
            bind="query-params",
            width=130,
            label_visibility="collapsed",
        )
    exclude_seen = st.toggle("Leave out seen items", value=True, key="exclude_seen", bind="query-params")
    if not selection.history:
        st.info("Search for a title on the left, or draw a test user.", icon=":material/arrow_back:")
        st.stop()
    with widgets.errors_shown():
        ranked = recommender.recommend(selection.history, k=len(recommender.catalog), exclude_seen=exclude_seen)
        st.caption(widgets.describe_target(recommender, selection, ranked))
        widgets.ranked_list(recommender, ranked, k, selection.target)
