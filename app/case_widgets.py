"""Pieces of the Errors page: filters, metrics, slices, the table of cases, one case."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from app import charts, resources, state
from app.widgets import NO_EVIDENCE, literal, metric_cards, widen
from darec.data.catalog import Catalog
from darec.data.overview import read_report
from darec.evaluation.error_analysis import (
    Categories,
    identify_run,
    items_in,
    listed_items,
    recommended_instead,
    select_cases,
    write_ranks,
)
from darec.evaluation.protocol import rank_cases
from darec.export import write_case_report
from darec.figures.categories import categories_figure, instead_figure
from darec.figures.evaluation import slices_figure, slices_table
from darec.runs import part_of
from darec.serving import Recommender

RANKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
RECENT = 5  # items of the history shown with a case

OTHER_PAGES = (  # file, label, icon
    ("recommend", "Open in Recommend", "recommend"),
    ("layers", "Layers", "layers"),
    ("attention", "Attention", "visibility"),
)


CASE_COLUMNS: dict[str, Any] = {
    "author": st.column_config.TextColumn("By", width=80),
    "run_name": st.column_config.TextColumn("Run", width=90),
    "tags": st.column_config.MultiselectColumn("Tags", width=150),
    "note": st.column_config.TextColumn("Note", width=300),
    "written_at": st.column_config.DatetimeColumn("Written", width=120, format="YYYY-MM-DD HH:mm"),
    "user_id": st.column_config.TextColumn("User", width=95),
    "rank": st.column_config.NumberColumn(
        "Rank", width=53, format="localized", help="Of the held-out item, seen items left out. 1 is best."
    ),
    "other_rank": st.column_config.NumberColumn(
        "Other's", width=60, format="localized", help="The rank that the other run gives it."
    ),
    "title": st.column_config.TextColumn("Held-out item", width=142),
    "first": st.column_config.TextColumn("Recommended first", width=144),
    "history_length": st.column_config.NumberColumn("History", width=58, help="Items in the user's history."),
    "target_popularity": st.column_config.NumberColumn(
        "Popular", width=62, help="Training interactions of the held-out item; cold means fewer than 5."
    ),
    "notes": st.column_config.NumberColumn("Notes", width=50, help="How many notes there are on this user."),
}
ATTRIBUTE: Any = st.column_config.TextColumn(width=102)  # as genres


def load_cases(run: Path, recommender: Recommender) -> pd.DataFrame | None:
    """The cases of a run, or an offer to rank its test users first."""
    cases = resources.load_cases(run, recommender)
    return st.session_state.get(f"cases {identify_run(run)}") if cases is None else cases


def offer_ranking(run: Path, recommender: Recommender) -> None:
    """A button that ranks every test user, with progress and a way to stop."""
    users = len(recommender.split.test)
    with st.container(border=True):
        st.subheader("Not ranked yet", anchor=False)
        st.markdown(
            f"{literal(recommender.name)} has not answered its {users:,} test users. That takes seconds to about a "
            "minute here, and is kept for the next time. The same from a terminal:"
        )
        st.code(f"python -m darec evaluate {run} --out metrics.json", language="bash")
        if not st.button(f"Rank {users:,} test users", icon=":material/play_arrow:", type="primary"):
            return
        bar = st.progress(0.0, "Starting …")
        st.button("Stop", icon=":material/stop:")  # any click ends the run of the page at its next sign of progress

        def advance(done: int, total: int) -> None:
            bar.progress(done / total, f"{done:,} of {total:,} users")

        ranks = rank_cases(
            recommender.scorer,
            recommender.split,
            "test",
            on_progress=advance,
        )
        if write_ranks(run, ranks) is None:
            st.session_state[f"cases {identify_run(run)}"] = resources.list_cases(ranks, recommender.catalog)
        st.rerun()


def choose_attribute(categories: Mapping[str, Categories]) -> str:
    """By which attribute items are grouped in the filter, a case and Instead; empty where they have none."""
    if len(categories) < 2:
        return next(iter(categories), "")
    return st.selectbox(
        "Attribute",
        list(categories),
        key="attribute",
        bind="query-params",
        format_func=lambda name: f"By {name}",
        label_visibility="collapsed",
        width=150,
    )


def filter_cases(cases: pd.DataFrame, attribute: str, categories: Mapping[str, Categories]) -> pd.DataFrame:
    """The cases that the filters leave, for a row of its own on the page; the filters live in the URL."""
    longest, most = max(2, int(cases["history_length"].max())), max(1, int(cases["target_popularity"].max()))
    worst = max(2, int(cases["rank"].max()))
    whole: dict[str, Any] = {
        "length": (1, longest),
        "popularity": (0, most),
        "ranks": (1, worst),
        "cold": None,
        "category": [],
    }
    with st.popover("Filter", icon=":material/filter_list:"):
        steps = [*(rank for rank in RANKS if rank < worst), worst]
        rank = st.select_slider("Rank of the held-out item", steps, (1, worst), key="ranks", bind="query-params")
        length = st.slider("History length, items", 1, longest, (1, longest), key="length", bind="query-params")
        popularity = st.slider(
            "Popularity of the held-out item, training interactions",
            0,
            most,
            (0, most),
            key="popularity",
            bind="query-params",
        )
        cold = st.segmented_control(
            "Held-out items",
            ["cold", "known"],
            key="cold",
            bind="query-params",
            help="A cold item has fewer than 5 training interactions.",
        )
        names: list[str] = []
        if attribute:
            known = sorted({name for own in categories[attribute] for name in own})
            label = f"Held-out item's {attribute}"
            names = st.multiselect(label, known, key="category", bind="query-params")
    chosen = select_cases(
        cases,
        history_length=(min(length), max(length)),  # a link may have the ends of a range the other way round
        target_popularity=(min(popularity), max(popularity)),
        rank=(min(rank), max(rank)),
        cold=None if cold is None else cold == "cold",
        targets=items_in(categories[attribute], names) if attribute and names else None,
    )
    if len(chosen) < len(cases):
        st.markdown(f"**{len(chosen):,}** of {len(cases):,} test users", width="content")
        st.button("Show all", type="tertiary", on_click=lambda: st.session_state.update(whole))
    else:
        st.markdown(f"All **{len(cases):,}** test users", width="content")
    return chosen


def metric_row(summary: Mapping[str, Any]) -> None:
    """HR@10, NDCG@10 and MRR with their intervals, and the median rank."""
    explained = {
        "hr@10": ("HR@10", "Share of users whose held-out item is among the first 10."),
        "ndcg@10": ("NDCG@10", "As HR@10, but a higher place counts more: 1 / log2(rank + 1)."),
        "mrr": ("MRR", "Mean of 1 / rank."),
    }
    interval = "Below it the 95 % bootstrap interval over users."
    half = "Half of these users have their held-out item at this rank or better."
    cards = []
    for name, (label, meaning) in explained.items():
        value = summary[name]
        within = f"{value['low']:.4f} to {value['high']:.4f}"
        cards.append((label, f"{value['mean']:.4f}", within, f"{meaning} {interval}"))
    metric_cards([*cards, ("Median rank", f"{summary['median_rank']:,.0f}", f"{summary['users']:,} users", half)])


def case_table(cases: pd.DataFrame, columns: Sequence[str], name: str, alt: str) -> None:
    """Cases, a row of which opens its user on all pages.

    Args:
        cases: what to show.
        columns: of `CASE_COLUMNS`, or others under their own names, in order.
        name: of the table.
        alt: what the table is, for those who do not see it.
    """
    # Rows are selected by their place, so other cases, or the same in another order, are another table.
    key = f"{name}-{fingerprint_cases(cases)}-{cases['user_id'].iat[0]}"
    st.dataframe(
        cases[list(columns)],
        hide_index=True,
        height=min(640, 35 * (len(cases) + 1) + 2),
        key=key,
        on_select=lambda: _open_row(cases, key),
        selection_mode="single-row",
        column_config=widen({column: CASE_COLUMNS.get(column, ATTRIBUTE) for column in columns}),
        alt=alt,
    )


def cases_to_save(cases: pd.DataFrame, catalog: Catalog, notes: pd.DataFrame) -> pd.DataFrame:
    """Cases for a file: items by their ids, those of the list joined by a bar, as are the tags of all authors."""
    ids = catalog.item_ids
    tags = notes.groupby("user_id")["tags"].agg(lambda lists: "|".join(sorted({tag for tags in lists for tag in tags})))
    listed = ["|".join(str(ids[item]) for item in listed_items(case)) for case in cases.to_dict("records")]
    return cases.drop(columns=["target", "top_items"]).assign(
        target_item_id=[str(ids[item]) for item in cases["target"]],
        listed_item_ids=listed,
        tags=cases["user_id"].map(tags).fillna(""),
    )


def _open_row(cases: pd.DataFrame, key: str) -> None:
    rows = st.session_state[key]["selection"]["rows"]
    if rows:
        state.show_user(str(cases["user_id"].iat[rows[0]]))


def show_case(
    run: Path,
    recommender: Recommender,
    cases: pd.DataFrame,
    user_id: str,
    attribute: str,
    categories: Mapping[str, Categories],
    notes: pd.DataFrame,
) -> pd.Series:
    """One case: what was asked, what was recommended, where to go from here. Returns its row of `cases`.

    Args:
        run: the run's folder.
        recommender: the run.
        cases: all of its cases.
        user_id: whose case.
        attribute: which of the categories are shown; empty where there are none.
        categories: of the items, where they have any.
        notes: on this user's case.
    """
    case = cases[cases["user_id"] == user_id].iloc[0]
    catalog, target = recommender.catalog, int(case["target"])
    own = categories.get(attribute)
    history = recommender.split.test.histories[recommender.split.test.user_ids.index(user_id)]
    ranked = len(catalog) - len({*history.tolist()} - {target})  # seen items take no part
    st.subheader(f"User {literal(user_id)}", anchor=False)
    st.markdown(f"★ Held out: **{literal(catalog.titles[target])}**, rank **{case['rank']:,}** of {ranked:,}")
    facts = [*(own[target] if own else ()), f"{case['target_popularity']:,} training interactions"]
    st.caption(literal(" · ".join(facts)))
    recent = " · ".join(literal(catalog.titles[item]) for item in history[-RECENT:][::-1])
    st.caption(f"After {recent}" + (f", and {len(history) - RECENT:,} earlier" if len(history) > RECENT else ""))
    items = listed_items(case.to_dict())
    listed = pd.DataFrame({"#": range(1, len(items) + 1)})
    listed["Recommended"] = [("★ " if item == target else "") + catalog.titles[item] for item in items]
    if own:
        listed[attribute.capitalize()] = [", ".join(own[item]) for item in items]
    st.dataframe(
        listed,
        hide_index=True,
        height="content",
        column_config={
            "#": st.column_config.NumberColumn(width=30),
            "Recommended": st.column_config.TextColumn(width=235),
        },
        alt=f"What was recommended to user {user_id}",
    )
    link = f"{st.context.url}?{urlencode(state.link_of(user_id))}"
    with st.container(horizontal=True, vertical_alignment="center"):
        link_pages(user_id)
        st.download_button(
            "Report",
            # At once, as every file: see `charts.download_table`.
            _write_report(recommender, {str(name): value for name, value in case.items()}, cases, run, link, notes),
            f"case-{re.sub(r'[^0-9A-Za-z]+', '-', user_id)}.html",
            "text/html",
            icon=":material/description:",
            type="tertiary",
            on_click="ignore",
            help="This case as one self-contained page: run, seed, link, lists, figures, notes.",
        )
    return case


def _write_report(
    recommender: Recommender, case: dict[str, Any], cases: pd.DataFrame, run: Path, link: str, notes: pd.DataFrame
) -> str:
    """The report on a case; written again only when something of it is another."""
    run_id = identify_run(run)
    asked = (run_id, case["user_id"], link, notes.to_json())
    written, report = st.session_state.get("report", ((), ""))
    if written != asked:
        label = f"Simulated viewers of real films. {NO_EVIDENCE}" if resources.is_simulated(recommender.info) else ""
        note = read_report(part_of(run, "data"))
        report = write_case_report(
            recommender,
            case,
            cases["rank"].to_numpy(),
            run_id=run_id,
            link=link,
            notes=notes,
            label=label,
            terms=note.terms if note else "",
        )
        st.session_state["report"] = asked, report
    return str(report)


def link_pages(user_id: str) -> None:
    """Links to the other pages, where this user's history is opened."""
    for page, label, icon in OTHER_PAGES:
        target = f"app/app_pages/{page}.py"
        st.page_link(target, label=label, icon=f":material/{icon}:", query_params=state.link_of(user_id))


def point_to_pages(user_id: str | None) -> None:
    """Under a table of cases: whose row is open, and where to see more of this user."""
    if user_id is None:
        st.caption("Select a row, by a click or by Shift and Space, to open its user on all pages.")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**User {literal(user_id)}**", width="content")
        link_pages(user_id)


def show_slices(cases: pd.DataFrame, categories: Mapping[str, Categories]) -> None:
    """One metric with its intervals, by the classes of one slice."""
    slices = {"history_length": "History length", "target_popularity": "Popularity", "cold_target": "Cold items"}
    options = [*slices, *categories]
    state.heed_default("slice", slices[options[0]])
    with st.container(horizontal=True, gap="medium"):
        chosen = st.segmented_control(
            "Users by",
            options,
            default=options[0],
            required=True,
            key="slice",
            bind="query-params",
            format_func=lambda name: slices.get(name, name.capitalize()),
        )
        metric = st.segmented_control(
            "Metric", ["NDCG@10", "HR@10"], default="NDCG@10", required=True, key="metric", bind="query-params"
        ).casefold()
    if chosen in categories:
        rows = resources.measure_categories(cases[["rank", "target"]], categories[chosen], chosen)
        table = pd.DataFrame([{"class": row["category"], "users": row["users"], **row[metric]} for row in rows])
        figure = categories_figure(rows, metric)
    else:
        models = {
            st.session_state["run"]: resources.measure_slices(cases[["rank", "history_length", "target_popularity"]])
        }
        table = slices_table(models, chosen, metric)[["class", "users", "mean", "low", "high"]]
        figure = slices_figure(models, chosen, metric).update_layout(showlegend=False)
    names = {"class": slices.get(chosen, chosen.capitalize()), "users": "Users", "mean": metric.upper()}
    names |= {"low": "95 % from", "high": "95 % to"}
    charts.show_figure(
        figure,
        table.rename(columns=names),
        f"{metric}-by-{chosen}",
        f"{metric.upper()} by {names['class'].casefold()}, with 95 % intervals",
    )


def show_instead(cases: pd.DataFrame, attribute: str, categories: Mapping[str, Categories]) -> None:
    """Which categories the lists of missed cases hold, against those of the items that were right."""
    if not categories:
        st.info("The items of this data set have no genre or category.", icon=":material/category:")
        return
    missed = int((~cases["hit"]).sum())
    table = recommended_instead(cases, categories[attribute])
    if table.empty:
        st.info("Nothing was missed here: every held-out item is among the first 10.", icon=":material/check:")
        return
    st.markdown(
        f"**{missed:,}** held-out items are not among the first 10. The figure compares their {attribute} with those "
        "of the 10 items recommended instead; an item that has two counts half in each."
    )
    names = {"category": attribute.capitalize(), "of_targets": "Held out", "of_lists": "Recommended instead"}
    charts.show_figure(
        instead_figure(table, attribute),
        table.rename(columns={**names, "difference": "Difference"}),
        "instead",
        f"Shares of {attribute} among held-out items and among what was recommended instead",
    )


def fingerprint_cases(cases: pd.DataFrame) -> int:
    """A number that other users, or other ones in their place, change."""
    return int(pd.util.hash_pandas_object(cases["user_id"], index=False).sum())
