"""The app's entry: `streamlit run streamlit_app.py [-- --run DIR]`."""

import streamlit as st

from app.charts import fetch_ahead
from app.state import carry_selection
from app.widgets import page_foot, vain_link_told

st.set_page_config(page_title="DARec", page_icon="⭐", layout="wide")

pages = [
    st.Page(f"app/app_pages/{name}.py", title=name.capitalize(), icon=f":material/{icon}:", help=about)
    for name, icon, about in (
        ("recommend", "recommend", "Build a history and see how the model ranks the whole catalogue after it."),
        ("layers", "layers", "What each layer's adapters do for a history, their weights, and ranks without them."),
        ("attention", "visibility", "Hide words and see what is expected; where each head looks; the mask drawn."),
        ("errors", "troubleshoot", "Every test user's case: where the model fails, what it recommended instead."),
        ("training", "model_training", "Train a small model and watch it learn; quantize it; what each part adds."),
        ("data", "database", "The data set behind the model in numbers and pictures; your own tables; public sets."),
        ("method", "function", "The four parts of the method, with formulas and live pictures; exercises for a class."),
    )
]
page = st.navigation(pages, position="top")
carry_selection(page.url_path)
body = st.container()
fetch_ahead()  # both before the page, which takes its time, and may end the run where it has nothing more to show
page_foot()
with body, vain_link_told():
    page.run()
