"""What a simulated viewer chooses: the probability of every film, exactly.

    V viewers, N films, A facts of films (themes, genres, directors, countries, decades), B rows of a batch

A viewer's utility of a film is a whole number in hundredths of a nat (natural unit of log-probability):

    U = fame                                              of the film
      + sum over interests k of level_k / 4 * sum of the weights of those facts of interest k that the film has
      + follow       if the viewer follows a director of it
      + mood         if it has the theme that she is in the mood for
      + next_now     if the part before it is the film that she watched last
        or next      if she has watched the part before it earlier
        or -skipping if there is a part before it and she has not
      + novelty * (1 - age / novelty_days)                in the first days after its release

Of the films A that are out and that she has not watched, she picks one with probability

    P(film) = (1 - exploring) * exp(U / 100) / sum over A of exp(U / 100)
              + exploring * exp(fame / 100) / sum over A of exp(fame / 100)

Every exponential is taken once, in decimal arithmetic, and rounded to a whole number, so that sums and draws are exact
and the same on every machine.
"""

from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pandas as pd

from darec.data.demo.films import attributes_of

DAY = 86_400  # seconds
LEVELS = 4  # a viewer's attention comes in quarters
_LOWEST, _HIGHEST = -800, 2000  # utilities are clipped to these
_SCALE = 2**14  # of the whole numbers that stand for exp; 1,000 films at the highest utility stay below 2 ** 53
_EXP = np.array([int((Decimal(u) / 100).exp() * _SCALE) for u in range(_LOWEST, _HIGHEST + 1)], np.int64)


@dataclass(frozen=True)
class Weights:
    """What counts how much in a choice, in hundredths of a nat unless said otherwise."""

    theme: int = 320  # a theme of an interest at full level
    genre: int = 150  # its genre
    setting: int = 150  # its country or decade
    follow: int = 400  # a director whom the viewer follows
    mood: int = 340
    next_now: int = 840
    next: int = 350
    skipping: int = 350
    novelty: int = 280
    novelty_days: int = 45
    exploring: float = 0.05  # share of choices made by fame alone


@dataclass(frozen=True, eq=False)
class Stage:
    """The films as a viewer meets them.

    Attributes:
        facts: A (kind, value) pairs.
        has: [A + 1, N] bool, which film has which fact; the last row is empty, so that index -1 is no fact.
        fame: [N] int64, hundredths of a nat.
        released: [N] int64, day of the calendar from which the film can be watched; 0 is there from the start.
        previous: [N] int64, index of the part before it, or -1.
    """

    facts: list[tuple[str, str]]
    has: np.ndarray
    fame: np.ndarray
    released: np.ndarray
    previous: np.ndarray
    index: dict[tuple[str, str], int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {fact: number for number, fact in enumerate(self.facts)})


def set_stage(films: pd.DataFrame, fame: np.ndarray, released: np.ndarray) -> Stage:
    """The stage of a table of films (see films.py) with [N] fame and [N] day of release."""
    facts_of = attributes_of(films)
    facts = sorted({fact for film in facts_of for fact in film})
    index = {fact: number for number, fact in enumerate(facts)}
    has = np.zeros((len(facts) + 1, len(films)), bool)
    for film, its_facts in enumerate(facts_of):
        has[[index[fact] for fact in its_facts], film] = True
    previous = np.full(len(films), -1)
    for _, parts in films[films["franchise"] != ""].groupby("franchise"):
        order = parts["part"].sort_values().index.to_numpy()
        previous[order[1:]] = order[:-1]
    return Stage(facts, has, np.asarray(fame, np.int64), np.asarray(released, np.int64), previous)


@dataclass(frozen=True, eq=False)
class Tastes:
    """What B viewers like for good.

    Attributes:
        interests: [B, K, 4] int64 facts: two themes, a genre, a country or decade; -1 where there is none.
        followed: [B, 2] int64 facts: directors; -1 where there is none.
    """

    interests: np.ndarray
    followed: np.ndarray

    def rows(self, rows: np.ndarray) -> "Tastes":
        """Those of some of the viewers."""
        return Tastes(self.interests[rows], self.followed[rows])


@dataclass(frozen=True, eq=False)
class Moment:
    """Where B viewers stand just before a choice.

    Attributes:
        levels: [B, K] int64, quarters of attention that each interest has; they add up to 4.
        mood: [B] int64, the theme that she is in the mood for, or -1.
        watched: [B, N] bool.
        last: [B] int64, the film watched last, or -1.
        now: [B] int64, seconds since the start of the calendar.
    """

    levels: np.ndarray
    mood: np.ndarray
    watched: np.ndarray
    last: np.ndarray
    now: np.ndarray


def lasting_utilities(stage: Stage, tastes: Tastes, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """What does not change from choice to choice.

    Returns:
        [B, N] int32, fame and directors followed; [B, K, N] int32, each interest's utility at full level.
    """
    followed = stage.has[tastes.followed].any(1)  # [B, N]
    slots = np.array([weights.theme, weights.theme, weights.genre, weights.setting], np.int32)
    interests = np.zeros((*tastes.interests.shape[:2], len(stage.fame)), np.int32)
    for slot, weight in enumerate(slots):
        interests += stage.has[tastes.interests[:, :, slot]] * weight
    return (stage.fame + followed * weights.follow).astype(np.int32), interests


def utilities(
    stage: Stage, lasting: tuple[np.ndarray, np.ndarray], moment: Moment, weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """[B, N] int32 utilities in hundredths of a nat, and [B, N] bool: what can be chosen at all."""
    base, interests = lasting
    total = base.copy()
    levels = moment.levels.astype(np.int32)
    for k in range(levels.shape[1]):
        total += interests[:, k] * levels[:, k, None] // LEVELS
    total += stage.has[moment.mood] * np.int32(weights.mood)
    parts = np.flatnonzero(stage.previous >= 0)
    before = stage.previous[parts]
    began = np.where(moment.watched[:, before], weights.next, -weights.skipping)
    total[:, parts] += np.where(moment.last[:, None] == before, weights.next_now, began).astype(np.int32)
    age = moment.now[:, None] // DAY - stage.released  # [B, N] days
    new = np.flatnonzero(stage.released > 0)
    left = np.clip(weights.novelty_days - age[:, new], 0, weights.novelty_days)
    total[:, new] += (weights.novelty * left // weights.novelty_days).astype(np.int32)
    return total, ~moment.watched & (age >= 0)


def shares(utility: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """[B, N] int64 proportional to exp(utility / 100), 0 where not allowed."""
    return _EXP[np.clip(utility, _LOWEST, _HIGHEST) - _LOWEST] * allowed


def probabilities(stage: Stage, lasting: tuple[np.ndarray, np.ndarray], moment: Moment, weights: Weights) -> np.ndarray:
    """[B, N] float64, rows sum to 1: the probability of each film to be chosen next."""
    utility, allowed = utilities(stage, lasting, moment, weights)
    by_taste, by_fame = shares(utility, allowed), shares(np.broadcast_to(stage.fame, utility.shape), allowed)
    return (1 - weights.exploring) * by_taste / by_taste.sum(1, keepdims=True) + weights.exploring * (
        by_fame / by_fame.sum(1, keepdims=True)
    )
