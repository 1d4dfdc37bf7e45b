from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from invented_films import SMALL

from darec.config import MaskingSettings, TitleSettings
from darec.errors import DataError
from darec.explain.attention import explain_attention
from darec.explain.masked_tokens import HiddenWords, hide_words
from darec.explain.scoring import ranks_among
from darec.model.masking import causal_mask, context_mask
from darec.model.recommender import DarecModel

HISTORY = [3, 8, 5]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model()


def words_of(model: DarecModel, span: int) -> list[int]:
    tokens = explain_attention(model, HISTORY).tokens
    return [int(i) for i in tokens.words() if tokens.span[i] == span]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "bert"])
def test_attention_rows_sum_to_one_and_words_are_ranked(make_model: Callable[..., DarecModel], family: str):
    model = make_model(family)
    chosen = words_of(model, 1)[:2]
    found = hide_words(model, HISTORY, chosen, k=4)
    assert [hidden.position for hidden in found.hidden] == chosen
    assert [found.tokens.texts[i] for i in chosen] == ["[MASK]", "[MASK]"]
    for hidden in found.hidden:
        assert hidden.context.looks_from == hidden.position
        assert hidden.causal.looks_from == hidden.position - 1
        for reading in (hidden.context, hidden.causal):
            np.testing.assert_allclose(reading.attention.sum(-1), 1, atol=1e-5)
            assert (np.diff(reading.probabilities) <= 0).all()
            assert len(reading.words) == 4
            if reading.true_rank == 1:
                assert reading.words[0] == hidden.word


def test_hidden_words_identity_never_reaches_its_own_prediction(
    make_model: Callable[..., DarecModel], monkeypatch: pytest.MonkeyPatch
):
    model = make_model()
    position = words_of(model, 1)[1]
    before = hide_words(model, HISTORY, [position], k=10).hidden[0]
    tokens = [list(text) for text in model.windows.item_tokens]
    start = words_of(model, 1)[0]
    other = (tokens[8][position - start] + 5) % 300
    tokens[8][position - start] = other
    monkeypatch.setattr(model, "windows", replace(model.windows, item_tokens=tokens))
    after = hide_words(model, HISTORY, [position], k=10).hidden[0]
    assert before.word != after.word
    for old, new in ((before.context, after.context), (before.causal, after.causal)):
        assert old.words == new.words
        np.testing.assert_allclose(old.probabilities, new.probabilities, rtol=0, atol=1e-7)
        np.testing.assert_allclose(old.attention, new.attention, rtol=0, atol=1e-6)
        assert old.true_probability != new.true_probability  # the reading does know which word is asked about


def test_other_hidden_word_is_hidden_from_the_context_reading_only(
    make_model: Callable[..., DarecModel], monkeypatch: pytest.MonkeyPatch
):
    model = make_model()
    first, second = words_of(model, 1)[:2]
    before = hide_words(model, HISTORY, [first, second]).hidden[1]
    tokens = [list(text) for text in model.windows.item_tokens]
    tokens[8][0] = (tokens[8][0] + 5) % 300
    monkeypatch.setattr(model, "windows", replace(model.windows, item_tokens=tokens))
    after = hide_words(model, HISTORY, [first, second]).hidden[1]
    np.testing.assert_allclose(before.context.probabilities, after.context.probabilities, rtol=0, atol=1e-7)
    assert np.abs(before.causal.probabilities - after.causal.probabilities).max() > 1e-6


@torch.no_grad()
def test_readings_equal_the_two_heads_on_the_two_states(model: DarecModel):
    position = words_of(model, 2)[0]
    found = hide_words(model, HISTORY, [position], k=3).hidden[0]
    windows = model.windows.build([HISTORY])
    token, kept = windows.packed.input_ids[0, position], torch.ones(1, dtype=torch.bool)
    hidden = torch.zeros_like(windows.packed.kind, dtype=torch.bool)
    hidden[0, position] = True
    context = model.encode(windows, context_mask(windows.packed), kept, hidden=hidden).hidden_states[0, position]
    causal = model.encode(windows, causal_mask(windows.packed), kept).hidden_states[0, position - 1]
    for reading, head, state in (
        (found.context, model.mask_head, context),
        (found.causal, model.title_head, causal),
    ):
        expected = model.word_logits(head, state[None]).softmax(-1)[0]
        np.testing.assert_allclose(reading.probabilities, expected.topk(3).values, rtol=1e-4)
        assert reading.true_probability == pytest.approx(float(expected[token]), rel=1e-4)
        assert reading.true_rank == int((expected >= expected[token]).sum())


def test_nothing_is_excluded_when_seen_items_are_kept_and_ranks_move(model: DarecModel):
    found: HiddenWords = hide_words(model, HISTORY, words_of(model, 0) + words_of(model, 2), exclude_seen=False)
    assert sorted(found.ranks_before) == sorted(found.ranks_after) == list(range(1, 21))
    assert (found.ranks_before != found.ranks_after).any()


def test_ranks_before_are_those_of_the_model(model: DarecModel):
    found = hide_words(model, HISTORY, words_of(model, 1)[:1])
    candidates = np.ones(20, bool)
    candidates[HISTORY] = False
    np.testing.assert_array_equal(found.ranks_before, ranks_among(model.score([HISTORY])[0], candidates))
    assert (found.ranks_after[HISTORY] == 0).all()


def test_reading_that_was_never_trained_says_so(make_model: Callable[..., DarecModel], model: DarecModel):
    def trained(model: DarecModel) -> tuple[bool, bool]:
        hidden = hide_words(model, HISTORY, words_of(model, 0)[:1]).hidden[0]
        return hidden.context.trained, hidden.causal.trained

    assert trained(model) == (True, True)
    no_mask = SMALL.model_copy(update={"masking": MaskingSettings(enabled=False)})
    assert trained(make_model(settings=no_mask)) == (False, True)
    no_title = SMALL.model_copy(update={"title": TitleSettings(loss_weight=0)})
    assert trained(make_model(settings=no_title)) == (True, False)


@pytest.mark.parametrize(
    ("positions", "k", "message"),
    [
        ([], 5, "at least one word; none was chosen"),
        ([0], 5, "Only words can be hidden; position 0"),
        ([999], 5, "Only words can be hidden; position 999"),
        ([2], 0, "words to list must be at least 1; got 0"),
    ],
)
def test_bad_choice_is_refused(model: DarecModel, positions: list[int], k: int, message: str):
    with pytest.raises(DataError, match=message):
        hide_words(model, HISTORY, positions, k=k)
