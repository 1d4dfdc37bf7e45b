"""Training: the CF model first, then the short way where it has epochs of its own, after which it rests; then all else
jointly, until validation no longer improves.

The weights kept are those with the highest validation NDCG@10, averaged over the CF path switched on and off, among
those that rank no worse than the CF model alone; or, where settings say so, the last ones.

Chance is a function of (seed, epoch, batch) alone: which windows are drawn, what is hidden or dropped. So a training
that was interrupted goes on exactly as it would have gone.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from darec.config import Settings
from darec.data.interactions import Dataset, fingerprint
from darec.data.splits import Split, split
from darec.data.windows import Windows, draw_window
from darec.errors import ConfigError
from darec.model.adapters import LayerAdapter
from darec.model.bank import Adaption
from darec.model.collaborative import SASRec
from darec.model.recommender import BACKBONE, DarecModel
from darec.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from darec.training.collaborative import train_collaborative
from darec.training.collaborative import validation_ndcg as collaborative_ndcg
from darec.training.followers import fit_followers
from darec.training.log import TrainingLog
from darec.training.losses import StepLosses
from darec.training.optimizer import parameter_groups, schedule
from darec.training.output import LOG, check_output, finish_run, write_backbone
from darec.training.shared import Learned, load_learned, save_learned, shared_path
from darec.training.short_way import train_short_way
from darec.training.tuning import choose_late_gate, numbers_restored, read_cases, tune, validation_ndcg


@dataclass(frozen=True, eq=False)
class Paths:
    """A bank of more adapters than a run has, of which each step trains a part: how a weight-sharing net is trained.

    Attributes:
        plan: all adapters of the bank, in place of those that the settings name.
        draw: epoch and batch, both from 0 -> the part of that step; a function of these two alone.
        reference: the part that is validated, always the same, so that validations compare.
    """

    plan: list[LayerAdapter]
    draw: Callable[[int, int], Adaption]
    reference: Adaption


def train(
    data: Path,
    out: Path,
    settings: Settings,
    *,
    backbone: str | None,
    seed: int = 0,
    resume: bool = False,
    device: str | None = None,
    paths: Paths | None = None,
    shared: Path | None = None,
) -> Path:
    """Train DARec and write a run.

    Args:
        data: a folder with the normalised pair.
        out: the run to make; an unfinished one when `resume`.
        settings: everything else.
        backbone: hub name or folder; None where `settings.backbone.tiny`.
        seed: of every draw; the same seed twice gives the same run on the same device.
        resume: go on where an interrupted training into `out` stopped.
        device: `cpu`, `cuda`, or None for a GPU where there is one.
        paths: a bank to train in parts; the run then is of kind `supernet`, for search alone.
        shared: a folder of CF models, from which trainings that would come to the same one take it (`shared.py`).

    Returns:
        `out`, holding run.json, model.safetensors, encodings/, backbone/, data/, metrics.jsonl and a manifest.

    Raises:
        DataError, ConfigError, BackboneError, RunError: with the remedy; nothing in `out` is lost.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    data, out = Path(data), Path(out)
    check_output(out, resume)
    dataset = Dataset.load(data)
    parts = split(dataset)
    identity = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "data": fingerprint(data),
        "backbone": backbone or "tiny",
    }
    checkpoint = load_checkpoint(out, identity) if resume else None

    out.mkdir(parents=True, exist_ok=True)
    if checkpoint is None:
        shutil.rmtree(out / BACKBONE, ignore_errors=True)  # of a training that did not come to its first checkpoint
        write_backbone(out / BACKBONE, backbone, dataset, settings, seed, device)
    torch.manual_seed(seed)
    plan = None if paths is None else paths.plan
    model = DarecModel.build(out / BACKBONE, dataset.catalog, parts.popularity, settings, device, plan)
    progress = checkpoint[0] if checkpoint else Progress()
    with TrainingLog(out / LOG, keep_bytes=progress.log_bytes) as log:
        chosen = parts.sample(settings.training.users, seed)
        trainer = _Trainer(model, chosen, settings, identity, seed, device, out, log, paths, shared)
        best = trainer.run(checkpoint)
    model.load_trained_state({name: tensor.to(device) for name, tensor in best.items()})
    model.eval()
    progress = trainer.progress
    size = settings.training.evaluation_batch_size
    with model.bank.using(paths.reference if paths else Adaption()):
        if paths is None:
            validation = tune(model, chosen.valid, size, parts.new_items, parts.first_taken)
        else:
            validation = {"ndcg@10": validation_ndcg(model, chosen.valid, size), "users": len(chosen.valid)}
            if model.collaborative is not None:
                validation["ndcg@10_cf_off"] = validation_ndcg(model, chosen.valid, size, collaborative=False)
    if model.collaborative is not None:
        validation["collaborative_alone_ndcg@10"] = progress.collaborative
    finish_run(out, dataset, model, progress, identity, validation, device, kind="supernet" if paths else "darec")
    return out


class _Trainer:
    """The joint training of one run; `progress` tells how far it is."""

    def __init__(
        self,
        model: DarecModel,
        parts: Split,
        settings: Settings,
        identity: dict[str, Any],
        seed: int,
        device: str,
        out: Path,
        log: TrainingLog,
        paths: Paths | None,
        shared: Path | None,
    ):
        self.model, self.parts, self.settings, self.seed, self.device = model, parts, settings, seed, device
        self.identity, self.out, self.log, self.paths, self.shared = identity, out, log, paths, shared
        self.progress = Progress()
        self.latest: dict[str, float] = {}  # figures of the last validation, for the display
        self.users = [history for history in parts.train if len(history) > 1]
        self.validation = parts.valid.sample(settings.training.validation_users, seed)
        training = settings.training
        AcceleratorState._reset_state(reset_partial_state=True)  # else an earlier training's precision and device bind
        self.accelerator = Accelerator(
            mixed_precision=precision_for(training.precision, device),
            gradient_accumulation_steps=training.accumulation_steps,
            cpu=device == "cpu",
        )
        if self.accelerator.num_processes > 1:
            raise ConfigError(
                f"Training runs in one process; it was started in {self.accelerator.num_processes}. "
                "Start it with `python -m darec train`, without a launcher."
            )
        self.has_short_way = settings.sequence.skip and settings.short_way.epochs > 0
        if self.has_short_way:
            model.skip.requires_grad_(False)  # from its own training on
        self.batches = math.ceil(len(self.users) / training.batch_size)
        steps = math.ceil(self.batches / training.accumulation_steps) * training.epochs
        optimizer = torch.optim.AdamW(parameter_groups(model, settings))
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: schedule(step, steps, training.warmup_share)
        )
        self.losses, self.optimizer, self.scheduler = self.accelerator.prepare(StepLosses(model), optimizer, scheduler)

    def run(self, checkpoint: tuple[Progress, dict[str, Any], dict[str, Tensor]] | None) -> dict[str, Tensor]:
        """Train to the end and return the trained weights to keep."""
        if checkpoint is None:
            self._train_collaborative()
            self.model.refresh_item_encodings()
            self._train_short_way()
            self.best = self._copy_of_weights()
            self._save()
        else:
            self.progress, states, self.best = checkpoint
            self.model.load_trained_state(states["model"])
            self.optimizer.load_state_dict(states["optimizer"])
            self.scheduler.load_state_dict(states["scheduler"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(states["scaler"])
        training = self.settings.training
        self.log.open_bar(
            "training",
            self.batches * training.epochs,
            self.progress.epoch * self.batches + self.progress.batch,
            "batch",
        )
        while self.progress.epoch < training.epochs and self.progress.validations_since_best < training.patience:
            self._train_epoch()
            self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
            validates = self.progress.epoch % training.validate_every == 0 or self.progress.epoch == training.epochs
            if validates:
                with self._using_reference():
                    self._validate()
            self._save()
        self.log.close_bar()
        if training.keep == "last":
            self.best, self.progress.best_epoch = self._copy_of_weights(), self.progress.epoch
        return self.best

    def _train_collaborative(self) -> None:
        if self.model.collaborative is not None:
            settings = self.settings.collaborative
            self.log.open_bar("CF model", settings.epochs, 0, "epoch")
            learned = self._learn_collaborative(self.model.collaborative)
            self.progress.collaborative = learned.ndcg
            self.progress.seconds += sum(event["seconds"] for event in learned.events)
            start = time.perf_counter()
            self.progress.reference = collaborative_ndcg(
                self.model.collaborative, self.validation, settings.max_items, self.device
            )
            if self.model.followers is not None:
                self.model.followers.keep(*fit_followers(self.parts, settings.max_items, self.device))
            self.model.collaborative.zero_grad()  # its last gradients must not enter the first joint step
            self.progress.seconds += time.perf_counter() - start

    def _learn_collaborative(self, model: SASRec) -> Learned:
        """The CF model's own training, unless another one has shared what comes of it."""
        settings = self.settings.collaborative
        identity = {name: self.identity[name] for name in ("data", "seed")} | {
            "settings": settings.model_dump(mode="json"),
            "users": self.settings.training.users,
            "device": self.device,
        }
        path = shared_path(self.shared, identity, model.state_dict()) if self.shared else None
        if path and path.is_file():
            learned = load_learned(path)
            for event in learned.events:
                self._log_epoch(event)
            model.load_state_dict(learned.state)
            model.eval()
            return learned
        events: list[dict[str, Any]] = []

        def keep(event: dict[str, Any]) -> None:
            events.append(event)
            self._log_epoch(event)

        ndcg = train_collaborative(model, self.parts, settings, seed=self.seed, device=self.device, on_epoch=keep)
        learned = Learned(model.state_dict(), events, ndcg)
        if path:
            save_learned(path, learned)
        return learned

    def _train_short_way(self) -> None:
        if self.has_short_way:
            self.log.open_bar("short way", self.settings.short_way.epochs, 0, "epoch")
            start = time.perf_counter()
            train_short_way(self.losses, self.parts, seed=self.seed, on_epoch=self._log_epoch)
            self.progress.seconds += time.perf_counter() - start

    def _log_epoch(self, event: dict[str, Any]) -> None:
        self.log.write(**event)
        self.log.advance(loss=event["loss"], ndcg=event["ndcg@10"])

    def _train_epoch(self) -> None:
        training = self.settings.training
        self.losses.train()
        saved = time.perf_counter()
        for windows in self._batches():
            start = time.perf_counter()
            # Dropout draws from the global generator; seeding it anew makes each step independent of those before it.
            torch.manual_seed(_mix(self.seed, self.progress.epoch, self.progress.batch))
            generator = torch.Generator().manual_seed(_mix(self.seed, self.progress.epoch, self.progress.batch, 1))
            with self._using_part(self.progress.batch):
                losses = self.losses(windows.to(self.device), generator)
            self.progress.batch += 1
            # Accelerate's own counter would run on from epoch to epoch, and begin anew when training is resumed.
            is_last = self.progress.batch == self.batches
            self.accelerator.sync_gradients = is_last or self.progress.batch % training.accumulation_steps == 0
            if not torch.isfinite(losses["loss"]):
                raise ConfigError(
                    f"The loss must stay finite; in epoch {self.progress.epoch + 1} it became "
                    f"{losses['loss'].item()}. Lower training.learning_rate, or set training.precision=fp32."
                )
            self.accelerator.backward(losses["loss"])
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.losses.parameters(), training.gradient_clip)
            self.optimizer.step()  # this and the next two wait until the gradients of all batches of a step are there
            self.scheduler.step()
            self.optimizer.zero_grad()
            seconds = time.perf_counter() - start
            self.progress.seconds += seconds
            values = {name: round(loss.item(), 6) for name, loss in losses.items()}
            tokens = int((windows.packed.sequence >= 0).sum())
            rate = self.scheduler.get_last_lr()[0]
            self.log.write(
                stage="training",
                epoch=self.progress.epoch + 1,
                step=self.progress.epoch * self.batches + self.progress.batch,
                **values,
                learning_rate=rate,
                tokens=tokens,
                cut_items=int(windows.packed.cut_items.sum()),
                seconds=round(seconds, 4),
            )
            self.log.advance(loss=values["loss"], **self.latest)
            overdue = time.perf_counter() - saved > 60 * training.checkpoint_minutes
            if overdue and self.accelerator.sync_gradients:
                self._save()
                saved = time.perf_counter()

    def _using_part(self, batch: int) -> AbstractContextManager[None]:
        """Where a bank is trained in parts, the one of this epoch's batch."""
        if self.paths is None:
            return nullcontext()
        return self.model.bank.using(self.paths.draw(self.progress.epoch, batch))

    def _using_reference(self) -> AbstractContextManager[None]:
        return nullcontext() if self.paths is None else self.model.bank.using(self.paths.reference)

    def _batches(self) -> Iterator[Windows]:
        """What is left of this epoch: one random window a user, users in random order."""
        epoch, size = self.progress.epoch, self.settings.training.batch_size
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.users))

        def build(number: int) -> Windows:
            random = np.random.default_rng([self.seed, epoch, number])
            users = order[number * size :][:size]
            drawn = [draw_window(self.users[user], self.settings.sequence.max_items, random) for user in users]
            return self.model.windows.build([items.tolist() for items, _ in drawn], [item for _, item in drawn])

        return (build(number) for number in range(self.progress.batch, self.batches))

    def _validate(self) -> None:
        start = time.perf_counter()
        size = self.settings.training.evaluation_batch_size
        with numbers_restored(self.model):
            figures = {"ndcg@10": choose_late_gate(self.model, read_cases(self.model, self.validation, size))}
            value = figures["ndcg@10"]
            if self.model.collaborative is not None:
                cf_off = validation_ndcg(self.model, self.validation, size, collaborative=False)
                figures |= {"ndcg@10_cf_off": cf_off, "late_gate": self.model.late_gate.item()}
                # Late in training the full figure hardly moves while the text path still learns: both count. What the
                # language model spoils of the CF model's ranking comes after all that it does not.
                value = (value + cf_off) / 2 - (value < self.progress.reference)
            self.progress.validations_since_best += 1
            if value > self.progress.best:
                self.progress.best, self.progress.best_epoch = value, self.progress.epoch
                self.progress.validations_since_best = 0
                self.best = self._copy_of_weights()
        self.latest = {name: value for name, value in figures.items() if name.startswith("ndcg")}
        self.log.write(
            stage="validation",
            epoch=self.progress.epoch,
            step=self.progress.epoch * self.batches,
            **figures,
            users=len(self.validation),
            seconds=round(time.perf_counter() - start, 2),
        )

    def _copy_of_weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.trained_state().items()}

    def _save(self) -> None:
        self.progress.log_bytes = self.log.size()
        states = {
            "model": self._copy_of_weights(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
        }
        save_checkpoint(self.out, self.progress, self.identity, states, self.best)


def precision_for(wanted: str, device: str) -> str:
    """The mixed precision `no`, `bf16` or `fp16` that a setting comes to on a device; auto: bf16 where it has it."""
    if wanted == "fp16" and device == "cpu":
        raise ConfigError("Training in fp16 needs a GPU; the device is cpu. Set training.precision=auto.")
    if wanted == "auto":
        on_gpu = device.startswith("cuda")
        return "bf16" if (torch.cuda.is_bf16_supported() if on_gpu else _cpu_computes_bf16()) else "no"
    return "no" if wanted == "fp32" else wanted


def _cpu_computes_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; where it does not, emulation is slower than float32."""
    features: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))


def _mix(*numbers: int) -> int:
    """One 63-bit seed out of several numbers."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))
