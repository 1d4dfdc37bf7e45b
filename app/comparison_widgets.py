"""Cases of two models, or averaged explanations of some users against others."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import streamlit as st

from app import charts, resources
from app.case_widgets import case_table, fingerprint_cases, load_cases, offer_ranking, point_to_pages
from app.widgets import asked_to_average, choose_run, errors_shown, literal, metric_cards, stop_average
from darec.evaluation.error_analysis import identify_run
from darec.figures.evaluation import wins_and_losses_figure, wins_and_losses_table
from darec.serving import Recommender

if TYPE_CHECKING:
    from darec.explain.averages import UserAverage
    from darec.model.recommender import DarecModel

AVERAGED = {  # axis titles
    "Score terms": "score above the mean (log-odds)",
    "Attention": "share of attention (0 to 1)",
    "Adaption weights": "weight (0 to 1)",
}


def show_comparison(run: Path, recommender: Recommender, cases: pd.DataFrame, user_id: str | None) -> None:
    """Two runs, case by case: wins, losses, what it amounts to, the largest losses; `user_id` is whose case is open."""
    others = resources.comparable_runs(run, recommender)
    if not others:
        st.info("There is no other run on the same data. Train one, or add it by `--run`.", icon=":material/compare:")
        return
    name = choose_run("Against", "compared", others, width=400)
    this, other = (resources.label_run(*own) for own in ((st.session_state["run"], run), (name, others[name])))
    other_cases = load_cases(others[name], recommender)
    if other_cases is None:
        offer_ranking(others[name], resources.load_recommender(others[name]))
        return
    compared = resources.pair_cases(cases.drop(columns="top_items"), other_cases.drop(columns="top_items"))
    low, high, mean = compared.ndcg["low"], compared.ndcg["high"], compared.ndcg["mean"]
    if low <= 0 <= high:
        verdict = "its interval holds 0, so neither is clearly better"
    else:
        verdict = f"this model is clearly {'better' if mean > 0 else 'worse'} on these users"
    shares = {"Wins": compared.wins, "Losses": compared.losses, "Ties": compared.ties}
    by_rank = "By the rank of the held-out item."
    of_pairs = "This model minus the other, paired by user, with its 95 % bootstrap interval."
    metric_cards(
        [
            *(
                (label, f"{count:,}", f"{count / max(1, len(cases)):.1%} of users", by_rank)
                for label, count in shares.items()
            ),
            ("NDCG@10, mean difference", f"{mean:+.4f}", f"{low:+.4f} to {high:+.4f}", of_pairs),
        ]
    )
    st.markdown(
        f"NDCG@10: {verdict}. Among the first 10 only here: **{compared.hits_gained:,}** users; only with "
        f"{literal(other)}: **{compared.hits_lost:,}**. The table begins with the largest losses."
    )
    left, right = st.columns([2, 3], gap="medium")
    theirs = compared.pairs.assign(rank=compared.pairs["other_rank"])
    with left:
        charts.show_figure(
            wins_and_losses_figure(compared.pairs, theirs, (this, other)),
            wins_and_losses_table(compared.pairs, theirs, (this, other)),
            "wins-and-losses",
            f"Each user's rank with this model against the rank with {other}",
        )
    with right:
        columns_shown = ("user_id", "rank", "other_rank", "title", "first", "history_length", "target_popularity")
        case_table(compared.pairs, columns_shown, f"pairs-{name}", f"Cases of this model and of {other}, losses first")
        point_to_pages(user_id)
        charts.download_table(compared.pairs.drop(columns="target"), f"against-{name}")


def show_explanations(run: Path, recommender: Recommender, cases: pd.DataFrame, every_case: pd.DataFrame) -> None:
    """Score terms, attention shares or adaption weights, averaged over the users shown and over the others."""
    if recommender.kind != "darec":
        st.info(
            "Only a DARec run has attention, score terms and adaption weights to average. Pick one above.",
            icon=":material/layers:",
        )
        return
    others = every_case[~every_case["user_id"].isin(cases["user_id"])]
    if len(others):
        groups = {"these users": cases, "the others": others}
    else:
        groups = {"found": cases[cases["hit"]], "missed": cases[~cases["hit"]]}
    groups = {name: group for name, group in groups.items() if len(group)}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        quantity = st.segmented_control(
            "Averaged",
            list(AVERAGED),
            default="Score terms",
            required=True,
            key="averaged",
            bind="query-params",
            help="Terms of the held-out item's score, centred over the catalogue, one of them from collaborative "
            "filtering (CF) alone; where a layer's attention goes; or how much each of its adapters takes part.",
        )
        users = st.selectbox(
            "Users of each side, at most", (20, 50, 100, 200), 1, key="averaged_users", bind="query-params", width=220
        )
        prints = [f"{name}: {fingerprint_cases(group)}" for name, group in groups.items()]
        started = asked_to_average(st.session_state["run"], quantity, users, *prints)
    st.caption(
        "Filter for a slice; it is set against all other users. Without a filter: those whose held-out item is among "
        "the first 10, against the missed. Users are drawn at random, always the same ones."
    )
    asked = (identify_run(run), quantity, users, *prints)
    found, averages = st.session_state.get("averages", ((), {}))
    if started and found != asked:
        bar = st.progress(0.0)
        stop_average()
        averages = {}
        with errors_shown():
            for name, group in groups.items():
                drawn = group.sample(min(users, len(group)), random_state=0)
                for averages[name] in _average(recommender, quantity, drawn):
                    done, total = averages[name].users, averages[name].total
                    bar.progress(done / total, f"{name}: {done} of {total} users")
            st.session_state["averages"] = asked, averages
            st.rerun()
    if found == asked:
        from darec.figures.adaption import weights_figure
        from darec.figures.averages import averages_figure, averages_table

        if quantity == "Adaption weights":
            sides = {f"{name} (n = {average.users})": average.mean() for name, average in averages.items()}
            figure = weights_figure(sides, next(iter(averages.values())).names)
        else:
            figure = averages_figure(averages, f"{quantity}: {' and '.join(groups)}", AVERAGED[quantity])
        charts.show_figure(
            figure,
            averages_table(averages).dropna(ignore_index=True),  # a layer need not have every kind of adapter
            "averages",
            f"{quantity} averaged over {' and over '.join(groups)}",
        )
        if quantity == "Adaption weights":
            st.caption("The numbers have each mean's 95 % bootstrap interval over users.")
        if quantity == "Attention":
            from darec.explain.attention import own_mask

            mask = own_mask(cast("DarecModel", recommender.scorer))
            st.caption(f"Read under the {mask} mask, as this model reads when it recommends.")


def _average(recommender: Recommender, quantity: str, cases: pd.DataFrame) -> "Iterator[UserAverage]":
    # With torch, which takes seconds to import: the page is drawn before that.
    from darec.explain.adaption import average_weights
    from darec.explain.averages import average_attention_shares, average_score_terms

    model = cast("DarecModel", recommender.scorer)
    test = recommender.split.test
    places = {user_id: place for place, user_id in enumerate(test.user_ids)}
    chosen = test.subset(np.array([places[user_id] for user_id in cases["user_id"]]))
    histories = [history.tolist() for history in chosen.histories]
    if quantity == "Attention":
        return average_attention_shares(model, histories)
    if quantity == "Adaption weights":
        return average_weights(model, histories)
    return average_score_terms(model, histories, chosen.targets.tolist(), asked=chosen.asked)
