"""A vote among five items before the list is shown: predict, then reveal."""

import random
from collections.abc import Sequence

import streamlit as st

from app.recommend_widgets import ListSettings, wanted_items
from app.state import Selection
from app.widgets import literal
from darec.data.catalog import History
from darec.serving import Recommendation, Recommender

CANDIDATES = 5  # in a vote, the model's first among them
VOTED_AMONG = 100  # ranks from which the other candidates are drawn


def draw_candidates(history: History, ranked: Sequence[Recommendation]) -> list[Recommendation]:
    """The model's first and up to four others of its first hundred, in an order that depends on the history alone."""
    generator = random.Random(repr(tuple(history)))
    others = generator.sample(ranked[1:VOTED_AMONG], min(CANDIDATES - 1, len(ranked[1:VOTED_AMONG])))
    candidates = [ranked[0], *others]
    generator.shuffle(candidates)
    return candidates


def vote_first(
    recommender: Recommender, selection: Selection, ranked: Sequence[Recommendation], settings: ListSettings
) -> bool:
    """A vote among five items before the list is shown; returns whether it has been revealed.

    Votes and whether they were revealed are of this session and these five: another history, or another list after the
    same one, is hidden again.
    """
    wanted = wanted_items(recommender, settings)
    candidates = draw_candidates(selection.history, [line for line in ranked if wanted[line.item_index]])
    asked = (st.session_state["run"], selection.history, [line.item_index for line in candidates])
    if st.session_state.get("vote_on") != asked:
        st.session_state.update(vote_on=asked, votes=[0] * len(candidates), revealed=False)
    votes: list[int] = st.session_state["votes"]

    def count(place: int) -> None:
        votes[place] += 1

    if not st.session_state["revealed"]:
        st.markdown("**What comes next?** One of these the model ranks before all others. Each click is a vote.")
        for place, line in enumerate(candidates):
            with st.container(horizontal=True, vertical_alignment="center", key=f"candidate-{place}"):
                st.button(literal(line.title), key=f"vote-{place}", on_click=count, args=(place,), width="stretch")
                st.markdown(f"**{votes[place]}**", width=40)
        st.button(
            "Reveal",
            icon=":material/visibility:",
            type="primary",
            on_click=lambda: st.session_state.update(revealed=True),
        )
        return False
    right = min(range(len(candidates)), key=lambda place: candidates[place].rank)
    voters = sum(votes)
    told = f"**{votes[right]} of {voters}** votes went to it" if voters else "nobody has voted"
    ranks = " · ".join(
        f"{literal(line.title)} rank {line.rank:,} ({votes[place]})" for place, line in enumerate(candidates)
    )
    with st.container(border=True, gap="xsmall"):
        st.markdown(f"First of the model's list is **{literal(candidates[right].title)}**; {told}.")
        st.caption(f"{ranks}; votes in brackets")
        st.button("Vote again", type="tertiary", on_click=lambda: st.session_state.pop("vote_on"))
    return True
