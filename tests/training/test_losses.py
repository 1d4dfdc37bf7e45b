import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from darec.config import CollaborativeSettings, MaskingSettings, Section, Settings, TitleSettings
from darec.data.sequences import Kind
from darec.data.windows import Windows
from darec.model.collaborative import left_pad
from darec.model.masking import causal_mask, context_mask
from darec.model.recommender import DarecModel
from darec.training.losses import Candidates, StepLosses

HISTORIES = [[0, 5, 3, 7, 9, 2], [12, 13], [15], [8, 19, 14, 10, 18]]
FOLLOWING = [6, 16, 1, 17]
COLD = [4, 11]


@pytest.fixture
def make_losses(make_model: Callable[..., DarecModel]) -> Callable[..., StepLosses]:
    """Makes the losses of a model of 20 films, 18 of them known, with other settings in some sections."""

    def make(shaken: bool = True, **changes: dict[str, object]) -> StepLosses:
        sections: dict[str, Section] = {
            "collaborative": CollaborativeSettings(hidden_size=16, max_items=8, dropout=0.0),
            "masking": MaskingSettings(hidden_tokens=0.5),
            "title": TitleSettings(token_share=0.5),
        }
        settings = Settings(**sections)
        for section, values in changes.items():
            settings = settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})
        settings = settings.model_copy(update={"sequence": settings.sequence.model_copy(update={"max_items": 4})})
        return StepLosses(make_model(settings=settings, shaken=shaken)).eval()

    return make


def batch(losses: StepLosses) -> Windows:
    windows = losses.model.windows.build(HISTORIES, FOLLOWING)
    assert windows.packed.input_ids.shape[0] < len(HISTORIES)
    return windows


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cross_entropy(scores: Tensor, target: int) -> float:
    numbers = scores.double().numpy()
    return float(np.log(np.exp(numbers).sum()) - numbers[target])


def test_first_loss_of_equal_scores_is_the_logarithm_of_the_known_items_not_yet_seen(
    make_losses: Callable[..., StepLosses],
):
    losses = make_losses(shaken=False)
    with torch.no_grad():
        losses.model.late_gate.zero_()
        step = losses(batch(losses), seeded(0))
    seen = [3, 4, 5, 6, 1, 2, 1, 2, 3, 4, 5]  # at each boundary, those before a window of four among them
    expected = np.mean([math.log(18 - before) for before in seen])
    assert step["next_item"].item() == pytest.approx(expected, abs=1e-5)
    assert step["next_item_without_late"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.no_grad()
def test_losses_agree_with_histories_read_one_by_one(make_losses: Callable[..., StepLosses], seed: int):
    """Every term, from unpacked passes and loops over boundaries and words, with the same draws."""
    losses = make_losses()
    model, windows = losses.model, batch(losses)
    draws = losses.draw(windows, seeded(seed))
    known = model.known.nonzero().flatten().tolist()
    terms: dict[str, list[float]] = {name: [] for name in ("next_item", "next_item_without_late", "title", "mask")}
    collaborative = []
    for number, history in enumerate(HISTORIES):
        alone = model.windows.build([history], [FOLLOWING[number]])
        in_context = bool(draws.in_context[number])
        mask = context_mask(alone.packed) if in_context else causal_mask(alone.packed)
        place = windows.packed.sequence == number
        hidden, title_words = draws.hidden[place], draws.title_words[place]
        encoded = model.encode(alone, mask, draws.kept[[number]], draws.item_kept, hidden[None])
        scores = model.score_terms(encoded, draws.item_kept)
        for boundary, target in enumerate(([*history, FOLLOWING[number]])[-len(encoded.span) :]):
            read = len(history) - len(encoded.span) + boundary + 1
            open_items = [item for item in known if item not in history[:read]]
            for name, score in (("next_item", scores.total()), ("next_item_without_late", scores.without_late())):
                terms[name].append(cross_entropy(score[boundary][open_items], open_items.index(target)))
        ids = alone.packed.input_ids[0]
        for column in range(len(ids)):
            for name, chosen, head, read_at in (
                ("title", title_words, model.title_head, column - 1),
                ("mask", hidden, model.mask_head, column),
            ):
                if chosen[column]:
                    logits = model.word_logits(head, encoded.hidden_states[0, read_at])
                    terms[name].append(cross_entropy(logits, int(ids[column])))
        states = model.collaborative(torch.tensor([history]))[0]
        for column, target in enumerate([*history[1:], FOLLOWING[number]]):
            open_items = [item for item in known if item not in history[: column + 1]]
            scores = model.collaborative.score(states[column])
            collaborative.append(cross_entropy(scores[open_items], open_items.index(target)))
    assert all(terms.values())
    step = losses(windows, seeded(seed))
    expected = {name: float(np.mean(values)) for name, values in terms.items()}
    expected["collaborative"] = float(np.mean(collaborative))
    for name, value in expected.items():
        assert step[name].item() == pytest.approx(value, rel=1e-4), name
    total = expected["next_item"] + 0.1 * expected["title"] + 0.1 * expected["mask"]
    total += 0.3 * expected["next_item_without_late"] + 0.5 * expected["collaborative"]
    assert step["loss"].item() == pytest.approx(total, rel=1e-4)


class TestDraws:
    @pytest.fixture
    def draws(self, make_losses: Callable[..., StepLosses]):
        losses = make_losses()
        windows = losses.model.windows.build(HISTORIES * 4, FOLLOWING * 4)
        return windows.packed, [losses.draw(windows, seeded(seed)) for seed in range(100)]

    def test_title_loss_never_runs_under_the_context_mask(self, draws):
        packed, steps = draws
        for step in steps:
            assert not step.in_context[packed.sequence[step.title_words]].any()
        assert any(step.title_words.any() for step in steps)

    def test_nothing_is_hidden_under_the_causal_mask(self, draws):
        packed, steps = draws
        for step in steps:
            assert step.in_context[packed.sequence[step.hidden]].all()
        assert any(step.hidden.any() for step in steps)

    def test_only_words_are_hidden_or_predicted(self, draws):
        packed, steps = draws
        for step in steps:
            assert (packed.kind[step.hidden | step.title_words] == Kind.TEXT).all()

    def test_shares_are_as_the_settings_say(self, draws):
        packed, steps = draws
        words = packed.kind == Kind.TEXT
        in_context = torch.stack([step.in_context for step in steps]).float()
        hiding = torch.stack(
            [
                torch.zeros(16).index_add(0, packed.sequence[step.hidden], torch.ones(int(step.hidden.sum()))) > 0
                for step in steps
            ]
        )
        hidden_share = torch.cat(
            [
                step.hidden[words & torch.isin(packed.sequence, hidden.nonzero())]
                for step, hidden in zip(steps, hiding, strict=True)
            ]
        )
        assert in_context.mean().item() == pytest.approx(0.5, abs=0.05)
        assert hiding.float().mean().item() == pytest.approx(0.25, abs=0.05)
        assert hidden_share.float().mean().item() == pytest.approx(0.5, abs=0.05)
        assert torch.stack([step.kept for step in steps]).float().mean().item() == pytest.approx(0.7, abs=0.05)
        assert torch.stack([step.item_kept for step in steps]).mean().item() == pytest.approx(0.85, abs=0.05)

    def test_same_seed_draws_the_same(self, draws, make_losses: Callable[..., StepLosses]):
        losses = make_losses()
        first, second, other = (losses.draw(batch(losses), seeded(seed)) for seed in (7, 7, 8))
        for name in ("in_context", "hidden", "kept", "item_kept", "title_words"):
            assert torch.equal(getattr(first, name), getattr(second, name))
        assert not torch.equal(first.item_kept, other.item_kept)

    def test_nothing_is_hidden_where_context_masking_is_off(self, make_losses: Callable[..., StepLosses]):
        losses = make_losses(masking={"enabled": False, "context_share": 1.0, "hiding_share": 1.0})
        draws = losses.draw(batch(losses), seeded(0))
        assert not draws.in_context.any()
        assert not draws.hidden.any()


@torch.no_grad()
def test_the_short_way_answers_for_every_item_it_reads_also_before_the_window(make_losses: Callable[..., StepLosses]):
    losses = make_losses(shaken=False, sequence={"skip": True}, injection={"item_dropout": 0.0})
    model = losses.model
    model.skip.up.normal_(generator=seeded(1))
    model.item_bias.normal_(generator=seeded(2))
    known, expected = model.known.nonzero().flatten().tolist(), []
    runs = [[*history, following] for history, following in zip(HISTORIES, FOLLOWING, strict=True)]
    for run in runs:
        for read, target in enumerate(run[1:], start=1):
            # The language model has no say yet: its map to the texts is zero.
            score = model.last_terms([run[:read]], collaborative=False).without_late()[0]
            open_items = [item for item in known if item not in run[:read]]
            expected.append(cross_entropy(score[open_items], open_items.index(target)))
    assert len(expected) == 14  # windows of four hold 11 of them
    loss = losses.of_short_way(left_pad(runs, 9), seeded(0))
    assert loss.item() == pytest.approx(np.mean(expected), abs=1e-5)


@torch.no_grad()
def test_where_places_are_too_many_the_short_way_answers_at_a_part_of_them(
    make_losses: Callable[..., StepLosses], monkeypatch: pytest.MonkeyPatch
):
    losses, runs = make_losses(sequence={"skip": True}, injection={"item_dropout": 0.0}), left_pad(HISTORIES, 6)
    whole = losses.of_short_way(runs, seeded(0)).item()
    monkeypatch.setattr("darec.training.losses.MOST_SCORES", 20 * 3 + 5)
    parts = [losses.of_short_way(runs, seeded(seed)).item() for seed in range(400)]
    assert np.std(parts) > 0.05
    assert abs(np.mean(parts) - whole) < 4 * np.std(parts) / 20
    assert len({round(part, 5) for part in parts}) > 50


def test_what_the_short_way_gets_wrong_moves_it_and_the_biases_alone(make_losses: Callable[..., StepLosses]):
    losses = make_losses(sequence={"skip": True})
    losses.of_short_way(left_pad(HISTORIES, 6), seeded(0)).backward()
    moved = {name for name, parameter in losses.model.named_parameters() if parameter.grad is not None}
    assert moved == {"skip.decay", "skip.shares", "skip.down", "skip.up", "item_bias"}


def test_cold_items_are_no_negatives(make_losses: Callable[..., StepLosses]):
    losses = make_losses()
    before = losses(batch(losses), seeded(3))["next_item"]
    encodings = losses.model.item_encodings
    encodings[COLD] = 100 * encodings[COLD]
    assert losses(batch(losses), seeded(3))["next_item"] == before
    encodings[5] = 2 * encodings[5]
    assert losses(batch(losses), seeded(3))["next_item"] != before


def test_unseen_title_is_read_but_not_predicted(make_losses: Callable[..., StepLosses]):
    losses = make_losses(injection={"sequence_dropout": 0.0, "item_dropout": 0.0})
    windows = losses.model.windows.build([[0, "A film nobody knows", 3]], [5])
    assert windows.targets.tolist() == [[-1, 3, 5]]
    with torch.no_grad():
        encoded = losses.model.encode(windows, causal_mask(windows.packed), torch.tensor([True]))
        scores = losses.model.score_terms(encoded).total().masked_fill(~losses.model.known, -torch.inf)
        scores[1:, 0] = scores[2, 3] = -torch.inf  # seen by then
        expected = (cross_entropy(scores[1], 3) + cross_entropy(scores[2], 5)) / 2
        causal = losses.settings.model_copy(update={"masking": MaskingSettings(enabled=False)})
        losses.settings = causal
        step = losses(windows, seeded(0))
    assert step["next_item"].item() == pytest.approx(expected, rel=1e-5)


def test_every_trained_weight_has_a_gradient(make_losses: Callable[..., StepLosses]):
    losses = make_losses(sequence={"skip": True, "encoded_from": "words"})
    for seed in range(8):
        losses(batch(losses), seeded(seed))["loss"].backward()
    without = [
        name
        for name, parameter in losses.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    frozen = [name for name, parameter in losses.named_parameters() if not parameter.requires_grad]
    assert without == []
    assert all(losses.get_parameter(name).grad is None for name in frozen)


class TestSampledSoftmax:
    def test_is_corrected_as_computed_by_hand(self):
        candidates = Candidates.of(torch.tensor([2, 9]), drawn=torch.tensor([9, 4]), num_known=8)
        assert candidates.items.tolist() == [2, 4, 9]
        assert candidates.is_drawn.tolist() == [False, True, True]
        scores, places = candidates.correct(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([2, 9]))
        four = math.log(4)  # two of eight were drawn, so each stands for four
        assert places.tolist() == [0, 2]
        torch.testing.assert_close(scores, torch.tensor([[1.0, 2 + four, 3 + four], [-torch.inf, 5 + four, 6.0]]))

    def test_finds_candidates_and_tells_what_is_none(self):
        candidates = Candidates.of(torch.tensor([2, 9]), drawn=torch.tensor([9, 4]), num_known=8)
        assert candidates.places_of(torch.tensor([[9, 3, -1], [2, 12, 4]])).tolist() == [[2, -1, -1], [0, -1, 1]]

    def test_equals_the_full_softmax_where_every_item_is_drawn(self, make_losses: Callable[..., StepLosses]):
        full = make_losses(sequence={"skip": True})
        sampled = make_losses(sequence={"skip": True}, training={"sampled_softmax_above": 10, "negatives": 18})
        for name, value in full(batch(full), seeded(3)).items():
            torch.testing.assert_close(sampled(batch(sampled), seeded(3))[name], value, rtol=1e-4, atol=1e-5, msg=name)
        runs = left_pad(HISTORIES, 6)
        torch.testing.assert_close(sampled.of_short_way(runs, seeded(3)), full.of_short_way(runs, seeded(3)))

    def test_sum_of_exponentials_is_unbiased(self):
        scores = torch.randn(3, 40, generator=seeded(0))
        targets = torch.tensor([7, 7, 30])
        estimates = []
        for seed in range(4000):
            drawn = torch.randperm(40, generator=seeded(seed))[:10]
            candidates = Candidates.of(targets, drawn, 40)
            estimates.append(candidates.correct(scores[:, candidates.items], targets)[0].exp().sum(1))
        errors = torch.stack(estimates).std(0) / 4000**0.5
        assert ((torch.stack(estimates).mean(0) - scores.exp().sum(1)).abs() < 4 * errors).all()

    def test_loss_approaches_the_full_one_on_average(self, make_losses: Callable[..., StepLosses]):
        """By Jensen's inequality a little below it, and closer the more is drawn."""
        full = make_losses()
        parts = {}
        for negatives in (4, 16):
            losses = make_losses(training={"sampled_softmax_above": 10, "negatives": negatives})
            with torch.no_grad():
                encoded = losses.model.read(HISTORIES)
                targets = batch(losses).targets[encoded.sequence, encoded.span]
                values = []
                for seed in range(200):
                    candidates = losses.draw(batch(losses), seeded(seed)).candidates
                    assert int(candidates.is_drawn.sum()) == negatives
                    assert not torch.isin(candidates.items, torch.tensor(COLD)).any()
                    scores = losses.model.score_terms(encoded, candidates=candidates.items).without_late()
                    corrected, places = candidates.correct(scores, targets)
                    values.append(torch.nn.functional.cross_entropy(corrected, places).item())
            parts[negatives] = float(np.mean(values))
        with torch.no_grad():
            scores = full.model.score_terms(full.model.read(HISTORIES)).without_late()
            scores = scores.masked_fill(~full.model.known, -torch.inf)
            whole = torch.nn.functional.cross_entropy(scores, targets).item()
        assert parts[4] < parts[16] <= whole + 1e-3
        assert parts[16] == pytest.approx(whole, rel=0.02)

    def test_trains_below_its_limit_on_the_whole_catalogue(self, make_losses: Callable[..., StepLosses]):
        losses = make_losses(training={"sampled_softmax_above": 20})
        assert losses.draw(batch(losses), seeded(0)).candidates is None
