import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from darec.data.demo.choices import Weights
from darec.data.demo.films import load_films
from darec.data.demo.freeze import TRUTH, WORLD, describe_world, is_late, sha256_of_rows
from darec.data.demo.truth import Oracle, Truth, save_truth
from darec.data.demo.world import START, Rules, make_world
from darec.data.download import known_sources
from darec.data.interactions import Dataset, validated
from darec.data.sources import prepare
from darec.data.splits import split
from darec.errors import DataError
from darec.evaluation.metrics import gains, ndcg, rank_of
from darec.evaluation.protocol import rank_cases


@pytest.fixture(scope="module")
def world():
    """The frozen world, drawn anew."""
    return make_world()


@pytest.fixture(scope="module")
def truth(world):
    return Truth.of(world)


@pytest.fixture(scope="module")
def parts(world):
    return split(validated(world.interactions, world.items, "demo"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `data prepare demo` makes."""
    out = tmp_path_factory.mktemp("prepared") / "demo"
    prepare("demo", out)
    return out


def sequences(world):
    """Each viewer's films by index, and when she watched them in seconds since the start."""
    index = {item_id: number for number, item_id in enumerate(world.films["item_id"])}
    rows = world.interactions.assign(film=world.interactions["item_id"].map(index))
    for _, viewer in rows.groupby("user_id", sort=False):
        yield viewer["film"].to_numpy(), viewer["timestamp"].to_numpy() - START


def test_world_is_the_frozen_one(world):
    assert json.loads(json.dumps(describe_world(world))) == json.loads(WORLD.read_text(encoding="utf-8"))


def test_another_seed_gives_another_world_and_the_same_seed_the_same():
    few = Rules(viewers=60)
    first, again, other = make_world(5, few), make_world(5, few), make_world(6, few)
    assert sha256_of_rows(first.interactions) == sha256_of_rows(again.interactions)
    assert sha256_of_rows(first.states) == sha256_of_rows(again.states)
    assert sha256_of_rows(first.interactions) != sha256_of_rows(other.interactions)


def test_counts_are_those_promised(world, parts):
    lengths = world.interactions["user_id"].value_counts()
    assert len(lengths) >= 5_000
    assert (lengths.min(), lengths.max()) == (8, 80)
    assert 18 <= lengths.median() <= 22
    assert len(world.films) >= 800
    assert len(world.interactions) == pytest.approx(115_000, rel=0.1)


def test_popularity_has_a_heavy_tail(parts):
    popularity = np.sort(parts.popularity)[::-1]
    top = len(popularity) // 100
    assert popularity[:top].sum() > 4 * popularity.sum() / 100
    assert popularity[0] > 8 * np.median(popularity)
    assert (popularity < 30).sum() > 300


def test_late_releases_are_cold_and_asked_for(world, parts):
    cold = is_late(world) & (parts.popularity <= 4)
    assert is_late(world).sum() == 90
    assert cold.sum() >= 60
    assert cold[parts.test.targets].sum() >= 300
    assert set(world.films["year"][is_late(world)]) == {2023, 2024, 2025}
    assert world.films["year"][is_late(world)].min() >= world.films["year"][~is_late(world)].max()


def test_nobody_watches_a_film_twice_or_before_its_release(world):
    for films, times in sequences(world):
        assert len(set(films)) == len(films)
        assert (world.stage.released[films] * 86_400 <= times).all()
        assert (np.diff(times) > 0).all()
        assert times[0] >= 0
        assert times[-1] < world.rules.days * 86_400


def test_parts_are_watched_in_order(world):
    previous = world.stage.previous
    after, before = 0, 0
    for films, _ in sequences(world):
        place = {film: position for position, film in enumerate(films)}
        for film in films[previous[films] >= 0]:
            if previous[film] in place:
                after += place[previous[film]] < place[film]
                before += place[previous[film]] > place[film]
    assert after > 20 * before


def test_return_of_the_king_follows_the_two_parts_before_it(world):
    ids = list(world.films["item_id"])
    fellowship, towers, king = (
        ids.index(f"the-lord-of-the-rings-{name}")
        for name in ("the-fellowship-of-the-ring-2001", "the-two-towers-2002", "the-return-of-the-king-2003")
    )
    followers = [
        films[place + 2]
        for films, _ in sequences(world)
        for place in range(len(films) - 2)
        if (films[place], films[place + 1]) == (fellowship, towers)
    ]
    times = np.sort(np.bincount(followers, minlength=len(ids)))[::-1]
    assert np.argmax(np.bincount(followers)) == king
    assert times[0] > 0.6 * times.sum()
    assert times[0] > 10 * times[1]


def test_directors_followed_are_picked_more_often(world):
    """Against viewers of the same world who do not follow them."""
    counts = np.zeros((2, 2))  # follows or not, picked or not
    by_him = world.stage.has
    for viewer, (films, _) in enumerate(sequences(world)):
        director = world.tastes.followed[viewer, 0]
        stranger = world.tastes.followed[(viewer + 1) % len(world.tastes.followed), 0]
        for row, fact in enumerate((director, stranger)):
            if fact >= 0:
                counts[row] += by_him[fact, films].sum(), len(films)
    shares = counts[:, 0] / counts[:, 1]
    assert shares[0] > 8 * shares[1]


def test_following_is_what_makes_the_difference():
    """Two worlds alike but for one weight: without it, viewers who follow a director pick him no more than others."""
    shares = []
    for follow in (0, 400):
        world = make_world(3, Rules(viewers=400, weights=Weights(follow=follow)))
        director = world.tastes.followed[:, 0]
        hits = [world.stage.has[director[viewer], films].mean() for viewer, (films, _) in enumerate(sequences(world))]
        shares.append(np.mean(np.array(hits)[director >= 0]))
    assert shares[1] > 5 * shares[0]


def test_consecutive_films_share_themes_more_than_distant_ones(world):
    themes = world.stage.has[[number for number, (kind, _) in enumerate(world.stage.facts) if kind == "theme"]]
    near, far = [], []
    for films, _ in sequences(world):
        if len(films) >= 16:
            near.append((themes[:, films[:-1]] & themes[:, films[1:]]).any(0).mean())
            far.append((themes[:, films[:8]] & themes[:, films[-8:]]).any(0).mean())
    assert np.mean(near) > 1.15 * np.mean(far)


def test_attention_drifts_slowly_and_adds_up(world):
    levels = world.states[["level_1", "level_2", "level_3"]].to_numpy()
    assert (levels.sum(1) == 4).all()
    assert (levels >= 0).all()
    same_viewer = world.states["position"].to_numpy()[1:] > 0
    moved = (levels[1:] != levels[:-1]).any(1)[same_viewer]
    assert moved.mean() == pytest.approx(world.rules.drifting, abs=0.01)
    assert (np.abs(levels[1:] - levels[:-1]).sum(1)[same_viewer] <= 2).all()
    assert world.states["explored"].mean() == pytest.approx(world.rules.weights.exploring, abs=0.005)


def test_true_probabilities_are_those_that_choices_were_drawn_by(truth):
    """Chosen films have on average the probability that a draw by these probabilities would give them."""
    random = np.random.default_rng(0)
    chosen, expected, spread = [], [], []
    for viewer in random.choice(len(truth.user_ids), 400, replace=False):
        user_id = truth.user_ids[viewer]
        films = truth.choices_of(user_id)
        position = int(random.integers(len(films)))
        probability = truth.true_probabilities(user_id, position)
        assert probability.sum() == pytest.approx(1, abs=1e-12)
        assert (probability[films[:position]] == 0).all()
        chosen.append(probability[films[position]])
        expected.append((probability**2).sum())
        spread.append((probability**3).sum() - (probability**2).sum() ** 2)
    error = np.sqrt(np.sum(spread)) / len(chosen)
    assert np.mean(chosen) == pytest.approx(np.mean(expected), abs=4 * error)


CASES = np.arange(0, 5_500, 5)  # enough users to tell the oracle from its perturbed twins


@pytest.fixture(scope="module")
def oracle_gains(truth, parts):
    return gains(ranks_of_oracle(truth, parts), 10)


def ranks_of_oracle(truth, parts):
    cases = parts.valid.subset(CASES)
    scores = Oracle(truth).score([history.tolist() for history in cases.histories])
    return rank_of(scores, cases.targets, cases.histories)


@pytest.mark.parametrize(
    "change",
    [
        *({name: 0} for name in ("theme", "follow", "mood", "next_now", "next", "skipping", "novelty")),
        {"genre": 0, "setting": 0},
        {"exploring": 1.0},
        {"theme": -320},
    ],
    ids=str,
)
def test_oracle_beats_one_that_has_a_wrong_weight(truth, parts, oracle_gains, change):
    wrong = replace(truth, weights=replace(truth.weights, **change))
    assert gains(ranks_of_oracle(wrong, parts), 10).mean() < oracle_gains.mean() - 0.001


def test_oracle_beats_one_that_takes_viewers_for_one_another(truth, parts, oracle_gains):
    tastes = truth.tastes.rows(np.roll(np.arange(len(truth.user_ids)), 1))
    wrong = replace(truth, tastes=tastes)
    assert gains(ranks_of_oracle(wrong, parts), 10).mean() < 0.8 * oracle_gains.mean()


def test_oracle_beats_one_that_forgets_moods(truth, parts, oracle_gains):
    wrong = replace(truth, states=truth.states.assign(mood=""))
    assert gains(ranks_of_oracle(wrong, parts), 10).mean() < oracle_gains.mean() - 0.01


def test_ceiling_leaves_room_and_is_no_triviality(oracle_gains):
    assert 0.25 < oracle_gains.mean() < 0.45


def test_oracle_ranks_through_the_protocol(truth, parts):
    few = replace(parts, valid=parts.valid.subset(CASES[:50]))
    ranks = rank_cases(Oracle(truth), few, "valid")
    assert ndcg(ranks["rank"].to_numpy(), 10) > 0.1


def test_oracle_knows_only_this_world(truth):
    films = truth.choices_of("viewer-0000")
    oracle = Oracle(truth)
    assert oracle.score([films[:-1].tolist()]).shape == (1, len(truth.stage.fame))
    for history in (films.tolist(), films[::-1].tolist(), []):
        with pytest.raises(DataError, match="Give a history of the demo world"):
            oracle.score([history])


def test_unknown_viewers_and_positions_are_refused(truth):
    length = len(truth.choices_of("viewer-0000"))
    with pytest.raises(DataError, match="no viewer 'nobody'"):
        truth.describe_tastes("nobody")
    for position in (-1, length):
        with pytest.raises(DataError, match=f"made {length} choices"):
            truth.true_probabilities("viewer-0000", position)


def test_tastes_are_told_in_words(truth, world):
    for viewer in range(200):
        words = truth.describe_tastes(truth.user_ids[viewer])
        for fact in world.tastes.followed[viewer]:
            assert fact < 0 or f"{world.stage.facts[fact][1]}" in words.split(";")[0]
        interests = world.tastes.interests[viewer]
        assert words.count("loves") == (interests[:, 2] >= 0).sum() >= 2
        assert words.count("” films") == (interests[:, :2] >= 0).sum()
    assert words == "; ".join(part for part in words.split("; ") if part)


def test_prepare_makes_the_frozen_world_offline_with_its_truth(folder, truth, world):
    dataset = Dataset.load(folder)
    assert sha256_of_rows(dataset.interactions) == json.loads(WORLD.read_text(encoding="utf-8"))["interactions_sha256"]
    assert dataset.catalog.item_ids.tolist() == world.films["item_id"].tolist()
    report = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
    assert "Simulated viewers of real films" in report["terms"]
    assert "no evidence for the paper" in report["terms"]
    loaded = Truth.load(folder)
    for user_id, position in (("viewer-0000", 0), ("viewer-0007", 5), ("viewer-5499", 7)):
        np.testing.assert_array_equal(
            loaded.true_probabilities(user_id, position), truth.true_probabilities(user_id, position)
        )
        assert loaded.describe_tastes(user_id) == truth.describe_tastes(user_id)


def test_the_truth_beside_the_frozen_world_is_of_that_world(folder, truth, world):
    shipped = Truth.load(TRUTH, folder)
    assert sha256_of_rows(shipped.states) == json.loads(WORLD.read_text(encoding="utf-8"))["states_sha256"]
    for user_id, position in (("viewer-0002", 3), ("viewer-5498", 6)):
        np.testing.assert_array_equal(
            shipped.true_probabilities(user_id, position), truth.true_probabilities(user_id, position)
        )


def test_demo_is_the_first_known_source_and_needs_no_file():
    assert (known_sources()[0].name, known_sources()[0].files) == ("demo", ())


def test_demo_world_is_made_whole(tmp_path):
    with pytest.raises(DataError, match="made whole"):
        prepare("demo", tmp_path / "out", min_interactions=5)
    with pytest.raises(DataError, match="made whole"):
        prepare("demo", tmp_path / "out", columns={"user_id": "customer"})


def test_truth_needs_its_files(folder, tmp_path, world):
    dataset = Dataset.load(folder)
    dataset.save(tmp_path)
    with pytest.raises(DataError, match=r"truth-films.parquet is missing"):
        Truth.load(tmp_path)
    save_truth(world, tmp_path)
    assert Truth.load(tmp_path).user_ids[0] == "viewer-0000"


def test_other_films_can_be_staged():
    films = load_films().query("year >= 2000").reset_index(drop=True)
    in_two = films.groupby("franchise")["franchise"].transform("size") > 1
    films.loc[~in_two, ["franchise"]], films.loc[~in_two, "part"] = "", pd.NA
    world = make_world(1, Rules(viewers=40, late_releases=10), films)
    assert set(world.interactions["item_id"]) <= set(films["item_id"])
