import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import four_bit_widgets, resources, training_resources, training_widgets
from app.widgets import literal
from darec.background import Jobs
from darec.data.interactions import Dataset
from darec.runs import read_run

ENTRY = Path(__file__).parents[2] / "streamlit_app.py"
PAGE = "app/app_pages/training.py"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, film_dataset: Dataset) -> Path:
    """A folder in which an app starts, with prepared data and no run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["streamlit_app.py"])
    (tmp_path / "data" / "films").mkdir(parents=True)
    film_dataset.save(tmp_path / "data" / "films")
    return tmp_path


@pytest.fixture
def page(folder: Path) -> Iterator[AppTest]:
    yield AppTest.from_file(str(ENTRY), default_timeout=60).switch_page(PAGE)
    jobs = training_resources.open_jobs()
    jobs.stop()
    jobs.wait()
    st.cache_resource.clear()


def button(page: AppTest, label: str):
    return next(element for element in page.button if element.label == label)


def texts(page: AppTest) -> str:
    assert not page.exception
    return "\n".join(element.value for kind in (page.markdown, page.caption, page.subheader) for element in kind)


def start(page: AppTest, epochs: int) -> Jobs:
    page.run()
    page.number_input(key="epochs classroom").set_value(epochs).run()
    button(page, "Start training").click().run()
    assert not page.error
    return training_resources.open_jobs()


def test_the_first_screen_offers_data_and_says_what_will_be_seen(page: AppTest):
    page.run()
    assert page.selectbox(key="training_data").value == "films"
    assert "60 users · 20 items" in texts(page)
    assert "Nothing has been trained here yet" in texts(page)
    assert page.text_input[0].value == "classroom"


@pytest.mark.slow
def test_a_training_is_started_seen_by_another_session_stopped_and_goes_on(page: AppTest, folder: Path):
    jobs = start(page, 8)
    running = jobs.running()
    assert running is not None
    assert "classroom is learning" in texts(page)
    assert button(page, "Start training").disabled
    assert page.text_input[0].value == "classroom-2"

    other = AppTest.from_file(str(ENTRY), default_timeout=60).switch_page(PAGE).run()
    assert "classroom is learning" in texts(other)
    page.switch_page("app/app_pages/recommend.py").run()
    assert jobs.running() == running
    button(other, "Stop").click().run()
    assert jobs.wait() == 130

    page.switch_page(PAGE).run()
    assert page.selectbox(key="training_shown").value == "classroom"
    button(page, "Resume").click().run()
    assert jobs.running() == running
    assert jobs.wait() == 0
    page.run()
    assert "is finished" in texts(page)
    assert [metric.label for metric in page.metric] == [
        "Loss of the next item",
        "Validation NDCG@10",
        "Validation, CF off",
    ]

    button(page, "Quantize to 4 bits").click().run()
    assert "classroom\\-4bit is being made" in texts(page)
    assert len(page.get("progress")) == 1
    assert jobs.wait() == 0
    assert jobs.stage_of(jobs.latest()).stage.startswith("Ranking ")
    page.button_group(key="training_view").set_value("Four bits").run()
    report = read_run(folder / "runs" / "classroom-4bit")["quantization"]
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown["Size"] == four_bit_widgets.spell_bytes(report["bytes_after"])
    assert shown["Kendall's tau"] == f"{report['validation']['kendall_tau']:.3f}"
    assert page.selectbox(key="map").value == "model.layers.0.mlp.down_proj.weight"
    assert "Weights before quantization" in texts(page)

    path = folder / "runs" / "classroom-4bit" / "run.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    for overlap, said in ((0.95, False), (1.0, True)):
        info["quantization"]["validation"]["overlap@10"] = overlap
        path.write_text(json.dumps(info), encoding="utf-8")
        assert ("Almost nothing changed" in texts(page.run())) == said


def test_a_folder_without_data_is_named_in_one_sentence(page: AppTest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(st, "get_option", lambda name: "127.0.0.1")
    page.session_state["training_data"] = "nowhere"
    page.run()
    assert [error.value for error in page.error] == [
        literal("nowhere must hold interactions.parquet. Make it with `python -m darec data prepare`.")
    ]
    assert not page.exception


@pytest.mark.parametrize("address", ["0.0.0.0", "", None])
def test_visitors_from_a_network_name_no_folder_and_no_model(
    page: AppTest, folder: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
):
    monkeypatch.setattr(st, "get_option", lambda name: address)
    page.session_state["training_data"] = str(folder)
    page.session_state["training_backbone"] = "somebody/a-model"
    page.run()
    assert not page.error
    assert page.selectbox(key="training_data").value == "films"
    assert page.selectbox(key="training_backbone").value == training_widgets.TINY


def test_a_name_that_is_taken_is_refused(page: AppTest, folder: Path):
    (folder / "runs" / "films").mkdir(parents=True)
    page.run()
    page.text_input[0].set_value("films")
    button(page, "Start training").click().run()
    assert literal("films exists. Choose another name.") in page.error[0].value
    assert training_resources.open_jobs().running() is None


@pytest.mark.slow
def test_a_failed_training_says_why_and_can_be_deleted(page: AppTest, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training_resources, "list_backbones", lambda: [str(folder / "no-model")])
    page.run()
    page.selectbox(key="training_backbone").set_value(str(folder / "no-model")).run()
    button(page, "Start training").click().run()
    jobs = training_resources.open_jobs()
    assert jobs.wait() == 2
    page.run()
    assert "no-model" in page.error[0].value.replace("\\", "")
    assert not page.exception
    button(page, "Delete for good").click().run()
    assert jobs.unfinished() == []
    assert "Nothing has been trained here yet" in texts(page)


def test_runs_that_are_ranked_are_compared(page: AppTest, folder: Path, film_run: Path):
    shutil.copytree(film_run, folder / "runs" / "films")
    ranks = pd.DataFrame({"rank": [1, 2, 20, 30]})
    ranks.to_parquet(folder / "runs" / "films" / "ranks-test.parquet")
    page.query_params["training_view"] = "What each part adds"
    page.run()
    row = page.dataframe[-1].value.iloc[0]
    assert (row["Run"], row["Model"]) == ("films", read_run(film_run)["name"])
    assert row["HR@10"] == 0.5
    assert row["NDCG@10"] == pytest.approx((1 + 0.63093) / 4, abs=1e-5)  # 1 / log2(3) for rank 2


def test_the_shipped_card_is_a_table_with_what_darec_has_beyond_each(
    page: AppTest, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def measured(mean: float) -> dict:
        return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}

    models = {
        name: {"name": shown, "seen_removed": {"ndcg@10": measured(ndcg), "hr@10": measured(2 * ndcg)}}
        for name, shown, ndcg in (("darec", "DARec", 0.25), ("sasrec", "SASRec", 0.125))
    }
    gap = {"difference": 0.125, "low": 0.0625, "high": 0.1875}
    (folder / "demo").mkdir()
    (folder / "demo" / "card.json").write_text(
        json.dumps({"models": models, "darec minus": {"sasrec": {"all": gap}}}), encoding="utf-8"
    )
    monkeypatch.setattr(resources, "DEMO", folder / "demo")
    page.query_params["training_view"] = "What each part adds"
    page.run()
    assert page.dataframe[-1].value.to_numpy().tolist() == [
        ["DARec", 0.25, 0.24, 0.26, 0.5, ""],
        ["SASRec", 0.125, 0.115, 0.135, 0.25, "+0.1250 (+0.0625 to +0.1875)"],
    ]
    assert any("no evidence about people, nor for the paper." in caption.value for caption in page.caption)


def test_bytes_of_the_trained_parts_are_what_the_backbone_leaves():
    report = {
        "backbone": {
            "bytes_before": {"linear_maps": 8000, "embeddings": 4000, "other": 0},
            "bytes_after": {"linear_maps": 1000, "embeddings": 2000, "other": 0},
        },
        "bytes_before": 2_012_000,
        "bytes_after": 1_003_000,
    }
    table = four_bit_widgets.bytes_table(report)
    assert table.to_numpy().tolist() == [
        ["Linear maps of the layers", "8.0 kB", "1.0 kB", "12%"],
        ["Word embeddings", "4.0 kB", "2.0 kB", "50%"],
        ["Norms and biases", "0.0 kB", "0.0 kB", ""],
        ["Adapters, heads, CF model", "2.0 MB", "1.0 MB", "50%"],
        ["All", "2.0 MB", "1.0 MB", "50%"],
    ]


def test_a_free_name_is_counted_up(tmp_path: Path):
    jobs = Jobs(tmp_path)
    assert training_widgets.free_name(jobs, "films") == "films"
    (tmp_path / "films").mkdir()
    (tmp_path / "films-2").mkdir()
    assert training_widgets.free_name(jobs, "films") == "films-3"


@pytest.mark.parametrize(("seconds", "spelt"), [(0.2, "1 s"), (89, "89 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations_are_spelt(seconds: float, spelt: str):
    assert training_widgets.spell_seconds(seconds) == spelt


def test_the_menus_follow_the_model_and_the_link(page: AppTest, folder: Path, film_run: Path):
    for name in ("one", "two"):
        shutil.copytree(film_run, folder / "runs" / name)
        (folder / "runs" / name / "metrics.jsonl").write_text(
            '{"stage": "training", "epoch": 1, "step": 1, "loss": 2.0}\n'
        )
    page.query_params["run"] = "two"
    page.run()
    assert (page.selectbox(key="run").value, page.selectbox(key="training_shown").value) == ("two", "two")
    page.selectbox(key="run").set_value("one").run()
    assert page.selectbox(key="training_shown").value == "one"
    assert page.query_params["run"] == page.query_params["training_shown"] == "one"
    page.selectbox(key="training_shown").set_value("two").run()
    assert (page.selectbox(key="run").value, page.selectbox(key="training_shown").value) == ("one", "two")
    assert page.query_params["training_shown"] == "two"
    assert "**two** is finished" in texts(page)

    page.switch_page("app/app_pages/recommend.py").run()
    page.query_params.clear()  # as the link of a menu leaves them behind
    page.switch_page(PAGE).run()
    assert page.selectbox(key="training_shown").value == "two"
    page.query_params.update(run="nowhere", training_shown="nowhere")
    page.run()
    said = [warning.value.replace("\\", "") for warning in page.warning]
    assert said == ["There is no run 'nowhere' here; this is one.", "There is no 'nowhere' here; this is one."]


def test_data_of_a_run_is_offered_once(page: AppTest, folder: Path, film_run: Path):
    shutil.copytree(film_run, folder / "runs" / "one")
    shutil.copytree(film_run, folder / "runs" / "two")
    page.run()
    assert page.selectbox(key="training_data").options == ["films"]  # the runs' data is the same
    shutil.rmtree(folder / "data")
    page.run()
    assert page.selectbox(key="training_data").options == ["data of one"]
