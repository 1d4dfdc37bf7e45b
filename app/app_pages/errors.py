"""Errors: every test user's case; where the model fails, against which other model, and what it recommended instead."""

import streamlit as st

from app import case_widgets, charts, comparison_widgets, note_widgets, resources, state, widgets
from darec.evaluation.error_analysis import item_categories

recommender = widgets.page_header("Where does it fail?", "The rank of each test user's held-out item, as evaluated.")
selection = state.read_selection(recommender)
widgets.show_complaints(selection)
run = resources.list_runs()[st.session_state["run"]]
categories = item_categories(recommender.catalog)
with widgets.errors_shown():
    every_case = case_widgets.load_cases(run, recommender)
    if every_case is None:
        case_widgets.offer_ranking(run, recommender)
        st.stop()
    notes = note_widgets.read_notes(recommender)

    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        view = widgets.choose_view(
            "View", ["Cases", "Slices", "Instead", "Two models", "Explanations", "Notes"], "view"
        )
        attribute = case_widgets.choose_attribute(categories)
        cases = case_widgets.filter_cases(every_case, attribute, categories)
    if cases.empty:
        st.info("No test user is left. Widen a filter, or show all.", icon=":material/filter_list_off:")
        st.stop()

    if view == "Cases":
        case_widgets.metric_row(resources.measure_cases(cases[["rank"]]))
        left, right = st.columns([9, 5], gap="medium")
        with left:
            order = widgets.choose_view("Order", ["Hardest first", "Easiest first"], "order")
            ordered = cases.sort_values("rank", ascending=order == "Easiest first", kind="stable")
            kinds = {}
            if attribute:
                kinds[attribute.capitalize()] = [
                    ", ".join(categories[attribute][target]) for target in ordered["target"]
                ]
            counts = ordered["user_id"].map(notes["user_id"].value_counts()).fillna(0).astype(int)
            noted = ordered.assign(notes=counts, **kinds)
            case_widgets.case_table(
                noted,
                (
                    *("user_id", "rank", *(("notes",) if counts.any() else ())),
                    *("title", *kinds, "first", "history_length", "target_popularity"),
                ),
                "cases",
                "Test users with the rank of their held-out item; a selected row opens its user on all pages",
            )
            charts.download_table(case_widgets.cases_to_save(noted, recommender.catalog, notes), "cases")
        with right:
            if selection.user_id is None:
                st.info("Select a row to open its user.", icon=":material/arrow_back:")
            else:
                own = notes[notes["user_id"] == selection.user_id]
                case = case_widgets.show_case(
                    run, recommender, every_case, selection.user_id, attribute, categories, own
                )
                with st.expander(f"Notes ({len(own)})", icon=":material/edit_note:", expanded=len(own) > 0):
                    note_widgets.note_form(run, recommender, case, own)
    elif view == "Slices":
        case_widgets.show_slices(cases, categories)
    elif view == "Instead":
        case_widgets.show_instead(cases, attribute, categories)
    elif view == "Two models":
        comparison_widgets.show_comparison(run, recommender, cases, selection.user_id)
    elif view == "Explanations":
        comparison_widgets.show_explanations(run, recommender, cases, every_case)
    else:
        note_widgets.show_notes(notes, cases, recommender, selection.user_id)
