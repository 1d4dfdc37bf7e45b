import torch

from darec.model.skip import Skip


@torch.no_grad()
def test_after_an_item_speaks_a_decayed_sum_of_those_so_far():
    skip = Skip(2)
    skip.decay.copy_(torch.tensor([0.5, 0.5, 0.25]).logit())
    skip.shares.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 10.0]]))
    encodings = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [5.0, 6.0], [7.0, 8.0]]])
    spoken = skip(encodings, torch.tensor([[False, True, True, True]]), torch.tensor([[3, 1, 0]]))[0]
    halves, quarters = 1.75**0.5, (1 + 1 / 4 + 1 / 16) ** 0.5  # roots of the sums of three items' weights
    first = (7 + 5 / 2 + 1 / 4) / halves
    second = (8 + 6 / 2 + 2 / 4) / halves + 10 * (8 + 6 / 4 + 2 / 16) / quarters
    torch.testing.assert_close(spoken[0], torch.tensor([first, second]))
    torch.testing.assert_close(spoken[1], torch.tensor([1.0, 2 + 20]))
    assert spoken[2].tolist() == [0.0, 0.0]


@torch.no_grad()
def test_what_a_map_adds_is_of_the_same_sums():
    skip = Skip(2)
    encodings, present, at = torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.bool), torch.arange(4).expand(3, 4)
    before = skip(encodings, present, at)
    skip.up.normal_()
    skip.shares.zero_()
    added = skip(encodings, present, at)
    skip.shares.fill_(2 / 2)
    torch.testing.assert_close(skip(encodings, present, at), before + added)
    assert added.abs().max() > 1e-3


@torch.no_grad()
def test_never_depends_on_later_items_or_other_histories():
    skip, present, at = Skip(4), torch.ones(2, 5, dtype=torch.bool), torch.arange(5).expand(2, 5)
    skip.up.normal_()
    encodings = torch.randn(2, 5, 4)
    spoken = skip(encodings, present, at)
    encodings[0, 3:] += 1
    changed = (skip(encodings, present, at) - spoken).abs().amax(dim=-1) > 1e-4
    assert changed.tolist() == [[False] * 3 + [True] * 2, [False] * 5]


def test_learns_which_items_count():
    torch.manual_seed(0)
    skip = Skip(3)
    with torch.no_grad():
        skip.up.normal_()
    at = torch.tensor([[5, 2], [4, 0]])
    skip(torch.randn(2, 6, 3), torch.ones(2, 6, dtype=torch.bool), at).square().sum().backward()
    for parameter in skip.parameters():
        assert (parameter.grad.abs() > 1e-4).all()


def test_of_texts_without_features_nothing_speaks():
    spoken = Skip(0)(torch.zeros(2, 3, 0), torch.ones(2, 3, dtype=torch.bool), torch.tensor([[2], [2]]))
    assert spoken.shape == (2, 1, 0)
