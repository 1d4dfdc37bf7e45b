"""What each part of the method adds, on the Training page."""

import pandas as pd
import streamlit as st

from app import training_resources
from app.widgets import NO_EVIDENCE


def show_ablations() -> None:
    """What each part of the method adds: the shipped variants, and the runs here that are ranked."""
    shipped, own = training_resources.shipped_table(), training_resources.ranked_table()
    if shipped is not None:
        st.subheader("The shipped DARec, and what it is compared with", anchor=False)
        st.caption(
            f"Trained on a world of simulated viewers: it shows what the method can do. {NO_EVIDENCE} "
            "The ceiling is an oracle that knows what each viewer likes. "
            "*DARec minus it* compares user by user, with a 95 % interval: where it holds 0, neither is clearly better."
        )
        _show_ranking(shipped, "Shipped models")
    if not own.empty:
        st.subheader("Runs here", anchor=False)
        st.caption("Every run of your own that has ranked its test users. Compare only within the same data.")
        _show_ranking(own, "Runs here")
    if shipped is None and own.empty:
        st.info("No run has ranked its test users yet. Do that on the Errors page.", icon=":material/leaderboard:")


def _show_ranking(table: pd.DataFrame, alt: str) -> None:
    number = st.column_config.NumberColumn(format="%.4f")
    bar = st.column_config.ProgressColumn(format="%.4f", min_value=0.0, max_value=float(table["NDCG@10"].max()))
    columns = {"NDCG@10": bar, "from": number, "to": number, "HR@10": number}
    st.dataframe(table, hide_index=True, height="content", column_config=columns, alt=alt)
    st.caption("Test users, seen items left out; from and to bound the 95 % interval of NDCG@10.")
