"""Attention: words of the history to hide by a click, where each head looks, items among items, the mask itself."""

import streamlit as st

from app import attention_widgets, explain_widgets, widgets

recommender, model, selection = explain_widgets.open_page(
    "Where does it look?", "Hide words of the history and see what is expected there; follow attention head by head."
)
attention_widgets.keep_hidden_words(model, selection)
view = widgets.choose_view(
    "View", ["Hidden words", "One head", "All heads", "Items", "Shares", "Mask"], "attention_view"
)
with widgets.errors_shown():
    if view == "Hidden words":
        attention_widgets.show_hidden_words(recommender, model, selection)
    else:
        attention_widgets.show_pass(recommender, model, selection, view)
    st.caption(
        "Attention says where a layer looks, not what a recommendation rests on: for that, leave items out on the "
        "Recommend page."
    )
