"""SASRec with frozen text features: without it, what the language model adds is confounded with what text adds."""

from collections.abc import Callable
from typing import Any

from darec.baselines.sasrec import NextItemScorer, train_sasrec
from darec.config import CollaborativeSettings
from darec.data.catalog import Catalog
from darec.data.splits import Split
from darec.model.text_features import encode_texts


def train_sasrec_text(
    split: Split,
    catalog: Catalog,
    settings: CollaborativeSettings,
    *,
    backbone: str,
    seed: int,
    device: str,
    on_epoch: Callable[[dict[str, Any]], None],
) -> NextItemScorer:
    """Encode every item's full text with the backbone as it comes, and train SASRec over it.

    The features are centred over the catalogue: what all texts share tells no item from another.
    """
    features = encode_texts(catalog.full_texts, backbone, device=device)
    features = features - features.mean(0)
    return train_sasrec(split, settings, seed=seed, device=device, on_epoch=on_epoch, text_features=features)
