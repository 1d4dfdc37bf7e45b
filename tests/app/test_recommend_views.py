"""What the Recommend page shows beside the list, on a tiny DARec model."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import resources, side_by_side_widgets
from app.change_widgets import describe_change, find_entry
from app.paste_widgets import read_titles
from app.recommend_widgets import rank_items, wrap_title
from app.vote_widgets import draw_candidates
from app.widgets import literal
from darec.baselines import write_baseline_run
from darec.config import Settings
from darec.data.catalog import Catalog
from darec.data.interactions import Dataset
from darec.errors import DataError
from darec.evaluation.metrics import rank_of
from darec.explain import effects as effects_module
from darec.explain.effects import compare_histories, drop, leave_one_out, move, swap
from darec.explain.score_terms import explain_scores
from darec.figures.palette import frame
from darec.runs import read_run, write_json
from darec.serving import Recommender

ENTRY = Path(__file__).parents[2] / "streamlit_app.py"
HISTORY = [0, 3, 7, 9]
LINK = "f0~f3~f7~f9"


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture
def films(film_run: Path, film_dataset: Dataset, model) -> Recommender:
    info = {"kind": "darec", "name": "DARec", "data_fingerprint": read_run(film_run)["data_fingerprint"]}
    info["settings"] = json.loads(model.settings.model_dump_json())
    return Recommender(info, film_dataset, model, reads_text=True)


@pytest.fixture
def open_page(
    films: Recommender, film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., AppTest]:
    """Opens a link in a session of its own; the run `films` is a DARec, all others are what they are."""
    load = resources.load_recommender
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(film_run)])
    monkeypatch.setattr(resources, "load_recommender", lambda run: films if run == film_run else load(run))

    def open_link(**query: str | list[str]) -> AppTest:
        page = AppTest.from_file(str(ENTRY), default_timeout=30)
        for name, value in ({"history": LINK} | query).items():
            page.query_params[name] = value
        page.run()
        assert not page.exception
        return page

    return open_link


def click(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def texts(page: AppTest) -> str:
    shown = " ".join(element.value for element in [*page.markdown, *page.caption, *page.info])
    return re.sub(r"\\(.)", r"\1", shown)


def test_a_test_user_is_answered_as_of_when_she_asked_and_anybody_else_at_no_known_time(
    open_page, films, make_model, monkeypatch
):
    own = make_model()
    own.cold_prior.fill_(50.0)
    own.cold_days.fill_(1.0)
    own.newest.fill_(86_400 * 1000)
    test = replace(films.split.test, asked=np.full(len(films.split.test), 86_400.0 * 1000))
    monkeypatch.setitem(films.__dict__, "scorer", own)
    monkeypatch.setitem(films.__dict__, "split", replace(films.split, test=test))
    history = next(history.tolist() for history in test.histories if not {4, 11} & set(history.tolist()))
    user_id = test.user_ids[[list(own) for own in test.histories].index(history)]
    theirs = open_page(history="~".join(f"f{item}" for item in history), user=user_id)
    anybody = open_page(history="~".join(f"f{item}" for item in history))
    cold = {films.catalog.titles[4], films.catalog.titles[11]}
    assert cold == set(theirs.dataframe[0].value["Title"].str.lstrip("★ ")[:2])
    own.cold_prior.zero_()
    expected = films.recommend(history, 10)
    assert anybody.dataframe[0].value["Title"].tolist() == [line.title for line in expected]
    assert any(caption.value.endswith("newest first · asked on 1972-09-27") for caption in theirs.caption)
    assert not any("asked on" in caption.value for caption in anybody.caption)


def test_the_list_shows_ranks_without_cf_and_the_focused_score_taken_apart(open_page, films, model):
    page = open_page(focus="f5", k="5")
    listed = films.recommend(HISTORY, 5)
    breakdown = explain_scores(model, HISTORY, [line.item_index for line in listed])
    shown = page.dataframe[0].value
    assert shown["Title"].tolist() == [line.title for line in listed]
    assert shown["CF off"].tolist() == breakdown.rank_cf_off[:5].tolist()
    for name, values in zip(("text", "collaborative", "prior", "CF model's own"), breakdown.terms[:4], strict=True):
        np.testing.assert_allclose(shown[name], values)
    genres = films.catalog.items["genres"].str.replace("|", ", ")
    assert shown["About"].tolist() == [genres[line.item_index] for line in listed]
    terms = explain_scores(model, HISTORY, [5])
    expected = zip(("text", "collaborative", "prior", "CF model's own"), terms.terms[:4, 0], strict=True)
    words = " · ".join(f"{name} **{value:+.2f}**" for name, value in expected)
    assert f"{words} · score **{terms.score[0]:+.2f}**" in texts(page)
    assert f"**Return of the Paper Astronaut (1972)**, rank **{terms.rank[0]}**" in texts(page)


def test_cf_is_spelt_out_where_it_first_stands(open_page):
    page = open_page()
    assert "CF is collaborative filtering" in page.selectbox(key="run").help  # on every page that has a model
    assert "collaborative filtering (CF)" in page.toggle(key="cf").help
    assert any("collaborative filtering (CF)" in element.help for element in page.markdown)  # beside the score terms
    page.switch_page("app/app_pages/training.py").run()
    assert "collaborative filtering (CF)" in texts(page)


def test_without_a_choice_the_first_recommendation_is_in_focus(open_page, films):
    assert f"**{films.recommend(HISTORY, 1)[0].title}**, rank **1**" in texts(open_page())


def test_score_terms_of_the_list_are_those_of_the_model(open_page, films, model):
    page = open_page(panel="Score terms", k="6")
    items = [line.item_index for line in films.recommend(HISTORY, 6)]
    table = page.dataframe[0].value
    breakdown = explain_scores(model, HISTORY, items)
    assert table["rank"].tolist() == list(range(1, 7))
    np.testing.assert_allclose(
        table[["text", "collaborative", "prior", "CF model's own"]].to_numpy().T, breakdown.terms[:4]
    )


def test_the_list_without_cf_is_ranked_from_text_alone(open_page, model):
    page = open_page(k="20")
    off = page.dataframe[0].value.set_index("Title")["CF off"]
    page.toggle(key="cf").set_value(False).run()
    shown = page.dataframe[0].value
    assert shown["#"].tolist() == off[shown["Title"]].tolist()
    assert sorted(off) != off.tolist()  # the CF path had changed the order
    assert "switched off, not retrained" in texts(page)


def test_a_filtered_list_keeps_the_ranks_among_all_candidates(open_page, films, film_dataset: Dataset):
    page = open_page(only=["genres: Drama", "genres: Comedy"], k="20")
    genres = film_dataset.catalog.items["genres"]
    wanted = [
        (line.rank, line.title)
        for line in films.recommend(HISTORY, 20)
        if {"Drama", "Comedy"} & set(genres[line.item_index].split("|"))
    ]
    shown = page.dataframe[0].value
    assert list(zip(shown["#"], shown["Title"], strict=True)) == wanted
    assert 0 < len(wanted) < 16


def test_effects_are_those_of_leave_one_out_called_directly(open_page, model):
    page = open_page(panel="Why this one", focus="f5")
    *_, effects = leave_one_out(model, HISTORY, 5)
    table = page.dataframe[0].value
    np.testing.assert_allclose(table["effect"][:4], effects.effects[::-1])
    np.testing.assert_allclose(table["effect"][4:], [effects.total, effects.remainder])
    assert effects.total == pytest.approx(effects.effects[:-1].sum() + effects.remainder)
    for value in (effects.total, effects.summed, effects.remainder):
        assert f"**{value:+.3f}**" in texts(page)


def test_effects_follow_the_switch_and_the_focus(open_page, model):
    page = open_page(panel="Why this one", focus="f5", cf="false")
    *_, effects = leave_one_out(model, HISTORY, 5, collaborative=False)
    np.testing.assert_allclose(page.dataframe[0].value["effect"][:4], effects.effects[::-1])
    page.selectbox(key="focus_choice").set_value(12).run()
    assert page.query_params["focus"] == "f12"
    *_, effects = leave_one_out(model, HISTORY, 12, collaborative=False)
    np.testing.assert_allclose(page.dataframe[0].value["effect"][:4], effects.effects[::-1])


def test_stopped_effects_keep_what_is_known_and_go_on(open_page, model, monkeypatch: pytest.MonkeyPatch):
    show_button, stop, known_before = st.button, [], []

    def remember_stop(label: str, *arguments, **options):
        if label == "Stop":
            stop[:] = options["on_click"], options["args"]
        return show_button(label, *arguments, **options)

    def stopped_after_two(*arguments, **options):
        yield from islice(leave_one_out(*arguments, batch_size=1, **options), 3)
        stop[0](*stop[1])  # as a click does
        st.rerun()

    def going_on(*arguments, known, **options):
        known_before.append(known.known)
        return leave_one_out(*arguments, known=known, **options)

    with monkeypatch.context() as patched:
        patched.setattr(st, "button", remember_stop)
        patched.setattr(effects_module, "leave_one_out", stopped_after_two)
        page = open_page(panel="Why this one", focus="f5")
    assert "Stopped: 2 of 4 items left out so far" in texts(page)
    *_, effects = leave_one_out(model, HISTORY, 5)
    known = page.dataframe[0].value["effect"][:4]
    np.testing.assert_allclose(known[:2], effects.effects[:1:-1], rtol=1e-5)
    assert known[2:].isna().all()
    monkeypatch.setattr(effects_module, "leave_one_out", going_on)
    next(button for button in page.button if button.label == "Go on").click().run()
    assert known_before == [2]
    np.testing.assert_allclose(page.dataframe[0].value["effect"][:4], effects.effects[::-1], rtol=1e-5)
    assert "Stopped" not in texts(page)


def test_one_item_alone_cannot_be_left_out_and_the_page_says_so(open_page):
    page = open_page(history="f0", panel="Why this one")
    assert "two items or more" in page.error[0].value
    assert not page.get("progress")
    assert "Stop" not in [button.label for button in page.button]
    page.segmented_control(key="panel").set_value("List").run()
    assert not page.error


@pytest.mark.parametrize(
    ("label", "changed"),
    [("Drop", drop(HISTORY, 3)), ("Move", move(HISTORY, 3, 0)), ("Swap", None)],
)
def test_a_click_changes_the_history_and_shows_ranks_against_the_pinned_list(
    open_page, films, model, label: str, changed: tuple[int, ...] | None
):
    page = open_page(panel="What if", k="5")
    pinned = [line.item_index for line in films.recommend(HISTORY, 5)]
    assert "pinned" not in page.query_params  # one step back from a change is where it was made
    click(page, label)
    assert page.query_params["pinned"] == LINK
    changed = changed or swap(HISTORY, 3, pinned[0])
    assert page.query_params["history"] == "~".join(f"f{item}" for item in changed)
    changes = compare_histories(model, HISTORY, changed, pinned)
    table = page.dataframe[0].value
    assert table["item"].tolist() == [films.catalog.titles[item] for item in changes.items]
    assert table["before"].fillna(0).tolist() == changes.before.tolist()
    assert table["after"].fillna(0).tolist() == changes.after.tolist()
    click(page, "Back to the pinned history")
    assert page.query_params["history"] == LINK
    assert not page.dataframe


@pytest.mark.parametrize("label", ["Drop", "Move"])
def test_a_second_change_is_of_the_item_that_is_named(open_page, films, label: str):
    page = open_page(panel="What if")
    item = next(box for box in page.selectbox if box.label == "Item")
    item.set_value(1).run()
    click(page, "Move")  # to the end
    history = move(HISTORY, 1, 3)
    item = next(box for box in page.selectbox if box.label == "Item")
    position = item.value
    assert item.options[item.index].endswith(films.catalog.titles[history[position]])
    click(page, label)
    expected = drop(history, position) if label == "Drop" else move(history, position, 0)
    assert page.query_params["history"] == "~".join(f"f{item}" for item in expected)


def test_a_change_on_the_left_counts_too_and_the_pin_can_be_moved(open_page):
    page = open_page(panel="What if")
    page.button(key="remove-0").click().run()
    assert "before" in page.dataframe[0].value
    click(page, "Pin this list")
    assert page.query_params["pinned"] == "f3~f7~f9"
    assert not page.dataframe


def test_newcomers_to_a_filtered_list_are_of_its_categories(open_page, films, film_dataset: Dataset):
    page = open_page(panel="What if", k="3", only="genres: Drama")
    click(page, "Drop")
    genres = film_dataset.catalog.items["genres"]
    before, after = (
        [line.title for line in films.recommend(history, 20) if "Drama" in genres[line.item_index].split("|")][:3]
        for history in (HISTORY, HISTORY[:-1])
    )
    newcomers = [title for title in after if title not in before]
    assert page.dataframe[0].value["item"].tolist() == before + newcomers


@pytest.mark.parametrize(
    ("name", "asked", "shown"),
    [
        *(("k", asked, "10") for asked in ("0", "21", "many")),
        *(("panel", "Lust", "List"), ("only", "x", "none"), ("cf", "perhaps", "true")),
    ],
)
def test_what_a_link_asks_of_a_menu_in_vain_is_said_once(open_page, name: str, asked: str, shown: str):
    page = open_page(**{name: asked})
    told = literal(f"The link's {name} {asked!r} is not to be had here; shown is {shown}.")
    assert [warning.value for warning in page.warning] == [told]
    assert len(page.dataframe[0].value) == 10
    assert not page.run().warning


def test_a_history_of_other_data_is_told_and_not_read_as_these_items(open_page):
    page = open_page(fingerprint="0ther", focus="f5")  # f0 is another item where that link was made
    assert [warning.value for warning in page.warning] == [
        literal("The link's history is of other data than this model's. Pick the model it was made with.")
    ]
    assert any("items of test user" in caption.value for caption in page.caption)  # the example
    click(page, "Draw a test user")
    assert not page.warning
    assert "focus" not in page.query_params


def test_the_history_of_a_link_comes_with_the_model_of_its_data(open_page, films: Recommender, monkeypatch):
    page = open_page(fingerprint="0therdat", user="user 7")
    other = replace(films, info=films.info | {"data_fingerprint": "0therdata"})
    monkeypatch.setattr(resources, "load_recommender", lambda run: other)
    page.run()
    assert not page.warning
    assert page.query_params["user"] == "user 7"
    assert any("test user user 7" in caption.value for caption in page.caption)


def test_a_run_that_is_not_there_is_told_once(open_page):
    page = open_page(run="nowhere")
    assert [warning.value for warning in page.warning] == [literal("There is no run 'nowhere' here; this is films.")]


def test_a_long_title_has_two_lines_and_a_short_one_stays():
    figure = frame(go.Figure(), "short", "x", "y")
    assert wrap_title(figure).layout.title.text == "short"
    for words, lines, ends in ((12, 2, "word"), (40, 2, "word…")):
        long = wrap_title(frame(go.Figure(), " ".join(["word"] * words), "x", "y"))
        assert long.layout.title.text.count("<br>") == lines - 1
        assert long.layout.title.text.endswith(ends)
        assert long.layout.margin.t > figure.layout.margin.t


def test_a_link_holds_of_which_data_its_history_is(open_page, film_run: Path):
    page = open_page()
    page.button(key="remove-0").click().run()
    assert page.query_params["fingerprint"] == read_run(film_run)["data_fingerprint"][:8]
    click(page, "Clear")
    assert not page.warning


@pytest.mark.parametrize("link", [{"k": "010"}, {"panel": "List", "cf": "true"}, {"k": "3", "only": "genres: Drama"}])
def test_a_link_that_asks_for_what_is_there_is_not_complained_of(open_page, link: dict[str, str]):
    assert not open_page(**link).warning


def test_another_user_drops_pin_and_focus(open_page):
    page = open_page(panel="What if", focus="f5")
    click(page, "Draw a test user")
    assert "focus" not in page.query_params
    assert "pinned" not in page.query_params


def test_a_baseline_offers_no_explanation(open_page, film_run: Path, monkeypatch: pytest.MonkeyPatch):
    baseline = Recommender.load(film_run)
    monkeypatch.setattr(resources, "load_recommender", lambda run: baseline)
    page = open_page(panel="Why this one")
    assert page.segmented_control(key="panel").options == ["List", "Compare"]
    assert "CF off" not in page.dataframe[0].value


def test_lists_of_runs_on_the_same_data_stand_side_by_side(
    open_page, film_run: Path, films: Recommender, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("popularity", "itemknn"):
        write_baseline_run(name, film_run / "data", tmp_path / "runs" / name)
    test = films.split.test
    user_id, target = next(case for case in zip(test.user_ids, test.targets, strict=True) if case[1] not in HISTORY)
    page = open_page(panel="Compare", user=user_id, beside=["popularity"], k="4")
    table = page.table[0].value
    other = Recommender.load(tmp_path / "runs" / "popularity")
    mine, theirs = (model.recommend(HISTORY, 20) for model in (films, other))
    assert [title.removeprefix("★ ") for title in table["films"]] == [literal(line.title) for line in mine[:4]]
    assert [title.removeprefix("★ ") for title in table["popularity"]] == [literal(line.title) for line in theirs[:4]]
    summary = page.dataframe[0].value.set_index("Model")
    for name, model in (("films", films), ("popularity", other)):
        rank = rank_of(model.scorer.score([HISTORY]), np.array([target]), [np.array(HISTORY)])[0]
        assert summary.loc[name, "★ rank"] == rank
    common = {line.item_index for line in mine[:4]} & {line.item_index for line in theirs[:4]}
    assert summary.loc["popularity", "In common"] == len(common)
    assert summary.loc["popularity", "What it is"] == "baseline"


def test_a_comparison_that_is_stopped_keeps_the_lists_that_are_there(
    open_page, film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    names = ["one", "three", "two"]
    for name in names:
        shutil.copytree(film_run, tmp_path / "runs" / name)
    read: list[Recommender] = []

    def rank_until_clicked(recommender: Recommender, *rest):
        if len(read) == 2:
            st.stop()  # as a click does while a model reads
        read.append(recommender)
        return rank_items(recommender, *rest)

    monkeypatch.setattr(side_by_side_widgets, "rank_items", rank_until_clicked)
    page = open_page(panel="Compare", beside=names)
    assert not page.table
    read.clear()
    click(page, "Stop")
    assert page.multiselect(key="beside").value == names[:2]
    assert list(page.table[0].value)[1:] == ["films", *names[:2]]


def test_runs_beside_the_picked_one_are_found_when_they_share_its_data(film_run: Path, tmp_path: Path):
    for name in ("films", "twin"):
        shutil.copytree(film_run, tmp_path / name)
    other = json.loads((film_run / "run.json").read_text()) | {"data_fingerprint": "other"}
    shutil.copytree(film_run, tmp_path / "foreign")
    (tmp_path / "foreign" / "run.json").write_text(json.dumps(other))
    picked = tmp_path / "films"
    assert "twin" in resources.comparable_runs(picked, Recommender.load(picked))
    assert "foreign" not in resources.comparable_runs(picked, Recommender.load(picked))


@pytest.mark.parametrize(
    ("changes", "lack"),
    [
        ({}, ""),
        ({"masking": {"enabled": False}}, "retrained without context masking"),
        ({"collaborative": {"enabled": False}}, "retrained without CF"),
        ({"adapters": {"enabled": False}}, "retrained without adapters"),
        ({"adapters": {"weights": "fixed"}}, "retrained without dynamic adaption"),
    ],
)
def test_a_variant_is_named_for_the_part_it_was_retrained_without(changes: dict, lack: str, tmp_path: Path):
    settings = Settings(**({"adapters": {"weights": "gated"}} | changes)).model_dump(mode="json")
    write_json(tmp_path / "run.json", {"kind": "darec", "settings": settings})
    assert resources.label_run("own", tmp_path) == (f"own, {lack}" if lack else "own")
    shipped = f"Demo: DARec {lack}".strip()
    assert resources.label_run(shipped, tmp_path) == shipped
    assert resources.label_run("nothing", tmp_path / "nothing") == "nothing"


def test_a_variant_of_ones_own_is_called_so_where_models_are_compared(
    open_page, film_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    baseline = Recommender.load(film_run)
    monkeypatch.setattr(resources, "load_recommender", lambda run: baseline)
    shutil.copytree(film_run, tmp_path / "runs" / "own")
    settings = Settings(collaborative={"enabled": False}, adapters={"weights": "gated"}).model_dump(mode="json")
    write_json(
        tmp_path / "runs" / "own" / "run.json",
        {**read_run(film_run), "kind": "darec", "name": "DARec", "settings": settings},
    )
    page, called = open_page(panel="Compare"), "own, retrained without CF"
    assert page.multiselect(key="beside").options == [called]
    assert list(page.table[0].value)[1:] == ["films", called]
    summary = page.dataframe[0].value.set_index("Model")
    assert summary["What it is"].to_dict() == {"films": "the picked model", called: "DARec retrained without CF"}
    page.selectbox(key="run").set_value("own").run()
    assert list(page.table[0].value)[1] == called


def test_the_class_votes_before_the_list_is_shown(open_page, films):
    page = open_page(vote="true")
    assert not page.dataframe
    assert "Held out" not in texts(page)
    ranked = films.recommend(HISTORY, 20)
    candidates = draw_candidates(tuple(HISTORY), ranked)
    assert [page.button(key=f"vote-{place}").label for place in range(5)] == [
        re.sub(r"([().])", r"\\\1", line.title) for line in candidates
    ]
    right = [line.rank for line in candidates].index(1)
    for place in (right, right, (right + 1) % 5):
        page.button(key=f"vote-{place}").click().run()
    click(page, "Reveal")
    assert f"First of the model's list is **{ranked[0].title}**; **2 of 3** votes" in texts(page)
    assert page.dataframe[0].value["Title"][0] == ranked[0].title
    page.button(key="remove-0").click().run()
    assert not page.dataframe  # another history is hidden again


def test_votes_are_not_carried_over_to_other_titles(open_page):
    page = open_page(vote="true")
    before = [page.button(key=f"vote-{place}").label for place in range(5)]
    page.button(key="vote-0").click().run()
    assert "**1**" in [element.value for element in page.markdown]
    page.toggle(key="cf").set_value(False).run()
    assert [page.button(key=f"vote-{place}").label for place in range(5)] != before
    assert [element.value for element in page.markdown].count("**0**") == 5


def test_a_vote_is_among_five_different_items_with_the_first_anywhere(films):
    places = set()
    for newest in range(1, 20):
        ranked = films.recommend([0, newest], 20)
        candidates = draw_candidates((0, newest), ranked)
        assert len({line.item_index for line in candidates}) == 5
        assert candidates == draw_candidates((0, newest), ranked)
        places.add([line.rank for line in candidates].index(1))
    assert len(places) > 2


@pytest.fixture
def catalog() -> Catalog:
    titles = ["Heat", "Heat", "The Piano", "Piano Lessons"]
    years = ["1986", "1995", "1993", "2001"]
    return Catalog(pd.DataFrame({"item_id": list("abcd"), "title": titles, "year": years}))


def test_each_pasted_line_is_found_ambiguous_or_new_text(catalog: Catalog):
    lines = read_titles("  heat (1995) \n\nHeat\npiano\nA film nobody knows\nPiano Less", catalog)
    assert [(line.title, line.status, line.options) for line in lines] == [
        ("heat (1995)", "found", (1,)),
        ("Heat", "ambiguous", (0, 1)),
        ("piano", "found", (2,)),
        ("A film nobody knows", "new text", ()),
        ("Piano Less", "new text", (3,)),
    ]


def test_a_written_entry_is_an_item_a_new_title_or_refused(catalog: Catalog):
    assert [find_entry(title, catalog) for title in (3, "piano", "Something new")] == [3, 2, "Something new"]
    with pytest.raises(DataError, match=r"Several items are called 'heat': Heat \(1986\), Heat \(1995\)"):
        find_entry("heat", catalog)


def paste() -> None:
    import streamlit as st

    from app.paste_widgets import paste_titles
    from app.state import forget_other_data, read_selection

    forget_other_data(st.session_state["recommender"])
    paste_titles(st.session_state["recommender"], read_selection(st.session_state["recommender"]))


@pytest.fixture
def paste_page(films: Recommender) -> AppTest:
    """The form for many titles alone, over a history of two films."""
    page = AppTest.from_function(paste)
    page.session_state["recommender"] = films
    page.query_params["history"] = "f0~f3"
    return page.run()


def test_pasted_titles_become_the_history_newest_on_top(paste_page: AppTest):
    paste_page.text_area(key="pasted").set_value("Kite Season\nSomething new\nThe Beekeepers").run()
    assert [element.value for element in paste_page.markdown] == [
        r":green-badge[found] Kite Season \(2019\)",
        ":blue-badge[new text] Something new",
        r":green-badge[found] The Beekeepers \(2004\)",
    ]
    click(paste_page, "Replace the history")
    assert paste_page.query_params["history"] == "f16~.Something new~f19"


def test_pasted_titles_can_be_added_as_the_newest(paste_page: AppTest):
    paste_page.text_area(key="pasted").set_value("Kite Season\nThe Beekeepers").run()
    click(paste_page, "Add as the newest")
    assert paste_page.query_params["history"] == "f0~f3~f16~f19"


def test_a_new_text_can_be_taken_for_a_similar_title(paste_page: AppTest):
    paste_page.text_area(key="pasted").set_value("Return of the Paper").run()
    paste_page.selectbox(key="pasted-0-Return of the Paper").set_value(5).run()
    click(paste_page, "Replace the history")
    assert paste_page.query_params["history"] == "f5"


def test_a_change_is_told_in_words(catalog: Catalog):
    before = (0, 1, 2, "new")
    told = [
        describe_change(before, after, catalog)
        for after in ((0, 2, "new"), (0, 1, 3, "new"), (1, 2, 0, "new"), (0, "new", 1, 2), (3,))
    ]
    assert told == [
        "dropping “Heat (1995)”",
        "swapping “The Piano (1993)” for “Piano Lessons (2001)”",
        "moving “Heat (1986)” from 1 to 3",
        "moving “new” from 4 to 2",
        "dropping 4 items, adding “Piano Lessons (2001)”",
    ]


def test_several_changes_are_told_too(catalog: Catalog):
    first, second, third = (f"“{title}”" for title in catalog.titles[:3])
    told = [
        describe_change((0, 1, 2, "new"), after, catalog)
        for after in ((2, "new"), (0, "new", "old"), ("new", 2, 1, 0), (1, 0, "old", "older"), (2, 0))
    ]
    assert told == [
        f"dropping {first} and {second}",
        f"dropping {second} and {third}, adding “old”",
        "changing the order",
        f"dropping {third} and “new”, adding “old” and “older”, changing the order",
        f"dropping {second} and “new”, changing the order",
    ]
    assert describe_change((0, 1, 0), (1, 0), catalog) == f"dropping {first}"  # it stood there twice


@pytest.mark.parametrize("file", ["recommend", "layers", "attention", "errors", "training", "data", "method"])
def test_presenter_mode_and_reset_are_on_every_page(open_page, file: str):
    page = open_page()
    page.switch_page(f"app/app_pages/{file}.py").run()
    assert not page.exception
    assert '<a href="./" ' in " ".join(element.proto.body for element in page.get("html"))
    page.toggle(key="presenter").set_value(True).run()
    html = " ".join(element.proto.body for element in page.get("html"))
    assert "font-size" in html
    assert '<a href="./?presenter=true" ' in html
