from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.config import load_settings
from darec.data.interactions import Dataset, validated
from darec.errors import DataError, RunError
from darec.runs import RUN, read_run, write_json, write_manifest, writing_folder
from darec.serving import Recommender, find_runs
from darec.training.loop import train


@pytest.fixture(scope="module")
def darec_run(film_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DARec run on the invented films, trained for a moment."""
    overrides = ("collaborative.epochs=1", "training.epochs=1", "sequence.max_items=6")
    out = tmp_path_factory.mktemp("darec") / "run"
    return train(film_run / "data", out, load_settings("smoke", overrides=overrides), backbone=None, device="cpu")


class Table:
    """Fixed scores, whatever the history."""

    def __init__(self, *scores: float) -> None:
        self.scores = np.array(scores, dtype=np.float32)
        self.histories: list = []

    def score(self, histories):
        self.histories.extend(histories)
        return np.tile(self.scores, (len(histories), 1))


def shop(items: int) -> Dataset:
    """Items named a, b, c ... and one user who bought all of them in order."""
    ids = [chr(ord("a") + number) for number in range(items)]
    interactions = pd.DataFrame({"user_id": "u", "item_id": ids, "timestamp": range(items)})
    return validated(interactions, pd.DataFrame({"item_id": ids, "title": [f"Title {i}" for i in ids]}), "shop")


def recommender(*scores: float, reads_text: bool = False) -> Recommender:
    return Recommender({"kind": "baseline", "name": "table"}, shop(len(scores)), Table(*scores), reads_text)


def test_probabilities_are_the_softmax_over_unseen_items():
    found = recommender(5.0, np.log(1), np.log(2), np.log(5)).recommend([0])
    assert [(line.rank, line.item_index, line.item_id, line.title) for line in found] == [
        (1, 3, "d", "Title d"),
        (2, 2, "c", "Title c"),
        (3, 1, "b", "Title b"),
    ]
    assert [line.probability for line in found] == pytest.approx([5 / 8, 2 / 8, 1 / 8])


def test_seen_items_take_part_when_kept():
    found = recommender(np.log(4), 0.0, 0.0, np.log(2)).recommend([0], exclude_seen=False)
    assert [line.item_index for line in found] == [0, 3, 1, 2]
    assert [line.probability for line in found] == pytest.approx([4 / 8, 2 / 8, 1 / 8, 1 / 8])


def test_k_cuts_the_list_and_leaves_the_probabilities_alone():
    model = recommender(3.0, 1.0, 2.0, 0.0, -1.0)
    assert model.recommend([4], k=2) == model.recommend([4], k=99)[:2]
    assert len(model.recommend([4], k=99)) == 4


def test_probabilities_of_large_scores_stay_finite():
    found = recommender(0.0, 2e4, 2e4 - 1).recommend([0])
    assert [line.probability for line in found] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])


def test_new_titles_reach_a_model_that_reads_them_and_exclude_nothing():
    model = recommender(1.0, 2.0, reads_text=True)
    assert len(model.recommend(["Nobody has seen this"])) == 2
    assert model.scorer.histories == [["Nobody has seen this"]]


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        ([], "at least one item"),
        ([3], "between 0 and 2; got 3"),
        ([-1], "between 0 and 2; got -1"),
        ([0, " "], "at least one letter"),
        (["new"], "table cannot read titles"),
        ([0, 1, 2], "every item of the catalogue"),
    ],
)
def test_an_unusable_history_is_refused_with_the_rule(history, rule):
    with pytest.raises(DataError, match=rule):
        recommender(1.0, 2.0, 3.0).recommend(history)


def test_a_model_that_knows_time_is_asked_at_one_and_any_other_as_ever():
    class Clock:
        def __init__(self, at: float = 0.0) -> None:
            self.at = at

        def asked(self, at: float) -> "Clock":
            return Clock(at)

        def score(self, histories):
            return np.tile(np.array([0.0, self.at, 2.0, -9.0], np.float32), (len(histories), 1))

    timed = Recommender({"kind": "baseline", "name": "clock"}, shop(4), Clock(), reads_text=False)
    assert [line.item_index for line in timed.recommend([0])] == [2, 1, 3]
    assert [line.item_index for line in timed.asked(5.0).recommend([0])] == [1, 2, 3]
    own = timed.split
    assert timed.asked(5.0).split is own  # which takes long to make for many users
    assert timed.asked(None) is timed
    plain = recommender(0.0, 1.0, 2.0)
    assert plain.asked(5.0) is plain


def test_k_below_one_is_refused():
    with pytest.raises(DataError, match="at least 1; got 0"):
        recommender(1.0, 2.0).recommend([0], k=0)


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(RunError, match="not numbers"):
        recommender(1.0, np.nan).recommend([0])


def test_a_run_is_loaded_with_its_own_data(film_run: Path, film_dataset: Dataset):
    model = Recommender.load(film_run)
    assert (model.kind, model.name, model.reads_text) == ("baseline", "ItemKNN", False)
    assert model.catalog.titles == film_dataset.catalog.titles
    assert len(model.split.test) == 60


def test_the_film_after_the_last_one_is_found(film_run: Path):
    model = Recommender.load(film_run)
    firsts = [model.recommend([film])[0].item_index for film in range(20)]
    assert np.mean([first == (film + 1) % 20 for film, first in enumerate(firsts)]) > 0.5


def test_concurrent_calls_answer_as_serial_ones(darec_run: Path):
    model = Recommender.load(darec_run)
    histories = [[number % 20, (number * 7 + 3) % 20, f"New film {number}"][: 1 + number % 3] for number in range(24)]
    serial = [model.recommend(history) for history in histories]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(model.recommend, histories)) == serial


def test_a_darec_run_reads_the_words_of_a_new_title(darec_run: Path):
    model = Recommender.load(darec_run)
    assert (model.kind, model.reads_text) == ("darec", True)
    ghosts, rivers = (model.probabilities([0, title]) for title in ("Ghosts of the harbour", "Eight loud rivers"))
    assert np.isnan(ghosts).tolist() == [True] + [False] * 19
    assert np.nanmax(abs(ghosts - rivers)) > 1e-6


def test_an_unknown_kind_of_run_is_refused(film_run: Path, tmp_path: Path):
    with writing_folder(tmp_path / "odd") as folder:
        (folder / "data").mkdir()
        Dataset.load(film_run / "data").save(folder / "data")
        write_json(folder / RUN, {**read_run(film_run), "kind": "oracle"})
        write_manifest(folder)
    with pytest.raises(RunError, match="has 'oracle'"):
        Recommender.load(tmp_path / "odd")


def test_an_altered_run_is_refused(film_run: Path, tmp_path: Path):
    with writing_folder(tmp_path / "altered") as folder:
        (folder / "data").mkdir()
        Dataset.load(film_run / "data").save(folder / "data")
        write_json(folder / RUN, read_run(film_run))
        write_manifest(folder)
        write_json(folder / RUN, {**read_run(film_run), "name": "better"})
    with pytest.raises(RunError, match="does not have the bytes"):
        Recommender.load(tmp_path / "altered")


def test_only_finished_and_visible_runs_are_found(tmp_path: Path):
    for name in ("b", "a", "deep/c", ".writing", "unfinished"):
        (tmp_path / name).mkdir(parents=True)
        write_json(tmp_path / name / RUN, {})
        if name != "unfinished":
            write_manifest(tmp_path / name)
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b", tmp_path / "deep/c"]
    assert find_runs(tmp_path / "nothing here") == []
