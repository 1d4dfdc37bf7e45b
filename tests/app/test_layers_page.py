import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from invented_films import SMALL
from streamlit.testing.v1 import AppTest

from app import resources
from darec.config import AdapterSettings
from darec.data.interactions import Dataset
from darec.explain.adaption import read_weights, switch_off
from darec.explain.layers import read_adapters
from darec.explain.scoring import scores_after

ROOT = Path(__file__).parents[2]
HISTORY = [0, 3, 7]
UNEVEN = AdapterSettings(layers=(("lora_attention:8", "parallel:16"), ("serial:4",)), weights="gated")


@pytest.fixture(scope="module")
def gated(make_model):
    return make_model(settings=SMALL.model_copy(update={"adapters": UNEVEN}))


@pytest.fixture
def start(start_page):
    """Opens the page in a new session, with a DARec model on the invented films."""
    return partial(start_page, "layers")


def run(page: AppTest) -> AppTest:
    page.run()
    assert not page.exception
    return page


def turn_to(page: AppTest, view: str) -> AppTest:
    page.segmented_control(key="layers_view").set_value(view)
    return run(page)


def table(page: AppTest):
    return page.dataframe[0].value


def button(page: AppTest, label: str):
    return next(element for element in page.button if element.label == label)


def test_it_opens_on_every_adapter_with_its_size_parameters_and_contribution(start, gated):
    page = start(gated)
    readings = read_adapters(gated, HISTORY)
    assert table(page)["size"].tolist() == [8, 16, 4]
    np.testing.assert_allclose(table(page)["contribution"], [own.contribution for own in readings], rtol=1e-5)
    assert [metric.value for metric in page.metric[:2]] == ["3", f"{sum(own.parameters for own in readings):,}"]


def test_weights_stand_against_the_users_average_once_it_is_asked_for(start, gated, film_dataset: Dataset):
    page = turn_to(start(gated), "Weights")
    assert list(table(page).columns) == ["layer", "option", "this history"]
    button(page, "Average").click()
    run(page)
    shown = table(page)
    name = next(column for column in shown.columns if column.startswith("average of"))
    assert name == "average of 50 test users"
    for column in ("this history", name):
        np.testing.assert_allclose(shown.groupby("layer")[column].sum(), 1, atol=1e-6)
    np.testing.assert_allclose(shown["difference"], shown["this history"] - shown[name])
    own = read_weights(gated, [HISTORY])[0]
    np.testing.assert_allclose(shown["this history"], own[~np.isnan(own)])
    again = start(gated)
    again.query_params["average"] = page.query_params["average"]
    pd.testing.assert_frame_equal(table(turn_to(again, "Weights")), shown)  # the link brings the average along
    asked, average = again.session_state["average weights"]
    again.session_state["average weights"] = asked, replace(average, values=average.values[:16])  # as after Stop
    button(again, "Average").click()
    pd.testing.assert_frame_equal(table(run(again)), shown)
    page.selectbox(key="averaged_weights").set_value(20)
    assert len(table(run(page)).columns) == 3  # another average is asked for anew


def test_weights_stand_against_another_user_and_an_unknown_one_is_refused(start, gated):
    page = turn_to(start(gated), "Weights")
    page.segmented_control(key="against").set_value("Another user")
    run(page)
    page.text_input(key="other_user").set_value("user 7")
    run(page)
    split = resources.load_recommender(Path()).split.test
    history = split.histories[split.user_ids.index("user 7")].tolist()
    own = read_weights(gated, [history])[0]
    np.testing.assert_allclose(table(page)["test user user 7"], own[~np.isnan(own)])
    page.text_input(key="other_user").set_value("nobody")
    run(page)
    assert "no test user 'nobody'" in page.error[0].value
    button(page, "Draw one").click()
    run(page)
    assert not page.error
    assert page.text_input(key="other_user").value in split.user_ids


def test_weights_stand_against_the_pinned_history_once_there_is_one(start, gated):
    page = turn_to(start(gated), "Weights")
    page.segmented_control(key="against").set_value("Pinned history")
    assert list(table(run(page)).columns) == ["layer", "option", "this history"]
    page.query_params["pinned"] = "f19~f4"
    shown = table(run(page))
    pinned = read_weights(gated, [[19, 4]])[0]
    np.testing.assert_allclose(shown["the pinned history"], pinned[~np.isnan(pinned)])
    assert not np.allclose(shown["the pinned history"], shown["this history"])


def test_a_history_is_pinned_beside_the_weights(start, gated):
    page = turn_to(start(gated), "Weights")
    page.segmented_control(key="against").set_value("Pinned history")
    button(run(page), "Pin this history").click()
    assert page.run().query_params["pinned"] == page.query_params["history"] == "f0~f3~f7"
    assert button(page, "Pin this history").disabled
    assert any("The weights equal those of the pinned history" in element.value for element in page.markdown)
    page.button(key="remove-0").click()
    shown = table(run(page))
    pinned = read_weights(gated, [HISTORY])[0]
    np.testing.assert_allclose(shown["the pinned history"], pinned[~np.isnan(pinned)])
    button(page, "Pin this history").click()
    assert run(page).query_params["pinned"] == "f3~f7"


def test_fixed_weights_are_said_to_be_and_contributions_and_switches_remain(start, make_model):
    page = turn_to(start(make_model()), "Weights")
    assert "fixed and equal" in page.info[0].value
    assert not page.dataframe
    assert "fixed and equal" in turn_to(page, "Contributions").caption[-1].value
    turn_to(page, "Switch off")
    page.button(key="power 1").click()
    run(page)
    assert page.query_params["off"] == "2.lora_attention~2.lora_mlp"
    assert len(table(page)) >= 10


def test_a_switch_changes_this_session_only_and_is_labelled_so(start, gated):
    undisturbed = scores_after(gated, [HISTORY])
    mine, other = start(gated), start(gated)
    for page in (mine, other):
        turn_to(page, "Switch off")
    mine.button_group(key="layer 0").set_value(["lora_attention"])
    run(mine)
    assert mine.query_params["off"] == "1.parallel"
    assert any("Switched off, not retrained" in element.value for element in mine.markdown)
    before, after = switch_off(gated, HISTORY, [(0, "parallel")])
    shown, titles = table(mine).dropna(), resources.load_recommender(Path()).catalog.titles
    items = [titles.index(title.removeprefix("★ ")) for title in shown["item"]]
    assert shown["before"].tolist() == before[items].tolist()
    assert shown["after"].tolist() == after[items].tolist()
    assert (before != after).any()
    run(other)
    assert "off" not in other.query_params
    assert "Every adapter is at work" in other.info[0].value
    assert not any("not retrained" in element.value for element in other.markdown)
    np.testing.assert_array_equal(scores_after(gated, [HISTORY]), undisturbed)


def test_the_item_in_focus_stands_among_the_ranks_however_low(start, gated):
    page = turn_to(start(gated), "Switch off")
    before, _ = switch_off(gated, HISTORY, [(0, "parallel")])
    last = int(before.argmax())
    title = resources.load_recommender(Path()).catalog.titles[last]
    for focus, shown in ((None, 0), (f"f{last}", 1)):
        page.query_params.update({"off": "1.parallel"} | ({"focus": focus} if focus else {}))
        run(page)
        assert table(page)["item"].str.contains(title, regex=False).sum() == shown


def test_a_layer_goes_off_and_on_as_a_whole_and_all_come_back(start, gated):
    page = turn_to(start(gated), "Switch off")
    page.button(key="power 0").click()
    run(page)
    assert page.button_group(key="layer 0").value == []
    page.button(key="power 1").click()
    run(page)
    assert page.query_params["off"] == "1.lora_attention~1.parallel~2.serial"
    page.button(key="power 0").click()
    run(page)
    assert page.query_params["off"] == "2.serial"
    assert page.button_group(key="layer 0").value == ["lora_attention", "parallel"]
    button(page, "All on").click()
    run(page)
    assert "off" not in page.query_params


def test_a_layer_without_adapters_has_no_switches_and_is_named(start, make_model):
    bare = AdapterSettings(layers=((), ("serial:4",)), weights="gated")
    page = turn_to(start(make_model(settings=SMALL.model_copy(update={"adapters": bare}))), "Switch off")
    assert [element.key for element in page.button if str(element.key).startswith("power")] == ["power 1"]
    assert any(element.value.endswith("No adapters: layer 1.") for element in page.caption)


def test_a_link_switches_off_what_this_model_has_and_the_rest_is_named(start, gated):
    page = turn_to(start(gated), "Switch off")
    page.query_params["off"] = "2.serial~2.lora_mlp~9.serial~x"
    run(page)
    said = page.warning[0].value.replace("\\", "")
    assert said == "This model has no adapter 2.lora_mlp, 9.serial, x to switch off."
    assert page.button_group(key="layer 1").value == []
    assert page.button_group(key="layer 0").value == ["lora_attention", "parallel"]


def test_a_model_without_adapters_or_without_layers_says_so(start, make_model):
    without = make_model(settings=SMALL.model_copy(update={"adapters": AdapterSettings(enabled=False)}))
    assert "without adapters" in start(without).info[0].value
    assert "no language model" in start(None).info[0].value


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """A run that kept a search of four trials: uniform LoRA, two proposed ones, one drawn at random."""
    architectures = [[["lora_attention:8"], ["lora_attention:8"]], [["serial:16"], []], [["parallel:8"], []], [[], []]]
    texts = [json.dumps(architecture) for architecture in architectures]
    run = tmp_path / "searched"
    run.mkdir()
    pd.DataFrame(
        {
            "sampler": ["warm start", "bayesian", "bayesian", "random"],
            "number": [0, 1, 2, 0],
            "architecture": texts,
            "cross_entropy": [3.0, 2.0, 2.5, 3.5],
            "ndcg@10": [0.1, 0.3, 0.2, 0.05],
            "parameters": [400, 300, 200, 0],
            "kind_0": ["lora_attention", "serial", "parallel", "none"],
            "size_0": [8, 16, 8, 4],
        }
    ).to_parquet(run / "trials.parquet")
    alone = [
        {
            "label": label,
            "architecture": texts[trial],
            "parameters": parameters,
            "cross_entropy": loss,
            "ndcg@10": ndcg,
            "epochs": 2,
            "winner": trial == 1,
        }
        for label, trial, parameters, loss, ndcg in (("best", 1, 300, 2.0, 0.31), ("uniform 8", 0, 400, 3.0, 0.12))
    ]
    summary = {"space": {"layers": 2, "layers_per_block": 1}, "retrained": alone}
    (run / "search.json").write_text(json.dumps(summary), encoding="utf-8")
    return run


def test_a_search_is_drawn_where_the_run_kept_one(start, gated, searched: Path, monkeypatch: pytest.MonkeyPatch):
    page = start(gated)
    assert "Search" not in page.segmented_control(key="layers_view").options
    monkeypatch.setattr(resources, "list_runs", lambda: {"films": searched})
    turn_to(run(page), "Search")
    shown = {}
    for view in page.segmented_control(key="search_view").options:
        page.segmented_control(key="search_view").set_value(view)
        run(page)
        assert not page.error
        assert len(page.get("plotly_chart")) == 1
        shown[view] = table(page)
    assert len(shown) == 5
    assert shown["Best so far"]["searched"].tolist() == [3.0, 2.0, 2.0]
    assert shown["Quality and size"]["on the front"].tolist() == [False, True, True, False]
    assert shown["Chosen adapters"].values.tolist() == [[1, "serial bottleneck", 16]]
    assert shown["Trained alone"]["label"].tolist() == ["best", "uniform 8"]
