"""The app's entry: `streamlit run streamlit_app.py [-- --run DIR]`."""

import streamlit as st

from app.state import carry_selection

st.set_page_config(page_title="DARec", page_icon="⭐", layout="wide")

pages = [
    st.Page(
        "app/app_pages/recommend.py",
        title="Recommend",
        icon=":material/recommend:",
        help="Build a history and see how the model ranks the whole catalogue for what comes next.",
    ),
]
page = st.navigation(pages, position="top")
carry_selection(page.url_path)
page.run()
