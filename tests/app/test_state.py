import os

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.state import choose_example, decode_history, encode_history
from app.widgets import literal
from darec.data.catalog import Catalog
from darec.data.interactions import Dataset
from darec.data.splits import split


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(pd.DataFrame({"item_id": ["1", ".b", "c~d", "50%25", "ü & ?"], "title": list("abcde")}))


def test_a_history_of_plain_ids_reads_well_in_a_link(catalog: Catalog):
    assert encode_history([0, "A new film"], catalog) == "1~.A new film"


@pytest.mark.parametrize("history", [[], [4, 3, 2, 1, 0], [0, 0], ["~.%7E", 1, ".", "50%"]])
def test_a_history_comes_back_from_its_link(catalog: Catalog, history):
    assert decode_history(encode_history(history, catalog), catalog) == (history, [])


def test_unknown_ids_are_named_and_left_out(catalog: Catalog):
    assert decode_history("1~no~.new~nor", catalog) == ([0, "new"], ["no", "nor"])


def test_blank_entries_of_a_link_are_dropped(catalog: Catalog):
    assert decode_history("~1~~. ~", catalog) == ([0], [])


def test_the_example_is_the_first_history_of_about_eight_items(film_dataset: Dataset):
    cases = split(film_dataset).test
    lengths = [len(history) for history in cases.histories]
    assert lengths[choose_example(cases)] == 8
    assert 8 not in lengths[: choose_example(cases)]


def test_torchs_compiler_is_not_loaded():
    assert os.environ["TORCHDYNAMO_DISABLE"]  # since the app was imported, above


def test_marks_of_markdown_are_escaped():
    assert literal("*a* [b] $c$ :d: <e> #1") == r"\*a\* \[b\] \$c\$ \:d\: \<e\> \#1"


def change_page() -> None:
    import streamlit as st

    from app.state import carry_selection

    carry_selection(st.session_state["page_shown"])


def test_the_selection_is_carried_to_the_bare_address_of_another_page():
    app = AppTest.from_function(change_page)
    app.session_state["page_shown"] = "recommend"
    app.query_params["user"] = "7"
    app.query_params["history"] = "f1~f2"
    app.run()
    app.query_params.clear()
    app.session_state["page_shown"] = "layers"
    app.run()
    assert not app.exception
    assert dict(app.query_params) == {"user": "7", "history": "f1~f2"}


@pytest.mark.parametrize(("page_shown", "link"), [("recommend", {}), ("layers", {"user": "8"})])
def test_a_link_counts_more_than_what_is_carried(page_shown: str, link: dict[str, str]):
    app = AppTest.from_function(change_page)
    app.session_state["page_shown"] = "recommend"
    app.query_params["history"] = "f1~f2"
    app.run()
    app.query_params.clear()
    app.query_params.update(link)
    app.session_state["page_shown"] = page_shown
    app.run()
    assert not app.exception
    assert dict(app.query_params) == link
