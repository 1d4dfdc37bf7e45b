"""The demo world: SIMULATED viewers who choose among real films. docs/demo-world.md describes it at length.

Nothing here is evidence about people: it is a world whose truth is known, to look into models with.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from darec.data.demo.choices import (
    DAY,
    LEVELS,
    Moment,
    Stage,
    Tastes,
    Weights,
    lasting_utilities,
    set_stage,
    shares,
    utilities,
)
from darec.data.demo.films import load_films, to_items

VERSION = 1
SEED = 20
START = 1_672_531_200  # 2023-01-01, UTC
INTERESTS = 3  # at most, of one viewer


@dataclass(frozen=True)
class Rules:
    """How the world is drawn. Days count from the start of the calendar.

    Attributes are explained where they stand; what counts in a choice is in `weights`.
    """

    viewers: int = 5_500
    days: int = 1_096  # 2023 to 2025
    weights: Weights = field(default_factory=Weights)

    fame_deviation: int = 90  # hundredths of a nat
    fame_american: int = 30
    fame_franchise: int = 20

    first_new_year: int = 2_022  # films from this year on come out during the calendar
    late_releases: int = 90  # the newest of them, which come out at its end
    late_days: int = 18

    median_length: float = 19.0
    length_deviation: float = 0.5  # of its logarithm
    shortest: int = 8
    longest: int = 80
    staying: float = 0.7  # viewers who are still there at the end
    third_interest: float = 0.5  # viewers with three interests instead of two
    with_setting: float = 0.5  # interests that hold a country or a decade
    followers: tuple[float, float] = (0.9, 0.4)  # viewers who follow a first director, and a second
    least_films: int = 3  # of a director who is followed
    least_theme: int = 4  # films with a theme that an interest or a mood can be about

    drifting: float = 0.08  # choices before which a quarter of attention moves to another interest
    mood_begins: float = 0.3  # choices before which a mood comes from the film watched last
    mood_ends: float = 0.25  # choices before which a mood ends


@dataclass(frozen=True, eq=False)
class World:
    """Films, viewers, what they watched, and why.

    Attributes:
        films: see films.py.
        stage: the films as viewers meet them.
        tastes: of the V viewers.
        interactions: user_id, item_id, timestamp (seconds since 1970); each viewer's rows in order of time.
        states: one row an interaction, what held just before it: user_id, position (from 0), level_1..3, mood (a
            theme or the empty text), explored.
        rules: what it was drawn by.
        seed: what it was drawn from.
    """

    films: pd.DataFrame
    stage: Stage
    tastes: Tastes
    interactions: pd.DataFrame
    states: pd.DataFrame
    rules: Rules
    seed: int

    @property
    def items(self) -> pd.DataFrame:
        """The catalogue as items.parquet has it."""
        return to_items(self.films)


def make_world(seed: int = SEED, rules: Rules | None = None, films: pd.DataFrame | None = None) -> World:
    """Draw the world; the same seed, rules and films give the same world, on every machine.

    Args:
        seed: of everything.
        rules: None means those of the frozen world.
        films: see films.py; None means the committed catalogue.
    """
    rules = rules or Rules()
    films = load_films() if films is None else films
    stage = draw_stage(films, rules, np.random.default_rng([seed, 0]))
    tastes = draw_tastes(stage, rules, np.random.default_rng([seed, 1]))
    times, lengths = draw_times(rules, np.random.default_rng([seed, 2]))
    chosen, states = simulate(stage, tastes, times, lengths, rules, np.random.default_rng([seed, 3]))
    viewer, position = np.nonzero(np.arange(times.shape[1]) < lengths[:, None])
    user_ids = np.array([f"viewer-{number:04d}" for number in range(rules.viewers)], object)[viewer]
    interactions = pd.DataFrame(
        {
            "user_id": user_ids,
            "item_id": films["item_id"].to_numpy(object)[chosen[viewer, position]],
            "timestamp": START + times[viewer, position],
        }
    )
    moods = np.array([*(value for _, value in stage.facts), ""], object)
    truth = pd.DataFrame(
        {
            "user_id": user_ids,
            "position": position,
            **{f"level_{k + 1}": states["levels"][viewer, position, k] for k in range(INTERESTS)},
            "mood": moods[states["mood"][viewer, position]],
            "explored": states["explored"][viewer, position],
        }
    )
    return World(films, stage, tastes, interactions, truth, rules, seed)


def draw_stage(films: pd.DataFrame, rules: Rules, random: np.random.Generator) -> Stage:
    """Log-normal fame, half of whose variance the parts of a franchise share, and the calendar of releases."""
    n = len(films)
    own, shared = random.standard_normal(n), random.standard_normal(n)
    in_franchise = (films["franchise"] != "").to_numpy()
    group = np.where(in_franchise, films.groupby("franchise")["year"].transform("idxmin"), np.arange(n))
    noise = np.sqrt(0.5) * (own + shared[group]) * rules.fame_deviation
    american = (films["country"] == "United States").to_numpy()
    fame = np.rint(noise) + american * rules.fame_american + in_franchise * rules.fame_franchise
    return set_stage(films, fame, draw_releases(films, rules, random))


def draw_releases(films: pd.DataFrame, rules: Rules, random: np.random.Generator) -> np.ndarray:
    """[N] int64 days: 0 for the back catalogue; new films by year, and by chance within it; the newest at the end."""
    years, parts = films["year"].to_numpy(), films["part"].fillna(0).to_numpy(np.int64)
    released = np.zeros(len(films), np.int64)
    new = np.flatnonzero(years >= rules.first_new_year)
    order = new[np.lexsort((random.random(len(new)), parts[new], years[new]))]
    late = order[-rules.late_releases :]
    early = order[: -rules.late_releases]
    first_late = rules.days - rules.late_days
    released[early] = 1 + (np.arange(len(early)) + 1) * (first_late - 60) // (len(early) + 1)
    released[late] = first_late + np.arange(len(late)) * (rules.late_days - 1) // max(len(late), 1)
    return released


def draw_tastes(stage: Stage, rules: Rules, random: np.random.Generator) -> Tastes:
    """Interests are read off films drawn at random, so that each has films to meet it; then directors to follow."""
    films_with, kinds = stage.has[:-1].sum(1), np.array([kind for kind, _ in stage.facts])
    shape = (rules.viewers, INTERESTS)
    anchors = random.integers(len(stage.fame), size=shape)
    draws = random.random((6, *shape))
    themes, number = _list_facts(stage, _moody_themes(stage, rules))
    first = np.floor(draws[0] * number[anchors]).astype(np.int64)
    second = (first + 1 + np.floor(draws[1] * (number[anchors] - 1)).astype(np.int64)) % np.maximum(number[anchors], 1)
    genres, of_genre = _list_facts(stage, kinds == "genre")
    is_setting = np.isin(kinds, ("country", "decade")) & (films_with >= rules.least_theme)
    settings, of_setting = _list_facts(stage, is_setting)
    interests = np.stack(
        [
            themes[anchors, first],
            np.where(number[anchors] > 1, themes[anchors, second], -1),
            genres[anchors, np.floor(draws[2] * of_genre[anchors]).astype(np.int64)],
            np.where(
                draws[3] < rules.with_setting,
                settings[anchors, np.floor(draws[4] * of_setting[anchors]).astype(np.int64)],
                -1,
            ),
        ],
        axis=2,
    )
    interests[draws[5, :, 2] >= rules.third_interest, 2] = -1
    return Tastes(interests, _draw_followed(np.flatnonzero(kinds == "director"), films_with, rules, random))


def _draw_followed(
    directors: np.ndarray, films_with: np.ndarray, rules: Rules, random: np.random.Generator
) -> np.ndarray:
    """[V, 2] int64: a director of n films is drawn with a chance in proportion to n; -1 is nobody."""
    directors = directors[films_with[directors] >= rules.least_films]
    followed = np.full((rules.viewers, 2), -1)
    if len(directors):
        bounds = np.cumsum(films_with[directors])
        for place, share in enumerate(rules.followers):
            drawn = np.searchsorted(bounds, np.floor(random.random(rules.viewers) * bounds[-1]), "right")
            follows = random.random(rules.viewers) < share
            followed[:, place] = np.where(follows & (directors[drawn] != followed[:, 0]), directors[drawn], -1)
    return followed


def _moody_themes(stage: Stage, rules: Rules) -> np.ndarray:
    """[A] bool: themes of enough films that an interest or a mood can be about them."""
    return (stage.has[:-1].sum(1) >= rules.least_theme) & np.array([kind == "theme" for kind, _ in stage.facts])


def _list_facts(stage: Stage, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, most] int64, the usable facts of each film, -1 beyond them; and [N] int64, how many they are."""
    lists = [np.flatnonzero(film & usable) for film in stage.has[:-1].T]
    number = np.array([len(facts) for facts in lists])
    table = np.full((len(lists), max(1, number.max())), -1)
    for film, facts in enumerate(lists):
        table[film, : len(facts)] = facts
    return table, number


def draw_times(rules: Rules, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """When each viewer watches.

    Returns:
        [V, longest] int64 seconds since the start, rising, and [V] int64 lengths; what lies beyond a length is unused.
    """
    v = rules.viewers
    spread = np.exp(rules.length_deviation * random.standard_normal(v))
    lengths = np.clip(np.rint(rules.median_length * spread), rules.shortest, rules.longest).astype(np.int64)
    arrival = random.integers(rules.days - 120, size=v) * DAY
    end = rules.days * DAY - rules.longest
    leaving = arrival + 60 * DAY + ((end - arrival - 60 * DAY) * random.random(v)).astype(np.int64)
    leaving = np.where(random.random(v) < rules.staying, end, leaving)
    moments = random.random((v, rules.longest))
    moments[np.arange(rules.longest) >= lengths[:, None]] = 1
    moments.sort(axis=1)
    times = arrival[:, None] + ((leaving - arrival)[:, None] * moments).astype(np.int64)
    return times + np.arange(rules.longest), lengths


def simulate(
    stage: Stage, tastes: Tastes, times: np.ndarray, lengths: np.ndarray, rules: Rules, random: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Let all viewers choose, step by step.

    Returns:
        [V, longest] int64 films, -1 beyond a viewer's length; and what held before each choice: levels
        [V, longest, K] int8, mood [V, longest] int64 (a fact, or -1), explored [V, longest] bool.
    """
    viewers, steps = times.shape
    lasting = lasting_utilities(stage, tastes, rules.weights)
    number = (tastes.interests[:, :, 2] >= 0).sum(1)  # interests of each viewer
    levels = _first_levels(number, random)
    mood, last = np.full(viewers, -1), np.full(viewers, -1)
    watched = np.zeros((viewers, len(stage.fame)), bool)
    themes, of_theme = _list_facts(stage, _moody_themes(stage, rules))
    chosen = np.full((viewers, steps), -1)
    states = {
        "levels": np.zeros((viewers, steps, INTERESTS), np.int8),
        "mood": np.full((viewers, steps), -1),
        "explored": np.zeros((viewers, steps), bool),
    }
    for step in range(lengths.max()):
        draws = random.random((8, viewers))
        rows = np.flatnonzero(step < lengths)
        levels = _drift(levels, number, draws[0] < rules.drifting, draws[1], draws[2])
        mood = np.where(draws[3] < rules.mood_ends, -1, mood)
        begins = (mood < 0) & (last >= 0) & (draws[4] < rules.mood_begins)
        mood[begins] = themes[last, np.floor(draws[5] * of_theme[last]).astype(np.int64)][begins]
        moment = Moment(levels[rows], mood[rows], watched[rows], last[rows], times[rows, step])
        utility, allowed = utilities(stage, (lasting[0][rows], lasting[1][rows]), moment, rules.weights)
        explores = draws[6][rows] < rules.weights.exploring
        utility[explores] = stage.fame
        sums = np.cumsum(shares(utility, allowed), axis=1)
        picked = np.argmax(sums > np.floor(draws[7][rows] * sums[:, -1]).astype(np.int64)[:, None], axis=1)
        states["levels"][rows, step], states["mood"][rows, step] = levels[rows], mood[rows]
        states["explored"][rows, step] = explores
        chosen[rows, step] = last[rows] = picked
        watched[rows, picked] = True
    return chosen, states


def _first_levels(number: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[V, K] int64: each of the four quarters falls to one of the viewer's interests at random."""
    quarters = np.floor(random.random((len(number), LEVELS)) * number[:, None]).astype(np.int64)
    return (quarters[:, :, None] == np.arange(INTERESTS)).sum(1)


def _drift(levels: np.ndarray, number: np.ndarray, moves: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A quarter, each as likely as the other, goes to another of the viewer's interests where `moves`."""
    quarter = np.floor(a * LEVELS).astype(np.int64)
    source = (np.cumsum(levels, axis=1) <= quarter[:, None]).sum(1)
    goal = (source + 1 + np.floor(b * (number - 1)).astype(np.int64)) % number
    moved = levels.copy()
    rows = np.arange(len(levels))
    moved[rows, source] -= 1
    moved[rows, goal] += 1
    return np.where(moves[:, None], moved, levels)
