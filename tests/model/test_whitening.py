import torch

from darec.model.whitening import whitening


def test_whitening_gives_each_direction_its_variance_back():
    states = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [3.0, -1.0], [-1.0, -1.0]])  # mean (1, 0), variances 4 and 1
    mean, map = whitening(states, shrinkage=0.01)
    assert mean.tolist() == [1.0, 0.0]
    expected = [[(0.99 * 4 + 0.01 * 2.5) ** -0.5, 0.0], [0.0, (0.99 * 1 + 0.01 * 2.5) ** -0.5]]
    torch.testing.assert_close(map, torch.tensor(expected))


def test_whitening_turns_nothing_but_stretches_along_the_states_own_directions():
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))[0]
    states = torch.randn(400, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([9, 5, 3, 2, 1, 0.5])
    mean, map = whitening(states @ turn, shrinkage=1e-6)
    torch.testing.assert_close(map, map.T)
    whitened = (states @ turn - mean) @ map
    torch.testing.assert_close(whitened.T @ whitened / 400, torch.eye(6), rtol=0, atol=1e-2)


def test_whitening_is_finite_and_bounded_where_there_are_fewer_texts_than_directions():
    for states in (torch.eye(8)[:3], torch.ones(2, 8), torch.zeros(0, 8)):
        mean, map = whitening(states)
        assert mean.isfinite().all()
        assert map.isfinite().all()
    scales = torch.linalg.eigvalsh(whitening(torch.eye(8)[:3])[1])
    assert scales.max() / scales.min() < 20  # (0.99 * 1/3 + f)/f with f a hundredth of 2/24
