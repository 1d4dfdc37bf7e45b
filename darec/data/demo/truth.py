"""The truth about each simulated viewer: what she likes, where she stood before each choice, what she would choose.

It lies beside the pair in four files, so that a model's beliefs can be held against it without drawing the world again:

    truth-films.parquet     item_id, fame, released, and the facts that viewers go by
    truth-viewers.parquet   user_id, and the facts that her interests and the directors she follows are
    truth-states.parquet    user_id, position, level_1..3, mood, explored: what held just before each choice
    truth.json              version, seed, start of the calendar and weights
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from darec.data.demo.choices import Moment, Stage, Tastes, Weights, lasting_utilities, probabilities, set_stage
from darec.data.demo.world import INTERESTS, START, VERSION, World
from darec.data.interactions import Dataset
from darec.errors import DataError
from darec.runs import write_json

FILMS, VIEWERS, STATES = "truth-films.parquet", "truth-viewers.parquet", "truth-states.parquet"
CONSTANTS = "truth.json"
_SLOTS = {  # of an interest, and the kinds of fact that fill each
    "theme": ("theme",),
    "second_theme": ("theme",),
    "genre": ("genre",),
    "setting": ("country", "decade"),
}
_WORDS = {"theme": "“{}” films", "genre": "{} films", "country": "films from {}", "decade": "films of the {}"}


@dataclass(frozen=True, eq=False)
class Truth:
    """All that is hidden from a recommender.

    Attributes:
        stage: the films as viewers meet them, in the order of the catalogue.
        tastes: of V viewers.
        user_ids: V, in the order of `tastes`.
        item_index: [rows] int64, what was chosen, viewer after viewer, in order of time.
        timestamps: [rows] int64, seconds since 1970.
        states: [rows] what held just before each choice; see World.
        weights: what counts in a choice.
    """

    stage: Stage
    tastes: Tastes
    user_ids: list[str]
    item_index: np.ndarray
    timestamps: np.ndarray
    states: pd.DataFrame
    weights: Weights

    @classmethod
    def of(cls, world: World) -> "Truth":
        """The truth of a world just made."""
        index = {item_id: number for number, item_id in enumerate(world.films["item_id"])}
        return cls(
            world.stage,
            world.tastes,
            list(world.interactions["user_id"].unique()),
            world.interactions["item_id"].map(index).to_numpy(np.int64),
            world.interactions["timestamp"].to_numpy(np.int64),
            world.states,
            world.rules.weights,
        )

    @classmethod
    def load(cls, folder: str | Path, pair: str | Path | None = None) -> "Truth":
        """Read what `save_world` wrote.

        Args:
            folder: with the four files.
            pair: the folder that holds the demo world's pair, where that is another.

        Raises:
            DataError: the folder does not hold the demo world with its truth.
        """
        folder = Path(folder)
        dataset = Dataset.load(folder if pair is None else pair)
        missing = [name for name in (FILMS, VIEWERS, STATES, CONSTANTS) if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"{folder} must hold the demo world with its truth; {missing[0]} is missing. "
                "Make it with `python -m darec data prepare demo`."
            )
        films, viewers, states = (pd.read_parquet(folder / name) for name in (FILMS, VIEWERS, STATES))
        constants = json.loads((folder / CONSTANTS).read_text(encoding="utf-8"))
        stage = set_stage(films, films["fame"].to_numpy(), films["released"].to_numpy())
        return cls(
            stage,
            _read_tastes(viewers, stage),
            list(viewers["user_id"]),
            dataset.item_index,
            dataset.interactions["timestamp"].to_numpy(np.int64),
            states,
            Weights(**constants["weights"]),
        )

    def true_probabilities(self, user_id: str, position: int) -> np.ndarray:
        """[N] float64, sums to 1: how likely the viewer's choice after her first `position` films was each film.

        Films that she had watched, or that were not out yet, have 0.

        Raises:
            DataError: there is no such viewer, or she made no choice at that position.
        """
        viewer = self._viewer(user_id)
        length = self._starts[viewer + 1] - self._starts[viewer]
        if not 0 <= position < length:
            raise DataError(f"{user_id} made {length} choices, counted from 0; got position {position}. Give another.")
        return self._probabilities(np.array([viewer]), np.array([position]))[0]

    def describe_tastes(self, user_id: str) -> str:
        """In words: `follows Akira Kurosawa; loves “samurai” films, “revenge” films, action films`.

        Raises:
            DataError: there is no such viewer.
        """
        viewer = self._viewer(user_id)
        directors = [self.stage.facts[fact][1] for fact in self.tastes.followed[viewer] if fact >= 0]
        parts = [f"follows {' and '.join(directors)}"] if directors else []
        for interest in self.tastes.interests[viewer]:
            if facts := [self.stage.facts[fact] for fact in interest if fact >= 0]:
                parts.append("loves " + ", ".join(_WORDS[kind].format(value) for kind, value in facts))
        return "; ".join(parts)

    def choices_of(self, user_id: str) -> np.ndarray:
        """[length] int64: item_index of everything that the viewer chose, oldest first.

        Raises:
            DataError: there is no such viewer.
        """
        viewer = self._viewer(user_id)
        return self.item_index[self._starts[viewer] : self._starts[viewer + 1]]

    @cached_property
    def _starts(self) -> np.ndarray:
        """[V + 1] int64: where each viewer's rows start."""
        user_ids = self.states["user_id"].to_numpy(object)
        return np.concatenate([[0], np.flatnonzero(user_ids[1:] != user_ids[:-1]) + 1, [len(user_ids)]])

    @cached_property
    def _viewers(self) -> dict[str, int]:
        return {user_id: number for number, user_id in enumerate(self.user_ids)}

    def _viewer(self, user_id: str) -> int:
        try:
            return self._viewers[user_id]
        except KeyError:
            raise DataError(f"The demo world has no viewer {user_id!r}. Its first is {self.user_ids[0]}.") from None

    def _probabilities(self, viewers: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """[B, N] float64: `true_probabilities` of B choices."""
        rows = self._starts[viewers] + positions
        watched = np.zeros((len(rows), len(self.stage.fame)), bool)
        for number, (viewer, row) in enumerate(zip(viewers, rows, strict=True)):
            watched[number, self.item_index[self._starts[viewer] : row]] = True
        levels, moods = self._levels_and_moods
        moment = Moment(
            levels[rows],
            moods[rows],
            watched,
            np.where(positions > 0, self.item_index[rows - 1], -1),
            self.timestamps[rows] - START,
        )
        lasting = lasting_utilities(self.stage, self.tastes.rows(viewers), self.weights)
        return probabilities(self.stage, lasting, moment, self.weights)

    @cached_property
    def _levels_and_moods(self) -> tuple[np.ndarray, np.ndarray]:
        """[rows, K] int64 levels and [rows] int64 moods."""
        themes = {value: fact for (kind, value), fact in self.stage.index.items() if kind == "theme"} | {"": -1}
        levels = self.states[[f"level_{k + 1}" for k in range(INTERESTS)]].to_numpy(np.int64)
        return levels, self.states["mood"].map(themes).to_numpy(np.int64)


class Oracle:
    """A scorer that knows the truth: no recommender can rank better on average. It knows viewers by their histories.

    Args:
        truth: of the world whose histories it is asked about.
    """

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        lengths = np.diff(truth._starts)
        self._choices = np.full((len(lengths), lengths.max() + 1), -1)
        self._choices[np.arange(lengths.max() + 1) < lengths[:, None]] = truth.item_index

    def score(self, histories: Sequence[Sequence[int | str]]) -> np.ndarray:
        """[B, N] float64: the true probability of each film to be chosen next.

        Raises:
            DataError: a history is not the beginning of one viewer's choices, and of one only.
        """
        viewers = np.array([self._whose(np.array(history, np.int64)) for history in histories])
        return self.truth._probabilities(viewers, np.array([len(history) for history in histories]))

    def _whose(self, history: np.ndarray) -> int:
        position = min(len(history), self._choices.shape[1] - 1)
        begins = (self._choices[:, :position] == history[:position]).all(1) & (self._choices[:, position] >= 0)
        viewers = np.flatnonzero(begins)
        if len(history) > position or len(viewers) != 1:
            raise DataError(
                f"The oracle knows the choices of the demo world's viewers only; this history of {len(history)} films "
                f"is the beginning of {len(viewers)} viewers' choices. Give a history of the demo world."
            )
        return int(viewers[0])


def save_truth(world: World, folder: Path) -> None:
    """Write the four files into the folder that holds, or will hold, the pair."""
    stage = world.stage
    names = np.array([*(value for _, value in stage.facts), ""], object)
    films = world.films.assign(fame=stage.fame, released=stage.released)
    films.to_parquet(folder / FILMS, index=False)
    columns: dict[str, np.ndarray] = {"user_id": world.interactions["user_id"].unique()}
    for k in range(INTERESTS):
        for slot, name in enumerate(_SLOTS):
            columns[f"{name}_{k + 1}"] = names[world.tastes.interests[:, k, slot]]
    for place in range(world.tastes.followed.shape[1]):
        columns[f"director_{place + 1}"] = names[world.tastes.followed[:, place]]
    pd.DataFrame(columns).to_parquet(folder / VIEWERS, index=False)
    world.states.to_parquet(folder / STATES, index=False)
    constants = {"version": VERSION, "seed": world.seed, "start": START, "weights": asdict(world.rules.weights)}
    write_json(folder / CONSTANTS, constants)


def _read_tastes(viewers: pd.DataFrame, stage: Stage) -> Tastes:
    """Inverse of what `save_truth` does with tastes. A setting is a country or a decade, whichever has that name."""
    index = stage.index | {(kind, ""): -1 for kind in ("theme", "genre", "director", "country")}

    def facts(column: str, *kinds: str) -> np.ndarray:
        found = [next(index[kind, value] for kind in kinds if (kind, value) in index) for value in viewers[column]]
        return np.array(found, np.int64)

    interests = [
        np.stack([facts(f"{name}_{k + 1}", *kinds) for name, kinds in _SLOTS.items()], axis=1) for k in range(INTERESTS)
    ]
    followed = [facts(f"director_{place}", "director") for place in (1, 2)]
    return Tastes(np.stack(interests, axis=1), np.stack(followed, axis=1))
