"""Adaption weights of histories, and what ranks become when adapters are switched off.

symbol  meaning
n       histories
N       items of the catalogue
L       layers of the backbone
O       options: none, then the kinds of adapters that the model has
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from darec.config import ADAPTER_KINDS, AdapterKind
from darec.data.catalog import History
from darec.errors import ConfigError, DataError
from darec.explain.averages import UserAverage
from darec.explain.scoring import candidates_after, check_history, ranks_among, scores_after
from darec.model.bank import Adaption
from darec.model.recommender import DarecModel

NONE = "none"


def list_options(model: DarecModel) -> tuple[str, ...]:
    """The O options of a model: none, then the kinds of its adapters."""
    present = {adapter.kind for adapter in model.plan}
    return (NONE, *(kind for kind in ADAPTER_KINDS if kind in present))


@torch.no_grad()
def read_weights(model: DarecModel, histories: Sequence[History]) -> np.ndarray:
    """The adaption weights while histories are read, each the mean over the items of its window.

    Args:
        model: in evaluation mode, with adapters.
        histories: oldest first, one or more.

    Returns:
        [n, L, O] float64 in 0..1; what is there sums to 1 in a layer, and is NaN where a layer has no such adapter.

    Raises:
        DataError: a history cannot be read.
        ConfigError: the model has no adapters.
    """
    for history in histories:
        check_history(model, history)
    if not model.plan:
        raise ConfigError("This model was trained without adapters, so it has no adaption weights. Choose another.")
    weights = model.read(histories).adaption.weights.double().cpu().numpy()  # [n, S, L, A]
    options = list_options(model)
    shares = np.full((len(histories), len(model.bank.layers), len(options)), np.nan)
    shares[..., 0] = 1.0
    for layer, adapters in enumerate(model.bank.layers):
        for index, adapter in enumerate(adapters):
            shares[:, layer, options.index(adapter.kind)] = own = np.nanmean(weights[:, :, layer, index], axis=1)
            shares[:, layer, 0] -= own
    return shares


def average_weights(model: DarecModel, histories: Sequence[History], batch_size: int = 16) -> Iterator[UserAverage]:
    """Adaption weights averaged over users, after each batch.

    Raises:
        DataError: there are no users, or a history cannot be read.
        ConfigError: the model has no adapters.
    """
    if not len(histories):
        raise DataError("An average needs at least one user; this data has none to test on.")
    values: list[np.ndarray] = []
    for start in range(0, len(histories), batch_size):
        values.append(read_weights(model, histories[start : start + batch_size]))
        yield UserAverage(list_options(model), np.concatenate(values), len(histories))


def switch_off(
    model: DarecModel, history: History, off: Collection[tuple[int, AdapterKind]], *, exclude_seen: bool = True
) -> np.ndarray:
    """Ranks after a history, with all adapters and with some switched off while it is read. Nothing is retrained, and
    the titles of the catalogue stay encoded as they are.

    Args:
        model: in evaluation mode; other threads that share it go on undisturbed.
        history: oldest first.
        off: layers (from 0) and the kind of their adapters.
        exclude_seen: leave the items of the history out.

    Returns:
        [2, N] int64 ranks from 1, with all and with some off; 0 for items that are no candidates.

    Raises:
        DataError: the history cannot be read.
        ConfigError: a layer has no such adapter.
    """
    check_history(model, history)
    mask = torch.zeros(model.bank.shape, dtype=torch.bool)
    for layer, kind in off:
        kinds = [adapter.kind for adapter in model.bank.layers[layer]] if 0 <= layer < len(model.bank.layers) else []
        if kind not in kinds:
            raise ConfigError(f"Only adapters that a layer has can be switched off; layer {layer + 1} has no {kind}.")
        mask[layer, kinds.index(kind)] = True
    whole = scores_after(model, [history])
    with model.bank.using(Adaption(switched_off=mask)):
        without = scores_after(model, [history])
    candidates = candidates_after(model, history, exclude_seen=exclude_seen)
    return ranks_among(np.concatenate([whole, without]), candidates)
