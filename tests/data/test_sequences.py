import pytest
import torch

from darec.data.sequences import Kind, PackedSequences, Soft, pack_histories, pack_items

BOS, USER, ITEM, MASK = (soft.input_id for soft in Soft)
P, W, I, X = (int(kind) for kind in (Kind.PREFIX, Kind.TEXT, Kind.ITEM, Kind.PAD))  # noqa: E741


def sequence_tokens(packed: PackedSequences, number: int) -> torch.Tensor:
    """[4, length]: input_ids, span, kind and position of one sequence."""
    at = packed.sequence == number
    return torch.stack([packed.input_ids[at], packed.span[at], packed.kind[at], packed.position_ids[at]])


def test_soft_tokens_have_codes_that_no_word_can_have():
    assert (BOS, USER, ITEM, MASK) == (-1, -2, -3, -4)


def test_history_is_laid_out_token_by_token():
    packed = pack_histories([[[10, 11], [12], []]], max_tokens=64)
    assert packed.input_ids.tolist() == [[BOS, USER, 10, 11, ITEM, 12, ITEM, ITEM]]
    assert packed.sequence.tolist() == [[0] * 8]
    assert packed.span.tolist() == [[-1, -1, 0, 0, 0, 1, 1, 2]]
    assert packed.kind.tolist() == [[P, P, W, W, I, W, I, I]]
    assert packed.position_ids.tolist() == [list(range(8))]
    assert packed.cut_items.tolist() == [0]
    assert all(getattr(packed, name).dtype == torch.int64 for name in ("input_ids", "span", "kind", "cut_items"))


def test_short_histories_share_a_row_and_padding_has_codes_of_its_own():
    packed = pack_histories([[[10]], [[20, 21], [22], [23, 24]], [[30, 31]]], max_tokens=64)
    assert packed.input_ids.tolist() == [
        [BOS, USER, 20, 21, ITEM, 22, ITEM, 23, 24, ITEM],
        [BOS, USER, 30, 31, ITEM, BOS, USER, 10, ITEM, 0],
    ]
    assert packed.sequence.tolist() == [[1] * 10, [2] * 5 + [0] * 4 + [-1]]
    assert packed.span.tolist() == [[-1, -1, 0, 0, 0, 1, 1, 2, 2, 2], [-1, -1, 0, 0, 0, -1, -1, 0, 0, -2]]
    assert packed.kind.tolist() == [[P, P, W, W, I, W, I, W, W, I], [P, P, W, W, I, P, P, W, I, X]]
    assert packed.position_ids.tolist() == [list(range(10)), [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]]


def test_oldest_items_are_cut_and_counted_when_positions_run_out():
    texts = [[[1, 2, 3], [4, 5], [6], [7, 8]]]  # 2 + 4 + 3 + 2 + 3 = 14 tokens
    whole, one_cut, two_cut = (pack_histories(texts, max_tokens) for max_tokens in (14, 13, 7))
    assert whole.cut_items.tolist() == [0]
    assert one_cut.cut_items.tolist() == [1]
    assert one_cut.input_ids.tolist() == [[BOS, USER, 4, 5, ITEM, 6, ITEM, 7, 8, ITEM]]
    assert one_cut.span.tolist() == [[-1, -1, 0, 0, 0, 1, 1, 2, 2, 2]]
    assert two_cut.cut_items.tolist() == [2]
    assert two_cut.input_ids.tolist() == [[BOS, USER, 6, ITEM, 7, 8, ITEM]]


@pytest.mark.parametrize(("max_tokens", "expected"), [(3, [ITEM]), (5, [7, 8, ITEM])])
def test_newest_item_stays_even_where_only_some_of_its_words_fit(max_tokens: int, expected: list[int]):
    packed = pack_histories([[[1], [7, 8, 9, 9, 9]]], max_tokens)
    assert packed.input_ids.tolist() == [[BOS, USER, *expected]]
    assert packed.cut_items.tolist() == [1]


def test_no_token_is_lost_or_doubled_by_packing():
    generator = torch.Generator().manual_seed(0)
    texts = [
        [
            torch.randint(1, 99, (int(n),), generator=generator).tolist()
            for n in torch.randint(0, 6, (1 + s % 7,), generator=generator)
        ]
        for s in range(40)
    ]
    together = pack_histories(texts, max_tokens=64)
    assert together.input_ids.shape[0] < 40
    for number, text in enumerate(texts):
        alone = pack_histories([text], max_tokens=64)
        assert torch.equal(sequence_tokens(together, number), sequence_tokens(alone, 0))


def test_items_alone_are_words_only_one_span_each():
    packed = pack_items([[5, 6, 7, 8], [9], [], [3, 4]], max_tokens=3)
    assert packed.input_ids.tolist() == [[5, 6, 7], [3, 4, 9]]
    assert packed.sequence.tolist() == [[0, 0, 0], [3, 3, 1]]
    assert packed.span.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert packed.kind.tolist() == [[W, W, W], [W, W, W]]
    assert packed.position_ids.tolist() == [[0, 1, 2], [0, 1, 0]]


def test_soft_tokens_are_found_in_row_order():
    packed = pack_histories([[[10]], [[20, 21], [22], [23, 24]], [[30, 31]]], max_tokens=64)
    rows, columns = packed.find(Soft.ITEM)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 4), (0, 6), (0, 9), (1, 4), (1, 8)]
