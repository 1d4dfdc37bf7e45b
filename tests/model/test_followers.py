from collections.abc import Callable

import numpy as np
import pytest
import torch
from invented_films import COLD_FILMS, SMALL

from darec.config import InjectionSettings
from darec.model.followers import Followers
from darec.model.recommender import DarecModel

COEFFICIENTS = torch.tensor([[0.1, 0.5, -0.9], [0.3, -0.2, 0.2], [0.0, 0.4, 0.6]])  # of items 1, 3 and 4 of 5
TAKEN = torch.tensor([1, 3, 4])


def test_keeps_of_each_item_the_largest_weights_above_zero():
    followers = Followers(5, kept=2)
    followers.weights.fill_(9.0)  # of an earlier fit
    followers.keep(TAKEN, COEFFICIENTS)
    alone = followers(torch.arange(5)[:, None])
    expected = torch.zeros(5, 5)
    expected[1, [1, 3]] = torch.tensor([0.1, 0.5])
    expected[3, [1, 4]] = torch.tensor([0.3, 0.2])
    expected[4, [3, 4]] = torch.tensor([0.4, 0.6])
    torch.testing.assert_close(alone, expected)


def test_adds_up_over_the_items_read_each_counted_once():
    followers = Followers(5, kept=3)
    followers.keep(TAKEN, COEFFICIENTS)
    read = torch.tensor([[-1, 1, 0, 3], [3, 1, 3, 3], [-1, -1, -1, -1]])
    both = torch.tensor([0.0, 0.4, 0.0, 0.5, 0.2])
    torch.testing.assert_close(followers(read), torch.stack([both, both, torch.zeros(5)]))


def test_more_may_be_kept_than_there_are():
    assert Followers(2, kept=8)(torch.tensor([[0, 1]])).tolist() == [[0.0, 0.0]]
    followers = Followers(5, kept=4)
    followers.keep(TAKEN, COEFFICIENTS)
    assert followers(torch.tensor([[1]])).tolist() == [[0.0, pytest.approx(0.1), 0.0, pytest.approx(0.5), 0.0]]


class TestInAModel:
    @pytest.fixture
    def model(self, make_model: Callable[..., DarecModel]) -> DarecModel:
        model = make_model(settings=SMALL.model_copy(update={"injection": InjectionSettings(followers=3)}))
        assert model.followers is not None
        coefficients = torch.zeros(20, 20)
        coefficients[2, 9], coefficients[7, 9], coefficients[0, 4] = 0.25, 0.5, 0.75
        model.followers.keep(torch.arange(20), coefficients)
        return model

    def test_each_place_knows_what_was_read_up_to_it_also_before_the_window(self, model: DarecModel):
        model.followers.trust.fill_(10.0)
        history = [7, 3, 5, 2, 6, 8]  # a window holds four
        encoded = model.read([history])
        with torch.no_grad():
            followed = model.score_terms(encoded).followed[:, 9]
        assert followed[encoded.span.argsort()].tolist() == [5.0, 7.5, 7.5, 7.5]

    def test_is_a_term_of_the_score_that_goes_with_cf(self, model: DarecModel):
        history = [7, 3]
        before = model.score([history]), model.score_without_collaborative([history])
        model.followers.trust.fill_(10.0)
        model.temperatures.copy_(torch.tensor([1.0, 2.0]))
        with_cf, without = model.score([history]), model.score_without_collaborative([history])
        expected = before[0] / 2
        expected[0, 9] += 5.0 / 2
        np.testing.assert_allclose(with_cf, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(without, before[1])
        assert model.last_terms([[0]]).followed[0, COLD_FILMS].tolist() == [0.0, 0.0]  # text alone speaks of cold items

    def test_says_nothing_before_validation_trusts_it(self, model: DarecModel):
        assert not model.last_terms([[7, 3]]).followed.any()
        model.followers.trust.fill_(1e-3)
        assert model.last_terms([[7, 3]]).followed.any()
