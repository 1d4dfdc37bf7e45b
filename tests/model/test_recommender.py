import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from invented_films import COLD_FILMS, SMALL
from torch import Tensor

from darec.config import AdapterSettings, MaskingSettings, Settings
from darec.data.catalog import Catalog
from darec.data.sequences import Kind, Soft
from darec.errors import ConfigError, RunError
from darec.model.backbone import run_backbone, tiny_backbone
from darec.model.masking import causal_mask, context_mask
from darec.model.recommender import DarecModel
from darec.model.words import WordBags

FAMILIES = ["llama", "qwen3", "gpt2", "bert"]
HISTORIES = [[0, 5, 3, 7, 9, 2, 6], [12, 13], [15], [8, 19, 14, 10, 18]]
COLD = 4
SHORT_TEXTS_ALONE = SMALL.model_copy(update={"sequence": SMALL.sequence.model_copy(update={"encodings": False})})
COLLABORATIVE = ("collaborative", "injection", "late_gate")  # how the names of all CF parameters begin


def shake(model: DarecModel, chosen: Callable[[str], bool]) -> list[str]:
    names = [name for name, _ in model.named_parameters() if chosen(name)]
    torch.manual_seed(5)
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            parameter += 0.5 * torch.randn_like(parameter)
    return names


@pytest.fixture
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model()


@torch.no_grad()
def last_terms(model: DarecModel, history: list[int | str], **options: Tensor) -> list[Tensor]:
    encoded = model.read([history])
    terms = model.score_terms(encoded, **options)
    return [term[-1] for term in terms]


def test_soft_tokens_are_embedded_by_vectors_of_their_own(model: DarecModel):
    packed = model.windows.build([[0]]).packed
    embedded = model.embed(packed)[0]
    assert torch.equal(embedded[0], model.soft_tokens[Soft.BOS])
    assert torch.equal(embedded[1], model.soft_tokens[Soft.USER])
    assert torch.equal(embedded[-1], model.soft_tokens[Soft.ITEM])
    words = model.backbone.get_input_embeddings()(packed.input_ids[0, 2:-1])
    assert torch.equal(embedded[2:-1], words)


@torch.no_grad()
def test_score_is_the_sum_of_its_terms_as_the_formula_says(model: DarecModel):
    encoded = model.read([HISTORIES[0]])
    h = encoded.states[-1] / 8  # sqrt(D) = 8
    v = model.collaborative.embeddings
    cf = v @ encoded.collaborative_states[-1]
    mean = np.mean([cf[j].item() for j in range(20) if model.known[j]])
    scores = model.score([HISTORIES[0]])[0]
    for j in range(20):
        expected = h @ model.text_projection.weight @ model.item_encodings[j]
        if model.known[j]:
            expected = expected + h @ model.collaborative_projection.weight @ v[j] + model.item_bias[j]
            expected = expected + model.late_gate * (cf[j] - mean)
        assert scores[j] == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)


class TestShortWay:
    @pytest.fixture(params=["states", "words"])
    def model(self, request: pytest.FixtureRequest, make_model: Callable[..., DarecModel]) -> DarecModel:
        with_skip = SMALL.sequence.model_copy(update={"skip": True, "encoded_from": request.param})
        return make_model(settings=SMALL.model_copy(update={"sequence": with_skip}))

    @pytest.fixture
    def features(self, model: DarecModel) -> torch.Tensor:
        """[20, F], the model's own."""
        return model.item_encodings if model.item_bags is None else model.item_bags

    @torch.no_grad()
    def test_scores_items_by_their_texts_from_the_whole_history(self, model: DarecModel, features: torch.Tensor):
        history = HISTORIES[0]  # longer than the window of 4
        encoded = model.read([history])
        everywhere, last = torch.ones(1, len(history), dtype=torch.bool), torch.tensor([[len(history) - 1]])
        spoken = model.skip(features[history][None], everywhere, last)[0, 0]
        by_state = encoded.states[-1] / 8 @ model.text_projection.weight @ model.item_encodings[9]
        found = last_terms(model, history)[0][9]
        assert (found - by_state).abs() > 1e-3
        torch.testing.assert_close(found, by_state + spoken @ features[9], rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_reads_a_title_that_nobody_has_seen(self, model: DarecModel, features: torch.Tensor):
        title = "Quite another film"
        words = [model.windows.tokenize(title)]
        features[7] = (model.encode_texts(words) if model.item_bags is None else WordBags(model._full_tokens)(words))[0]
        torch.testing.assert_close(model.read([[0, title]]).skipped, model.read([[0, 7]]).skipped, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_hears_nothing_of_an_item_with_a_hidden_word(self, model: DarecModel, features: torch.Tensor):
        windows = model.windows.build([[0, 5, 3]])
        packed = windows.packed
        hidden = (packed.span == 1) & (packed.kind == Kind.TEXT)
        kept, mask = torch.tensor([True]), context_mask(packed)
        before = model.encode(windows, mask, kept, hidden=hidden).skipped
        features[5] += torch.randn(features.shape[1])
        torch.testing.assert_close(model.encode(windows, mask, kept, hidden=hidden).skipped, before, rtol=0, atol=0)
        open_to_all = model.encode(windows, mask, kept).skipped
        assert ((open_to_all - before).abs().amax(dim=1) > 1e-3).tolist() == [False, True, True]


def test_candidates_are_scored_as_in_the_whole_catalogue_but_for_the_centre(model: DarecModel):
    with torch.no_grad():
        encoded = model.read(HISTORIES)
        chosen = torch.tensor([3, 4, 7, 19])
        some, everything = model.score_terms(encoded, candidates=chosen), model.score_terms(encoded)
    torch.testing.assert_close(some.without_late(), everything.without_late()[:, chosen])
    known = [0, 2, 3]  # film 4 is cold: its late term is zero in both
    shift = (everything.late[:, chosen] - some.late)[:, known]
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    assert everything.late[:, COLD].tolist() == some.late[:, 1].tolist() == [0.0] * len(encoded.span)


def test_model_starts_at_the_ranking_of_its_cf_model(make_model: Callable[..., DarecModel]):
    model = make_model(shaken=False)
    with torch.no_grad():
        own = model.collaborative.score(model.read(HISTORIES).at(torch.tensor([3])).collaborative_states)[0].numpy()
    scores = model.score(HISTORIES[:1])[0]
    known = model.known.numpy()
    assert np.argsort(scores[known]).tolist() == np.argsort(own[known]).tolist()


@torch.no_grad()
def test_training_drops_out_adapters_but_nothing_of_the_frozen_backbone(make_model: Callable[..., DarecModel]):
    settings = Settings(adapters=AdapterSettings(dropout=0.5))
    adapted = make_model("gpt2", settings)
    plain = make_model("gpt2", Settings(adapters=AdapterSettings(enabled=False)))
    for model, changes in ((adapted, True), (plain, False)):
        windows = model.windows.build(HISTORIES)
        kept, mask = torch.zeros(4, dtype=torch.bool), causal_mask(windows.packed)
        evaluated = model.eval().encode(windows, mask, kept).hidden_states
        trained = model.train().encode(windows, mask, kept).hidden_states
        assert (not torch.equal(trained, evaluated)) is changes
        assert torch.equal(model.eval().encode(windows, mask, kept).hidden_states, evaluated)


class TestTextEncodings:
    def test_do_not_depend_on_any_cf_parameter(self, model: DarecModel):
        before = model.item_encodings.clone()
        changed = shake(model, lambda name: not name.startswith("backbone"))
        assert any(name.startswith("injection") for name in changed)
        assert "soft_tokens" in changed
        model.refresh_item_encodings()
        assert torch.equal(model.item_encodings, before)

    def test_do_not_depend_on_adapters(self, model: DarecModel):
        before = model.item_encodings.clone()
        assert shake(model, lambda name: ".lora_B." in name)
        model.refresh_item_encodings()
        assert torch.equal(model.item_encodings, before)

    def test_follow_the_backbone(self, model: DarecModel):
        before = model.item_encodings.clone()
        assert shake(model, lambda name: name.endswith("q_proj.base_layer.weight"))
        model.refresh_item_encodings()
        assert ((model.item_encodings - before).abs().amax(dim=1) > 1e-2).all()

    @pytest.mark.parametrize("family", FAMILIES)
    def test_do_not_depend_on_what_they_are_packed_with(self, make_model: Callable[..., DarecModel], family: str):
        model = make_model(family)
        before = model.item_encodings.clone()
        model.refresh_item_encodings(batch_size=1)
        torch.testing.assert_close(model.item_encodings, before, rtol=0, atol=1e-4)
        model.refresh_item_encodings(batch_size=3)
        torch.testing.assert_close(model.item_encodings, before, rtol=0, atol=1e-4)

    @torch.no_grad()
    @pytest.mark.parametrize("family", FAMILIES)
    def test_are_the_mean_state_of_words_that_all_see_each_other(
        self, make_model: Callable[..., DarecModel], family: str
    ):
        model = make_model(family, SMALL.model_copy(update={"adapters": AdapterSettings(enabled=False)}))
        ids = torch.tensor([[30, 11, 52, 47]])
        everyone = torch.ones(1, 4, 4, dtype=torch.bool)
        words = model.backbone.get_input_embeddings()(ids)
        states = run_backbone(model.backbone, words, everyone, torch.arange(4)[None])[0]
        mean = F.layer_norm(states.mean(0), (64,)) - model.encoding_mean
        expected = F.layer_norm(model.encoding_map @ mean, (64,))
        torch.testing.assert_close(model.encode_texts(ids.tolist())[0], expected, rtol=0, atol=1e-3)

    def test_are_made_without_dropout_and_leave_the_mode_as_it_was(self, model: DarecModel):
        model.train()
        before = model.item_encodings.clone()
        model.refresh_item_encodings()
        assert model.training
        assert torch.equal(model.item_encodings, before)

    def test_are_normalised_and_zero_for_a_text_without_words(self, model: DarecModel):
        with torch.no_grad():
            encodings = model.encode_texts([[10, 11, 12], [], [13]])
            none = model.encode_texts([[], []])
        torch.testing.assert_close(encodings[[0, 2]].mean(1), torch.zeros(2), rtol=0, atol=1e-5)
        torch.testing.assert_close(encodings[[0, 2]].var(1, unbiased=False), torch.ones(2), rtol=0, atol=1e-2)
        assert not encodings[1].any()
        assert none.tolist() == [[0.0] * 64] * 2


class TestEncodingsFromWords:
    @pytest.fixture
    def model(self, make_model: Callable[..., DarecModel]) -> DarecModel:
        from_words = SMALL.sequence.model_copy(update={"encoded_from": "words"})
        return make_model(settings=SMALL.model_copy(update={"sequence": from_words}))

    def test_know_nothing_of_the_backbones_weights(self, model: DarecModel):
        before = model.item_encodings.clone()
        assert shake(model, lambda name: True)
        model.refresh_item_encodings(batch_size=3)
        torch.testing.assert_close(model.item_encodings, before, rtol=0, atol=1e-4)
        assert (before.norm(dim=1) > 1).all()

    def test_a_text_given_again_has_its_items_encoding_and_unknown_words_have_none(self, model: DarecModel):
        words = model._full_tokens[5]
        encodings = model.encode_texts([words, words[::-1], [], words[:3]])
        torch.testing.assert_close(encodings[0], model.item_encodings[5], rtol=0, atol=1e-4)
        assert torch.equal(encodings[0], encodings[1])
        assert not encodings[2].any()
        assert not torch.allclose(encodings[3], encodings[0], atol=1e-2)

    def test_a_trained_state_brings_them_along(self, model: DarecModel, make_model: Callable[..., DarecModel]):
        other = make_model(settings=model.settings)
        other.encoding_map.zero_()
        other.load_trained_state(model.trained_state())
        assert torch.equal(other.encode_texts([[10, 11, 12]]), model.encode_texts([[10, 11, 12]]))


class TestEncodingsAtItems:
    def test_a_history_speaks_of_its_items_full_texts(self, model: DarecModel):
        before = model.score_without_collaborative(HISTORIES)
        model.item_encodings[5] += torch.randn(64)
        read = model.read(HISTORIES)
        after = model.score_without_collaborative(HISTORIES)
        assert read.states.isfinite().all()
        changes = np.abs(after - before)[:, np.arange(20) != 5].max(axis=1)
        assert (changes > 1e-3).tolist() == [False] * 4  # item 5 has left the first window
        before = model.score_without_collaborative([[0, 5, 3]])
        model.item_encodings[5] += torch.randn(64)
        assert np.abs(model.score_without_collaborative([[0, 5, 3]]) - before)[0, 3] > 1e-3

    @torch.no_grad()
    def test_an_unseen_title_brings_the_encoding_of_its_own_words(self, model: DarecModel):
        title = "Quite another film"
        encoding = model.encode_texts([model.windows.tokenize(title)])
        found = model.score([[0, title, 5]])
        model.item_encodings[7] = encoding[0]
        windows = model.windows.build([[0, title, 5]])
        kept, mask = torch.tensor([True]), context_mask(windows.packed)
        named = replace(windows, items=torch.tensor([[0, 7, 5]]))
        item_kept = torch.ones(20)
        item_kept[7] = 0
        as_item = model.encode(named, mask, kept, item_kept)
        torch.testing.assert_close(as_item.states, model.read([[0, title, 5]]).states, rtol=0, atol=1e-5)
        assert np.isfinite(found).all()

    @torch.no_grad()
    def test_item_with_a_hidden_word_brings_none(self, model: DarecModel):
        windows = model.windows.build([[0, 5, 3]])
        packed = windows.packed
        hidden = (packed.span == 1) & (packed.kind == Kind.TEXT)
        hidden[0, hidden[0].nonzero()[1:].flatten()] = False
        kept, mask = torch.tensor([False]), context_mask(packed)
        before = model.encode(windows, mask, kept, hidden=hidden).states
        model.item_encodings[5] += torch.randn(64)
        torch.testing.assert_close(model.encode(windows, mask, kept, hidden=hidden).states, before, rtol=0, atol=0)
        assert not torch.allclose(model.encode(windows, mask, kept).states[1], before[1], atol=1e-2)


class TestWithoutCollaborativeKnowledge:
    def test_scores_do_not_depend_on_any_cf_parameter(self, model: DarecModel):
        off, on = model.score_without_collaborative(HISTORIES), model.score(HISTORIES)
        changed = shake(model, lambda name: name.startswith(COLLABORATIVE))
        assert {name.partition(".")[0] for name in changed} == {*COLLABORATIVE, "collaborative_projection"}
        assert np.array_equal(model.score_without_collaborative(HISTORIES), off)
        assert not np.allclose(model.score(HISTORIES), on, atol=1e-2)

    def test_scores_do_not_depend_on_who_an_item_of_the_history_is(
        self, make_model: Callable[..., DarecModel], film_dataset
    ):
        model = make_model(settings=SHORT_TEXTS_ALONE)
        texts = film_dataset.catalog.short_texts
        as_titles = [[texts[item] for item in history] for history in HISTORIES]
        off, off_titles = (model.score_without_collaborative(histories) for histories in (HISTORIES, as_titles))
        np.testing.assert_allclose(off_titles, off, rtol=0, atol=1e-5)
        assert not np.allclose(model.score(as_titles), model.score(HISTORIES), atol=1e-2)

    def test_items_of_equal_text_differ_by_their_bias_alone(self, film_dataset):
        items = film_dataset.catalog.items
        catalog = Catalog(pd.concat([items, items.iloc[[3]].assign(item_id="again")], ignore_index=True))
        torch.manual_seed(0)
        model = DarecModel(*tiny_backbone(catalog.full_texts), catalog, np.ones(21), Settings()).eval()
        shake(model, lambda name: True)
        model.refresh_item_encodings()
        scores = model.score_without_collaborative(HISTORIES)
        bias = (model.item_bias[20] - model.item_bias[3]).item()
        assert abs(bias) > 1e-2
        np.testing.assert_allclose(scores[:, 20] - scores[:, 3], bias, rtol=0, atol=1e-4)
        on = model.score(HISTORIES)
        assert not np.allclose(on[:, 20] - on[:, 3], bias, atol=1e-2)

    def test_each_sequence_of_a_batch_goes_its_own_way(self, model: DarecModel):
        windows = model.windows.build(HISTORIES)
        kept = torch.tensor([True, False, True, False])
        with torch.no_grad():
            mixed = model.score_terms(model.encode(windows, context_mask(windows.packed), kept)).total()
            on, off = (model.score_terms(model.read(HISTORIES, collaborative=c)).total() for c in (True, False))
            expected = torch.where(kept[model.read(HISTORIES).sequence][:, None], on, off)
        torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-5)


class TestColdItems:
    def test_are_scored_from_their_text_alone(self, model: DarecModel):
        text, *others, _ = last_terms(model, HISTORIES[0])  # nothing follows
        assert text[COLD].item() != 0
        assert [term[COLD].item() for term in others] == [0.0, 0.0, 0.0]
        assert all(term[5].item() != 0 for term in others)

    def test_are_moved_by_the_cold_prior_and_no_other_item_is(self, model: DarecModel):
        on, off = model.score(HISTORIES), model.score_without_collaborative(HISTORIES)
        model.cold_prior.fill_(1.5)
        expected = np.tile(np.where(np.isin(np.arange(20), COLD_FILMS), np.float32(1.5), np.float32(0)), (4, 1))
        np.testing.assert_allclose(model.score(HISTORIES) - on, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(model.score_without_collaborative(HISTORIES) - off, expected, rtol=0, atol=1e-5)

    def test_are_moved_less_the_longer_before_the_newest_question_they_are_asked_for(self, model: DarecModel):
        without = model.score(HISTORIES)
        model.cold_prior.fill_(2.0)
        model.cold_days.fill_(10.0)
        model.newest.fill_(1_700_000_000)
        days_before = np.array([0, 10, 25, -3])  # the last one is asked after the newest question known
        then = model.asked(1_700_000_000 - 86_400 * days_before)
        moved = (then.score(HISTORIES) - without)[:, COLD]
        np.testing.assert_allclose(moved, [2.0, 2 / np.e, 2 * np.exp(-2.5), 2.0], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(then.score(HISTORIES)[:, 5], without[:, 5])
        at_once = model.asked(1_700_000_000 - 864_000.0)
        np.testing.assert_allclose((at_once.score(HISTORIES) - without)[:, COLD], 2 / np.e, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(model.score(HISTORIES), without)  # at no known time nothing is new

    def test_that_were_taken_are_new_from_then_on_and_less_so_the_longer_ago_that_was(self, model: DarecModel):
        first = 1_700_000_000
        model.cold[1] = True  # of which a few interactions are known
        without = model.score(HISTORIES)
        model.cold_prior.fill_(2.0)
        model.cold_days.fill_(10.0)
        model.first_taken[1] = first
        model.newest.fill_(first + 86_400 * 100)
        then = model.asked(first + 86_400 * np.array([-1, 0, 10, 25])).score(HISTORIES)
        np.testing.assert_allclose(then[:, 1] - without[:, 1], [0, 2, 2 / np.e, 2 * np.exp(-2.5)], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(then[:, 5], without[:, 5])
        np.testing.assert_array_equal(model.score(HISTORIES), without)

    def test_a_prior_that_lasts_for_ever_does_not_mind_when_it_is_asked(self, model: DarecModel):
        model.cold_prior.fill_(2.0)
        model.newest.fill_(1_700_000_000)
        model.first_taken.fill_(1_600_000_000)
        model.cold[1] = True
        np.testing.assert_array_equal(model.asked(0).score(HISTORIES), model.score(HISTORIES))
        np.testing.assert_array_equal(model.asked(1_800_000_000).score(HISTORIES), model.score(HISTORIES))

    def test_are_those_without_interactions_until_validation_adds_others(self, film_dataset):
        popularity = np.array([0, 4, 5, *[9] * 17])
        model = DarecModel(*tiny_backbone(film_dataset.catalog.full_texts), film_dataset.catalog, popularity, SMALL)
        assert model.known.tolist() == [False, *[True] * 19]
        assert model.cold.tolist() == [True, *[False] * 19]
        shake(model.eval(), lambda name: True)
        model.refresh_item_encodings()
        text, *others, _ = last_terms(model, HISTORIES[0])  # nothing follows
        assert all(term[1].item() != 0 for term in others)
        model.cold[1] = True
        still, *others, _ = last_terms(model, HISTORIES[0])
        assert still[1] == text[1]
        assert [term[1].item() for term in others] == [0.0, 0.0, 0.0]

    def test_score_does_not_depend_on_their_cf_weights(self, model: DarecModel):
        histories = [*HISTORIES, [0, COLD, 5], [COLD]]
        before = model.score(histories)
        with torch.no_grad():
            model.collaborative.embeddings[COLD] += 3.0
            model.item_bias[COLD] += 3.0
        assert np.array_equal(model.score(histories), before)

    def test_are_skipped_by_the_cf_model_in_a_history(self, model: DarecModel):
        encoded = model.read([[0, COLD, 5]])
        assert torch.equal(encoded.collaborative_states[1], encoded.collaborative_states[0])
        torch.testing.assert_close(
            encoded.collaborative_states[2], model.read([[0, 5]]).collaborative_states[1], rtol=0, atol=1e-5
        )

    def test_are_read_in_a_history_as_an_unseen_title_with_the_same_words(
        self, make_model: Callable[..., DarecModel], film_dataset
    ):
        model = make_model(settings=SHORT_TEXTS_ALONE)
        title = film_dataset.catalog.short_texts[COLD]
        np.testing.assert_allclose(model.score([[0, title, 5]]), model.score([[0, COLD, 5]]), rtol=0, atol=1e-5)
        assert not np.allclose(model.score([[0, "Quite another film", 5]]), model.score([[0, COLD, 5]]), atol=1e-3)

    def test_history_of_which_cf_knows_nothing_goes_without_cf(self, model: DarecModel):
        alone = [["A film nobody knows"], [COLD], [COLD, "電影"]]
        assert np.array_equal(model.score(alone), model.score_without_collaborative(alone))
        beside = [["A film nobody knows", 0], [COLD, 5]]
        assert not np.allclose(model.score(beside), model.score_without_collaborative(beside), atol=1e-2)

    def test_history_of_unseen_titles_alone_is_ranked(self, model: DarecModel):
        scores = model.score([["A film nobody knows", "電影"]])
        assert np.isfinite(scores).all()
        assert scores.std() > 1e-3

    def test_dropped_items_lose_their_embedding_and_bias_but_neither_text_nor_late_term(self, model: DarecModel):
        item_kept = torch.ones(20)
        item_kept[[5, 7]] = 0
        terms = last_terms(model, HISTORIES[0], item_kept=item_kept)
        whole = last_terms(model, HISTORIES[0])
        assert torch.equal(terms[0], whole[0])
        assert torch.equal(terms[3], whole[3])
        for dropped, kept in zip(terms[1:3], whole[1:3], strict=True):
            assert dropped[[5, 7]].tolist() == [0.0, 0.0]
            others = item_kept.bool()
            torch.testing.assert_close(dropped[others], kept[others])

    @torch.no_grad()
    def test_dropped_items_enter_a_history_without_their_embedding(self, make_model: Callable[..., DarecModel]):
        model = make_model(settings=SHORT_TEXTS_ALONE)
        item_kept = torch.ones(20)
        item_kept[5] = 0
        windows = model.windows.build([[0, 5, 3]])
        kept, mask = torch.tensor([True]), context_mask(windows.packed)
        dropped = model.encode(windows, mask, kept, item_kept)
        unknown = model.encode(replace(windows, items=torch.tensor([[0, -1, 3]])), mask, kept)
        torch.testing.assert_close(dropped.states, unknown.states, rtol=0, atol=1e-5)
        assert not torch.allclose(dropped.states, model.encode(windows, mask, kept).states, atol=1e-3)


class TestEvaluation:
    def test_is_under_the_context_mask(self, model: DarecModel):
        packed = model.windows.build(HISTORIES).packed
        assert torch.equal(model.evaluation_mask(packed), context_mask(packed))
        assert not torch.equal(model.evaluation_mask(packed), causal_mask(packed))

    def test_is_causal_where_context_masking_is_off(self, make_model: Callable[..., DarecModel]):
        model = make_model(settings=Settings(masking=MaskingSettings(enabled=False)))
        packed = model.windows.build(HISTORIES).packed
        assert torch.equal(model.evaluation_mask(packed), causal_mask(packed))

    def test_scores_the_boundary_behind_the_last_item(self, model: DarecModel):
        with torch.no_grad():
            encoded = model.read(HISTORIES)
            everything = model.score_terms(encoded).total()
        for row, history in enumerate(HISTORIES):
            at = (encoded.sequence == row) & (encoded.span == min(len(history), 4) - 1)
            np.testing.assert_allclose(model.score(HISTORIES)[row], everything[at][0], rtol=0, atol=1e-5)

    def test_every_boundary_of_one_pass_is_scored_as_the_history_up_to_it(self, model: DarecModel):
        with torch.no_grad():
            everything = model.score_terms(model.read([[0, 5, 3, 7]])).total()
        for length in range(1, 5):
            np.testing.assert_allclose(model.score([[0, 5, 3, 7][:length]])[0], everything[length - 1], atol=1e-4)


class TestState:
    def test_holds_all_that_was_trained_and_nothing_of_the_backbone(self, model: DarecModel):
        state = model.trained_state()
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained <= state.keys()
        assert {name for name in state if name.startswith("backbone.")} == {n for n in state if ".lora_" in n}
        assert {"item_encodings", "known"} <= state.keys()

    @pytest.mark.parametrize("family", FAMILIES)
    def test_makes_another_model_score_alike(self, make_model: Callable[..., DarecModel], family: str):
        first, second = make_model(family), make_model(family)
        shake(second, lambda name: not name.startswith("backbone.") or ".lora_" in name)
        assert not np.allclose(first.score(HISTORIES), second.score(HISTORIES), atol=1e-2)
        second.load_trained_state(first.trained_state())
        assert np.array_equal(first.score(HISTORIES), second.score(HISTORIES))

    @pytest.mark.parametrize("change", ["missing", "unknown", "reshaped", "spread"])
    @pytest.mark.parametrize("name", ["item_bias", "injection.item.weight"])
    def test_that_does_not_fit_is_refused(self, model: DarecModel, change: str, name: str):
        state = model.trained_state()
        tensor = state.pop(name)
        if change == "unknown":
            state |= {name: tensor, "other": tensor}
        elif change == "reshaped":
            state[name] = torch.cat([tensor, tensor])
        elif change == "spread":
            state[name] = tensor[:1]
        with pytest.raises(ConfigError, match="Saved weights do not fit the settings"):
            model.load_trained_state(state)

    def test_of_other_adapters_is_refused(self, make_model: Callable[..., DarecModel]):
        one, other = (make_model(settings=Settings(adapters=AdapterSettings(rank=rank))) for rank in (2, 3))
        with pytest.raises(ConfigError, match="Saved adapters do not fit the backbone"):
            one.load_trained_state(other.trained_state())


def test_run_of_another_kind_is_refused(film_run: Path):
    with pytest.raises(RunError, match="holds a baseline, not a DARec model"):
        DarecModel.load(film_run)


def test_folder_that_is_no_run_is_refused(tmp_path: Path, film_run: Path):
    shutil.copytree(film_run / "data", tmp_path / "data")
    with pytest.raises(RunError, match="is not a run"):
        DarecModel.load(tmp_path)
