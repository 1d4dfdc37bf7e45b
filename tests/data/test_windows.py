import numpy as np
import pytest
import torch

from darec.data.sequences import Soft
from darec.data.windows import WindowBuilder, draw_window

BOS, USER, ITEM, _ = (soft.input_id for soft in Soft)


def builder(max_items: int = 3, max_tokens: int = 64, max_collaborative_items: int = 6) -> WindowBuilder:
    """Item i is the one word 10 + i; a new title is a word for each letter."""
    return WindowBuilder([[10 + i] for i in range(8)], lambda title: [ord(c) for c in title], max_items, max_tokens,
                         max_collaborative_items)  # fmt: skip


def test_window_holds_the_most_recent_items_and_the_cf_model_reads_further_back():
    windows = builder().build([[0, 1, 2, 3, 4], [5]])
    assert windows.packed.input_ids.tolist() == [
        [BOS, USER, 12, ITEM, 13, ITEM, 14, ITEM],
        [BOS, USER, 15, ITEM, 0, 0, 0, 0],
    ]
    assert windows.items.tolist() == [[2, 3, 4], [5, -1, -1]]
    assert windows.targets.tolist() == [[-1, -1, -1], [-1, -1, -1]]
    assert windows.lengths.tolist() == [3, 1]
    assert windows.collaborative_items.tolist() == [[0, 1, 2, 3, 4], [-1, -1, -1, -1, 5]]


def test_every_boundary_has_its_target_in_training():
    windows = builder().build([[0, 1, 2, 3, 4], [5, 6]], following=[7, 0])
    assert windows.targets.tolist() == [[3, 4, 7], [6, 0, -1]]


def test_new_title_is_read_as_words_and_skipped_by_the_cf_model():
    windows = builder().build([[1, "ab", 2]], following=[3])
    assert windows.packed.input_ids.tolist() == [[BOS, USER, 11, ITEM, ord("a"), ord("b"), ITEM, 12, ITEM]]
    assert windows.items.tolist() == [[1, -1, 2]]
    assert windows.targets.tolist() == [[-1, 2, 3]]
    assert windows.collaborative_items.tolist() == [[-1, 1, -1, 2]]


def test_items_cut_for_want_of_positions_are_still_read_by_the_cf_model():
    windows = builder(max_tokens=6).build([[0, 1, 2, 3]], following=[4])  # room for two items of two tokens
    assert windows.packed.cut_items.tolist() == [1]
    assert windows.lengths.tolist() == [2]
    assert windows.items.tolist() == [[2, 3]]
    assert windows.targets.tolist() == [[3, 4]]
    assert windows.collaborative_items.tolist() == [[0, 1, 2, 3]]


def test_cf_history_is_limited_to_its_own_length():
    windows = builder(max_collaborative_items=4).build([[7, 6, 5, 4, 3, 2, 1]])
    assert windows.collaborative_items.tolist() == [[4, 3, 2, 1]]


@pytest.mark.parametrize("max_collaborative_items", [1, 2, 6])
def test_columns_point_at_the_item_of_each_span_and_at_what_lies_before_the_window(max_collaborative_items: int):
    histories = [[0, 1, 2, 3, 4], [5, 6], [7]]
    windows = builder(max_collaborative_items=max_collaborative_items).build(histories)
    for row, history in enumerate(histories):
        length = int(windows.lengths[row])
        for span in range(-1, length):
            column = windows.column_of(torch.tensor([row]), torch.tensor([span])).item()
            place = len(history) - length + span
            is_read = place >= max(0, len(history) - max_collaborative_items)
            assert windows.collaborative_items[row, column].item() == (history[place] if is_read else -1)


def test_seen_is_what_was_read_up_to_a_span_in_the_window_or_before_it():
    windows = builder().build([[0, 1, 2, 3, 4], [5, "ab"]])
    seen = windows.seen_at(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]))
    assert [set(row.tolist()) - {-1} for row in seen] == [{0, 1, 2}, {0, 1, 2, 3, 4}, {5}]
    little = builder(max_items=4, max_collaborative_items=1).build([[0, 1, 2, 3]])  # the CF model reads less
    seen = little.seen_at(torch.tensor([0, 0]), torch.tensor([1, 3]))
    assert [set(row.tolist()) - {-1} for row in seen] == [{0, 1}, {0, 1, 2, 3}]


def test_drawn_windows_are_full_and_cover_every_possible_end():
    items = np.arange(100, 110)
    draws = [draw_window(items, 4, np.random.default_rng(seed)) for seed in range(200)]
    assert {len(history) for history, _ in draws} == {4, 5, 6, 7, 8, 9}
    assert all(history.tolist() == items[: len(history)].tolist() for history, _ in draws)
    assert all(following == items[len(history)] for history, following in draws)


@pytest.mark.parametrize("length", [2, 3, 4])
def test_short_users_are_drawn_whole(length: int):
    items = np.arange(length)
    for seed in range(20):
        history, following = draw_window(items, 4, np.random.default_rng(seed))
        assert (history.tolist(), following) == (list(range(length - 1)), length - 1)
