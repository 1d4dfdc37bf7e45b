import torch

from darec.model.seen import set_seen_aside


def test_only_what_was_seen_is_set_aside_and_a_target_never_is():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    seen = torch.tensor([[3, -1, 3], [0, 2, -1]])
    left = set_seen_aside(scores, seen, targets=torch.tensor([0, 2]))
    inf = torch.inf
    assert left.tolist() == [[1, 2, 3, -inf], [-inf, 6, 7, 8]]


def test_where_nothing_was_seen_nothing_changes():
    scores = torch.randn(3, 5)
    assert torch.equal(set_seen_aside(scores, torch.full((3, 2), -1), torch.tensor([0, 1, 2])), scores)
    assert torch.equal(set_seen_aside(scores, torch.empty(3, 0, dtype=torch.long), torch.tensor([0, 1, 2])), scores)
