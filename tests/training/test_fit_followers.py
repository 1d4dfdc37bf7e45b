import numpy as np
import pytest
import torch

from darec.data.splits import Cases, Split
from darec.training import followers
from darec.training.followers import RIDGE, fit_followers

N = 12


def split_of(histories: list[np.ndarray]) -> Split:
    ids = [str(user) for user in range(len(histories))]
    cases = Cases(ids, [history[:1] for history in histories], np.array([history[0] for history in histories]))
    return Split(N, histories, cases, cases)


def random_histories(users: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(N - 2, size=random.integers(1, 9)) for _ in range(users)]  # items may come again


def test_is_the_ridge_regression_of_the_next_item_on_the_items_so_far(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(followers, "_BLOCK", 7)
    histories = random_histories(60)
    held, following = [], []
    for history in histories:
        recent = history[-5:]
        for place in range(1, len(recent)):
            held.append(np.isin(np.arange(N), recent[:place]).astype(float))
            following.append(np.eye(N)[recent[place]])
    # Least squares with the ridge as so many more observations.
    rows = np.concatenate([np.stack(held), RIDGE**0.5 * np.eye(N)])
    expected = np.linalg.lstsq(rows, np.concatenate([np.stack(following), np.zeros((N, N))]), rcond=None)[0]
    items, found = fit_followers(split_of(histories), 5)
    assert items.tolist() == list(range(N - 2))
    np.testing.assert_allclose(found.numpy(), expected[: N - 2, : N - 2], atol=1e-6)


def test_finds_what_comes_after_however_much_lies_between():
    random = np.random.default_rng(1)
    histories = []
    for _ in range(300):
        others = random.permutation(np.arange(2, N - 1))[:6]
        first, second = np.sort(random.permutation(8)[:2])
        histories.append(np.insert(np.insert(others, first, 0), second, 1))  # 1 comes some time after 0
    items, found = fit_followers(split_of(histories), 50)
    assert items.tolist() == list(range(N - 1))
    assert found[0].argmax() == 1
    assert found[0, 1] > 3 * found[2:, 1].max()
    assert found[1, 0] < 0.01  # and never the other way round


def test_only_the_most_taken_items_take_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(followers, "MOST", 3)
    histories = [np.array([0, 5, 5, 7]), np.array([7, 5, 2]), np.array([9, 7, 9, 9])]
    items, found = fit_followers(split_of(histories), 50)
    assert items.tolist() == [5, 7, 9]
    assert found.shape == (3, 3)
    assert torch.isfinite(found).all()
    assert found[1, 2] > 0 > found[2, 0] - 1e-12
