"""Data: the set behind the model, one's own tables, public sets."""

import streamlit as st

from app import data_widgets
from app.widgets import errors_shown

recommender = data_widgets.open_page()
view = st.segmented_control(
    "View",
    ["This data set", "Load your own", "Public sets"],
    default="This data set",
    required=True,
    key="data",
    bind="query-params",
    label_visibility="collapsed",
)
if view == "Load your own":
    data_widgets.load_own()
elif view == "Public sets":
    data_widgets.fetch_public()
else:
    with errors_shown():
        shown = data_widgets.choose_data(recommender)
        if shown is None:
            data_widgets.explain_no_data()
            st.stop()
        data_widgets.show_numbers(shown)
        data_widgets.show_charts(shown)
        data_widgets.show_parts(shown)
        data_widgets.show_sequences(shown)
