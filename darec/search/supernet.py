"""The weight-sharing supernet: one bank with all kinds of adapters at the largest size in every layer.

Each training step takes a random architecture of the space, drawn by (seed, epoch, batch): of each adapter the first
ranks or hidden units, so that sizes are nested slices. LoRA is scaled by 2 whatever its size. Its losses, its CF model,
checkpoints and log are those of any training. Validations all read the uniform LoRA of size 16 (or the nearest there
is). Item encodings know no adapters, so they are the same for all.

A trial scores an architecture with inherited weights. **Score**: the mean cross-entropy, in nats, of the item after the
last one of each history, among all not yet seen, for a fixed set of validation users; nothing earlier, because earlier
items were trained on. The CF model's own share in the score and the temperature of the softmax are those of
`LATE_GATES` and `TEMPERATURES` that give the least: a finished run has both chosen on validation, and at temperature 1
a share that ranks well counts as badly as it is too sure of itself. NDCG@10 of the same users, seen items removed,
under the same share, is reported along.

**What a trial computes.** Outputs of the backbone's layers are kept under the part of the architecture that leads to
them: a trial runs from its first layer on that no kept trial had with the same layers below. The least recently used go
first when the memory for them is full. `Score.layers_reused` says what that saved.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darec.config import parse_settings
from darec.data.interactions import Dataset
from darec.data.splits import Cases, split
from darec.errors import RunError
from darec.evaluation.metrics import ndcg, rank_of
from darec.model.backbone import transformer_layers
from darec.model.bank import Adaption
from darec.model.recommender import BACKBONE, DarecModel
from darec.model.trained import load_trained
from darec.runs import read_run
from darec.search.space import Architecture, Space
from darec.training.loop import Paths
from darec.training.output import DATA
from darec.training.tuning import LATE_GATES, TEMPERATURES, unseen

CACHE_BYTES = 256 * 2**20
_REFERENCE_SIZE = 16


def supernet_paths(space: Space, seed: int) -> Paths:
    """What `train` needs to train the supernet of a space."""

    def draw(epoch: int, batch: int) -> Adaption:
        random = np.random.default_rng([seed, epoch, batch, 2])
        return Adaption(sizes=space.sizes(space.draw(random)))

    reference = space.uniform(min(_REFERENCE_SIZE, space.max_size))
    return Paths(space.bank(), draw, Adaption(sizes=space.sizes(reference)))


@dataclass(frozen=True)
class Score:
    """What a trial found.

    Attributes:
        cross_entropy: nats, mean over the users; lower is better.
        ndcg: NDCG@10 of the same users, 0..1.
        late_gate: the share of the CF model's own score under which both hold; 0 without a CF model.
        seconds: that it took.
        layers_reused: share of the backbone's layers that need not run, 0..1.
    """

    cross_entropy: float
    ndcg: float
    late_gate: float
    seconds: float
    layers_reused: float


class Supernet:
    """A trained supernet that scores architectures. Not to be shared by threads: it remembers the trial under way.

    Args:
        model: with the bank of the space and trained weights, in evaluation mode.
        space: what the bank holds.
        cases: the fixed users.
        cache_bytes: memory for outputs of layers; 0 keeps none.
    """

    def __init__(self, model: DarecModel, space: Space, cases: Cases, cache_bytes: int = CACHE_BYTES):
        self.model, self.space, self.cases = model, space, cases
        _, layers = transformer_layers(model.backbone, space.num_layers)
        self._memory = LayerMemory(layers, cache_bytes)

    @classmethod
    def load(cls, run: Path, space: Space, users: int, seed: int = 0, device: str = "cpu") -> "Supernet":
        """The supernet that `train` wrote, with `users` validation users drawn by `seed`; all where there are fewer.

        Raises:
            RunError: the folder holds no supernet.
        """
        info = read_run(run)
        if info["kind"] != "supernet":
            raise RunError(f"{run} holds a {info['kind']}, not a supernet. Search into a new folder.")
        dataset = Dataset.load(run / DATA)
        parts = split(dataset)
        settings = parse_settings(info["settings"])
        model = DarecModel.build(run / BACKBONE, dataset.catalog, parts.popularity, settings, device, space.bank())
        model.load_trained_state(load_trained(run, device))
        return cls(model.eval().requires_grad_(False), space, fixed_cases(parts.valid, users, seed))

    def score(self, architecture: Architecture) -> Score:
        """Score an architecture with the weights that it inherits."""
        start = time.perf_counter()
        self._memory.begin(architecture)
        try:
            with self.model.bank.using(Adaption(sizes=self.space.sizes(architecture))):
                found = measure(self.model, self.cases)
        except BaseException:
            self._memory.kept.clear()  # some passes of this trial are missing
            raise
        return Score(*found, time.perf_counter() - start, self._memory.reused / self.space.num_layers)


def measure(model: DarecModel, cases: Cases) -> tuple[float, float, float]:
    """Cross-entropy (nats, mean) of cases under the late gate and temperature that give the least; NDCG@10; the gate.

    Args:
        model: in evaluation mode. Its own late gate, temperatures and placing of new items are put aside, for good, and
            what often follows is left out: a supernet has no trust in it yet.
        cases: read once.
    """
    model.temperatures.fill_(1.0)
    model.cold.copy_(~model.known)
    model.cold_prior.zero_()  # whenever they were asked
    if model.collaborative is not None:
        nn.init.ones_(model.late_gate)  # each score multiplies it by its own
    gates = LATE_GATES if model.collaborative is not None else (0.0,)
    losses = np.zeros((len(gates), len(TEMPERATURES)))
    ranks: list[list[np.ndarray]] = [[] for _ in gates]
    for batch in cases.batches(model.settings.training.evaluation_batch_size):
        terms = model.last_terms([history.tolist() for history in batch.histories])
        targets = torch.from_numpy(batch.targets).to(model.device)
        for number, gate in enumerate(gates):
            scores = unseen((terms.without_late() + gate * terms.late).float(), batch)
            losses[number] += [F.cross_entropy(scores / t, targets, reduction="sum").item() for t in TEMPERATURES]
            ranks[number].append(rank_of(scores.cpu().numpy(), batch.targets, batch.histories))
    best = int(losses.min(axis=1).argmin())
    return float(losses[best].min()) / len(cases), ndcg(np.concatenate(ranks[best]), 10), gates[best]


def fixed_cases(cases: Cases, users: int, seed: int) -> Cases:
    """A random subset that is the same for every trial."""
    if users >= len(cases):
        return cases
    return cases.subset(np.sort(np.random.default_rng([seed, 3]).permutation(len(cases))[:users]))


class LayerMemory:
    """Outputs of a backbone's layers in every forward pass of a trial, kept for later trials that begin alike.

    All trials make the same passes over the same inputs, so a pass is known by its number.

    Args:
        layers: of the backbone; each is replaced by one that remembers.
        limit: bytes.
    """

    def __init__(self, layers: nn.ModuleList, limit: int):
        self.num_layers, self.limit = len(layers), limit
        self.kept: OrderedDict[Architecture, dict[int, Any]] = OrderedDict()  # by the layers below and this one
        self.layer_bytes = 0  # of one layer's outputs in all passes; known after the first trial
        self.reused = 0  # layers of the trial under way that need not run
        self.passes = -1
        self.architecture: Architecture = ()
        for number, layer in enumerate(list(layers)):
            layers[number] = _Remembering(layer, number, self)

    def begin(self, architecture: Architecture) -> None:
        """A new trial: find what it shares with those kept, and make room for what it adds."""
        self.architecture, self.passes, self.reused = architecture, -1, 0
        # Before the size of one layer is known, only the first is kept. Deep layers go first: few trials share them.
        room = self.limit // self.layer_bytes if self.layer_bytes else min(1, self.limit)
        while len(self.kept) > room:
            self.kept.popitem(last=False)
        prefixes = [architecture[: number + 1] for number in range(self.num_layers)]
        while self.reused < self.num_layers and prefixes[self.reused] in self.kept:
            self.reused += 1
        wanted = prefixes[:room]
        others = [prefix for prefix in self.kept if prefix not in wanted]
        for prefix in others[: max(0, len(others) + len(wanted) - room)]:
            del self.kept[prefix]
        for prefix in reversed(wanted):
            self.kept.setdefault(prefix, {})
            self.kept.move_to_end(prefix)

    def keep(self, number: int, output: Any) -> None:
        """Keep a layer's output of this pass, if there is room."""
        outputs = self.kept.get(self.architecture[: number + 1])
        if outputs is not None:
            outputs[self.passes] = output
            if len(self.kept) == 1 and number == 0:
                self.layer_bytes = sum(map(_bytes_of, outputs.values()))

    def recall(self, number: int) -> Any:
        """A layer's kept output of this pass."""
        return self.kept[self.architecture[: number + 1]][self.passes]


class _Remembering(nn.Module):
    """A layer that runs only where its output is not known."""

    def __init__(self, layer: nn.Module, number: int, memory: LayerMemory):
        super().__init__()
        self.layer, self.number, self.memory = layer, number, memory

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        memory = self.memory
        if self.number == 0:
            memory.passes += 1
        if self.number < memory.reused:
            return memory.recall(self.number)
        output = self.layer(hidden_states, *args, **kwargs)
        memory.keep(self.number, output)
        return output


def _bytes_of(output: Tensor | Sequence[Any]) -> int:
    tensors = [output] if isinstance(output, Tensor) else [part for part in output if isinstance(part, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
