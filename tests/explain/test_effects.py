from collections.abc import Callable

import numpy as np
import pytest

from darec.errors import DataError
from darec.explain import effects
from darec.explain.effects import compare_histories, drop, leave_one_out, move, swap
from darec.model.recommender import DarecModel
from darec.serving import Recommender

HISTORY = [3, "An Unseen Film", 5, 9]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., DarecModel]) -> DarecModel:
    return make_model()


@pytest.fixture(scope="module")
def recommender(model: DarecModel, film_dataset) -> Recommender:
    return Recommender({"name": "DARec"}, film_dataset, model, reads_text=True)


def log_probability(model: DarecModel, history: list, item: int) -> float:
    """By the definition, one history at a time; the whole history's items never compete."""
    scores = np.delete(model.score([history])[0].astype(float), [3, 5, 9])
    kept = np.delete(np.arange(20), [3, 5, 9]).tolist()
    return float(scores[kept.index(item)] - np.log(np.exp(scores).sum()))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_effects_equal_their_definition(model: DarecModel, batch_size: int):
    *_, last = leave_one_out(model, HISTORY, 12, batch_size=batch_size)
    whole = log_probability(model, HISTORY, 12)
    for place in range(4):
        without = HISTORY[:place] + HISTORY[place + 1 :]
        assert last.effects[place] == pytest.approx(whole - log_probability(model, without, 12), abs=1e-4)
    assert last.log_probability == pytest.approx(whole, abs=1e-4)
    assert last.total == pytest.approx(whole - log_probability(model, HISTORY[-1:], 12), abs=1e-4)
    assert last.summed == pytest.approx(last.effects[0] + last.effects[1] + last.effects[2])
    assert last.summed + last.remainder == pytest.approx(last.total)
    assert abs(last.effects).min() > 1e-4


def test_log_probability_is_that_of_the_list(model: DarecModel, recommender: Recommender):
    first = next(leave_one_out(model, HISTORY, 12))
    assert np.exp(first.log_probability) == pytest.approx(recommender.probabilities(HISTORY)[12], rel=1e-4)


def test_effects_come_in_newest_first(model: DarecModel):
    steps = list(leave_one_out(model, HISTORY, 12, batch_size=2))
    assert [np.isnan(step.effects).tolist() for step in steps] == [
        [True, True, True, True],
        [True, True, False, False],
        [False, False, False, False],
    ]
    assert [step.complete for step in steps] == [False, False, True]
    assert np.isnan(steps[1].remainder)
    assert steps[0].total == steps[-1].total


def test_what_is_known_already_is_not_computed_again(model: DarecModel, monkeypatch: pytest.MonkeyPatch):
    steps = list(leave_one_out(model, HISTORY, 12, batch_size=2))
    asked: list[int] = []
    score = effects.scores_after
    monkeypatch.setattr(
        effects,
        "scores_after",
        lambda model, histories, **options: asked.append(len(histories)) or score(model, histories, **options),
    )
    *_, last = leave_one_out(model, HISTORY, 12, batch_size=2, known=steps[1])
    np.testing.assert_allclose(last.effects, steps[-1].effects, rtol=1e-5)
    assert [step.known for step in steps] == [0, 2, 4]
    assert asked == [2, 2]  # the whole and the newest alone, then the two that were missing


def test_two_entries_leave_no_remainder(model: DarecModel):
    *_, last = leave_one_out(model, [3, 9], 12)
    assert last.remainder == pytest.approx(0, abs=1e-5)


def test_entry_that_nothing_reads_has_no_effect(model: DarecModel):
    long = [0, 1, 2, 6, 7, 8, 10, 13, 14, 15]  # the CF model reads 8, the window holds 4
    *_, last = leave_one_out(model, long, 12)
    assert last.effects[:2].tolist() == [0, 0]
    excluded = np.ones(20, bool)
    excluded[long] = False
    whole, without = model.score([long, long[1:]])[:, excluded].astype(float)
    np.testing.assert_allclose(whole, without, atol=1e-5)
    assert abs(last.effects[2:]).min() > 1e-5


def test_collaborative_path_off_gives_other_effects(model: DarecModel):
    (*_, on), (*_, off) = (leave_one_out(model, HISTORY, 12, collaborative=on) for on in (True, False))
    assert np.abs(on.effects - off.effects).max() > 1e-3


def test_histories_are_edited_by_place():
    assert drop([1, 2, 3], 1) == (1, 3)
    assert swap([1, 2, 3], 2, "x") == (1, 2, "x")
    assert move([1, 2, 3, 4], 0, 2) == (2, 3, 1, 4)
    assert move([1, 2, 3, 4], 3, 0) == (4, 1, 2, 3)
    assert move([1, 2, 3], 1, 1) == (1, 2, 3)


def test_rank_changes_are_those_of_the_two_lists(model: DarecModel, recommender: Recommender):
    changed = drop(HISTORY, 0)
    old, new = recommender.recommend(HISTORY, 20), recommender.recommend(changed, 20)
    pinned = [line.item_index for line in old[:5]]
    found = compare_histories(model, HISTORY, changed, pinned)
    ranks_old, ranks_new = ({line.item_index: line.rank for line in lines} for lines in (old, new))
    assert found.items[:5].tolist() == pinned
    assert found.pinned.tolist() == [True] * 5 + [False] * (len(found.items) - 5)
    assert found.items[5:].tolist() == [line.item_index for line in new[:5] if line.item_index not in pinned]
    assert found.before.tolist() == [ranks_old.get(item, 0) for item in found.items.tolist()]
    assert found.after.tolist() == [ranks_new[item] for item in found.items.tolist()]
    ratio = recommender.probabilities(changed)[pinned] / recommender.probabilities(HISTORY)[pinned]
    np.testing.assert_allclose(np.exp(found.log_ratio[:5]), ratio, rtol=1e-4)


def test_without_a_change_there_is_no_newcomer(model: DarecModel, recommender: Recommender):
    pinned = [line.item_index for line in recommender.recommend(HISTORY, 20)[5:8]]  # as a filtered list begins
    for shown in (None, np.isin(np.arange(20), pinned)):
        assert compare_histories(model, HISTORY, HISTORY, pinned, shown=shown).items.tolist() == pinned


def test_newcomers_are_among_what_lists_show(model: DarecModel, recommender: Recommender):
    shown = np.arange(20) % 2 == 0
    changed = [12, 1, 13]
    old, new = (
        [line.item_index for line in recommender.recommend(history, 20) if shown[line.item_index]][:4]
        for history in (HISTORY, changed)
    )
    newcomers = [item for item in new if item not in old]
    assert newcomers
    found = compare_histories(model, HISTORY, changed, old, shown=shown)
    assert found.items.tolist() == old + newcomers
    assert found.pinned.sum() == 4


def test_item_that_a_history_holds_has_no_rank_there(model: DarecModel):
    found = compare_histories(model, HISTORY, swap(HISTORY, 0, 12), [12, 1])
    assert found.before[0] > 0
    assert found.after[0] == 0
    assert np.isnan(found.log_ratio[0])
    assert not np.isnan(found.log_ratio[1])


@pytest.mark.parametrize(
    ("history", "item", "message"),
    [
        ([3], 12, "two items or more; this one has 1"),
        ([], 12, "at least one item"),
        (HISTORY, 3, "A focused item must not stand in the history; 3 does"),
        (HISTORY, 20, "lies between 0 and 19; got 20"),
    ],
)
def test_bad_question_is_refused(model: DarecModel, history: list, item: int, message: str):
    with pytest.raises(DataError, match=message):
        next(leave_one_out(model, history, item))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda: drop([1, 2], 2), "between 0 and 1; got 2"),
        (lambda: drop([1], 0), "the only one cannot be dropped"),
        (lambda: swap([1], -1, 2), "between 0 and 0; got -1"),
        (lambda: move([1, 2], 0, 5), "between 0 and 1; got 5"),
    ],
)
def test_bad_edit_is_refused(edit: Callable[[], object], message: str):
    with pytest.raises(DataError, match=message):
        edit()


def test_bad_pinned_list_is_refused(model: DarecModel):
    with pytest.raises(DataError, match="holds an item once"):
        compare_histories(model, HISTORY, HISTORY[1:], [1, 1])
    with pytest.raises(DataError, match="got 99"):
        compare_histories(model, HISTORY, HISTORY[1:], [99])
