"""What a model believes of a simulated viewer's next choice, beside what the viewer would truly choose.

Only where viewers are simulated is there a truth to hold a model against. It holds more than histories tell: the mood
of the moment, which interest has just moved. So a perfect model would differ from it too, if less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from darec.data.demo.truth import Truth

LIST = 10  # the lists that are compared


@dataclass(frozen=True, eq=False)
class Beliefs:
    """A model and the truth about one choice.

    Attributes:
        tastes: of the viewer, in words.
        table: one row an item that leads either list, by falling true probability: item (index), title, true and
            believed (probabilities, 0..1), true_rank and believed_rank (from 1, ties counting against the item).
        agreed: how many of the truly likeliest ten are among the ten that the model puts first.
    """

    tastes: str
    table: pd.DataFrame
    agreed: int


def compare_beliefs(
    believed: np.ndarray, titles: Sequence[str], truth: Truth, user_id: str, position: int, leading: int = 6
) -> Beliefs:
    """Hold a model's probabilities against a viewer's true ones, before her choice at a position.

    Args:
        believed: [N] probabilities of the model after the viewer's choices up to there; NaN for those.
        titles: N, of the films.
        truth: of the world that the model was trained on.
        user_id: a viewer.
        position: how many choices the model was told, the viewer's first ones.
        leading: items shown from the top of either list.

    Raises:
        DataError: there is no such viewer, or she made no choice at that position.
    """
    true = truth.true_probabilities(user_id, position)
    history = truth.choices_of(user_id)[:position].tolist()
    ranks = [_ranks(values, history) for values in (true, np.nan_to_num(believed))]
    shown = np.flatnonzero((ranks[0] <= leading) | (ranks[1] <= leading))
    table = pd.DataFrame(
        {
            "item": shown,
            "title": [titles[item] for item in shown.tolist()],
            "true": true[shown],
            "believed": believed[shown],
            "true_rank": ranks[0][shown],
            "believed_rank": ranks[1][shown],
        }
    ).sort_values("true", ascending=False, ignore_index=True)
    agreed = int(((ranks[0] <= LIST) & (ranks[1] <= LIST)).sum())
    return Beliefs(truth.describe_tastes(user_id), table, agreed)


def _ranks(values: np.ndarray, history: list[int]) -> np.ndarray:
    """[N] the rank of each item among those not in the history, ties counting against it; of the others, beyond all."""
    candidates = np.sort(np.delete(values, history))
    ranks = len(candidates) - np.searchsorted(candidates, values, side="left")
    ranks[history] = len(values) + 1
    return ranks
