"""No state knows what it must predict. Shown by perturbation, on every family of backbones, with every weight random:
at their initial values LoRA, projections and gates would let no leak through."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from darec.config import AdapterSettings, CollaborativeSettings, InjectionSettings, SequenceSettings, Settings
from darec.data.sequences import Kind, Soft
from darec.data.windows import Windows
from darec.model.masking import mixed_mask
from darec.model.recommender import DarecModel, Encoded

FAMILIES = ["llama", "qwen3", "gpt2", "bert"]
HISTORIES = [[0, 5, 3, 7, 9, 2, 6], [12, 13], [15], [8, 19, 14, 10, 18]]  # windows of 4, the CF model reads all
MASKS = {"causal": [False] * 4, "context": [True] * 4, "mixed": [True, False, False, True]}
PARTS = ["words", "v", "z"]  # the ways by which an item enters


GATED = Settings(
    sequence=SequenceSettings(max_items=4, max_text_tokens=8, max_encoding_tokens=24, encoded_from="words", skip=True),
    collaborative=CollaborativeSettings(hidden_size=16, max_items=8),
    injection=InjectionSettings(followers=2),
    adapters=AdapterSettings(layers=(("lora_attention:8", "parallel:16"), ("serial:8", "lora_mlp:4")), weights="gated"),
)


@pytest.fixture(
    scope="module", params=[(family, bank) for bank in ("uniform", "gated") for family in FAMILIES], ids="-".join
)
def model(request: pytest.FixtureRequest, make_model: Callable[..., DarecModel]) -> DarecModel:
    family, bank = request.param
    model = make_model(family, GATED) if bank == "gated" else make_model(family)
    if model.followers is not None:
        some = torch.arange(12)
        model.followers.keep(some, torch.rand(12, 12, generator=torch.Generator().manual_seed(0)))
        model.followers.trust.fill_(1)
    assert all(parameter.count_nonzero() == parameter.numel() for parameter in model.parameters())
    return model


@torch.no_grad()
def read(model: DarecModel, windows: Windows, in_context: list[bool], hidden: Tensor | None = None) -> Encoded:
    mask = mixed_mask(windows.packed, torch.tensor(in_context))
    return model.encode(windows, mask, torch.ones(len(in_context), dtype=torch.bool), hidden=hidden)


def with_others(windows: Windows, part: str, spans: Callable[[Tensor], Tensor], sequence: int | None = None) -> Windows:
    """The batch with other words, other v or other z for the items at these spans (of one sequence, or of all)."""
    if part == "words":
        packed = windows.packed
        at = (packed.kind == Kind.TEXT) & spans(packed.span)
        at = at if sequence is None else at & (packed.sequence == sequence)
        return replace(
            windows, packed=replace(packed, input_ids=torch.where(at, 300 - packed.input_ids % 40, packed.input_ids))
        )
    chosen = torch.arange(len(windows.items))[:, None] == sequence if sequence is not None else torch.tensor(True)
    if part == "v":
        at = spans(torch.arange(windows.items.shape[1]))[None, :] & (windows.items >= 0) & chosen
        return replace(windows, items=torch.where(at, (windows.items + 1) % 4, windows.items))
    width = windows.collaborative_items.shape[1]
    at = spans(torch.arange(width)[None, :] - width + windows.lengths[:, None]) & (windows.collaborative_items >= 0)
    other = torch.where(at & chosen, (windows.collaborative_items + 1) % 4, windows.collaborative_items)
    return replace(windows, collaborative_items=other)


def assert_differ(first: Tensor, second: Tensor) -> None:
    """Every row differs by far more than rounding."""
    assert ((first - second).abs().amax(dim=-1) > 1e-3).all()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("in_context", MASKS.values(), ids=MASKS)
def test_state_at_an_item_never_depends_on_later_items(model: DarecModel, in_context: list[bool], part: str):
    windows = model.windows.build(HISTORIES)
    before = read(model, windows, in_context)
    scores = model.score_terms(before).total()
    for k in range(3):
        after = read(model, with_others(windows, part, lambda span, k=k: span > k), in_context)
        unaffected = before.span <= k
        torch.testing.assert_close(after.states[unaffected], before.states[unaffected], rtol=0, atol=1e-5)
        torch.testing.assert_close(model.score_terms(after).total()[unaffected], scores[unaffected], rtol=0, atol=1e-5)
        assert_differ(after.states[~unaffected], before.states[~unaffected])


@pytest.mark.parametrize("part", ["v", "z"])
@pytest.mark.parametrize("in_context", MASKS.values(), ids=MASKS)
def test_words_never_know_who_their_item_is(model: DarecModel, in_context: list[bool], part: str):
    """Neither a hidden word nor a title's next one can be read off collaborative knowledge of the item itself."""
    windows = model.windows.build(HISTORIES)
    packed = windows.packed
    before = read(model, windows, in_context).hidden_states
    for k in range(4):
        after = read(model, with_others(windows, part, lambda span, k=k: span >= k), in_context).hidden_states
        blind = (packed.kind != Kind.PAD) & ((packed.span < k) | (packed.span == k) & (packed.kind == Kind.TEXT))
        torch.testing.assert_close(after[blind], before[blind], rtol=0, atol=1e-5)
        assert_differ(
            after[(packed.span == k) & (packed.kind == Kind.ITEM)],
            before[(packed.span == k) & (packed.kind == Kind.ITEM)],
        )


@pytest.mark.parametrize("part", PARTS)
def test_state_at_an_item_depends_on_itself_and_earlier_items(model: DarecModel, part: str):
    windows = model.windows.build(HISTORIES)
    before, after = (
        read(model, w, MASKS["mixed"]) for w in (windows, with_others(windows, part, lambda span: span == 0))
    )
    assert_differ(after.states, before.states)


def test_state_depends_on_what_lies_before_the_window(model: DarecModel):
    windows = model.windows.build(HISTORIES)
    before = read(model, windows, MASKS["mixed"])
    after = read(model, with_others(windows, "z", lambda span: span < 0), MASKS["mixed"])
    has_past = torch.isin(before.sequence, torch.tensor([0, 3]))
    assert_differ(after.states[has_past], before.states[has_past])
    torch.testing.assert_close(after.states[~has_past], before.states[~has_past], rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_packed_neighbours_never_see_each_other(model: DarecModel, part: str):
    windows = model.windows.build(HISTORIES)
    assert windows.packed.input_ids.shape[0] < len(HISTORIES)
    before = read(model, windows, MASKS["mixed"])
    for neighbour in range(len(HISTORIES)):
        after = read(model, with_others(windows, part, lambda span: span >= 0, neighbour), MASKS["mixed"])
        others = before.sequence != neighbour
        torch.testing.assert_close(after.states[others], before.states[others], rtol=0, atol=1e-5)
        assert_differ(after.states[~others], before.states[~others])


def test_padding_never_matters(model: DarecModel):
    windows = model.windows.build(HISTORIES)
    packed = windows.packed
    padding = packed.kind == Kind.PAD
    assert padding.any()
    other = replace(windows, packed=replace(packed, input_ids=packed.input_ids.masked_fill(padding, 77)))
    before, after = read(model, windows, MASKS["mixed"]), read(model, other, MASKS["mixed"])
    torch.testing.assert_close(after.states, before.states, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.hidden_states[~padding], before.hidden_states[~padding], rtol=0, atol=1e-5)


def test_packed_histories_score_as_one_by_one(model: DarecModel):
    together = model.score(HISTORIES)
    for row, history in enumerate(HISTORIES):
        torch.testing.assert_close(together[row], model.score([history])[0], rtol=1e-4, atol=1e-4)


class TestHiddenWord:
    """A word in the middle of the second item of a window is hidden, under the context mask."""

    ITEM = 1

    def logits(self, model: DarecModel, windows: Windows) -> tuple[Tensor, Tensor]:
        """[V] of the mask head at the hidden word, and [D] the state at its item."""
        hidden = torch.zeros_like(windows.packed.input_ids, dtype=torch.bool)
        hidden[self.place(windows)] = True
        encoded = read(model, windows, [True], hidden)
        return model.word_logits(model.mask_head, encoded.hidden_states[self.place(windows)]), encoded.states[self.ITEM]

    def place(self, windows: Windows) -> tuple[int, int]:
        words = torch.nonzero((windows.packed.span == self.ITEM) & (windows.packed.kind == Kind.TEXT))
        assert len(words) >= 3
        row, column = words[len(words) // 2].tolist()
        return row, column

    def with_word(self, windows: Windows, offset: int) -> Windows:
        row, column = self.place(windows)
        input_ids = windows.packed.input_ids.clone()
        input_ids[row, column + offset] = 300
        return replace(windows, packed=replace(windows.packed, input_ids=input_ids))

    @torch.no_grad()
    def test_masked_token_never_reaches_its_own_prediction(self, model: DarecModel):
        windows = model.windows.build(HISTORIES[:1])
        before, _ = self.logits(model, windows)
        after, _ = self.logits(model, self.with_word(windows, 0))
        assert torch.equal(after, before)

    @torch.no_grad()
    @pytest.mark.parametrize("part", ["v", "z"])
    def test_its_item_never_tells_it_through_collaborative_knowledge(self, model: DarecModel, part: str):
        windows = model.windows.build(HISTORIES[:1])
        logits, state = self.logits(model, windows)
        other = with_others(windows, part, lambda span: span >= self.ITEM)
        other_logits, other_state = self.logits(model, other)
        torch.testing.assert_close(other_logits, logits, rtol=0, atol=1e-5)
        assert_differ(other_state[None], state[None])  # [ITEM] itself does know

    @torch.no_grad()
    def test_its_items_embedding_weights_never_tell_it(self, model: DarecModel):
        windows = model.windows.build(HISTORIES[:1])
        logits, _ = self.logits(model, windows)
        embeddings = model.collaborative.embeddings
        item = windows.items[0, self.ITEM]
        saved = embeddings[item].clone()
        embeddings[item] = -3 * saved
        try:
            other_logits, _ = self.logits(model, windows)
        finally:
            embeddings[item] = saved
        torch.testing.assert_close(other_logits, logits, rtol=0, atol=1e-5)

    @torch.no_grad()
    @pytest.mark.parametrize("offset", [-1, 1], ids=["word before", "word after"])
    def test_visible_words_of_its_item_do_tell(self, model: DarecModel, offset: int):
        windows = model.windows.build(HISTORIES[:1])
        assert_differ(
            self.logits(model, self.with_word(windows, offset))[0][None], self.logits(model, windows)[0][None]
        )

    @torch.no_grad()
    @pytest.mark.parametrize("part", PARTS)
    def test_earlier_items_do_tell_and_later_ones_do_not(self, model: DarecModel, part: str):
        windows = model.windows.build(HISTORIES[:1])
        logits, _ = self.logits(model, windows)
        earlier, _ = self.logits(model, with_others(windows, part, lambda span: span == self.ITEM - 1))
        later, _ = self.logits(model, with_others(windows, part, lambda span: span > self.ITEM))
        assert_differ(earlier[None], logits[None])
        torch.testing.assert_close(later, logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_next_word_is_hidden_by_the_causal_mask_and_only_by_it(model: DarecModel):
    windows = model.windows.build(HISTORIES[:1])
    packed = windows.packed
    column = torch.nonzero((packed.span[0] == 1) & (packed.kind[0] == Kind.TEXT))[1].item()
    input_ids = packed.input_ids.clone()
    input_ids[0, column] = 300
    other = replace(windows, packed=replace(packed, input_ids=input_ids))
    causal, context = (
        [read(model, w, [c]).hidden_states[0, column - 1] for w in (windows, other)] for c in (False, True)
    )
    torch.testing.assert_close(causal[1], causal[0], rtol=0, atol=1e-5)
    assert_differ(context[1][None], context[0][None])


def test_no_nan_under_bfloat16_where_a_row_has_nothing_to_look_at(model: DarecModel):
    windows = model.windows.build(HISTORIES)
    assert (windows.packed.kind == Kind.PAD).any()
    with torch.autocast("cpu", torch.bfloat16):
        mask = mixed_mask(windows.packed, torch.tensor(MASKS["mixed"]))
        encoded = model.encode(windows, mask, torch.tensor([True, True, False, True]))
        loss = model.score_terms(encoded).total().float().logsumexp(dim=1).sum() + encoded.hidden_states.float().sum()
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad(set_to_none=True)
    assert torch.isfinite(encoded.hidden_states).all()
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_user_token_is_the_only_prefix_that_carries_knowledge(model: DarecModel):
    windows = model.windows.build(HISTORIES)
    before = read(model, windows, MASKS["context"]).hidden_states
    after = read(model, with_others(windows, "z", lambda span: span < 0, 0), MASKS["context"]).hidden_states
    for soft, changes in ((Soft.BOS, False), (Soft.USER, True)):
        at = (windows.packed.input_ids == soft.input_id) & (windows.packed.sequence == 0)
        assert ((after[at] - before[at]).abs().amax() > 1e-3).item() is changes
