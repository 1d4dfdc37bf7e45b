"""Pieces of pages: each draws one thing and hands changes to `app.state`."""

import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import resources, state
from app.state import Selection
from darec.errors import DarecError
from darec.serving import Recommendation, Recommender

if TYPE_CHECKING:
    from darec.explain.score_terms import ScoreBreakdown

SIMULATED = "**Simulated viewers of real films.**"
NO_EVIDENCE = "A gain in this world is no evidence about people, nor for the paper."
LARGE = "<style>html { font-size: 20px !important; }</style>"  # all sizes follow this one; 16 is usual
LARGER = 20 / 16
# White on the dark theme's accent is too faint to read, and an accent that carries white is too faint on the dark page.
INK_ON_ACCENT = """<style>
  [data-testid^="stBaseButton-primary"]:not(:disabled),
  [data-testid="stMultiSelectTagsContainer"] [data-tag] * { color: #0b1213 }
</style>"""


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a DarecError in its place on the page, which stays usable; any other error stays loud."""
    try:
        yield
    except DarecError as error:
        st.error(literal(str(error)), icon=":material/error:")


def show_complaints(selection: Selection) -> None:
    """What in the link could not be used, as it was written there."""
    for complaint in selection.complaints:
        st.warning(literal(complaint), icon=":material/link_off:")


@contextmanager
def vain_link_told() -> Iterator[None]:
    """Around a page: above it, what the link that opened the session asks of bound widgets that cannot show it.

    Of themselves they pass it over in silence. The menu of models has words of its own.
    """
    place = st.container()
    try:
        yield
    finally:  # also where the page ends before its last line
        for name, values in st.session_state["opened"].items():
            if name == "run" or name not in st.session_state or st.query_params.get_all(name) == values:
                continue
            value = st.session_state[name]
            shown = value if isinstance(value, (list, tuple)) else [value]
            if list(map(_as_in_link, shown)) != list(map(_as_in_link, values)):  # a default is taken out of the link
                told = f"The link's {name} {', '.join(values)!r} is not to be had here; shown is"
                names = [
                    str(each).lower() if isinstance(each, bool) else str(each) for each in shown if each is not None
                ]
                place.warning(literal(f"{told} {', '.join(names) or 'none'}."), icon=":material/link_off:")


def _as_in_link(value: object) -> str:
    """A widget's value, or what a link has for it, in one spelling: numbers without needless signs, words in small."""
    text = str(value).casefold()
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def literal(text: str) -> str:
    """`text` with every sign escaped that Markdown would read as a mark."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$:<>&])", r"\\\1", text)


def choose_view(label: str, views: Sequence[str], key: str, *, wrap: bool | None = None) -> str:
    """Which of several views is drawn: the one the link names by `key`, or the last one seen there, or the first."""
    seen = st.session_state.setdefault("views", {})
    state.heed_default(key, views[0])
    if key not in st.session_state and key not in st.query_params and seen.get(key, views[0]) in views[1:]:
        st.query_params[key] = seen[key]
    seen[key] = st.segmented_control(
        label,
        views,
        default=views[0],
        required=True,
        key=key,
        bind="query-params",
        label_visibility="collapsed",
        wrap=wrap,
    )
    return seen[key]


def asked_to_average(*what: object, disabled: bool = False) -> bool:
    """A button to average what takes a while; true once it was pressed, and where the link was made after that.

    Args:
        what: all that the average depends on; of anything else, none was asked for.
        disabled: whether there is nothing to average.
    """
    mark = f"{zlib.crc32(repr(what).encode()):08x}"
    if st.button("Average", icon=":material/play_arrow:", type="primary", disabled=disabled):
        st.query_params["average"] = mark
    return st.query_params.get("average") == mark and not disabled


def stop_average() -> None:
    """A button that ends an average; any other click begins it anew, for the link still asks for it."""

    def forget() -> None:
        st.query_params.pop("average", None)

    st.button("Stop", icon=":material/stop:", on_click=forget)


def page_header(title: str, caption: str) -> Recommender:
    """Title and model picker; returns the picked model, or ends the page where there is none to show."""
    under_title, right = title_row(title, caption)
    runs = resources.list_runs()
    if not runs:
        explain_first_run()
        st.stop()
    name = pick_model(right, runs)
    with errors_shown():
        recommender = resources.load_recommender(runs[name])
        state.forget_other_data(recommender)
        if resources.is_simulated(recommender.info):
            under_title.caption(f"{caption} {SIMULATED}")
        return recommender
    st.stop()


def title_row(title: str, caption: str) -> tuple[DeltaGenerator, DeltaGenerator]:
    """A page's title and caption; the places of the caption, and of what stands on the right."""
    left, right = st.columns([5, 2], vertical_alignment="bottom", gap="large")
    with left:
        st.title(title, anchor=False)
        under_title = st.empty()
        under_title.caption(caption)
    return under_title, right


def pick_model(place: DeltaGenerator, runs: Mapping[str, Path], tell_link: Callable[[], None] | None = None) -> str:
    """The menu of models, at a place of the page; what a link asks for in vain is told.

    Where a page tells the link of a choice itself, the menu follows the link without being bound to it, and may say
    what own runs were retrained without. Elsewhere it is bound: then a link holds what the menu shows, a run's name.
    """
    asked = st.query_params.get("run")
    options: dict[str, Any] = {"bind": "query-params"}
    if tell_link:
        _heed_link("run", runs)
        options = {"on_change": tell_link, "format_func": lambda name: resources.label_run(name, runs[name])}
    name: str = place.selectbox(
        "Model",
        list(runs),
        key="run",
        help="Runs given by --run, the shipped demo, and runs found in ./runs. In names, CF is collaborative "
        "filtering: learning from who took what after what.",
        **options,
    )
    st.session_state["picked"] = name
    if asked and asked not in runs:
        st.warning(literal(f"There is no run {asked!r} here; this is {name}."), icon=":material/link_off:")
    return name


def choose_run(
    label: str,
    key: str,
    runs: Mapping[str, Path],
    *wanted: str,
    width: int | Literal["stretch"],
    shown: Callable[[str, Path], str] = resources.label_run,
) -> str:
    """A menu of runs that follows the link; after a change of page it shows again what was last seen there.

    Args:
        label: of the menu.
        key: of the menu, and the parameter of the link.
        runs: their folders, by the names under which they are listed.
        wanted: what to show where the link names none of them.
        width: of the menu, in pixels or `stretch`.
        shown: what a run is called there, by its name and folder.
    """
    seen = st.session_state.setdefault("menus", {})
    if st.session_state["arrived"] and key not in st.query_params and seen.get(key) in runs:
        st.query_params[key] = seen[key]
    _heed_link(key, runs, *wanted)

    def tell_link() -> None:
        st.query_params[key] = st.session_state[key]

    seen[key] = st.selectbox(
        label,
        list(runs),
        key=key,
        format_func=lambda name: shown(name, runs[name]),
        on_change=tell_link,
        width=width,
    )
    asked = st.query_params.get(key, seen[key])
    if asked not in runs:
        st.warning(literal(f"There is no {asked!r} here; this is {seen[key]}."), icon=":material/link_off:")
    return str(seen[key])


def _heed_link(key: str, runs: Collection[str], *wanted: str) -> None:
    """Have a menu show what the link asks for, or else what is wanted, or else its first, as far as it has that."""
    asked = (st.query_params.get(key), *wanted, *runs)
    st.session_state[key] = next(value for value in asked if value in runs)


def metric_cards(cards: Iterable[tuple[str, str, str | None, str]]) -> None:
    """Numbers in cards, each as wide as it needs and none cut off; those that do not fit go to the next line.

    Args:
        cards: label, number, what stands below it if anything, what the number means.
    """
    with st.container(horizontal=True):
        for label, value, below, meaning in cards:
            st.metric(
                label,
                value,
                below,
                delta_color="off",
                delta_arrow="off",
                help=meaning,
                border=True,
                width="content",
            )


def page_foot() -> None:
    """At the foot of every page: presenter mode, and a reset, which opens the app anew."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right", key="page_foot"):
        presenting = st.toggle(
            "Presenter mode", key="presenter", bind="query-params", help="Large type, for the back row of a class."
        )
        # A link that loads the page again: a session of its own, in which no widget remembers anything.
        kept = "?presenter=true" if presenting else ""
        st.html(f'<a href="./{kept}" style="color: inherit; font-size: 0.875rem">Reset</a>', width="content")
    if presenting:
        st.html(LARGE)
    if st.context.theme.type == "dark":
        st.html(INK_ON_ACCENT)


def explain_first_run() -> None:
    """What to do when there is no model yet."""
    with st.container(border=True):
        st.subheader("Two steps to a first model", anchor=False)
        st.markdown("**1.** Fetch a public data set of film ratings, MovieLens 100K (5 MB).")
        st.code("python -m darec data prepare ml-100k --out data/ml-100k", language="bash")
        st.markdown("**2.** Train a small model on it: about a minute on a laptop, no GPU needed.")
        st.code("python -m darec train --preset smoke --data data/ml-100k --out runs/smoke", language="bash")
        st.button("Look again", icon=":material/refresh:", type="primary")
    st.caption("Already have a run elsewhere? Open it with `streamlit run streamlit_app.py -- --run DIR`.")


def ranked_list(
    recommender: Recommender,
    shown: Sequence[Recommendation],
    target: int | None,
    breakdown: "ScoreBreakdown | None" = None,
) -> None:
    """Recommendations with their probabilities, the held-out target marked; a selected row comes into focus.

    Args:
        recommender: whose list it is.
        shown: what to show, in order.
        target: item_index of the held-out item, if there is one.
        breakdown: begins with the items shown; adds their ranks with CF off.
    """
    catalog = recommender.catalog
    genres = [catalog.short_texts[line.item_index].removeprefix(line.title).lstrip(", ") for line in shown]
    about = [genre or catalog.about(line.item_index) for genre, line in zip(genres, shown, strict=True)]
    table = pd.DataFrame(
        {
            "#": [line.rank for line in shown],
            "Title": [("★ " if line.item_index == target else "") + line.title for line in shown],
            "Probability": [100 * line.probability for line in shown],
        }
    )
    if any(about):
        table["About"] = about
    terms: dict[str, Any] = {}
    if breakdown is not None:
        from darec.figures.score_terms import TERM_HEADS, TERM_MEANINGS, TERM_NAMES, spoken_terms

        for term, values in spoken_terms(breakdown).items():
            table[TERM_NAMES[term]] = values[: len(shown)]
            terms[TERM_NAMES[term]] = st.column_config.NumberColumn(
                TERM_HEADS[term], width=55, format="%+.2f", help=f"A term, {TERM_NAMES[term]}: {TERM_MEANINGS[term]}."
            )
        table["CF off"] = breakdown.rank_cf_off[: len(shown)]
    columns: dict[str, Any] = terms | {
        "#": st.column_config.NumberColumn(width=34, help="Rank among all candidates; of equals, ★ comes last."),
        "Title": st.column_config.TextColumn(width=250 if terms else 325),
        "About": st.column_config.TextColumn(width=165 if terms else 240),
        "CF off": st.column_config.NumberColumn(width=60, help="Rank with collaborative filtering (CF) switched off."),
        "Probability": st.column_config.ProgressColumn(
            width=85,
            min_value=0.0,
            max_value=100 * max(line.probability for line in shown),
            format="%.2f %%",
            help="Softmax of the scores over all candidates. The bar's full length is the likeliest one's.",
        ),
    }
    # Rows are selected by their place, so another list is another table.
    key = f"list-{hash(tuple(line.item_index for line in shown))}"

    def focus() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            state.focus_on(recommender, shown[rows[0]].item_index)

    st.dataframe(
        table,
        hide_index=True,
        height="content" if len(table) <= 50 else 640,
        key=key,
        on_select=focus,
        selection_mode="single-row",
        column_config=widen({name: column for name, column in columns.items() if name in table}),
        alt=f"The {len(shown)} items that the model ranks first, with their probabilities",
    )


def widen(columns: dict[str, Any]) -> dict[str, Any]:
    """Columns of a table, in presenter mode as much wider as its type is larger."""
    if not st.session_state.get("presenter"):
        return columns
    return {
        name: {**column, "width": round(LARGER * column["width"])} if column.get("width") else column
        for name, column in columns.items()
    }


def describe_target(recommender: Recommender, selection: Selection, ranked: list[Recommendation]) -> str:
    """One sentence: where the held-out item of the test user stands."""
    if selection.target is None:
        return ""
    title = literal(recommender.catalog.titles[selection.target])
    rank = next((line.rank for line in ranked if line.item_index == selection.target), None)
    if rank is None:
        return f"★ Held out: **{title}**, which this list leaves out because the history holds it."
    return f"★ Held out: **{title}**, rank **{rank:,}** of {len(ranked):,}."
