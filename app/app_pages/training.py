"""Training: start a small training and watch it learn; stop it, go on, quantize; what 4 bits and each part change."""

import streamlit as st

from app import ablation_widgets, four_bit_widgets, training_resources, training_widgets, widgets

training_widgets.open_page(
    "Watch it learn",
    "Train a model right here. It runs beside the app, goes on when you change the page, and ends with the app.",
)
jobs = training_resources.open_jobs()
view = widgets.choose_view("View", ["Train", "Four bits", "What each part adds"], "training_view")
if view == "Train":
    left, right = st.columns([4, 8], gap="large")
    with left:
        training_widgets.choose_training(jobs)
    with right:
        training_widgets.watch(jobs)
elif view == "Four bits":
    four_bit_widgets.show_four_bits()
else:
    ablation_widgets.show_ablations()
