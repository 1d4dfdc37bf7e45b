"""The shipped demo, made anew from plain text: world, backbone, DARec and what it is compared with, in 4 bits.

Every step leaves a finished folder in the scratch folder, and a chain that was interrupted goes on after the last of
them, if it is asked for the same. At the end what is shipped lies in one folder: runs that share a backbone and a data
set, each with its rank file, and a model card whose every figure was computed on the way.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from darec.baselines import TRAINED_BY_GRADIENT, default_settings, write_baseline_run
from darec.config import CollaborativeSettings, Settings, load_settings, parse_settings
from darec.data.catalog import Catalog
from darec.data.demo.freeze import WORLD
from darec.data.demo.truth import CONSTANTS, Oracle, Truth
from darec.data.interactions import NOTE, Dataset
from darec.data.sources import prepare
from darec.data.splits import split
from darec.errors import ConfigError
from darec.evaluation.protocol import rank_cases
from darec.model.recommender import BACKBONE
from darec.model.trained import ENCODINGS
from darec.model_card import CEILING, TWIN, VARIANTS, WHOLE, describe, make_card
from darec.runs import (
    MANIFEST,
    hold_to,
    read_run,
    share_parts,
    write_manifest,
    writing_file,
    writing_folder,
)
from darec.search.chain import is_begun, search
from darec.search.space import KINDS, Architecture
from darec.serving import Recommender
from darec.training.loop import train
from darec.training.output import LOG
from darec.training.pretrain import PretrainSettings, load_pretrain_settings, pretrain
from darec.training.quantize import quantize_run
from darec.training.shared import SHARED

CARD, README, RANKS = "card.json", "README.md", "ranks-test.parquet"
TOKENIZER = "tokenizer.json"
MINI = "darec-mini"  # the folder that the backbone is pretrained in, after which it is called
UNSEARCHED = "without-dynamic-adaption"  # the same LoRA in every layer, and weights that stay equal
TRAININGS = {name: changes for name, (_, changes) in VARIANTS.items()} | {TWIN: ("backbone.random_init=true",)}
SHIPPED_BASELINES = ("sasrec", "popularity")
OTHER_BASELINES = ("sasrec_text", "text_neighbours", "itemknn")
_RANDOM_TRIALS = 300  # the pool that a search is held against
# Adapters are there to be looked at, so every layer gets some: where it may, a search leaves most layers without.
_KINDS = tuple(name for name in KINDS if name != "none")
_TINY_USERS = 60
_TINY = ("training.epochs=1", "training.patience=1", "collaborative.epochs=1", "sequence.max_items=4")


@dataclass(frozen=True)
class Chain:
    """One rebuilding.

    Attributes:
        scratch: where the steps leave their folders.
        corpora: the list of texts to pretrain on, beside the catalogue; see `pretrain`.
        backbone: a finished backbone to use instead of pretraining one.
        seed: of every step.
        only: of what the shipped DARec is compared with, beside SASRec and popularity, what to make; None makes all.
        trials: of a search for the adapters that DARec and its variants get; 0 gives every layer LoRA of one size.
        tiny: everything as small as it goes, to see that the chain holds together.
        on_step: told the name of each step that begins.
    """

    scratch: Path
    corpora: Path | None = None
    backbone: Path | None = None
    seed: int = 0
    only: tuple[str, ...] | None = None
    trials: int = 0
    tiny: bool = False
    on_step: Callable[[str], None] = print

    def run(self, out: Path) -> dict[str, Any]:
        """Go through all steps that are not done, and write the shipped folder.

        Returns:
            the content of its card.json.

        Raises:
            RunError: the scratch folder was begun with another request.
            DarecError: of the step that failed; what was finished stays, and is not made again.
        """
        known = (*VARIANTS, TWIN, *OTHER_BASELINES)
        if unknown := set(self.only or ()) - set(known):
            raise ConfigError(f"There is no comparison {sorted(unknown)[0]!r}. Known: {', '.join(known)}.")
        wanted = {"darec", *SHIPPED_BASELINES, *(known if self.only is None else self.only)}
        hold_to(self.scratch, self._request())
        data = self._step("data", self._prepare, done=NOTE)
        backbone = self.backbone or self._step(MINI, lambda folder: self._pretrain(folder, data))
        layers = self._search(data, backbone) if self.trials else None
        trained = {
            name: self._train(name, changes, layers, data, backbone)
            for name, changes in TRAININGS.items()
            if name in wanted
        }
        twin = {TWIN: trained.pop(TWIN)} if TWIN in trained else {}
        baselines = {
            name: self._baseline(name, data, backbone)
            for name in (*SHIPPED_BASELINES, *OTHER_BASELINES)
            if name in wanted
        }
        shipped = {name: self._quantize(name, run) for name, run in trained.items()}
        shipped |= {name: baselines[name] for name in SHIPPED_BASELINES}
        compared = shipped | baselines | {WHOLE: trained["darec"]} | twin
        ranks = {name: self._rank(name, run) for name, run in compared.items()}
        if (data / CONSTANTS).is_file():
            ranks[CEILING] = rank_cases(Oracle(Truth.load(data)), split(Dataset.load(data)), "test")
        card = make_card(ranks, shipped, backbone, data, self.seed)
        write_shipped(out, shipped, card)
        return card

    def _request(self) -> dict[str, Any]:
        """All that the steps depend on; which of them are wanted may change."""
        return {
            "size": "tiny" if self.tiny else "full",
            "seed": self.seed,
            "backbone": self.backbone and str(self.backbone.resolve()),
            "corpora": self.corpora and str(self.corpora.resolve()),
            "number of trials": self.trials,
            "number of random trials": self._random_trials,
            "kinds": list(_KINDS),
            "world": json.loads(WORLD.read_text(encoding="utf-8"))["interactions_sha256"],
            "settings": {
                "backbone": self._pretrain_settings().model_dump(mode="json"),
                **{name: self._settings(changes).model_dump(mode="json") for name, changes in TRAININGS.items()},
                **{name: self._baseline_settings(name).model_dump(mode="json") for name in TRAINED_BY_GRADIENT},
            },
        }

    @property
    def _random_trials(self) -> int:
        return self.trials if self.tiny else min(1, self.trials) * _RANDOM_TRIALS

    def _step(self, name: str, make: Callable[[Path], object], done: str = MANIFEST) -> Path:
        folder = self.scratch / name
        if not (folder / done).is_file():
            self.on_step(name)
            if not (folder / LOG).is_file():
                shutil.rmtree(folder, ignore_errors=True)  # of a training that had not come to its log
            make(folder)
        return folder

    def _prepare(self, folder: Path) -> None:
        if not self.tiny:
            prepare("demo", folder)
            return
        whole = self._step("whole-data", lambda path: prepare("demo", path), done=NOTE)
        dataset = Dataset.load(whole)
        users = dataset.interactions["user_id"].drop_duplicates()[:_TINY_USERS]
        kept = dataset.interactions[dataset.interactions["user_id"].isin(users)].reset_index(drop=True)
        with writing_folder(folder) as temporary:
            watched = dataset.catalog.items["item_id"].isin(kept["item_id"])
            catalog = Catalog(dataset.catalog.items[watched].reset_index(drop=True))
            Dataset(catalog, kept, dataset.note).save(temporary)

    def _pretrain(self, folder: Path, data: Path) -> None:
        resume = (folder / LOG).is_file()
        titles, settings = data / "items.parquet", self._pretrain_settings()
        pretrain([data], folder, settings, corpora=self.corpora, titles=titles, seed=self.seed, resume=resume)

    def _pretrain_settings(self) -> PretrainSettings:
        return load_pretrain_settings("tiny" if self.tiny else "mini")

    def _settings(self, changes: tuple[str, ...] = ()) -> Settings:
        return load_settings("demo", overrides=(*changes, *(_TINY if self.tiny else ())))

    def _search(self, data: Path, backbone: Path) -> Architecture:
        """Search adapters; the run that comes of it is the DARec of the chain."""

        def make(folder: Path) -> None:
            search(
                data,
                folder,
                self._settings(),
                backbone=str(backbone),
                trials=self.trials,
                random_trials=self._random_trials,
                users=16 if self.tiny else 256,
                k=1 if self.tiny else 3,
                kinds=_KINDS,
                seed=self.seed,
                resume=is_begun(folder),
                device="cpu",
                shared=self.scratch / SHARED,
            )

        layers = parse_settings(read_run(self._step("darec", make))["settings"]).adapters.layers
        assert layers is not None  # a search's winner names its own
        return layers

    def _train(
        self, name: str, changes: tuple[str, ...], layers: Architecture | None, data: Path, backbone: Path
    ) -> Path:
        settings = self._settings(changes)
        if settings.adapters.enabled and name != UNSEARCHED:
            adapters = settings.adapters.model_copy(update={"layers": layers})
            settings = settings.model_copy(update={"adapters": adapters})

        def make(folder: Path) -> None:
            resume = (folder / LOG).is_file()
            train(
                data,
                folder,
                settings,
                backbone=str(backbone),
                seed=self.seed,
                resume=resume,
                device="cpu",
                shared=self.scratch / SHARED,
            )

        return self._step(name, make)

    def _baseline(self, name: str, data: Path, backbone: Path) -> Path:
        settings = self._baseline_settings(name)
        return self._step(
            name,
            lambda folder: write_baseline_run(
                name, data, folder, seed=self.seed, settings=settings, backbone=str(backbone)
            ),
        )

    def _baseline_settings(self, name: str) -> CollaborativeSettings:
        """SASRec with the preset's own settings, for as many epochs as it wants; others read as many items as it."""
        settings, preset = default_settings(name), self._settings().collaborative
        if name == "sasrec":
            settings = preset.model_copy(update={"epochs": settings.epochs})
        settings = settings.model_copy(update={"max_items": preset.max_items})
        return settings.model_copy(update={"epochs": 1}) if self.tiny else settings

    def _quantize(self, name: str, run: Path) -> Path:
        return self._step(f"{name}-4bit", lambda folder: quantize_run(run, folder, name=VARIANTS[name][0]))

    def _rank(self, name: str, run: Path) -> pd.DataFrame:
        if not (run / RANKS).is_file():
            self.on_step(f"rank all items by {name}")
            recommender = Recommender.load(run)
            ranks = rank_cases(recommender.scorer, recommender.split, "test")
            with writing_file(run / RANKS) as temporary:
                ranks.to_parquet(temporary, index=False)
        return pd.read_parquet(run / RANKS)


def write_shipped(out: Path, shipped: dict[str, Path], card: dict[str, Any]) -> None:
    """Put the runs and the card into one folder, parts that are alike once, with a manifest over all of it."""
    with writing_folder(out, replace=True) as folder:
        for name, run in shipped.items():
            left_out = (RANKS,) if name == "darec" else (RANKS, LOG)  # one training's log is enough to look at
            shutil.copytree(run, folder / name, ignore=shutil.ignore_patterns(*left_out))
            if (tokenizer := folder / name / BACKBONE / TOKENIZER).is_file():
                words = json.loads(tokenizer.read_text(encoding="utf-8"))  # without its indents half as large
                tokenizer.write_text(json.dumps(words, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
            write_manifest(folder / name)
            pd.read_parquet(run / RANKS).to_parquet(
                folder / name / RANKS, index=False, compression="zstd", compression_level=19
            )
        share_parts(folder, (BACKBONE, "data", ENCODINGS))
        (folder / CARD).write_text(json.dumps(card), encoding="utf-8")
        (folder / README).write_text(describe(card), encoding="utf-8")
        write_manifest(folder)
