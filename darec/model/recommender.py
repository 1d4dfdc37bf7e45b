"""DARec: a language model that reads a history of item texts and ranks the whole catalogue. Read this file first.

    symbol  meaning                          shape
    n       histories in the batch           -
    M       boundaries: [ITEM] tokens        M <= n * S
    N       items in the catalogue           -
    D       width of the backbone            -
    d       width of the CF model            -
    F       features of an item's text       -

The state at the k-th [ITEM] of a history scores every item j for place k + 1:

    s_k(j) = (h_k . (W_t t_j) + h_k . (W_v v_j) + b_j + g cf_k(j) + o_k(j) + c_j) / T

with h the normalised state over sqrt(D), t_j the item's encoding from its full text, v_j its CF embedding, b_j its bias
and cf the CF model's own score: the text, collaborative, prior and late terms. Where settings open the short way, text
also has u_k . f_j, of what goes past the language model (skip.py) and the features of the item's text. Where they ask
for followers, o is what often comes next after any item so far (followers.py); otherwise it is 0. Of an item that CF
knows nothing of, cf is the mean of those it knows. Of cold items text alone speaks: v, b, g cf and o are 0. They get

    c_j = c exp(-age_j / tau)

where age_j is how long before the history's question j was taken first; an item that nobody took is as old as the
question is before the newest one known. For other items, before an item was taken, and where nobody knows when it is
asked, c_j is 0. With an infinite tau c_j is c at all times, known or not.
T is 1, c and o are 0 in training; then validation sets them, T with CF and without, so that the softmax of the scores
is as sure of itself as it is right.

t_j is what the backbone itself, without adapters, makes of the text, whitened over the catalogue, or else which words
the text holds. So it is computed once, and nothing that trains can move it: encodings that followed the adapters
changed after every epoch in just those directions that tell items apart, and scores on text alone were half as good.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from darec.config import Settings, parse_settings
from darec.data.catalog import Catalog, History
from darec.data.interactions import Dataset
from darec.data.sequences import Kind, PackedSequences, Soft, pack_items
from darec.data.splits import SECONDS_A_DAY, split
from darec.data.windows import WindowBuilder, Windows
from darec.errors import ConfigError, RunError
from darec.model.adapters import LayerAdapter, adapter_state, load_adapter_state, plan_adapters, unlike
from darec.model.backbone import load_backbone, max_positions, run_backbone
from darec.model.bank import AdapterBank, Adaption, Record
from darec.model.collaborative import SASRec
from darec.model.followers import Followers
from darec.model.injection import Injection
from darec.model.masking import causal_mask, context_mask, hide, intra_item_mask
from darec.model.seen import read_up_to
from darec.model.skip import Skip
from darec.model.trained import load_trained
from darec.model.whitening import whitening
from darec.model.words import WordBags, latent_directions
from darec.runs import part_of, read_run

BACKBONE = "backbone"  # folder of a run


class ScoreTerms(NamedTuple):
    """The signed terms of a score, each [M, C] float over C candidates; the score is their sum."""

    text: Tensor
    collaborative: Tensor
    prior: Tensor
    late: Tensor
    followed: Tensor

    def total(self) -> Tensor:
        """[M, C] the score."""
        return self.without_late() + self.late + self.followed

    def without_late(self) -> Tensor:
        """[M, C] the score without the CF model's own, and without followers."""
        return self.text + self.collaborative + self.prior


@dataclass(frozen=True, eq=False)
class Encoded:
    """One packed forward pass.

    Attributes:
        hidden_states: [R, T, D] last states of the backbone.
        states: [M, D] normalised states at the [ITEM] tokens.
        skipped: [M, F] what goes past the language model, F the features of an item's text; F = 0 where nothing does.
        sequence: [M] int64, the history each belongs to.
        span: [M] int64, its item's position in the window.
        read: [M, W] int64, the items up to it and before the window, -1 where there is none; W = 0 if nothing asks.
        collaborative_states: [M, d] CF state after each item (zeros where there is none).
        kept: [M] bool; false where the history goes without the CF path.
        adaption: weights, and contributions if asked for, of all items of the batch.
    """

    hidden_states: Tensor
    states: Tensor
    skipped: Tensor
    sequence: Tensor
    span: Tensor
    read: Tensor
    collaborative_states: Tensor
    kept: Tensor
    adaption: Record

    def at(self, boundaries: Tensor) -> "Encoded":
        """The same pass, only the boundaries with these numbers in 0..M-1."""
        names = ("states", "skipped", "sequence", "span", "read", "collaborative_states", "kept")
        return replace(self, **{name: getattr(self, name)[boundaries] for name in names})


class DarecModel(nn.Module):
    """The recommender: a frozen backbone with adapters, soft tokens, CF injection and scoring heads.

    Args:
        backbone: a causal language model without adapters; they are attached here.
        tokenizer: its tokenizer.
        catalog: the N items.
        popularity: [N] int; training interactions of each item. Items without any are scored from their text alone.
        settings: everything else.
        plan: adapters in place of those that the settings name, for a bank of more than one run may have.
    """

    known: Tensor
    cold: Tensor
    cold_prior: Tensor
    cold_days: Tensor
    first_taken: Tensor
    newest: Tensor
    item_encodings: Tensor
    temperatures: Tensor
    encoding_mean: Tensor
    encoding_map: Tensor
    item_bags: Tensor

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        catalog: Catalog,
        popularity: np.ndarray,
        settings: Settings,
        plan: list[LayerAdapter] | None = None,
    ):
        super().__init__()
        known = torch.from_numpy(popularity > 0)
        self.settings = settings
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.plan = plan_adapters(backbone.config.num_hidden_layers, settings.adapters) if plan is None else plan
        width = backbone.config.hidden_size
        embeddings = backbone.get_input_embeddings().weight
        scale = float(embeddings.detach().float().std())

        self.soft_tokens = nn.Parameter(torch.randn(len(Soft), width) * scale)
        self.state_norm = nn.LayerNorm(width)
        self.text_projection = nn.Linear(width, width, bias=False)  # W_t
        if settings.sequence.encodings:
            self.encoding_input = nn.Linear(width, width, bias=False)  # t_j as [ITEM] receives it
            nn.init.normal_(self.encoding_input.weight, std=scale / width**0.5)
        self.item_bias = nn.Parameter(torch.zeros(len(catalog)))  # b
        self.title_head = _identity_map(width)
        self.mask_head = _identity_map(width)
        self.collaborative: SASRec | None = None
        self.followers: Followers | None = None
        if settings.collaborative.enabled:
            size = settings.collaborative.hidden_size
            self.collaborative = SASRec(len(catalog), settings.collaborative, known=known)
            self.injection = Injection(size, width, scale)
            self.collaborative_projection = nn.Linear(size, width, bias=False)  # W_v
            self.late_gate = nn.Parameter(torch.ones(()))  # g
            if settings.injection.followers:
                self.followers = Followers(len(catalog), settings.injection.followers)
            # Training starts at the CF model's own ranking, and the short way's, to which the language model adds.
            nn.init.zeros_(self.collaborative_projection.weight)
        nn.init.zeros_(self.text_projection.weight)
        self.register_buffer("known", known.clone())
        self.register_buffer("cold", ~known)  # for which text alone speaks; validation may add those that are new
        self.register_buffer("cold_prior", torch.zeros(()))  # c
        self.register_buffer("cold_days", torch.full((), torch.inf))  # tau
        self.register_buffer("first_taken", torch.zeros(len(catalog), dtype=torch.int64))  # seconds; see `Split`
        self.register_buffer("newest", torch.zeros((), dtype=torch.int64))  # seconds
        self._asked: Tensor | None = None
        self.register_buffer("item_encodings", torch.zeros(len(catalog), width))  # t
        self.register_buffer("temperatures", torch.ones(2))  # T where the CF path is off, and where it is on

        self._full_tokens = self._tokenize(catalog.full_texts, settings.sequence.max_encoding_tokens)
        self._words = WordBags(self._full_tokens) if settings.sequence.encoded_from == "words" else None
        features = width if self._words is None else len(self._words)
        if settings.sequence.skip:
            self.skip = Skip(features)
            bags = None if self._words is None else self._words(self._full_tokens)
            self.register_buffer("item_bags", bags, persistent=False)
        self.register_buffer("encoding_mean", torch.zeros(features))
        self.register_buffer("encoding_map", torch.zeros(features, width))
        self.windows = WindowBuilder(
            item_tokens=self._tokenize(catalog.short_texts, settings.sequence.max_text_tokens),
            tokenize=lambda text: self._tokenize([text], settings.sequence.max_text_tokens)[0],
            max_items=settings.sequence.max_items,
            max_tokens=max_positions(backbone),
            max_collaborative_items=settings.collaborative.max_items,
        )
        # Last of what is drawn at random: whatever the adapters, everything else starts alike.
        collaborative_size = settings.collaborative.hidden_size if settings.collaborative.enabled else 0
        self.bank = AdapterBank(backbone, self.plan, settings.adapters, collaborative_size)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.soft_tokens.device

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation; the frozen backbone always reads without its own dropout."""
        super().train(mode)
        self.backbone.eval()
        for module in self.backbone.modules():
            if isinstance(module, LoraLayer):
                module.train(mode)
        return self

    def asked(self, at: np.ndarray | float | None) -> Self:
        """The same model, over the same weights, asked at that time.

        Args:
            at: seconds since 1970; [n], one for each history that will be given, or one for all. None changes nothing:
                a model is asked at no time that is known, and takes no item for new by its date.
        """
        if at is None:
            return self
        view = copy.copy(self)
        view._asked = torch.as_tensor(at, dtype=torch.float64, device=self.device)
        return view

    # -- reading ------------------------------------------------------------------------------------------------------

    def embed(self, packed: PackedSequences) -> Tensor:
        """[R, T, D]: word embeddings of the backbone, and the soft tokens."""
        words = self.backbone.get_input_embeddings()(packed.input_ids.clamp(min=0))
        soft = self.soft_tokens[(-1 - packed.input_ids).clamp(min=0)]
        return torch.where((packed.input_ids < 0)[:, :, None], soft.to(words.dtype), words)

    def encode(
        self,
        windows: Windows,
        mask: Tensor,
        kept: Tensor,
        item_kept: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Encoded:
        """Read a batch of histories in one packed pass; inside `bank.using`, with adapters as asked there.

        Args:
            windows: the batch, on the model's device.
            mask: [R, T, T] bool: who may look at whom.
            kept: [n] bool; false for histories that go without the whole CF path.
            item_kept: [N] float; 0 for items whose CF embedding is dropped.
            hidden: [R, T] bool; words to hide.
        """
        packed = windows.packed if hidden is None else hide(windows.packed, hidden)
        embeddings = self.embed(packed)
        rows, columns = packed.find(Soft.ITEM)
        sequence, span = packed.sequence[rows, columns], packed.span[rows, columns]
        injected = torch.zeros_like(embeddings)
        if self.settings.sequence.encodings:
            encodings = self._texts_at(self.item_encodings, self.encode_texts, sequence, span, windows, packed, hidden)
            injected[rows, columns] = self.encoding_input(encodings).to(injected.dtype)
        z = embeddings.new_zeros(len(rows), self.settings.collaborative.hidden_size)
        z_before = embeddings.new_zeros(*windows.items.shape, 0)
        if self.collaborative is not None:
            all_states = self.collaborative(windows.collaborative_items)
            z = all_states[sequence, windows.column_of(sequence, span)]
            z_before = all_states.new_zeros(*windows.items.shape, all_states.shape[-1])
            z_before[sequence, span] = all_states[sequence, windows.column_of(sequence, span - 1)]
            items = windows.items[sequence, span]
            v = self.collaborative_embeddings(item_kept)[items.clamp(min=0)] * (items >= 0)[:, None]
            user_rows, user_columns = packed.find(Soft.USER)
            user_sequence = packed.sequence[user_rows, user_columns]
            before = all_states[user_sequence, windows.column_of(user_sequence, torch.full_like(user_sequence, -1))]
            injected[rows, columns] += self.injection.at_items(v, z, kept[sequence]).to(injected.dtype)
            injected[user_rows, user_columns] = self.injection.at_users(before, kept[user_sequence]).to(injected.dtype)
        embeddings = embeddings + injected
        with self.bank.reading(packed, z_before, kept) as record:
            hidden_states = run_backbone(self.backbone, embeddings, mask, packed.position_ids)
        states = self.state_norm(hidden_states[rows, columns].float())
        skipped = states.new_zeros(len(rows), 0)
        if self.settings.sequence.skip:
            skipped = self._skip_at(sequence, span, windows, packed, hidden)
        read = sequence.new_zeros(len(rows), 0)
        if self.followers is not None:
            read = read_up_to(windows.collaborative_items, sequence, windows.column_of(sequence, span))
        return Encoded(hidden_states, states, skipped, sequence, span, read, z, kept[sequence], record())

    def _skip_at(
        self, sequence: Tensor, span: Tensor, windows: Windows, packed: PackedSequences, hidden: Tensor | None
    ) -> Tensor:
        """[M, F]: what goes past the language model, from the window as it is read and from what lies before it."""
        features, read = self._skip_features(), windows.collaborative_items
        encode = self.encode_texts if self._words is None else self._features
        texts, present = features[read.clamp(min=0)], read >= 0
        columns = windows.column_of(sequence, span)
        texts[sequence, columns] = self._texts_at(features, encode, sequence, span, windows, packed, hidden)
        present[sequence, columns] = True
        at = torch.zeros_like(windows.items)
        at[sequence, span] = columns
        return self.skip(texts, present, at)[sequence, span]

    def _skip_features(self) -> Tensor:
        """[N, F]: each item's words, every one for itself, or its encoding where that is not made of words."""
        return self.item_encodings if self._words is None else self.item_bags

    def _texts_at(
        self,
        of_items: Tensor,
        of_texts: Callable[[Sequence[Sequence[int]]], Tensor],
        sequence: Tensor,
        span: Tensor,
        windows: Windows,
        packed: PackedSequences,
        hidden: Tensor | None,
    ) -> Tensor:
        """[M, F]: rows of `of_items`, [N, F], for each [ITEM]; zeros where one of the item's words is hidden.

        For a title that the catalogue has never seen, `of_texts` of its words in the history.
        """
        items = windows.items[sequence, span]
        rows = of_items[items.clamp(min=0)]
        for m in torch.nonzero(items < 0).flatten().tolist():
            words = (packed.sequence == sequence[m]) & (packed.span == span[m]) & (packed.kind == Kind.TEXT)
            rows[m] = of_texts([windows.packed.input_ids[words].tolist()])[0]
        if hidden is not None:
            hides = torch.zeros_like(windows.items, dtype=torch.bool)
            hides[packed.sequence[hidden], packed.span[hidden]] = True
            rows = rows * ~hides[sequence, span][:, None]
        return rows

    @torch.no_grad()
    def refresh_item_encodings(self, batch_size: int = 256) -> None:
        """Encode every item's full text anew: no adapters, no CF, no gradient."""
        order = sorted(range(len(self._full_tokens)), key=lambda item: -len(self._full_tokens[item]))
        features = self.item_encodings.new_zeros(len(order), len(self.encoding_mean))
        for start in range(0, len(order), batch_size):
            items = order[start : start + batch_size]
            features[torch.tensor(items, device=self.device)] = self._features([self._full_tokens[i] for i in items])
        width = self.item_encodings.shape[1]
        held = features[(features != 0).any(dim=1)]
        placed = whitening(held) if self._words is None else latent_directions(F.normalize(held, dim=1), width)
        self.encoding_mean, self.encoding_map = placed
        self.item_encodings = self._place(features)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """[len(texts), D] float32: each text's encoding t, as those of the catalogue; 0 if nothing is known of it."""
        return self._place(self._features(texts))

    def _features(self, texts: Sequence[Sequence[int]]) -> Tensor:
        return self._mean_states(texts) if self._words is None else self._words(texts).to(self.device)

    def _mean_states(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """[len(texts), D] float32: normalised mean state of each text's words under the intra-item mask; 0 if empty."""
        packed = pack_items(texts, max_positions(self.backbone)).to(self.device)
        if packed.input_ids.shape[1] == 0:
            return torch.zeros(len(texts), self.soft_tokens.shape[1], device=self.device)
        embeddings, mask = self.embed(packed), intra_item_mask(packed)
        with self.bank.using(Adaption(switched_off=torch.ones(self.bank.shape, dtype=torch.bool))):
            states = run_backbone(self.backbone, embeddings, mask, packed.position_ids).float()
        words = packed.kind == Kind.TEXT
        sums = states.new_zeros(len(texts), states.shape[-1]).index_add_(0, packed.sequence[words], states[words])
        counts = torch.tensor([max(1, len(text)) for text in texts], device=self.device)
        return F.layer_norm(sums / counts[:, None], sums.shape[-1:]) * (sums != 0).any(dim=1, keepdim=True)

    def _place(self, features: Tensor) -> Tensor:
        if self._words is not None:
            features = F.normalize(features, dim=1)
        placed = F.layer_norm((features - self.encoding_mean) @ self.encoding_map, self.item_encodings.shape[1:])
        return placed * (features != 0).any(dim=1, keepdim=True)

    # -- scoring ------------------------------------------------------------------------------------------------------

    def collaborative_embeddings(self, item_kept: Tensor | None = None) -> Tensor:
        """[N, d] v: zeros for items without training interactions, and for dropped ones."""
        assert self.collaborative is not None
        keep = self.known if item_kept is None else self.known * item_kept
        return self.collaborative.item_embeddings() * keep[:, None]

    def score_terms(
        self, encoded: Encoded, item_kept: Tensor | None = None, candidates: Tensor | None = None
    ) -> ScoreTerms:
        """Score candidates at every boundary.

        Args:
            encoded: the batch as read, M boundaries.
            item_kept: [N] float; 0 for items whose CF embedding and bias are dropped.
            candidates: [C] int64 item indices; the whole catalogue if not given.
        """
        chosen = slice(None) if candidates is None else candidates
        softness = self.temperatures[encoded.kept.long()][:, None]
        states = encoded.states / encoded.states.shape[-1] ** 0.5 / softness
        keep = (~self.cold if item_kept is None else self.known * item_kept)[chosen]
        text = states @ self.text_projection(self.item_encodings[chosen]).T
        if self.settings.sequence.skip:
            text = text + encoded.skipped / softness @ self._skip_features()[chosen].T
        new = self.newness_of_cold(self._asked, self.cold_days)
        lift = self.cold_prior * (new if len(new) == 1 else new[encoded.sequence])[:, chosen]
        prior = (self.item_bias[chosen] * keep + lift) / softness
        if self.collaborative is None:
            nothing = torch.zeros_like(text)
            return ScoreTerms(text, nothing, prior, nothing, nothing)
        v = self.collaborative_embeddings(item_kept)[chosen] * keep[:, None]
        collaborative = states @ self.collaborative_projection(v).T * encoded.kept[:, None]
        own = self.collaborative.score(encoded.collaborative_states)[:, chosen].float()
        # Centred over the known items, so that an item which CF does not know counts as an average one.
        known = ~self.cold[chosen]
        centred = (own - own[:, known].sum(dim=1, keepdim=True) / known.sum().clamp(min=1)) * known
        late = self.late_gate * centred * encoded.kept[:, None] / softness
        followed = torch.zeros_like(text)
        if self.followers is not None and self.followers.trust:
            o = self.followers(encoded.read)[:, chosen] * keep
            followed = self.followers.trust * o * encoded.kept[:, None] / softness
        return ScoreTerms(text, collaborative, prior, late, followed)

    def newness_of_cold(self, asked: Tensor | None, days: Tensor | float) -> Tensor:
        """[n, N] float32 in 0..1, or [1, N] where all are asked alike: see `newness`; 0 for items that are not cold."""
        return newness(asked, self.first_taken, self.known, self.newest, days) * self.cold

    def score_past(
        self, items: Tensor, rows: Tensor, columns: Tensor, item_kept: Tensor, candidates: Tensor | None = None
    ) -> Tensor:
        """[M, C] scores of the short way and the biases alone.

        Args:
            items: [n, W] int64, oldest first, -1 where there is none.
            rows, columns: [M] int64; the items after which to score.
            item_kept: [N] float; 0 for items whose bias is dropped.
            candidates: [C] int64 item indices; the whole catalogue if not given.
        """
        chosen = slice(None) if candidates is None else candidates
        features = self._skip_features()
        asked, place = columns.unique(return_inverse=True)
        spoken = self.skip(features[items.clamp(min=0)], items >= 0, asked.expand(len(items), -1))[rows, place]
        return spoken @ features[chosen].T + (self.item_bias * self.known * item_kept)[chosen]

    def evaluation_mask(self, packed: PackedSequences) -> Tensor:
        """The mask that predictions are made under: context, or causal where context masking is off."""
        return context_mask(packed) if self.settings.masking.enabled else causal_mask(packed)

    def read(self, histories: Sequence[History], *, collaborative: bool = True) -> Encoded:
        """Read histories as they are read for a prediction: nothing hidden, nothing dropped.

        Args:
            histories: none empty.
            collaborative: whether the CF path takes part.
        """
        windows = self.windows.build(histories).to(self.device)
        return self.encode(
            windows, self.evaluation_mask(windows.packed), self.with_collaborative(windows, collaborative)
        )

    def with_collaborative(self, windows: Windows, wanted: bool) -> Tensor:
        """[n] bool: which histories are read with the CF path, if that is wanted: those with an item that CF knows."""
        items = windows.collaborative_items
        return (self.known[items.clamp(min=0)] & (items >= 0)).any(dim=1) & wanted

    def score(self, histories: Sequence[History]) -> np.ndarray:
        """[n, N] float32: each history's scores for the item after its last one; call it in evaluation mode."""
        return self.last_terms(histories).total().float().cpu().numpy()

    def score_without_collaborative(self, histories: Sequence[History]) -> np.ndarray:
        """[n, N] float32: the same with the whole CF path switched off."""
        return self.last_terms(histories, collaborative=False).total().float().cpu().numpy()

    @torch.no_grad()
    def last_terms(self, histories: Sequence[History], *, collaborative: bool = True) -> ScoreTerms:
        """The terms of each history's scores for the item after its last one: n rows, N columns."""
        return self.score_terms(self.read_last(histories, collaborative=collaborative))

    def read_last(self, histories: Sequence[History], *, collaborative: bool = True) -> Encoded:
        """The n boundaries after the histories' last items, in order; without the states of single tokens.

        Args:
            histories: none empty.
            collaborative: whether the CF path takes part.
        """
        encoded = self.read(histories, collaborative=collaborative)
        last = torch.zeros(len(histories), dtype=torch.long, device=self.device)
        last.scatter_reduce_(0, encoded.sequence, torch.arange(len(encoded.sequence), device=self.device), "amax")
        return replace(encoded.at(last), hidden_states=encoded.hidden_states[:0])

    # -- training -----------------------------------------------------------------------------------------------------

    def word_logits(self, head: nn.Module, states: Tensor) -> Tensor:
        """[m, V] logits over the vocabulary: a head of ours before the backbone's own output embeddings."""
        output = self.backbone.get_output_embeddings()
        return output(head(states.float()).to(output.weight.dtype)).float()

    # -- building -----------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        backbone: Path,
        catalog: Catalog,
        popularity: np.ndarray,
        settings: Settings,
        device: str,
        plan: list[LayerAdapter] | None = None,
    ) -> "DarecModel":
        """A model with fresh adapters and heads over the backbone in a folder; adapters of `plan` if given.

        Raises:
            BackboneError, ConfigError: the backbone cannot be read, or does not fit the settings.
        """
        model, tokenizer = load_backbone(backbone, device=device)
        return cls(model, tokenizer, catalog, popularity, settings, plan).to(device)

    @classmethod
    def load(cls, run: str | Path, device: str = "cpu") -> "DarecModel":
        """The trained model of a run, in evaluation mode.

        Raises:
            RunError: the folder is no DARec run, or its files were altered.
        """
        run = Path(run)
        info = read_run(run)
        if info["kind"] != "darec":
            raise RunError(f"{run} holds a {info['kind']}, not a DARec model. Name a run that train or quantize wrote.")
        dataset = Dataset.load(part_of(run, "data"))
        settings = parse_settings(info["settings"])
        model = cls.build(part_of(run, BACKBONE), dataset.catalog, split(dataset).popularity, settings, device)
        model.load_trained_state(load_trained(run, device))
        return model.eval().requires_grad_(False)

    # -- state --------------------------------------------------------------------------------------------------------

    def trained_state(self) -> dict[str, Tensor]:
        """Everything but the backbone's own weights: adapters, soft tokens, heads, CF model, item encodings."""
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("backbone.")}
        return state | {f"backbone.{name}": tensor for name, tensor in adapter_state(self.backbone).items()}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `trained_state` gave.

        Raises:
            ConfigError: a tensor is missing, unknown or of another shape.
        """
        adapters = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
        rest = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}
        load_adapter_state(self.backbone, adapters)
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("backbone.")}
        if differing := unlike(own, rest):
            raise ConfigError(f"Saved weights do not fit the settings: {differing[:3]} differ. Train the run anew.")
        self.load_state_dict(rest, strict=False)

    def _tokenize(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        if not texts:
            return []
        ids = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=max_tokens)["input_ids"]
        return [list(text) for text in ids]


def newness(asked: Tensor | None, first_taken: Tensor, known: Tensor, newest: Tensor, days: Tensor | float) -> Tensor:
    """[n, N] float32 in 0..1, or [1, N] where all are asked alike: how new each item is to each question.

    Nothing is new before it was taken, nor where nobody knows when the question is asked.

    Args:
        asked: [n] float64 or a scalar, seconds; None where nobody knows.
        first_taken: [N] int64, seconds.
        known: [N] bool; whether anybody took it. When another came is not known; it is new to the newest questions.
        newest: seconds; when the newest question known was asked.
        days: in which newness falls to 1 / e; where infinite, everything is new, whenever it is asked.
    """
    always = torch.isinf(torch.as_tensor(days, device=known.device))
    if asked is None:
        return always.float().expand(1, len(known))
    asked = asked.reshape(-1, 1)
    age = torch.where(known, asked - first_taken, (newest - asked).clamp(min=0)) / SECONDS_A_DAY
    return torch.where((age >= 0) | always, torch.exp(-age.float().clamp(min=0) / days), 0.0)


def _identity_map(width: int) -> nn.Linear:
    layer = nn.Linear(width, width, bias=False)
    nn.init.eye_(layer.weight)
    return layer
