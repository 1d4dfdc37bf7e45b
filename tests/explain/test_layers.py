import numpy as np
import pytest
import torch
from invented_films import SMALL

from darec.config import AdapterSettings
from darec.errors import DataError
from darec.explain.layers import read_adapters
from darec.figures.layers import contributions_figure, contributions_table
from darec.model.adapters import adapter_state

HISTORY = [0, 3, "The Paper Astronaut strikes again"]


LAYERS = (("lora_attention:8", "parallel:16"), ("serial:4",))


def uneven(weights: str = "gated"):
    return SMALL.model_copy(update={"adapters": AdapterSettings(layers=LAYERS, weights=weights)})


def test_every_adapter_is_listed_with_what_was_trained_in_it(make_model):
    model = make_model()
    readings = read_adapters(model, HISTORY)
    assert [(own.layer, own.kind, own.size) for own in readings] == [
        (layer, kind, 8) for layer in (0, 1) for kind in ("lora_attention", "lora_mlp")
    ]
    assert sum(own.parameters for own in readings) == sum(t.numel() for t in adapter_state(model.backbone).values())


def test_layers_may_carry_unlike_adapters_and_weights_are_means_over_items(make_model):
    model = make_model(settings=uneven())
    readings = read_adapters(model, HISTORY)
    assert [(own.layer, own.kind, own.size) for own in readings] == [
        (0, "lora_attention", 8),
        (0, "parallel", 16),
        (1, "serial", 4),
    ]
    width = model.backbone.config.hidden_size
    assert readings[2].parameters == (width * 4 + 4) + (4 * width + width)
    with torch.no_grad():
        weights = model.read([HISTORY]).adaption.weights[0]  # [items, layers, adapters]
    assert weights.shape[0] == len(HISTORY)
    assert readings[1].weight == pytest.approx(float(weights[:, 0, 1].mean()))
    assert readings[0].weight + readings[1].weight < 1  # the rest is none's


def test_a_contribution_stands_for_its_own_adapter(make_model):
    model = make_model(settings=uneven("static"))
    before = [own.contribution for own in read_adapters(model, HISTORY)]
    with torch.no_grad():
        model.bank.bottlenecks["1_serial"].up.weight.zero_()
        model.bank.bottlenecks["1_serial"].up.bias.zero_()
    after = [own.contribution for own in read_adapters(model, HISTORY)]
    assert min(before) > 0
    assert after == [pytest.approx(before[0]), pytest.approx(before[1]), 0.0]


def test_adapters_that_add_nothing_contribute_nothing_and_fixed_weights_are_equal(make_model):
    readings = read_adapters(make_model(shaken=False), HISTORY)
    assert [own.contribution for own in readings] == [0.0] * 4
    assert [own.weight for own in readings] == pytest.approx([1 / 3] * 4)


def test_the_table_counts_layers_from_one(make_model):
    readings = read_adapters(make_model(), HISTORY)
    table = contributions_table(readings)
    assert table["layer"].tolist() == [1, 1, 2, 2]
    figure = contributions_figure(readings, 4)  # of which two have none
    drawn = {bar.name: list(bar.y) for bar in figure.data}
    own = table[table["adapter"] == "LoRA on the MLP"]
    assert drawn["LoRA on the MLP"] == pytest.approx((100 * own["contribution"]).tolist())
    assert np.isfinite(table["contribution"]).all()
    sides = [
        (layer + offset, layer + offset + width)
        for bar in figure.data
        for layer, offset, width in zip(bar.x, bar.offset, bar.width, strict=True)
    ]
    np.testing.assert_allclose(sorted(sides), [(0.6, 1.0), (1.0, 1.4), (1.6, 2.0), (2.0, 2.4)])
    assert figure.layout.xaxis.range == (0.5, 4.5)


def test_an_empty_history_is_refused(make_model):
    with pytest.raises(DataError, match="at least one item"):
        read_adapters(make_model(), [])
