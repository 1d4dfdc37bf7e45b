import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app import case_widgets, resources
from app.case_widgets import cases_to_save
from app.widgets import literal
from darec.annotations import NotedCase, Notes
from darec.baselines import write_baseline_run
from darec.config import Settings
from darec.data.interactions import Dataset, validated
from darec.data.sources import PreparedReport
from darec.evaluation import error_analysis
from darec.evaluation.error_analysis import identify_run, list_cases, recommended_instead
from darec.evaluation.protocol import rank_cases
from darec.explain.adaption import list_options, read_weights
from darec.explain.averages import average_score_terms
from darec.export import write_case_report
from darec.figures.score_terms import TERM_NAMES
from darec.model.recommender import DarecModel
from darec.runs import read_run, write_json
from darec.serving import Recommender

ENTRY = Path(__file__).parents[2] / "streamlit_app.py"
PAGE = "app/app_pages/errors.py"


@pytest.fixture(scope="module")
def ranked(film_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs on the invented films, both ranked: ItemKNN and popularity."""
    folder = tmp_path_factory.mktemp("ranked")
    for name in ("itemknn", "popularity"):
        write_baseline_run(name, film_run / "data", folder / name)
        model = Recommender.load(folder / name)
        rank_cases(model.scorer, model.split, "test").to_parquet(folder / name / "ranks-test.parquet")
    return folder


@pytest.fixture
def runs(ranked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """The app started with copies of both runs, of its own folders for cache and notes."""
    copies = {name: tmp_path / name for name in ("itemknn", "popularity")}
    for name, folder in copies.items():
        shutil.copytree(ranked / name, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DAREC_NOTES", str(tmp_path / "notes.sqlite"))
    arguments = [word for folder in copies.values() for word in ("--run", str(folder))]
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", *arguments])
    return copies


def open_errors(**query: str | list[str]) -> AppTest:
    """The Errors page in a session of its own, as a link opens it."""
    page = AppTest.from_file(str(ENTRY), default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = value
    page.switch_page(PAGE).run()
    assert not page.exception
    return page


@pytest.fixture
def page(runs: dict[str, Path]) -> AppTest:
    return open_errors()


def click(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def cases_of(run: Path) -> pd.DataFrame:
    model = Recommender.load(run)
    return list_cases(pd.read_parquet(run / "ranks-test.parquet"), model.catalog)


def texts(page: AppTest) -> str:
    shown = " ".join(element.value for element in [*page.markdown, *page.caption, *page.subheader])
    return re.sub(r"\\(.)", r"\1", shown)


def test_every_test_user_is_listed_the_hardest_first(page: AppTest, runs: dict[str, Path]):
    cases = cases_of(runs["itemknn"])
    shown = page.dataframe[0].value
    assert len(shown) == len(cases) == 60
    assert shown["rank"].tolist() == sorted(cases["rank"], reverse=True)
    by_user = shown.set_index("user_id")
    for column in ("rank", "title", "first", "history_length", "target_popularity"):
        assert by_user.loc[cases["user_id"], column].tolist() == cases[column].tolist()
    assert "notes" not in shown  # there are none
    page = open_errors(order="Easiest first")
    assert page.dataframe[0].value["rank"].tolist() == sorted(cases["rank"])


def test_the_metrics_are_those_of_the_users_shown(page: AppTest, runs: dict[str, Path]):
    cases = cases_of(runs["itemknn"])
    assert page.metric[0].value == f"{cases['hit'].mean():.4f}"
    assert page.metric[3].value == f"{cases['rank'].median():,.0f}"
    page.slider(key="length").set_range(4, 5).run()
    part = cases[cases["history_length"].between(4, 5)]
    assert 0 < len(part) < 60
    assert page.metric[0].value == f"{part['hit'].mean():.4f}"
    assert sorted(page.dataframe[0].value["user_id"]) == sorted(part["user_id"])
    assert f"**{len(part)}** of 60 test users" in texts(page)
    click(page, "Show all")
    assert len(page.dataframe[0].value) == 60


def test_filters_join_and_live_in_the_link(page: AppTest, runs: dict[str, Path], film_dataset: Dataset):
    page.multiselect(key="category").set_value(["Drama", "Comedy"]).run()
    page.select_slider(key="ranks").set_range(2, 10).run()
    genres = film_dataset.catalog.items["genres"]
    cases = cases_of(runs["itemknn"])
    wanted = [bool({"Drama", "Comedy"} & set(genres[item].split("|"))) for item in cases["target"]]
    part = cases[np.array(wanted) & cases["rank"].between(2, 10)]
    assert sorted(page.dataframe[0].value["user_id"]) == sorted(part["user_id"])
    for ends in (["2", "10"], ["10", "2"]):
        again = open_errors(category=["Drama", "Comedy"], ranks=ends)
        assert sorted(again.dataframe[0].value["user_id"]) == sorted(part["user_id"])


def test_no_user_left_is_said_and_the_page_stays_usable(page: AppTest):
    page = open_errors(cold="cold")
    assert "No test user is left" in page.info[0].value
    click(page, "Show all")
    assert len(page.dataframe[0].value) == 60


def test_the_case_of_the_link_is_shown_with_its_list(page: AppTest, runs: dict[str, Path]):
    page = open_errors(user="user 7")
    case = cases_of(runs["itemknn"]).set_index("user_id").loc["user 7"]
    model = Recommender.load(runs["itemknn"])
    assert page.subheader[0].value == "User user 7"
    assert f"**{case['title']}**, rank **{case['rank']}** of {20 - case['history_length']}" in texts(page)
    listed = page.dataframe[1].value
    titles = [line.title for line in model.recommend(model.split.test.histories[7].tolist(), 10)]
    assert [title.removeprefix("★ ") for title in listed["Recommended"]] == titles
    stars = [title.startswith("★") for title in listed["Recommended"]]
    assert sum(stars) == int(case["hit"])
    link = page.get("page_link")[0].proto
    mark = model.info["data_fingerprint"][:8]
    assert (link.label, link.query_string) == ("Open in Recommend", f"run=itemknn&user=user+7&fingerprint={mark}")


def test_recommend_and_errors_give_a_case_one_rank_though_items_tie(runs: dict[str, Path]):
    model, cases = Recommender.load(runs["popularity"]), cases_of(runs["popularity"])
    histories = [history.tolist() for history in model.split.test.histories]
    in_order = [model.recommend(history, 20) for history in histories]
    targets = zip(in_order, cases["target"], strict=True)
    places = np.array([next(line.rank for line in lines if line.item_index == target) for lines, target in targets])
    tied = cases[places < cases["rank"]]
    tied_hits = tied[tied["hit"]]
    assert len(tied_hits) > 3
    for _, case in tied_hits[:3].iterrows():
        said = f"**{case['title']}**, rank **{case['rank']}** of {20 - case['history_length']}"
        errors = open_errors(run="popularity", user=case["user_id"])
        recommend = AppTest.from_file(str(ENTRY), default_timeout=30)
        recommend.query_params.update(run="popularity", user=case["user_id"])
        recommend.run()
        lists = (errors.dataframe[1].value["Recommended"], recommend.dataframe[0].value["Title"])
        for page, titles in zip((errors, recommend), lists, strict=True):
            assert said in texts(page)
            assert titles.str.startswith("★").to_numpy().nonzero()[0].tolist() == [case["rank"] - 1]


def test_a_report_gives_a_tied_case_the_place_that_the_page_gives_it(runs: dict[str, Path]):
    model, cases = Recommender.load(runs["popularity"]), cases_of(runs["popularity"])
    positions = {user: place for place, user in enumerate(model.split.test.user_ids)}
    starred = 0
    for _, case in cases[cases["hit"]].iterrows():
        report = write_case_report(model, case.to_dict(), cases["rank"].to_numpy(), run_id="x")
        rows = re.findall(r"<tr.*?</tr>", report)[1:11]
        assert ["★" in row for row in rows] == [place == case["rank"] for place in range(1, 11)]
        first = model.recommend(model.split.test.histories[positions[case["user_id"]]].tolist(), 10)
        starred += first[case["rank"] - 1].item_index != case["target"]
    assert starred > 3  # places that ties have moved


def test_a_report_on_a_simulated_viewer_says_so_and_another_does_not(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    label = (
        "Simulated viewers of real films. A gain in this world is no evidence about people, nor for the paper.</strong>"
    )
    assert label not in open_errors(user="user 7").session_state["report"][1]
    shutil.copytree(runs["itemknn"], tmp_path / "demo" / "darec")  # so the run has the demo's data
    monkeypatch.setattr(resources, "DEMO", tmp_path / "demo")
    assert label in open_errors(user="user 7").session_state["report"][1]


def test_a_report_says_what_the_data_may_be_used_for_where_that_is_noted(runs: dict[str, Path]):
    noted = PreparedReport("films.zip", "tables", 60, 20, 0, 420, 0, 7.0, "leave-one-out", "Ask <the> owner.", "")
    note = runs["itemknn"] / "data" / "prepared.json"
    assert "Terms of the data" not in open_errors(user="user 7").session_state["report"][1]
    note.write_text(json.dumps(asdict(noted)), encoding="utf-8")
    report = open_errors(user="user 7").session_state["report"][1]
    assert "<dt>Terms of the data</dt><dd>Ask &lt;the&gt; owner.</dd>" in report


@pytest.fixture
def grouped(runs: dict[str, Path], film_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The app started with a ranked run on the same films, four of which belong to a series; all have genres."""
    items = film_dataset.catalog.items.copy()
    items.insert(1, "series", ["Harbour", "Harbour", "Astronaut", "Astronaut"] + [""] * 16)
    (tmp_path / "data").mkdir()
    validated(film_dataset.interactions, items, source="invented films").save(tmp_path / "data")
    write_baseline_run("popularity", tmp_path / "data", tmp_path / "grouped")
    model = Recommender.load(tmp_path / "grouped")
    rank_cases(model.scorer, model.split, "test").to_parquet(tmp_path / "grouped" / "ranks-test.parquet")
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", "--run", str(tmp_path / "grouped")])
    return tmp_path / "grouped"


def test_the_attribute_that_most_items_have_is_first_and_another_can_be_chosen(grouped: Path):
    page = open_errors(user="user 7", category=["Drama"])
    assert page.selectbox(key="attribute").options == ["By genres", "By series"]
    assert "Genres" in page.dataframe[1].value
    assert len(page.dataframe[0].value) < 60
    assert page.dataframe[0].value["Genres"].str.contains("Drama").all()  # of the held-out items
    page.selectbox(key="attribute").set_value("series").run()
    assert not page.exception
    assert page.multiselect(key="category").options == ["Astronaut", "Harbour", "not named"]
    assert len(page.dataframe[0].value) == 60  # a genre is no series
    assert "Series" in page.dataframe[1].value
    page = open_errors(view="Instead", attribute="By series")
    assert "Series" in page.dataframe[0].value
    assert "compares their series with those" in texts(page)


@pytest.fixture
def evaluated(runs: dict[str, Path], run_command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> dict:
    """What the command line writes for a copy of the first run, whose own users the page has then ranked by itself."""
    (runs["itemknn"] / "ranks-test.parquet").unlink()
    shutil.copytree(runs["itemknn"], tmp_path / "elsewhere" / "itemknn")
    assert run_command("evaluate", tmp_path / "elsewhere" / "itemknn", "--out", tmp_path / "metrics.json")[0] == 0
    click(open_errors(), "Rank 60 test users")
    return json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))


def test_the_metric_row_is_what_the_command_writes(evaluated: dict):
    page = open_errors()
    written = evaluated["seen_removed"]
    assert [metric.label for metric in page.metric] == ["HR@10", "NDCG@10", "MRR", "Median rank"]
    for shown, name in zip(page.metric[:3], ("hr@10", "ndcg@10", "mrr"), strict=True):
        assert shown.value == f"{written[name]['mean']:.4f}"
        assert shown.delta == f"{written[name]['low']:.4f} to {written[name]['high']:.4f}"
        assert shown.value not in (f"{evaluated['seen_kept'][name]['mean']:.4f}", "0.0000", "1.0000")
    assert page.metric[3].delta == f"{evaluated['users']} users" == "60 users"


@pytest.mark.parametrize("metric", ["HR@10", "NDCG@10"])
@pytest.mark.parametrize(
    ("label", "name", "classes"),
    [
        ("History length", "history_length", {1: "1 to 5", 6: "6 to 10"}),
        ("Popularity", "target_popularity", {5: "5 to 19", 20: "20 to 49"}),
        ("Cold items", "cold_target", {5: "5 and more"}),
    ],
)
def test_slices_are_what_the_command_writes(evaluated: dict, label: str, name: str, classes: dict, metric: str):
    page = open_errors(view="Slices", slice=label, metric=metric)
    rows = [row for row in evaluated["slices"] if row["slice"] == name]
    shown = page.dataframe[0].value
    assert dict(zip((row["from"] for row in rows), shown[label], strict=True)) == classes
    assert shown["Users"].tolist() == [row["users"] for row in rows]
    assert shown["Users"].sum() == evaluated["users"]
    for column, key in ((metric, "mean"), ("95 % from", "low"), ("95 % to", "high")):
        assert shown[column].tolist() == [row[metric.casefold()][key] for row in rows]


def test_slices_by_genre_count_every_genre_of_the_target(page: AppTest, runs: dict[str, Path], film_dataset: Dataset):
    page = open_errors(view="Slices", slice="Genres")
    cases = cases_of(runs["itemknn"])
    own = cases["target"].map(film_dataset.catalog.items["genres"].str.split("|"))
    shown = page.dataframe[0].value.set_index("Genres")
    assert shown["Users"].to_dict() == own.explode().value_counts().to_dict()


def test_what_was_recommended_instead_has_its_table_and_its_figure(page: AppTest, runs: dict[str, Path]):
    page = open_errors(view="Instead")
    cases = cases_of(runs["itemknn"])
    model = Recommender.load(runs["itemknn"])
    expected = recommended_instead(cases, error_analysis.item_categories(model.catalog)["genres"])
    shown = page.dataframe[0].value
    assert shown["Genres"].tolist() == expected["category"].tolist()
    assert shown["Recommended instead"].tolist() == pytest.approx(expected["of_lists"].tolist())
    assert f"**{int((cases['rank'] > 10).sum())}** held-out items" in texts(page)
    assert len(page.get("plotly_chart")) == 1


def test_two_models_are_paired_by_user(page: AppTest, runs: dict[str, Path]):
    page = open_errors(view="Two models")
    mine, theirs = (cases_of(runs[name]).set_index("user_id")["rank"] for name in ("itemknn", "popularity"))
    wins, losses = int((mine < theirs).sum()), int((mine > theirs).sum())
    assert [metric.value for metric in page.metric[:3]] == [str(wins), str(losses), str(60 - wins - losses)]
    shown = next(table.value for table in page.dataframe if "user_id" in table.value).set_index("user_id")
    assert shown["other_rank"].to_dict() == theirs.to_dict()
    assert (1 / shown["rank"] - 1 / shown["other_rank"]).is_monotonic_increasing
    assert len(page.get("plotly_chart")) == 1


def test_a_variant_of_ones_own_is_called_what_it_was_retrained_without(page: AppTest, runs: dict[str, Path]):
    settings = Settings(masking={"enabled": False}, adapters={"weights": "gated"}).model_dump(mode="json")
    variant = {**read_run(runs["popularity"]), "kind": "darec", "name": "DARec", "settings": settings}
    write_json(runs["popularity"] / "run.json", variant)
    page, called = (
        open_errors(view="Two models", compared="popularity"),
        "popularity, retrained without context masking",
    )
    assert page.selectbox(key="compared").options == [called]
    assert f"only with {called}" in texts(page)
    page.query_params.clear()
    page.query_params["training_view"] = "What each part adds"
    page.switch_page("app/app_pages/training.py").run()
    models = page.dataframe[-1].value.set_index("Run")["Model"]
    assert models["popularity"] == "DARec retrained without context masking"


def test_a_run_on_other_data_or_alone_is_not_compared(
    page: AppTest, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    content = json.loads((runs["popularity"] / "run.json").read_text())
    (runs["popularity"] / "run.json").write_text(json.dumps({**content, "data_fingerprint": "other"}))
    page = open_errors(view="Two models")
    assert "no other run on the same data" in page.info[0].value


def test_a_run_without_ranks_offers_to_make_them_and_keeps_them(page: AppTest, runs: dict[str, Path]):
    path = runs["itemknn"] / "ranks-test.parquet"
    expected = pd.read_parquet(path)
    path.unlink()
    page.run()
    assert not page.exception
    assert "python -m darec evaluate" in page.code[0].value
    click(page, "Rank 60 test users")
    assert not page.exception
    assert len(page.dataframe[0].value) == 60
    assert pd.read_parquet(path)["rank"].tolist() == expected["rank"].tolist()


def test_a_stop_ends_the_ranking_at_its_next_sign_of_progress_and_keeps_nothing(
    page: AppTest, runs: dict[str, Path], click_meanwhile: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    (runs["itemknn"] / "ranks-test.parquet").unlink()
    page.run()
    ranked: list[int] = []

    def rank_until_clicked(*arguments, on_progress: Callable[[int, int], None]) -> pd.DataFrame:
        def advance(done: int, total: int) -> None:
            ranked.append(done)
            if done == 20:
                click_meanwhile()
            on_progress(done, total)

        return rank_cases(*arguments, batch_size=10, on_progress=advance)

    with monkeypatch.context() as slow:
        slow.setattr(case_widgets, "rank_cases", rank_until_clicked)
        click(page, "Rank 60 test users")
    assert ranked == [10, 20]
    assert not page.get("progress")
    assert not page.dataframe
    assert not (runs["itemknn"] / "ranks-test.parquet").exists()
    click(page, "Rank 60 test users")
    assert len(page.dataframe[0].value) == 60


def test_ranks_that_can_be_kept_nowhere_last_as_long_as_the_session(
    page: AppTest, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    (runs["itemknn"] / "ranks-test.parquet").unlink()
    page.run()
    with monkeypatch.context() as nowhere:
        nowhere.setattr(error_analysis.os, "replace", lambda *paths: os.stat("/not there"))
        click(page, "Rank 60 test users")
    assert not page.exception
    page.run()
    assert len(page.dataframe[0].value) == 60
    assert not (runs["itemknn"] / "ranks-test.parquet").exists()


def test_ranks_of_other_users_are_refused_in_one_sentence(page: AppTest, runs: dict[str, Path]):
    path = runs["itemknn"] / "ranks-test.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path)
    os.utime(path, ns=(1, 1))  # another time than before, whatever the clock's grain
    page.run()
    assert not page.exception
    assert literal("has others. Delete it") in page.error[0].value


def write_note(page: AppTest, author: str, tags: list[str], text: str) -> None:
    page.text_input(key="author").set_value(author).run()
    next(element for element in page.multiselect if element.label == "Tags").set_value(tags)
    page.text_area[0].set_value(text)
    click(page, "Save the note")
    assert not page.exception


def test_a_note_is_kept_for_another_session_and_the_name_for_this_one(page: AppTest, runs: dict[str, Path]):
    page = open_errors(user="user 7")
    write_note(page, "Ada", ["too popular"], "Why *this* one?")
    model = Recommender.load(runs["itemknn"])
    [row] = Notes("notes.sqlite").read(model.info["data_fingerprint"]).to_dict("records")
    assert (row["author"], row["tags"], row["note"]) == ("Ada", ["too popular"], "Why *this* one?")
    assert (row["run_id"], row["run_name"]) == (identify_run(runs["itemknn"]), "itemknn")
    assert row["target_item_id"] == model.catalog.item_ids[model.split.test.targets[7]]
    assert page.dataframe[0].value.set_index("user_id").loc["user 7", "notes"] == 1
    page.query_params["user"] = "user 8"
    page.run()
    assert page.text_input(key="author").value == "Ada"
    assert page.text_area[0].value == ""

    other = open_errors(user="user 7")
    assert "**Ada**, on itemknn" in texts(other)
    assert "Why *this* one?" in texts(other)
    other = open_errors(view="Notes")
    assert other.dataframe[0].value["note"].tolist() == ["Why *this* one?"]


def test_ones_own_note_is_opened_again_and_replaced(page: AppTest, runs: dict[str, Path]):
    page = open_errors(user="user 7")
    write_note(page, "Ada", ["plausible"], "first")
    assert page.text_area[0].value == "first"
    write_note(page, "Ada", ["plausible", "of my own"], "second")
    fingerprint = Recommender.load(runs["itemknn"]).info["data_fingerprint"]
    [row] = Notes("notes.sqlite").read(fingerprint).to_dict("records")
    assert (row["tags"], row["note"]) == (["plausible", "of my own"], "second")


def test_what_was_typed_and_not_saved_survives_another_name(page: AppTest, runs: dict[str, Path]):
    page = open_errors(user="user 7")
    write_note(page, "Ada", ["plausible"], "first")
    page.text_input(key="author").set_value("Bob").run()
    tags = next(element for element in page.multiselect if element.label == "Tags")
    assert (tags.value, page.text_area[0].value) == ([], "")  # Ada's is hers
    tags.set_value(["cold item"])
    page.text_area[0].set_value("typed")
    for name in ("Ada", "Adam"):  # as its letters come
        page.text_input(key="author").set_value(name).run()
        tags = next(element for element in page.multiselect if element.label == "Tags")
        assert (tags.value, page.text_area[0].value) == (["cold item"], "typed")
        assert ("replaced when you save: first · plausible" in texts(page)) == (name == "Ada")
    click(page, "Save the note")
    fingerprint = Recommender.load(runs["itemknn"]).info["data_fingerprint"]
    noted = Notes("notes.sqlite").read(fingerprint).set_index("author")["note"]
    assert noted.to_dict() == {"Ada": "first", "Adam": "typed"}
    page.text_input(key="author").set_value("Ada").run()
    assert page.text_area[0].value == "first"  # what was saved makes room


def test_a_note_without_a_name_is_refused_and_nothing_is_lost(page: AppTest):
    page = open_errors(user="user 7")
    write_note(page, " ", [], "nameless")
    assert "needs a name" in page.error[0].value
    assert page.text_area[0].value == "nameless"
    assert not Path("notes.sqlite").exists()


def test_the_notes_file_is_where_the_command_line_says(page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--notes", str(tmp_path / "class.sqlite")])
    page = open_errors(user="user 7")
    write_note(page, "Ada", [], "here")
    assert (tmp_path / "class.sqlite").exists()
    assert not (tmp_path / "notes.sqlite").exists()


def test_a_broken_notes_file_is_named_and_hides_nothing_else(page: AppTest, tmp_path: Path):
    (tmp_path / "notes.sqlite").write_text("not a database, " * 100)
    page.run()
    assert not page.exception
    assert literal("DAREC_NOTES") in page.error[0].value
    assert len(page.dataframe[0].value) == 60


def test_another_run_than_the_noted_one_shows_the_note_too(page: AppTest, runs: dict[str, Path]):
    fingerprint = Recommender.load(runs["itemknn"]).info["data_fingerprint"]
    case = NotedCase(fingerprint, "user 7", identify_run(runs["popularity"]), "popularity", "f1", 3)
    Notes("notes.sqlite").write(case, "Bob", note="seen there")
    page = open_errors(user="user 7")
    assert "**Bob**, on popularity" in texts(page)


def test_a_folder_written_anew_is_read_anew(page: AppTest, runs: dict[str, Path]):
    shutil.copyfile(runs["popularity"] / "ranks-test.parquet", runs["itemknn"] / "ranks-test.parquet")
    os.utime(runs["itemknn"] / "ranks-test.parquet", ns=(1, 1))
    page.run()
    expected = sorted(cases_of(runs["popularity"])["rank"], reverse=True)
    assert page.dataframe[0].value["rank"].tolist() == expected


def test_comparable_runs_skip_what_is_no_run(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    arguments = [word for folder in (*runs.values(), tmp_path / "gone") for word in ("--run", str(folder))]
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py", *arguments])
    found = resources.comparable_runs(runs["itemknn"], Recommender.load(runs["itemknn"]))
    assert found == {"popularity": runs["popularity"]}


@pytest.fixture
def explained(
    runs: dict[str, Path], make_model: Callable[..., DarecModel], film_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Recommender:
    """The first run answered by a tiny DARec model in the place of ItemKNN."""
    info = {**Recommender.load(runs["itemknn"]).info, "kind": "darec"}
    recommender = Recommender(info, film_dataset, make_model(), reads_text=True)
    monkeypatch.setattr(resources, "load_recommender", lambda run: recommender)
    return recommender


def test_explanations_are_averaged_over_a_slice_and_over_all_others(explained: Recommender):
    page = open_errors(view="Explanations", length=["4", "5"])
    assert "collaborative filtering (CF)" in page.segmented_control(key="averaged").help
    page.selectbox(key="averaged_users").set_value(20).run()
    click(page, "Average")
    shown = page.dataframe[0].value
    cases, test = cases_of(Path("itemknn")), explained.split.test
    inside = cases["history_length"].between(4, 5)
    for name, part in (("these users", cases[inside]), ("the others", cases[~inside])):
        drawn = part.sample(20, random_state=0)
        histories = [test.histories[place].tolist() for place in drawn.index]
        *_, expected = average_score_terms(explained.scorer, histories, drawn["target"].tolist())
        own = shown[shown["slice"] == name]
        assert own["column"].tolist() == [TERM_NAMES.get(name, name) for name in expected.names]
        assert own["mean"].tolist() == pytest.approx(expected.mean()[0].tolist())
        assert set(own["users"]) == {20}


def test_without_a_filter_found_users_stand_against_missed_ones(explained: Recommender):
    page = open_errors(view="Explanations", averaged="Attention")
    page.selectbox(key="averaged_users").set_value(20).run()
    click(page, "Average")
    shown = page.dataframe[0].value
    assert set(shown["slice"]) == {"found", "missed"}
    shares = shown.groupby(["slice", "row"])["mean"].sum()
    assert shares.tolist() == pytest.approx([1] * len(shares))
    assert any("Read under the context mask" in caption.value for caption in page.caption)
    page.slider(key="length").set_range(4, 5).run()
    assert not page.dataframe  # those averages were of other users


def test_adaption_weights_are_averaged_over_either_side(explained: Recommender):
    page = open_errors(view="Explanations", averaged="Adaption weights", length=["4", "5"])
    page.selectbox(key="averaged_users").set_value(20).run()
    click(page, "Average")
    shown = page.dataframe[0].value
    cases, test = cases_of(Path("itemknn")), explained.split.test
    drawn = cases[cases["history_length"].between(4, 5)].sample(20, random_state=0)
    expected = read_weights(explained.scorer, [test.histories[place].tolist() for place in drawn.index]).mean(axis=0)
    own = shown[shown["slice"] == "these users"].pivot(index="row", columns="column", values="mean")
    assert own[list(list_options(explained.scorer))].to_numpy() == pytest.approx(expected)
    assert set(shown["slice"]) == {"these users", "the others"}


def test_a_model_without_attention_says_so(page: AppTest):
    assert "Only a DARec run" in open_errors(view="Explanations").info[0].value


def test_saved_cases_tell_items_by_their_ids_and_everybodys_tags(runs: dict[str, Path]):
    model = Recommender.load(runs["itemknn"])
    ranks = pd.read_parquet(runs["itemknn"] / "ranks-test.parquet")
    notes = pd.DataFrame({"user_id": ["user 7", "user 7"], "tags": [["too popular", "a puzzle"], ["a puzzle"]]})
    saved = cases_to_save(list_cases(ranks, model.catalog), model.catalog, notes).set_index("user_id")
    place = model.split.test.user_ids.index("user 7")
    row = saved.loc["user 7"]
    assert row["target_item_id"] == model.catalog.item_ids[model.split.test.targets[place]]
    best = model.recommend(model.split.test.histories[place].tolist(), 3)
    assert row["listed_item_ids"].split("|")[:3] == [line.item_id for line in best]
    assert row["tags"] == "a puzzle|too popular"
    assert saved.loc["user 8", "tags"] == ""
    assert (cases_to_save(list_cases(ranks, model.catalog), model.catalog, notes[:0])["tags"] == "").all()
