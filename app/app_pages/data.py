"""Data: the set behind the model, one's own tables, public sets."""

import streamlit as st

from app import data_widgets, intake_widgets, widgets

recommender = data_widgets.open_page()
view = widgets.choose_view("View", ["This data set", "Load your own", "Public sets"], "data")
if view == "Load your own":
    intake_widgets.load_own()
elif view == "Public sets":
    intake_widgets.fetch_public()
else:
    with widgets.errors_shown():
        shown = data_widgets.choose_data(recommender)
        if shown is None:
            data_widgets.explain_no_data()
            st.stop()
        data_widgets.show_numbers(shown)
        data_widgets.show_charts(shown)
        data_widgets.show_parts(shown)
        data_widgets.show_sequences(shown)
