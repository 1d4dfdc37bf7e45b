"""The losses of one training step: what each learns, and on which tokens.

    next_item               full-catalogue cross-entropy at every boundary, among what was not read before it
    next_item_without_late  the same on the score without the CF model's own term, which has seen the training targets
    title                   next word of an item's text, in sequences under the causal mask
    mask                    hidden words at their own places, in sequences under the context mask
    collaborative           the CF model's own next-item loss
    balance                 how unevenly layers use their adapters, where adaption weights are learned

A loss with nothing to learn from in a batch is 0.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darec.data.sequences import Kind
from darec.data.windows import Windows
from darec.model.bank import balance_loss
from darec.model.masking import choose_hidden, mixed_mask
from darec.model.recommender import DarecModel
from darec.model.seen import read_up_to, set_seen_aside

MOST_SCORES = 2**26  # of the short way at once: a quarter of a GB, of which a step needs several


@dataclass(frozen=True, eq=False)
class Draws:
    """What is left to chance in one step.

    Attributes:
        in_context: [n] bool; sequences under the context mask, the others under the causal one.
        hidden: [R, T] bool; words that are hidden.
        kept: [n] bool; sequences with the CF path.
        item_kept: [N] float; 0 for items whose CF embedding and bias are dropped.
        title_words: [R, T] bool; words that the title loss is estimated on.
        candidates: the items that are scored, None for the whole catalogue.
    """

    in_context: Tensor
    hidden: Tensor
    kept: Tensor
    item_kept: Tensor
    title_words: Tensor
    candidates: "Candidates | None"


@dataclass(frozen=True, eq=False)
class Candidates:
    """A sample of a large catalogue to stand for all of it.

    Attributes:
        items: [C] int64, ascending: the batch's targets and the negatives drawn uniformly without replacement.
        is_drawn: [C] bool; whether it is among the drawn.
        share: the share of the catalogue that was drawn, in 0..1.
    """

    items: Tensor
    is_drawn: Tensor
    share: float

    @classmethod
    def of(cls, targets: Tensor, drawn: Tensor, num_known: int) -> "Candidates":
        """Join targets and drawn negatives, each item once."""
        items = torch.unique(torch.cat([targets, drawn]))
        return cls(items, torch.isin(items, drawn), len(drawn) / num_known)

    def places_of(self, items: Tensor) -> Tensor:
        """int64, of any shape: where these items stand among the candidates; -1 for what is no candidate."""
        places = torch.searchsorted(self.items, items).clamp(max=len(self.items) - 1)
        return places.masked_fill(self.items[places] != items, -1)

    def correct(self, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [M, C] whose softmax estimates the full one, and the targets' places in them.

        A drawn negative stands for 1 / share items, so -log(share) is added to its score; the row's own target counts
        once; other rows' targets that were not drawn do not count. (Importance sampling of the softmax's sum: Bengio
        and Senecal, 2003.)
        """
        places = self.places_of(targets)
        is_target = F.one_hot(places, len(self.items)).bool()
        corrected = (scores - math.log(self.share)).masked_fill(~self.is_drawn, -torch.inf)
        return torch.where(is_target, scores, corrected), places


class StepLosses(nn.Module):
    """The model together with its losses: one module to train, whatever device or number of processes."""

    def __init__(self, model: DarecModel):
        super().__init__()
        self.model = model
        self.settings = model.settings

    def forward(self, windows: Windows, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of one step, scalars by name, and their weighted sum under `loss`.

        Args:
            windows: a batch with targets, on the model's device.
            generator: CPU generator, so that one seed draws the same on every device.
        """
        model, settings = self.model, self.settings
        draws = self.draw(windows, generator)
        mask = mixed_mask(windows.packed, draws.in_context)
        encoded = model.encode(windows, mask, draws.kept, draws.item_kept, draws.hidden)
        terms = model.score_terms(
            encoded, draws.item_kept, None if draws.candidates is None else draws.candidates.items
        )
        targets = windows.targets[encoded.sequence, encoded.span]
        seen = windows.seen_at(encoded.sequence, encoded.span)
        losses = {"next_item": self._next_item(terms.total(), targets, seen, draws.candidates)}
        weights = {"next_item": 1.0, "title": settings.title.loss_weight, "mask": settings.masking.loss_weight}
        losses["title"] = self._words(encoded.hidden_states, windows, draws.title_words, model.title_head, shift=1)
        losses["mask"] = self._words(encoded.hidden_states, windows, draws.hidden, model.mask_head, shift=0)
        if model.collaborative is not None:
            losses["next_item_without_late"] = self._next_item(terms.without_late(), targets, seen, draws.candidates)
            losses["collaborative"] = model.collaborative.loss(_with_following(windows))
            weights["next_item_without_late"] = settings.injection.late_free_loss_weight
            weights["collaborative"] = settings.injection.loss_weight
        if settings.adapters.weights != "fixed":
            losses["balance"] = balance_loss(encoded.adaption.weights)
            weights["balance"] = settings.adapters.balance_loss_weight
        return losses | {"loss": sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(()))}

    def of_short_way(self, following: Tensor, generator: torch.Generator) -> Tensor:
        """Next-item loss of the short way and the biases by themselves, at places drawn where there are many; a scalar.

        Args:
            following: [n, W + 1] int64, left-padded with -1: the first W columns are read, the last W predicted.
            generator: CPU generator.
        """
        items, targets = following[:, :-1], following[:, 1:]
        item_kept, candidates = self._draw_items(generator), self._draw_candidates(targets, generator)
        chosen = None if candidates is None else candidates.items
        rows, columns = torch.nonzero((items >= 0) & (targets >= 0), as_tuple=True)
        places = max(1, MOST_SCORES // len(self.model.known if chosen is None else chosen))
        if len(rows) > places:
            drawn = torch.randperm(len(rows), generator=generator)[:places].to(rows.device)
            rows, columns = rows[drawn], columns[drawn]
        scores = self.model.score_past(items, rows, columns, item_kept, chosen)
        return self._next_item(scores, targets[rows, columns], read_up_to(items, rows, columns), candidates)

    def draw(self, windows: Windows, generator: torch.Generator) -> Draws:
        """Draw a step's masks and dropped parts; the same generator state gives the same draws."""
        settings, packed = self.settings, windows.packed
        n, device = len(windows.lengths), windows.items.device

        def share(count: int, probability: float) -> Tensor:
            return (torch.rand(count, generator=generator) < probability).to(device)

        in_context = share(n, settings.masking.context_share if settings.masking.enabled else 0.0)
        hiding = in_context & share(n, settings.masking.hiding_share)
        hidden = choose_hidden(packed, hiding, settings.masking.hidden_tokens, generator)
        kept = ~share(n, settings.injection.sequence_dropout)
        item_kept = self._draw_items(generator)
        title_share = settings.title.token_share if settings.title.loss_weight else 0.0
        title_words = choose_hidden(packed, ~in_context, title_share, generator)
        candidates = self._draw_candidates(_with_following(windows)[:, 1:], generator)
        return Draws(in_context, hidden, kept, item_kept, title_words, candidates)

    def _draw_items(self, generator: torch.Generator) -> Tensor:
        """[N] float; 0 for items whose CF embedding and bias are dropped."""
        drawn = torch.rand(len(self.model.known), generator=generator)
        return (drawn >= self.settings.injection.item_dropout).float().to(self.model.device)

    def _draw_candidates(self, targets: Tensor, generator: torch.Generator) -> Candidates | None:
        training = self.settings.training
        if len(self.model.known) <= training.sampled_softmax_above:
            return None
        known = torch.nonzero(self.model.known).flatten()
        drawn = known[torch.randperm(len(known), generator=generator)[: training.negatives].to(known.device)]
        return Candidates.of(targets[targets >= 0], drawn, len(known))

    def _next_item(self, scores: Tensor, targets: Tensor, seen: Tensor, candidates: Candidates | None) -> Tensor:
        """Mean cross-entropy of [M, C] scores among the items with training interactions that were not read before."""
        at = targets >= 0
        scores, targets, seen = scores[at], targets[at], seen[at]
        if candidates is None:
            scores = scores.masked_fill(~self.model.known, -torch.inf)
        else:
            scores, targets = candidates.correct(scores, targets)
            seen = candidates.places_of(seen)
        scores = set_seen_aside(scores, seen, targets)
        return F.cross_entropy(scores, targets, reduction="sum") / max(1, len(targets))

    def _words(self, hidden_states: Tensor, windows: Windows, words: Tensor, head: nn.Module, shift: int) -> Tensor:
        """Mean cross-entropy of the chosen words, each read off the state `shift` places before it."""
        packed = windows.packed
        rows, columns = torch.nonzero(words & (packed.kind == Kind.TEXT), as_tuple=True)
        logits = self.model.word_logits(head, hidden_states[rows, columns - shift])
        return F.cross_entropy(logits, packed.input_ids[rows, columns], reduction="sum") / max(1, len(rows))


def _with_following(windows: Windows) -> Tensor:
    """[n, W + 1]: what the CF model reads, and the item that came after it."""
    last = windows.lengths[:, None] - 1
    return torch.cat([windows.collaborative_items, windows.targets.gather(1, last)], dim=1)
