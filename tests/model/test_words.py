import math

import pytest
import torch

from darec.model.words import WordBags, latent_directions


class TestWordBags:
    def test_count_shared_words_by_how_few_items_share_them(self):
        bags = WordBags([[5, 7, 8], [7, 5, 5], [5, 9], [2]])  # 5 in three of four items, 7 in two, the others in one
        a, b = math.log(4 / 3), math.log(4 / 2)
        mean = (2 * math.hypot(a, b) + a + 0) / 4
        expected = torch.tensor([[a, b], [a, b], [a, 0], [0, 0]]) * 2**0.5 / mean
        torch.testing.assert_close(bags([[8, 7, 5], [5, 7], [5, 5, 9], [2]]), expected)

    def test_know_nothing_of_other_words_and_of_empty_texts(self):
        bags = WordBags([[1, 2], [1, 3], [2, 4]])
        assert bags([[9], []]).tolist() == [[0.0, 0.0]] * 2

    def test_are_empty_where_no_two_items_share_a_word(self):
        assert WordBags([[1], [2], []])([[1], [7]]).shape == (2, 0)
        assert len(WordBags([])) == 0


class TestLatentDirections:
    def test_are_those_of_the_full_decomposition(self):
        torch.manual_seed(0)
        bags = torch.rand(40, 12) @ torch.diag(torch.linspace(1, 5, 12))
        mean, map = latent_directions(bags, 4)
        full = torch.linalg.svd(bags - bags.mean(0)).Vh[:4].T
        torch.testing.assert_close(mean, bags.mean(0))
        torch.testing.assert_close((map * full).sum(0).abs(), torch.ones(4), rtol=0, atol=1e-4)

    def test_bring_texts_together_that_share_no_word_but_companions(self):
        texts = [[1, 2], [1, 2], [2, 3], [2, 3], [6, 7], [6, 7], [7, 8], [7, 8]]
        bags = WordBags(texts)
        mean, map = latent_directions(bags(texts), 1)
        one, three, six = ((bags([[word]]) - mean) @ map for word in (1, 3, 6))
        assert one * three > 0 > one * six

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 5)])
    def test_beyond_what_the_texts_span_are_zero(self, shape: tuple[int, int]):
        map = latent_directions(torch.rand(*shape), 4)[1]
        assert map.shape == (shape[1], 4)
        assert not map[:, min(shape) :].any()
        assert map.isfinite().all()

    def test_are_the_same_whatever_was_drawn_before_and_leave_the_generator_alone(self):
        bags = torch.rand(30, 20)
        torch.manual_seed(1)
        first = latent_directions(bags, 5)[1]
        drawn = torch.rand(3)
        torch.manual_seed(1)
        assert torch.equal(torch.rand(3), drawn)
        assert torch.equal(latent_directions(bags, 5)[1], first)
