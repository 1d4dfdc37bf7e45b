import threading

import numpy as np
import pytest
from invented_films import SMALL

from darec.config import AdapterSettings
from darec.errors import ConfigError, DataError
from darec.explain.adaption import average_weights, list_options, read_weights, switch_off
from darec.explain.layers import read_adapters
from darec.explain.scoring import candidates_after, ranks_among, scores_after
from darec.figures.adaption import weights_figure, weights_table

HISTORIES = [[0, 3, "The Paper Astronaut strikes again"], [7], [1, 2]]
UNEVEN = (("lora_attention:8", "parallel:16"), ("serial:4",))


@pytest.fixture(scope="module")
def gated(make_model):
    return make_model(settings=SMALL.model_copy(update={"adapters": AdapterSettings(layers=UNEVEN, weights="gated")}))


def test_options_are_the_kinds_that_the_model_has(gated, make_model):
    assert list_options(gated) == ("none", "lora_attention", "parallel", "serial")
    assert list_options(make_model()) == ("none", "lora_attention", "lora_mlp")


def test_weights_are_those_of_each_adapter_and_sum_to_1_in_a_layer(gated):
    weights = read_weights(gated, HISTORIES)
    np.testing.assert_allclose(np.nansum(weights, axis=-1), 1)
    assert np.isnan(weights[0]).tolist() == [[False, False, False, True], [False, True, True, False]]
    readings = read_adapters(gated, HISTORIES[0])
    assert [own.weight for own in readings] == pytest.approx([weights[0, 0, 1], weights[0, 0, 2], weights[0, 1, 3]])


def test_the_average_over_users_comes_batch_by_batch(gated):
    found = list(average_weights(gated, HISTORIES, batch_size=2))
    assert [(average.users, average.total) for average in found] == [(2, 3), (3, 3)]
    one_by_one = np.stack([read_weights(gated, [history])[0] for history in HISTORIES])
    np.testing.assert_allclose(found[-1].mean(), one_by_one.mean(axis=0), rtol=1e-5)
    with pytest.raises(DataError, match="at least one user"):
        next(average_weights(gated, []))


def test_a_model_without_adapters_has_no_weights(make_model):
    without = make_model(settings=SMALL.model_copy(update={"adapters": AdapterSettings(enabled=False)}))
    with pytest.raises(ConfigError, match="without adapters"):
        read_weights(without, HISTORIES)


def test_switching_off_changes_ranks_as_zeroing_the_adapter_does(make_model):
    settings = SMALL.model_copy(update={"adapters": AdapterSettings(layers=UNEVEN, weights="gated")})
    model, history = make_model(settings=settings), HISTORIES[0]
    with_all, without = switch_off(model, history, [(0, "parallel"), (1, "serial")])
    assert (with_all != without).any()
    titles = model.item_encodings.clone()
    for name in ("0_parallel", "1_serial"):
        model.bank.bottlenecks[name].up.weight.data.zero_()
        model.bank.bottlenecks[name].up.bias.data.zero_()
    assert (model.item_encodings == titles).all()
    zeroed = ranks_among(scores_after(model, [history]), candidates_after(model, history))[0]
    np.testing.assert_array_equal(without, zeroed)


def test_others_who_share_the_model_keep_their_adapters(gated):
    history, off = HISTORIES[0], [(0, "lora_attention"), (0, "parallel"), (1, "serial")]
    undisturbed = scores_after(gated, [history])
    done, scores = threading.Event(), []

    def read_on():
        while not done.is_set() or not scores:
            scores.append(scores_after(gated, [history]))

    reader = threading.Thread(target=read_on)
    reader.start()
    for _ in range(5):
        switch_off(gated, history, off)
    done.set()
    reader.join()
    for own in [*scores, scores_after(gated, [history])]:
        np.testing.assert_array_equal(own, undisturbed)


@pytest.mark.parametrize("off", [(0, "serial"), (2, "serial"), (-1, "serial")])
def test_only_what_a_layer_has_can_be_switched_off(gated, off):
    with pytest.raises(ConfigError, match=f"layer {off[0] + 1} has no serial"):
        switch_off(gated, [0], [off])


def test_the_figure_stacks_to_100_and_its_table_says_the_difference(gated):
    options = list_options(gated)
    sides = dict(zip(("this history", "another"), read_weights(gated, HISTORIES[:2]), strict=True))
    figure, table = weights_figure(sides, options), weights_table(sides, options)
    stacked = np.nansum([bar.x for bar in figure.data[: len(options)]], axis=0)
    np.testing.assert_allclose(stacked, 100)
    assert table["layer"].tolist() == [1, 1, 1, 2, 2]
    np.testing.assert_allclose(table["difference"], table["this history"] - table["another"])
    assert table["difference"].abs().max() > 0
