"""Serving: `Recommender`, the one thread-safe door through which the app and the command line use a finished run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from darec.data.catalog import Catalog, check_history
from darec.data.interactions import Dataset
from darec.data.splits import Split, split
from darec.errors import DataError, RunError
from darec.evaluation.protocol import Scorer, TimedScorer
from darec.runs import MANIFEST, RUN, part_of, read_run


@dataclass(frozen=True)
class Recommendation:
    """One line of a ranked list.

    Attributes:
        rank: 1 for the first.
        item_index: 0 to N - 1.
        item_id: the id that the data set gives the item.
        title: the title as shown, with its year where known.
        probability: 0 to 1; over all candidates they sum to 1.
    """

    rank: int
    item_index: int
    item_id: str
    title: str
    probability: float


@dataclass(frozen=True, eq=False)
class Recommender:
    """A loaded run. Nothing is stored between calls, so threads may share one.

    Attributes:
        info: the run's `run.json`.
        dataset: the data it was trained on.
        scorer: the model: histories in, one score an item out.
        reads_text: whether a title that the catalogue lacks can stand in a history.
    """

    info: dict[str, Any]
    dataset: Dataset
    scorer: Scorer
    reads_text: bool

    @classmethod
    def load(cls, run: str | Path, device: str = "cpu") -> "Recommender":
        """Load a finished run after checking its files.

        Args:
            run: a folder that train, baseline or quantize wrote.
            device: where the model computes, `cpu` or `cuda`.

        Raises:
            RunError: the folder is no run, is incomplete or altered, or holds a kind that this version does not know.
        """
        run = Path(run)
        info = read_run(run)
        dataset = Dataset.load(part_of(run, "data"))
        # torch and transformers take seconds to import: a page is drawn, and a wrong folder named, before that.
        match info.get("kind"):
            case "darec":
                from darec.model.recommender import DarecModel

                return cls(info, dataset, DarecModel.load(run, device), reads_text=True)
            case "baseline":
                from darec.baselines import TextNeighbours, load_baseline

                scorer = load_baseline(run)
                return cls(info, dataset, scorer, reads_text=isinstance(scorer, TextNeighbours))
            case kind:
                raise RunError(f"A run's kind is darec or baseline; {run} has {kind!r}. Update DARec or make it again.")

    @property
    def name(self) -> str:
        """What the run calls its model."""
        return str(self.info["name"])

    @property
    def kind(self) -> str:
        """`darec` or `baseline`."""
        return str(self.info["kind"])

    @property
    def catalog(self) -> Catalog:
        """The items that can be recommended."""
        return self.dataset.catalog

    @cached_property
    def split(self) -> Split:
        """Training histories, validation cases and test cases of the run's data."""
        return split(self.dataset)

    def asked(self, at: float | None) -> "Recommender":
        """The same run, asked at that time.

        Args:
            at: seconds since 1970; None where nobody knows. Nothing changes for a model that ranks alike at all times.
        """
        if at is None or not isinstance(self.scorer, TimedScorer):
            return self
        then = replace(self, scorer=self.scorer.asked(at))
        if "split" in self.__dict__:
            then.__dict__["split"] = self.split  # which was made already
        return then

    def recommend(
        self, history: Sequence[int | str], k: int = 10, *, exclude_seen: bool = True
    ) -> list[Recommendation]:
        """Rank the catalogue for what comes after `history`.

        Args:
            history: oldest first; an item_index, or the title of an item that the catalogue lacks.
            k: how many to return, at least 1; more than there are candidates returns all of them.
            exclude_seen: leave the items of the history out.

        Returns:
            The first k candidates by falling probability, ties in catalogue order.

        Raises:
            DataError: as `probabilities`, or k is below 1.
        """
        if k < 1:
            raise DataError(f"The number of recommendations must be at least 1; got {k}.")
        probability = self.probabilities(history, exclude_seen=exclude_seen)
        candidates = np.flatnonzero(~np.isnan(probability))
        best = candidates[np.argsort(-probability[candidates], kind="stable")[:k]].tolist()
        ids, titles = self.catalog.item_ids, self.catalog.titles
        return [
            Recommendation(rank, index, str(ids[index]), titles[index], float(probability[index]))
            for rank, index in enumerate(best, start=1)
        ]

    def probabilities(self, history: Sequence[int | str], *, exclude_seen: bool = True) -> np.ndarray:
        """The softmax of the model's scores over the candidates.

        Args:
            history: oldest first; an item_index, or the title of an item that the catalogue lacks.
            exclude_seen: leave the items of the history out.

        Returns:
            [N] float64; NaN for items that are left out, the rest in 0..1 and summing to 1.

        Raises:
            DataError: an empty history, an item_index outside the catalogue, a blank title, titles alone for a model
                that cannot read them, or nothing left to recommend.
            RunError: the model gives scores that are not numbers.
        """
        self._check(history)
        scores = np.asarray(self.scorer.score([list(history)])[0], dtype=np.float64)
        if np.isnan(scores).any():
            raise RunError(f"{self.name} gives scores that are not numbers. Train it again, at a lower learning rate.")
        candidate = np.ones(len(self.catalog), dtype=bool)
        if exclude_seen:
            candidate[[item for item in history if not isinstance(item, str)]] = False
        if not candidate.any():
            raise DataError("The history holds every item of the catalogue. Keep the seen items to rank them.")
        weights = np.exp(scores[candidate] - scores[candidate].max())
        probabilities = np.full(len(scores), np.nan)
        probabilities[candidate] = weights / weights.sum()
        return probabilities

    def _check(self, history: Sequence[int | str]) -> None:
        check_history(history, len(self.catalog))
        if not self.reads_text and all(isinstance(item, str) for item in history):
            raise DataError(
                f"{self.name} cannot read titles, and no item of this history is in its catalogue. "
                "Add an item of the catalogue, or use a model that reads text."
            )


def find_runs(folder: str | Path) -> list[Path]:
    """Finished runs anywhere below `folder`, by name; none when there is no such folder. Hidden folders are skipped."""
    folder = Path(folder)
    runs = (path.parent for path in folder.rglob(RUN) if (path.parent / MANIFEST).is_file())
    return sorted(run for run in runs if not any(part.startswith(".") for part in run.relative_to(folder).parts))
