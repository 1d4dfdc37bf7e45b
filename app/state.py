"""The selection that all pages share. It lives in the URL, so a link reproduces the screen.

    run        the model's name among the runs found (a widget, bound but on Training); the first one is in no link
    user       a test user; her history is shown, and her held-out target is marked
    history    the history when it is not exactly the user's: entries oldest first, joined by `~`;
               an item by its item_id, a title that the catalogue lacks with a dot before it
    pinned      the history whose list others are compared with, written as `history`
    focus       the item_id of the recommendation in focus
    fingerprint the first digits of the fingerprint of the data that these four are of
    k, exclude_seen, cf, only, panel, beside, vote    how the list is shown (bound widgets)
    presenter   large type, on every page (a bound widget)

Without user and history the page opens on an example; an empty `history` is an empty history.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import streamlit as st

from app import resources
from darec.data.catalog import Catalog
from darec.data.splits import Cases
from darec.errors import DataError
from darec.serving import Recommender

WHAT_IF = "What if"  # the view where changes are held against a pinned list
EXAMPLE_LENGTH = 8  # most recent items: short enough to be read at a glance
CARRIED = ("user", "history", "pinned", "focus")
MARKED = (*CARRIED, "fingerprint")
OF_ONE_HISTORY = {"hidden": None, "looked_at": None, "pair": None}  # on Attention: in another they would be other words
FILTERS = ("length", "popularity", "ranks", "cold", "category")  # of cases, on Errors


@dataclass(frozen=True)
class Selection:
    """What the page is about.

    Attributes:
        history: oldest first; an item_index, or a title that the catalogue lacks.
        user_id: the test user from whom the history came, if any.
        target: item_index of that user's held-out item.
        asked: when she chose it, in seconds; None where there is no user, or nobody knows.
        user_history: all of that user's own history, oldest first.
        pinned: the history whose list others are compared with; empty where none is.
        focus: item_index of the recommendation in focus, if one was chosen.
        complaints: one sentence each about what in the link could not be used.
    """

    history: tuple[int | str, ...]
    user_id: str | None = None
    target: int | None = None
    asked: float | None = None
    user_history: tuple[int, ...] = ()
    pinned: tuple[int | str, ...] = ()
    focus: int | None = None
    complaints: tuple[str, ...] = ()


def carry_selection(page: str) -> None:
    """Put the selection back into the URL after a change of page, which opens the new page's bare address.

    Args:
        page: what to call the page that is about to run.
    """
    params = st.query_params
    begun = "page" in st.session_state
    st.session_state["opened"] = {} if begun else {name: params.get_all(name) for name in params}  # the link, once
    st.session_state["arrived"] = st.session_state.setdefault("page", page) != page
    if st.session_state["arrived"]:
        if not any(params.get_all(name) for name in ("user", "history")):
            params.update(st.session_state["carried"])
        # By itself the picker would go by what somebody last chose in it, and forget a model that a link had named.
        runs = list(resources.list_runs())
        run = params.get("run", st.session_state.get("picked"))
        if run in runs:
            st.session_state["run"] = run
            if run != runs[0]:  # of which a link says nothing
                params["run"] = run
    st.session_state["page"] = page
    st.session_state["carried"] = {name: params[name] for name in MARKED if params.get_all(name)}


def heed_default(key: str, default: str) -> None:
    """Let a link that names the default of a bound widget count.

    By itself the widget would show what was last chosen there: a value that equals the default is as good as none.
    """
    if st.session_state["arrived"] and st.query_params.get(key) == default:
        st.session_state.pop(key, None)


def read_selection(recommender: Recommender) -> Selection:
    """The selection that the URL holds, or an example; what the model's data does not know is named and left out."""
    params, cases = st.query_params, recommender.split.test
    complaints: list[str] = []
    link = {name: params[name] for name in CARRIED if params.get_all(name)}
    if is_of_other_data():
        link.clear()
        complaints.append("The link's history is of other data than this model's. Pick the model it was made with.")
    position, limit = None, 0
    if "user" in link:
        if link["user"] in cases.user_ids:
            position = cases.user_ids.index(link["user"])
        else:
            complaints.append(f"This model's data has no test user {link['user']!r}. Draw another.")
    elif "history" not in link and len(cases):
        position, limit = choose_example(cases), EXAMPLE_LENGTH
    user_id = None if position is None else cases.user_ids[position]
    target = None if position is None else int(cases.targets[position])
    user_history = () if position is None else tuple(cases.histories[position].tolist())
    history: Sequence[int | str] = user_history[-limit:]
    if "history" in link:
        history, unknown = decode_history(link["history"], recommender.catalog)
        if unknown:
            complaints.append(f"The catalogue has no item_id {', '.join(map(repr, unknown))}; left out of the history.")
    pinned, unknown = decode_history(link.get("pinned", ""), recommender.catalog)
    if unknown:
        complaints.append(
            f"The catalogue has no item_id {', '.join(map(repr, unknown))}; left out of the pinned history."
        )
    focus, strange = decode_history(link.get("focus", ""), recommender.catalog)
    if strange:
        complaints.append(f"The catalogue has no item_id {strange[0]!r} to be in focus. Choose a recommendation.")
    return Selection(
        tuple(history),
        user_id,
        target,
        None if position is None else cases.asked_at(position),
        user_history,
        tuple(pinned),
        next((item for item in focus if not isinstance(item, str)), None),
        tuple(complaints),
    )


def change_history(recommender: Recommender, selection: Selection, history: Sequence[int | str]) -> None:
    """Show another history; the user stays named, so that the target stays marked, unless nothing is left of hers.

    In What if the first change pins the history it is made to, in the same step of the browser's history.
    """
    changed: dict[str, str | None] = {"history": encode_history(history, recommender.catalog), **OF_ONE_HISTORY}
    if st.query_params.get("panel") == WHAT_IF and not selection.pinned:
        changed["pinned"] = encode_history(selection.history, recommender.catalog)
    changed["user"] = selection.user_id if history else None
    if not history:
        changed["pinned"] = None
    _write_link(changed)


def pin(recommender: Recommender, history: Sequence[int | str]) -> None:
    """Compare what comes with the list after `history`."""
    _write_link({"pinned": encode_history(history, recommender.catalog)})


def focus_on(recommender: Recommender, item: int) -> None:
    """Put a recommendation into focus."""
    _write_link({"focus": encode_history([item], recommender.catalog)})


def add_entry(recommender: Recommender, selection: Selection, entry: int | str) -> None:
    """Append an item or a new title as the most recent one."""
    change_history(recommender, selection, [*selection.history, entry])


def remove_entry(recommender: Recommender, selection: Selection, position: int) -> None:
    """Take the entry at `position` (0 is the oldest) out."""
    change_history(recommender, selection, selection.history[:position] + selection.history[position + 1 :])


def move_entry(recommender: Recommender, selection: Selection, position: int, step: int) -> None:
    """Swap the entry at `position` with its neighbour `step` (1 later, -1 earlier) away."""
    history = list(selection.history)
    history[position], history[position + step] = history[position + step], history[position]
    change_history(recommender, selection, history)


def show_user(user_id: str) -> None:
    """Show a test user's own history, and whatever is recommended first after it."""
    _write_link({"history": None, "pinned": None, "focus": None, "user": user_id, **OF_ONE_HISTORY})


def draw_user(recommender: Recommender, selection: Selection) -> None:
    """Show a test user drawn at random, another one than now where there are several."""
    others = [user_id for user_id in recommender.split.test.user_ids if user_id != selection.user_id]
    if others:
        show_user(random.choice(others))


def choose_example(cases: Cases) -> int:
    """Position of the first case whose history's length comes closest to the example's."""
    return min(range(len(cases)), key=lambda position: abs(len(cases.histories[position]) - EXAMPLE_LENGTH))


def encode_history(history: Sequence[int | str], catalog: Catalog) -> str:
    """The `history` parameter; `decode_history` reads it back, whatever signs ids and titles hold."""
    entries = []
    for entry in history:
        text = entry if isinstance(entry, str) else str(catalog.item_ids[entry])
        text = text.replace("%", "%25").replace("~", "%7E")
        if isinstance(entry, str):
            text = "." + text
        elif text.startswith("."):
            text = "%2E" + text[1:]
        entries.append(text)
    return "~".join(entries)


def decode_history(value: str, catalog: Catalog) -> tuple[list[int | str], list[str]]:
    """The history that a `history` parameter holds, and the item_ids in it that the catalogue lacks."""
    history: list[int | str] = []
    unknown = []
    for entry in value.split("~"):
        if entry.startswith("."):
            history.append(unquote(entry[1:]))
        elif entry:
            try:
                history.append(catalog.index_of(unquote(entry)))
            except DataError:
                unknown.append(unquote(entry))
    return [entry for entry in history if not isinstance(entry, str) or entry.strip()], unknown


def forget_other_data(recommender: Recommender) -> None:
    """Drop user and history when another data set is picked: there the same ids mean other items.

    Those that the link says are of these data stay. Called wherever a model is opened, so that what is chosen after it
    is kept.
    """
    fingerprint = recommender.info["data_fingerprint"]
    if st.session_state.setdefault("data_fingerprint", fingerprint) != fingerprint:
        st.session_state.update(data_fingerprint=fingerprint, carried={})
        for name in FILTERS:  # left behind on Errors, their ends are those of the other data, and an error here
            st.session_state.pop(name, None)
        if is_of_other_data() or not st.query_params.get_all("fingerprint"):
            _write_link({**dict.fromkeys(CARRIED), **OF_ONE_HISTORY})


def link_of(user_id: str) -> dict[str, str]:
    """The parameters of a link that opens this user's history with this model on any page."""
    return {"run": st.session_state["run"], "user": user_id, "fingerprint": _mark()}


def is_of_other_data() -> bool:
    """Whether what the link holds is of other data than the model's: after Back from it, say, or of another machine."""
    return st.query_params.get_all("fingerprint") not in ([], [_mark()])


def _write_link(changed: Mapping[str, str | None]) -> None:
    """Change these parameters at once, and take those that are None out.

    Each write is a step of the browser's history of its own: after several, Back would lead to a half-written link.
    A parameter that is an empty list stands in no link, but in `st.query_params` until the next run.
    """
    if is_of_other_data():
        changed = {**dict.fromkeys(CARRIED), **changed}
    told = any(
        changed[name] is not None if name in changed else st.query_params.get_all(name) != [] for name in CARRIED
    )
    changed = {**changed, "fingerprint": _mark() if told else None}
    st.query_params.update({name: [] if value is None else value for name, value in changed.items()})


def _mark() -> str:
    return str(st.session_state["data_fingerprint"])[:8]
