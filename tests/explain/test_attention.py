import contextvars
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from invented_films import SMALL

from darec.config import AdapterSettings
from darec.data.sequences import Kind
from darec.errors import BackboneError, ConfigError, DataError
from darec.explain.attention import WindowTokens, draw_mask, explain_attention, mask_of, summarize_attention
from darec.explain.recording import attention_recorded, stack_layers
from darec.model.bank import Adaption
from darec.model.recommender import DarecModel

HISTORY = [3, "An Unseen Film", 5]


@pytest.fixture(scope="module", params=["llama", "qwen3", "gpt2", "bert"])
def any_model(request: pytest.FixtureRequest, make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model(request.param)


@pytest.fixture(scope="module")
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model()


@pytest.mark.parametrize("mask", ["context", "causal", "intra-item"])
def test_rows_sum_to_one_and_stay_inside_the_mask(any_model: DarecModel, mask: str):
    found = explain_attention(any_model, HISTORY, mask)
    tokens = len(found.tokens.texts)
    assert found.weights.shape == (2, 4, tokens, tokens)
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
    assert (found.weights[:, :, ~found.mask] == 0).all()
    assert (found.weights[:, :, found.mask] > 0).all()
    np.testing.assert_allclose(found.items.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.shares.sum(-1), 1, atol=1e-5)
    assert not found.blind.any()


@torch.no_grad()
def test_recording_view_computes_what_the_model_computes(any_model: DarecModel):
    windows = any_model.windows.build([HISTORY, [1, 2]])
    mask, kept = mask_of("context", windows.packed), torch.ones(2, dtype=torch.bool)
    expected = any_model.encode(windows, mask, kept)
    with attention_recorded(any_model) as (view, record):
        seen = view.encode(windows, mask, kept)
    torch.testing.assert_close(seen.hidden_states, expected.hidden_states, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.states, expected.states, rtol=0, atol=1e-4)
    assert len(record) == 2
    assert any_model.backbone.config._attn_implementation == "sdpa"


@torch.no_grad()
def test_first_layers_weights_times_values_are_what_its_attention_puts_out(model: DarecModel):
    inputs: list[torch.Tensor] = []
    attention = model.backbone.model.layers[0].self_attn
    handle = attention.o_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    values = attention.v_proj.register_forward_hook(lambda *parts: inputs.append(parts[2]))
    try:
        found = explain_attention(model, HISTORY)
    finally:
        handle.remove()
        values.remove()
    values_of_the_pass, output = inputs[-2:]  # before it, the unseen title was encoded
    value = values_of_the_pass[0].view(-1, 4, 16).transpose(0, 1)  # [H, T, D / H]
    mixed = (torch.from_numpy(found.weights[0]) @ value).transpose(0, 1).flatten(1)
    torch.testing.assert_close(mixed, output[0], rtol=0, atol=1e-4)


def test_queries_that_are_zero_look_everywhere_alike(make_model: Callable[..., DarecModel]):
    model = make_model(shaken=False)
    for layer in model.backbone.model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.base_layer.weight)
    found = explain_attention(model, HISTORY)
    expected = found.mask / found.mask.sum(-1, keepdims=True)
    np.testing.assert_allclose(found.weights, np.broadcast_to(expected, found.weights.shape), atol=1e-6)


def test_hand_made_weights_roll_up_to_items_and_shares():
    tokens = WindowTokens(("[BOS]", "a", "b", "[ITEM]"), np.array([-1, 0, 1, 1]), np.array([0, 1, 1, 2]), (7, 8), 0)
    mask = np.tril(np.ones((4, 4), bool))
    rows = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0.4, 0.1, 0.3, 0.2]])
    other = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.3, 0.5, 0], [0, 0.5, 0.3, 0.2]])
    found = summarize_attention("causal", tokens, mask, np.stack([rows, other])[None])
    np.testing.assert_allclose(found.items[0], [[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]], atol=1e-6)
    # own: .5, .5, .5; others: 0, .3, (.1 + .5) / 2; prefix: .5, .2, .2
    np.testing.assert_allclose(found.shares, [[0.5, 0.2, 0.3]], atol=1e-6)
    np.testing.assert_allclose(found.item_shares, [[5 / 7, 2 / 7]], atol=1e-6)  # the same without the prefix
    np.testing.assert_allclose(found.head_shares[0, 1], [0.5, 0.8 / 3, 0.7 / 3], atol=1e-6)
    np.testing.assert_allclose(found.mean_over_heads()[0, 3], [0.2, 0.3, 0.3, 0.2], atol=1e-6)


@pytest.mark.parametrize("mask", ["context", "causal"])
@pytest.mark.parametrize("history", [HISTORY, [0, 1, 2, 9, 13]])  # the second loses its oldest item to the window
def test_shares_are_what_words_of_items_pay_before_within_and_outside_their_item(
    model: DarecModel, mask: str, history: list
):
    found = explain_attention(model, history, mask)
    # Laid out as it is read: [BOS] [USER], then the words of each item with its [ITEM] behind them.
    ends = np.flatnonzero(found.tokens.kind == Kind.ITEM).tolist()
    items = [range(start, end + 1) for start, end in zip([2, *(end + 1 for end in ends)], ends, strict=False)]
    assert len(items) == min(len(history), 4)
    assert items[-1].stop == len(found.tokens.texts)
    by_head = np.zeros((2, 4, 3))
    for layer, head in np.ndindex(2, 4):
        paid = []
        for number, item in enumerate(items):
            for query in item:
                row = found.weights[layer, head, query].tolist()
                own = sum(row[key] for key in item)
                others = sum(row[key] for other, keys in enumerate(items) if other != number for key in keys)
                paid.append((own, others, row[0] + row[1]))
        by_head[layer, head] = np.mean(paid, axis=0)
    np.testing.assert_allclose(found.head_shares, by_head, atol=1e-5)
    np.testing.assert_allclose(found.shares, by_head.mean(axis=1), atol=1e-5)
    assert (by_head > 0.01).all()  # no part is so small that a fault would hide in it


def test_query_with_nothing_to_look_at_is_flagged_and_counts_nowhere():
    tokens = WindowTokens(("[BOS]", "a", "b"), np.array([-1, 0, 0]), np.array([0, 1, 1]), (7,), 0)
    mask = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1]], bool)
    weights = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.25, 0, 0.75]])[None, None]
    found = summarize_attention("causal", tokens, mask, weights)
    assert found.blind.tolist() == [False, True, False]
    assert (found.weights[0, 0, 1] == 0).all()
    np.testing.assert_allclose(found.shares, [[0.75, 0, 0.25]], atol=1e-6)
    np.testing.assert_allclose(found.items[0], [[1, 0], [0.25, 0.75]], atol=1e-6)


def test_tokens_say_what_is_read(model: DarecModel):
    tokens = explain_attention(model, [0, 1, 2, *HISTORY]).tokens
    assert tokens.entries == (2, *HISTORY)  # the window holds 4
    assert tokens.left_out == 2
    assert tokens.texts[:2] == ("[BOS]", "[USER]")
    assert [tokens.texts[i] for i in np.flatnonzero(tokens.kind == Kind.ITEM)] == ["[ITEM]"] * 4
    unseen = "".join(tokens.texts[i] for i in tokens.words() if tokens.span[i] == 2)
    assert unseen.strip() == "An Unseen Film"[: len(unseen.strip())]
    assert len(unseen.strip()) > 3


def test_only_the_context_mask_looks_ahead_within_an_item_and_neither_past_it(model: DarecModel):
    tokens, context = draw_mask(model, HISTORY, "context")
    _, causal = draw_mask(model, HISTORY, "causal")
    ahead = np.triu(np.ones_like(causal), 1)
    assert not (causal & ahead).any()
    query, key = np.nonzero(context & ahead)
    assert len(query)
    assert (tokens.span[query] == tokens.span[key]).all()
    assert (tokens.kind[key] == Kind.TEXT).all()


def test_collaborative_path_off_changes_where_layers_look(model: DarecModel):
    on, off = (explain_attention(model, HISTORY, collaborative=on).weights for on in (True, False))
    assert np.abs(on - off).max() > 1e-4


def test_threads_do_not_see_each_others_attention(model: DarecModel):
    histories = [[3, 5, 7], [8, 2, 11]]
    alone = [explain_attention(model, history).weights for history in histories]
    scores = model.score(histories)
    wrong: list[str] = []
    barrier = threading.Barrier(3)

    def attend(number: int) -> None:
        barrier.wait()
        for _ in range(15):
            if not np.array_equal(explain_attention(model, histories[number]).weights, alone[number]):
                wrong.append(f"attention {number}")

    def score() -> None:
        barrier.wait()
        for _ in range(30):
            if not np.array_equal(model.score(histories), scores):
                wrong.append("scores")

    threads = [threading.Thread(target=attend, args=(number,)) for number in (0, 1)]
    threads.append(threading.Thread(target=contextvars.copy_context().run, args=(score,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_adapters_weigh_and_are_measured_while_attention_is_recorded(make_model: Callable[..., DarecModel]):
    layers = (("lora_attention:4", "parallel:4"), ("lora_mlp:4", "serial:6"))
    model = make_model(settings=SMALL.model_copy(update={"adapters": AdapterSettings(layers=layers, weights="gated")}))
    plain = explain_attention(model, HISTORY).weights
    measuring = Adaption(contributions=True)
    with torch.no_grad(), model.bank.using(measuring), attention_recorded(model) as (view, record):
        seen = view.read([HISTORY])
    np.testing.assert_array_equal(stack_layers(record), plain)  # measuring runs each layer again
    with torch.no_grad(), model.bank.using(measuring):
        expected = model.read([HISTORY])
    torch.testing.assert_close(seen.states, expected.states, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.adaption.weights, expected.adaption.weights, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.adaption.contributions, expected.adaption.contributions, rtol=0, atol=1e-3)
    off = torch.zeros(model.bank.shape, dtype=torch.bool)
    off[0, 0] = True
    with model.bank.using(Adaption(switched_off=off)):
        assert np.abs(explain_attention(model, HISTORY).weights - plain).max() > 1e-4


def test_a_layer_that_runs_again_is_recorded_once(model: DarecModel):
    with torch.no_grad(), attention_recorded(model) as (view, record):
        view.read([HISTORY])
        first = stack_layers(record)
        view.read([HISTORY[::-1]])
    np.testing.assert_array_equal(stack_layers(record), first)


def test_backbone_that_keeps_its_weights_to_itself_is_refused(model: DarecModel):
    with (
        pytest.raises(BackboneError, match="each of the backbone's 2 layers must give its weights; llama gives 0"),
        attention_recorded(model),
    ):
        model.score([HISTORY])  # the model itself, not the view


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([], "A history needs at least one item"),
        ([20], "lies between 0 and 19; got 20"),
        ([-1], "lies between 0 and 19; got -1"),
        (["  "], "A title needs at least one letter"),
    ],
)
def test_history_that_cannot_be_read_is_refused(model: DarecModel, history: list, message: str):
    with pytest.raises(DataError, match=message):
        explain_attention(model, history)


def test_unknown_mask_is_refused(model: DarecModel):
    with pytest.raises(ConfigError, match=r"no mask 'sideways'\. Known: context, causal, intra-item"):
        explain_attention(model, HISTORY, "sideways")
