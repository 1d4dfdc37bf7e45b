import numpy as np
import torch
from torch.nn import functional as F

from darec.config import CollaborativeSettings
from darec.model.collaborative import SASRec, compact, left_pad

SETTINGS = CollaborativeSettings(hidden_size=8, num_layers=2, num_heads=2, max_items=12)
N = 20


def random_model(**arguments: torch.Tensor) -> SASRec:
    """A model in evaluation mode whose every parameter, biases and distances too, is far from zero."""
    torch.manual_seed(0)
    model = SASRec(N, SETTINGS, **arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def test_later_items_never_change_an_earlier_state():
    model, items = random_model(), torch.arange(10)[None]
    before = model(items)
    for column in range(10):
        changed = items.clone()
        changed[0, column] = 15
        after = model(changed)
        assert torch.allclose(before[:, :column], after[:, :column], atol=1e-6)
        assert (before[:, column:] - after[:, column:]).abs().amax(-1).min() > 1e-4


def test_a_gap_inside_a_history_changes_nothing():
    model = random_model()
    dense, gapped = model(torch.tensor([[-1, -1, 3, 5, 7]])), model(torch.tensor([[3, -1, 5, -1, 7]]))
    assert torch.allclose(dense[0, [2, 3, 4]], gapped[0, [0, 2, 4]], atol=1e-6)


def test_state_at_a_gap_is_the_state_before_it():
    states = random_model()(torch.tensor([[-1, 4, -1, -1, 6, -1]]))[0]
    assert torch.equal(states[2], states[1])
    assert torch.equal(states[5], states[4])
    assert states[0].abs().sum() == 0


def test_padding_on_the_left_changes_nothing():
    model, items = random_model(), torch.tensor([[2, 9, 4]])
    padded = F.pad(items, (6, 0), value=-1)
    assert torch.allclose(model(items)[0], model(padded)[0, 6:], atol=1e-6)


def test_row_of_only_padding_gives_zeros_and_finite_gradients():
    model = random_model()
    states = model(torch.tensor([[-1, -1, -1], [1, 2, 3]]))
    assert states[0].abs().sum() == 0
    states.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_history_longer_than_the_learned_distances_is_read():
    assert torch.isfinite(random_model()(torch.arange(N)[None])).all()


def test_order_of_the_history_matters():
    model = random_model()
    assert not torch.allclose(model(torch.tensor([[1, 2, 3]]))[:, -1], model(torch.tensor([[2, 1, 3]]))[:, -1])


def test_loss_is_the_cross_entropy_of_every_next_item_among_those_not_seen_before():
    model, items = random_model(), torch.tensor([[-1, 1, 2, 1, 3]])
    logits = model.score(model(torch.tensor([[1, 2, 1]])))[0]
    second = logits[0].clone()
    second[1] = -torch.inf
    third = logits[1].clone()
    third[2] = -torch.inf  # but not 1, which was seen and comes again
    fourth = logits[2].clone()
    fourth[[1, 2]] = -torch.inf
    expected = F.cross_entropy(torch.stack([second, third, fourth]), torch.tensor([2, 1, 3]))
    assert torch.allclose(model.loss(items), expected, atol=1e-5)


def test_loss_of_a_history_with_a_gap_is_that_of_the_history_without():
    model = random_model()
    assert torch.allclose(
        model.loss(torch.tensor([[1, -1, 2, 3]])), model.loss(torch.tensor([[-1, 1, 2, 3]])), atol=1e-6
    )


def test_nothing_to_predict_costs_nothing():
    loss = random_model().loss(torch.tensor([[-1, -1, 4]]))
    loss.backward()
    assert loss.item() == 0


def test_unknown_items_are_neither_read_nor_negatives_nor_targets():
    known = torch.ones(N, dtype=torch.bool)
    known[[5, 7]] = False
    model = random_model(known=known)
    items = torch.tensor([[1, 5, 2, 7]])
    assert torch.allclose(model(items)[0, -1], model(torch.tensor([[1, 2]]))[0, -1], atol=1e-6)
    loss = model.loss(items)
    open_items = known.clone()
    open_items[1] = False  # seen
    logits = model.score(model(torch.tensor([[1]])))[0, -1].masked_fill(~open_items, -torch.inf)
    assert torch.allclose(loss, F.cross_entropy(logits[None], torch.tensor([2])), atol=1e-5)
    loss.backward()
    assert model.embeddings.grad is not None
    assert model.embeddings.grad[[5, 7]].abs().sum() == 0
    assert (model.embeddings.grad[known].abs().sum(1) > 0).all()
    assert model.item_embeddings()[[5, 7]].abs().sum() == 0


def test_text_gives_an_unknown_item_an_embedding():
    known = torch.ones(N, dtype=torch.bool)
    known[5] = False
    features = torch.randn(N, 6)
    model = random_model(known=known, text_features=features)
    assert torch.allclose(model.item_embeddings()[5], model.text_projection(features[5]), atol=1e-6)
    assert not torch.allclose(model(torch.tensor([[1, 5]]))[0, -1], model(torch.tensor([[1]]))[0, -1])


def test_one_set_of_embeddings_serves_input_and_output():
    model = random_model()
    states = model(torch.tensor([[1, 2]]))
    assert torch.allclose(model.score(states), states @ model.embeddings.T)


def test_compact_pushes_items_right_and_says_where_they_went():
    items, column, count = compact(torch.tensor([[-1, 4, -1, 6]]))
    assert items.tolist() == [[-1, -1, 4, 6]]
    assert column.tolist() == [[1, 2, 2, 3]]
    assert count.tolist() == [[0, 1, 1, 2]]


def test_left_pad_keeps_the_most_recent_items():
    assert left_pad([[1, 2, 3, 4], np.array([5]), []], 3).tolist() == [[2, 3, 4], [-1, -1, 5], [-1, -1, -1]]
    assert left_pad([[]], 3).tolist() == [[-1]]
