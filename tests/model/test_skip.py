import torch

from darec.model.skip import Skip


def test_state_receives_decayed_sums_of_its_own_history_so_far():
    skip = Skip(2)
    with torch.no_grad():
        skip.decay.copy_(torch.tensor([0.5, 0.5, 0.25]).logit())
        skip.shares.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 10.0]]))
    encodings = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    sequence, span = torch.tensor([0, 1, 0, 0]), torch.tensor([0, 0, 1, 2])
    received = skip(encodings, sequence, span)
    halves, quarters = 1.75**0.5, (1 + 1 / 4 + 1 / 16) ** 0.5  # roots of the sums of the weights of three items
    first = (7 + 5 / 2 + 1 / 4) / halves
    second = (8 + 6 / 2 + 2 / 4) / halves + 10 * (8 + 6 / 4 + 2 / 16) / quarters
    torch.testing.assert_close(received[3], torch.tensor([first, second]))
    torch.testing.assert_close(received[:2], torch.tensor([[1.0, 2 + 20], [3.0, 4 + 40]]))


def test_order_of_boundaries_does_not_matter_and_histories_never_mix():
    skip, encodings = Skip(4), torch.randn(5, 4)
    sequence, span = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 0, 1, 2])
    received = skip(encodings, sequence, span)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(skip(encodings[order], sequence[order], span[order]), received[order])
    torch.testing.assert_close(skip(encodings[:2], sequence[:2], span[:2]), received[:2])


def test_learns_which_items_count():
    torch.manual_seed(0)
    skip = Skip(3)
    with torch.no_grad():
        skip.shares.add_(0.1)
    encodings = torch.randn(6, 3)
    skip(encodings, torch.zeros(6, dtype=torch.long), torch.arange(6)).square().sum().backward()
    assert (skip.decay.grad.abs() > 1e-3).all()
    assert (skip.shares.grad.abs() > 1e-3).all()
