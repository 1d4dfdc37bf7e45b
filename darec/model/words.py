"""Which words a text holds, and the directions in which a catalogue's texts differ by their words.

symbol  meaning
n       texts
K       words that at least two items share, the 4,096 most shared of them at most
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_MOST = 4096


class WordBags:
    """Texts as bags of words: what two items share counts, the more the fewer share it; what one item has does not.

    Args:
        catalog: word ids of each item's text.
    """

    def __init__(self, catalog: Sequence[Sequence[int]]):
        texts = [torch.unique(torch.tensor(text, dtype=torch.long)) for text in catalog]
        ids, holders = torch.unique(torch.cat([torch.empty(0, dtype=torch.long), *texts]), return_counts=True)
        most = torch.argsort(-holders, stable=True)[:_MOST].sort().values
        kept = most[holders[most] > 1]
        self._column = {word: column for column, word in enumerate(ids[kept].tolist())}
        weights = torch.log(len(texts) / holders[kept].float())
        lengths = torch.stack([weights[self._columns_of(text)].norm() for text in catalog]) if catalog else weights
        self._weights = weights * (len(self) ** 0.5 / lengths.mean()) if lengths.any() else weights

    def __len__(self) -> int:
        """K."""
        return len(self._column)

    def __call__(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """[n, K] float32: of the words that a text holds log(N / items that hold it); 0 for all others.

        All are scaled alike, so that the catalogue's texts have length K ** 0.5 on average.
        """
        bags = torch.zeros(len(texts), len(self))
        for bag, text in zip(bags, texts, strict=True):
            columns = self._columns_of(text)
            bag[columns] = self._weights[columns]
        return bags

    def _columns_of(self, text: Sequence[int]) -> list[int]:
        return [self._column[word] for word in set(text) if word in self._column]


@torch.no_grad()
def latent_directions(bags: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Mean and map that take bags to the directions in which they differ most: latent semantic analysis.

    Words that go together in a catalogue (a director and her country) share a direction, and what is peculiar to few
    items falls away. (Deerwester et al., Indexing by Latent Semantic Analysis, JASIS 1990.)

    Args:
        bags: [N, K].
        width: directions wanted; those beyond min(N, K) are zero.

    Returns:
        [K] and [K, width] float32: (x - mean) @ map.
    """
    mean, rank = bags.mean(dim=0), min(width, *bags.shape)
    map = bags.new_zeros(bags.shape[1], width)
    if rank:
        with torch.random.fork_rng(devices=[]):  # the method draws its start; the same catalogue gives the same map
            torch.manual_seed(0)
            map[:, :rank] = torch.svd_lowrank(bags - mean, min(rank + 16, *bags.shape), niter=4)[2][:, :rank]
    return mean, map
