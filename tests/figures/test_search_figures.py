"""Figures of a search hold the numbers of its tables."""

import json

import numpy as np
import pandas as pd
import pytest
from drawn import PALETTE, axes_without_unit, colors_of

from darec.figures.search import (
    architecture_figure,
    architecture_table,
    best_so_far_figure,
    best_so_far_table,
    importances_figure,
    importances_table,
    pareto_figure,
    pareto_table,
    retrained_figure,
    retrained_table,
)
from darec.search.results import SearchResult, summarize_search

LAYERS = (("lora_attention:8", "parallel:8"), (), ("serial:64",))


@pytest.fixture
def result() -> SearchResult:
    rows = [
        ("warm start", 0, 3.0, 100, "attention+mlp", 4),
        ("warm start", 1, 2.8, 400, "attention+mlp", 16),
        ("bayesian", 2, 2.9, 200, "serial", 8),
        ("bayesian", 3, 2.5, 300, "parallel", 8),
        ("random", 0, 2.7, 500, "parallel", 32),
        ("random", 1, 3.1, 50, "none", 4),
    ]
    columns = ["sampler", "number", "cross_entropy", "parameters", "kind_0", "size_0"]
    trials = pd.DataFrame(rows, columns=columns).assign(**{"architecture": json.dumps(LAYERS), "ndcg@10": 0.1})
    retrained = [
        {"label": "searched 1", "parameters": 300, "cross_entropy": 2.5, "ndcg@10": 0.2, "epochs": 2, "winner": True},
        {
            "label": "uniform LoRA",
            "parameters": 310,
            "cross_entropy": 2.9,
            "ndcg@10": 0.1,
            "epochs": 2,
            "winner": False,
        },
        {"label": "random", "parameters": 500, "cross_entropy": 2.7, "ndcg@10": 0.1, "epochs": 2, "winner": False},
    ]
    summary = {"retrained": retrained, "space": {"layers_per_block": 2, "layers": 3}, "winner": "searched 1"}
    return summarize_search(trials, summary)


def trace(figure, name):
    return next(own for own in figure.data if own.name == name)


def test_search_random_band_and_uniform_lora_are_in_one_picture(result: SearchResult):
    table, figure = best_so_far_table(result), best_so_far_figure(result)
    assert list(trace(figure, "Bayesian optimization").y) == [3.0, 2.8, 2.8, 2.5]
    assert set(trace(figure, "best uniform LoRA").y) == {2.8}
    np.testing.assert_allclose(trace(figure, "random search, median").y, table["random_median"])
    np.testing.assert_allclose(trace(figure, "random search, 5 to 95 %").y, table["random_low"])
    assert "nats" in figure.layout.yaxis.title.text


def test_uniform_lora_of_the_chosen_size_is_drawn_where_it_was_scored(result: SearchResult):
    name = "uniform LoRA, as large as the chosen"
    for figure, place in ((best_so_far_figure(result), 4), (pareto_figure(result), 310)):
        assert (list(trace(figure, name).x), list(trace(figure, name).y)) == ([place], [2.9])
    assert set(best_so_far_table(result)[name]) == {2.9}
    rows = [row | {"cross_entropy": None} for row in result.summary["retrained"]]  # as older searches left it
    before = summarize_search(result.trials, result.summary | {"retrained": rows})
    assert not len(trace(best_so_far_figure(before), name).x)
    assert name not in best_so_far_table(before)


def test_without_a_random_pool_there_is_no_band(result: SearchResult):
    trials = result.trials[result.trials["sampler"] != "random"]
    figure = best_so_far_figure(summarize_search(trials, result.summary))
    assert [own.name for own in figure.data] == [
        "Bayesian optimization",
        "best uniform LoRA",
        "uniform LoRA, as large as the chosen",
    ]


def test_pareto_front_joins_what_the_search_found(result: SearchResult):
    table, figure = pareto_table(result), pareto_figure(result)
    front = trace(figure, "Pareto front of the search")
    assert list(zip(front.x, front.y, strict=True)) == [(100, 3.0), (200, 2.9), (300, 2.5)]
    assert table.loc[table["on the front"], "parameters"].tolist() == [100, 200, 300]
    assert list(trace(figure, "random").x) == [500, 50]
    assert table["architecture"][0] == "1: lora_attention:8, parallel:8; 2: none; 3: serial:64"


def test_importances_are_named_by_layers(result: SearchResult):
    table, figure = importances_table(result), importances_figure(result)
    assert table["layers"].tolist() == ["1 to 2", "1 to 2"]
    assert table["choice"].tolist() == ["kind", "size"]
    np.testing.assert_allclose([bar.y[0] for bar in figure.data], 100 * table["explained"])


def test_architecture_shows_every_adapter_at_its_layer_larger_ones_larger():
    table, figure = architecture_table(LAYERS), architecture_figure(LAYERS)
    assert table.to_numpy().tolist() == [
        [1, "LoRA on attention", 8],
        [1, "parallel bottleneck", 8],
        [3, "serial bottleneck", 64],
    ]
    drawn = {(x, y, text) for own in figure.data for x, y, text in zip(own.x, own.y, own.text, strict=True)}
    assert ("serial bottleneck", 3, "64") in drawn
    assert ("LoRA on attention", 2, "no adapter") in drawn
    sizes = {own.text[0]: own.marker.size[0] for own in figure.data if len(own.x) and own.marker.size is not None}
    assert sizes["64"] > sizes["8"]


def test_retrained_architectures_stand_by_name_the_chosen_apart(result: SearchResult):
    figure = retrained_figure(result)
    assert list(trace(figure, "chosen").text) == ["searched 1"]
    assert list(trace(figure, "others").y) == [0.1, 0.1]
    assert retrained_table(result)["parameters"].tolist() == [300, 310, 500]


def test_every_figure_has_a_title_named_axes_and_colours_of_the_palette(result: SearchResult):
    for draw in (best_so_far_figure, pareto_figure, importances_figure, retrained_figure):
        figure = draw(result)
        assert colors_of(figure) <= PALETTE
        assert not axes_without_unit(figure)
        assert figure.layout.title.text
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text
