"""Pretraining: a small Llama with a tokenizer of its own, learned from plain text.

Documents are shuffled anew in every epoch and read in rows, see `text_rows`, whose symbols stand here too. There is no
dropout, so a step depends on seed and step number alone, and a training that was interrupted goes on exactly as it
would have gone.
"""

import json
import math
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from darec.config import Section
from darec.data.corpus import Corpus, read_corpora, read_titles
from darec.data.download import find_source
from darec.data.interactions import NOTE
from darec.errors import ConfigError
from darec.model.backbone import learn_tokenizer, save_backbone
from darec.runs import provenance, write_json
from darec.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from darec.training.log import TrainingLog
from darec.training.loop import precision_for
from darec.training.optimizer import schedule
from darec.training.output import LOG, check_output, close_run
from darec.training.text_rows import TextLoss, encode_documents, hold_out, measure_loss, pack_rows, read_rows

REPORT = "pretrain.json"
CARD = "README.md"
_OWN = {"demo": ("The demo catalogue of this project", "those of this repository, MIT")}  # source -> title and terms
_NF4_BLOCK = 64  # bitsandbytes stores a row of weights in blocks of so many


class PretrainSettings(Section):
    """Shape of the model and its training; the defaults take about four hours on a CPU core for texts of 6 M tokens."""

    vocab_size: int = Field(12_000, ge=300)  # V, at most; a small corpus gives fewer
    hidden_size: int = Field(256, ge=1)
    num_layers: int = Field(6, ge=1)
    num_heads: int = Field(4, ge=1)
    num_key_value_heads: int = Field(2, ge=1)  # queries share keys and values: smaller maps for the same width
    intermediate_size: int = Field(512, ge=1)
    context: int = Field(512, ge=8)  # T: the most the model will read at once
    epochs: float = Field(3.0, gt=0)  # times every training document is read; may be a fraction
    max_minutes: float | None = Field(None, gt=0)  # all is over by then; the learning rate falls accordingly faster
    batch_size: int = Field(8, ge=1)  # rows a step
    learning_rate: float = Field(2e-3, gt=0)
    warmup_share: float = Field(0.05, ge=0, le=1)  # of all steps
    weight_decay: float = Field(0.1, ge=0)  # of matrices
    gradient_clip: float = Field(1.0, gt=0)  # norm
    heldout_share: float = Field(0.01, gt=0, lt=1)  # of the documents of each corpus, at least one
    checkpoint_minutes: float = Field(5.0, gt=0)  # at most so much is lost when interrupted
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the device computes it in hardware

    @model_validator(mode="after")
    def _widths_must_fit(self) -> Self:
        for name in ("hidden_size", "intermediate_size"):
            if getattr(self, name) % _NF4_BLOCK:
                raise ValueError(
                    f"{name} must be a multiple of {_NF4_BLOCK}, or the model could not be stored in 4 bits; "
                    f"got {getattr(self, name)}"
                )
        if self.hidden_size % (2 * self.num_heads):  # a head's width is even: rotary positions turn pairs
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of twice num_heads {self.num_heads}")
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads {self.num_heads} must be a multiple of num_key_value_heads {self.num_key_value_heads}"
            )
        return self


PRESETS = {
    "mini": PretrainSettings(),
    "mini-gpu": PretrainSettings(  # about 25 M parameters
        hidden_size=512, num_layers=8, num_heads=8, num_key_value_heads=4, intermediate_size=1024, batch_size=32
    ),
    "tiny": PretrainSettings(  # seconds: first steps and tests
        vocab_size=512,
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        num_key_value_heads=1,
        intermediate_size=128,
        context=64,
        epochs=1,
        learning_rate=5e-3,
    ),
}


def load_pretrain_settings(preset: str = "mini", overrides: Sequence[str] = ()) -> PretrainSettings:
    """A preset, then `key=value` overrides.

    Raises:
        ConfigError: an unknown preset or key, or a value out of range.
    """
    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset {preset!r}. Known: {', '.join(PRESETS)}.")
    values = PRESETS[preset].model_dump()
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"A setting is given as key=value, for example epochs=3; got {override!r}.")
        if key.strip() not in values:
            raise ConfigError(f"There is no setting {key.strip()}. Known: {', '.join(values)}.")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text  # a bare word is a string
    try:
        return PretrainSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ConfigError(f"{first['msg'].removeprefix('Value error, ')}.") from None
        raise ConfigError(f"Setting {first['loc'][0]}: {first['msg']}; got {first['input']!r}.") from None


def pretrain(
    text: Sequence[Path],
    out: Path,
    settings: PretrainSettings,
    *,
    corpora: Path | None = None,
    titles: Path | None = None,
    seed: int = 0,
    resume: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Learn a tokenizer and a language model from text, and write both as one Hugging Face model folder.

    Args:
        text: files to learn from, or prepared folders: of those, title and terms are what their prepared.json says.
        out: the folder to make; an unfinished one when `resume`.
        settings: shape and training.
        corpora: a list of further files with their titles and terms, see `read_corpora`.
        titles: a catalogue, or a text file with a title a line, on which bits per byte are reported as well.
        seed: of the first weights, the held-out documents and the order of the others.
        resume: go on where an interrupted training into `out` stopped.
        device: `cpu` or `cuda`.

    Returns:
        what pretrain.json holds. Beside it `out` has the model, its tokenizer, README.md (the model card),
        metrics.jsonl and a manifest.

    Raises:
        DataError, ConfigError, RunError: with the remedy; nothing in `out` is lost.
    """
    check_output(out, resume)
    sources = read_corpora(text, corpora)
    listed = len(sources) - len(text)
    sources[listed:] = [describe_source(source, path) for source, path in zip(sources[listed:], text, strict=True)]
    title_texts = None if titles is None else read_titles(titles)
    training, heldout = hold_out(sources, settings.heldout_share, seed)
    identity = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "text": [source.sha256 for source in sources],
    }
    checkpoint = load_checkpoint(out, identity) if resume else None
    if checkpoint is None:
        out.mkdir(parents=True, exist_ok=True)
        _tell(f"Learning a tokenizer from {len(training):,} documents.")
        tokenizer = learn_tokenizer(training, settings.vocab_size)
        tokenizer.model_max_length = settings.context
        tokenizer.save_pretrained(out)
    else:
        tokenizer = AutoTokenizer.from_pretrained(out)

    documents = encode_documents(tokenizer, training)
    model = build_model(tokenizer, settings, seed).to(device)
    tokens, parameters = sum(map(len, documents)), count_parameters(model)
    _tell("{total:,} parameters, of them {layers:,} in the layers, {embeddings:,} in embeddings.".format(**parameters))
    _tell(f"{tokens:,} tokens an epoch, a vocabulary of {len(tokenizer):,}.")
    with TrainingLog(out / LOG, keep_bytes=checkpoint[0].log_bytes if checkpoint else 0) as log:
        progress, tokens_read = _train(model, documents, settings, identity, seed, device, out, log, checkpoint)

    _tell("Measuring on held-out documents.")
    models = {"model": model.eval(), "untrained": build_model(tokenizer, settings, seed).to(device).eval()}
    losses = {
        name: {title: measure_loss(each, tokenizer, texts, settings.batch_size) for title, texts in heldout.items()}
        for name, each in models.items()
    }
    report = {
        "name": out.name,
        "parameters": parameters,
        "vocabulary": len(tokenizer),
        "settings": identity["settings"],
        "seed": seed,
        "corpora": [
            {
                "file": source.file,
                "title": source.title,
                "terms": source.terms,
                "bytes": source.bytes,
                "sha256": source.sha256,
                "documents": len(source.documents),
                "heldout_documents": len(texts),
                "heldout_bits_per_byte": {name: losses[name][source.title].bits_per_byte for name in models},
            }
            for source, texts in zip(sources, heldout.values(), strict=True)
        ],
        "training": {
            "documents": len(training),
            "tokens_per_epoch": tokens,
            "tokens_read": tokens_read,
            "steps": progress.batch,
            "minutes": round(progress.seconds / 60, 1),
            "threads": torch.get_num_threads(),
            "precision": precision_for(settings.precision, device),
        },
        "heldout": {name: sum(by_corpus.values(), TextLoss()).summary() for name, by_corpus in losses.items()},
        "titles": {
            name: measure_loss(each, tokenizer, title_texts, settings.batch_size).summary()
            for name, each in models.items()
            if title_texts
        },
        "provenance": provenance(device),
    }
    save_backbone(model.cpu(), tokenizer, out)
    (out / CARD).write_text(describe_model(report), encoding="utf-8")
    write_json(out / REPORT, report)
    close_run(out)
    return report


def _train(
    model: LlamaForCausalLM,
    documents: Sequence[np.ndarray],
    settings: PretrainSettings,
    identity: dict[str, Any],
    seed: int,
    device: str,
    out: Path,
    log: TrainingLog,
    checkpoint: tuple[Progress, dict[str, Any], dict[str, Tensor]] | None,
) -> tuple[Progress, int]:
    """Train to the end; return how far that was, and how many tokens were predicted."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)
    progress, tokens_read = Progress(), 0
    if checkpoint is not None:
        progress, states, _ = checkpoint
        model.load_state_dict(states["model"])
        optimizer.load_state_dict(states["optimizer"])
        tokens_read = states["tokens_read"]

    def save() -> None:
        progress.log_bytes = log.size()
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "tokens_read": tokens_read}
        save_checkpoint(out, progress, identity, states, best={})

    if checkpoint is None:
        save()
    model.train()
    in_bf16 = precision_for(settings.precision, device) == "bf16"
    steps = max(1, round(settings.epochs * _steps_per_epoch(documents, settings)))
    log.open_bar("pretraining", steps, progress.batch, "step")
    saved = time.perf_counter()
    for rows in _draw_batches(documents, settings, seed, progress.batch):
        start = time.perf_counter()
        place = progress.batch  # on the way of the learning rate
        if settings.max_minutes is not None:
            place = max(place, int(steps * progress.seconds / (60 * settings.max_minutes)))
        if place >= steps:
            break
        rate = settings.learning_rate * schedule(place, steps, settings.warmup_share)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=in_bf16):
            summed, targets = read_rows(model, rows.to(device))
        value = summed.item() / targets
        if not math.isfinite(value):
            raise ConfigError(
                f"The loss must stay finite; in step {progress.batch + 1} it became {value}. "
                "Lower learning_rate, or set precision=fp32."
            )
        # By what a full batch has: the short last batch of an epoch weighs as little as it holds.
        (summed / (settings.batch_size * settings.context)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
        progress.batch, progress.seconds = progress.batch + 1, progress.seconds + seconds
        tokens_read += targets
        log.write(
            step=progress.batch,
            loss=round(value, 6),
            learning_rate=rate,
            tokens=targets,
            seconds=round(seconds, 4),
        )
        log.advance(loss=value, tokens_per_second=targets / seconds)
        if time.perf_counter() - saved > 60 * settings.checkpoint_minutes:
            save()
            saved = time.perf_counter()
    save()
    log.close_bar()
    return progress, tokens_read


def describe_source(corpus: Corpus, path: Path) -> Corpus:
    """The corpus with the title and the terms of the data set that it was prepared from, where that is noted."""
    if not (path / NOTE).is_file():
        return corpus
    noted = json.loads((path / NOTE).read_text(encoding="utf-8"))
    known = find_source(noted["source"])
    title, terms = known.title if known else Path(noted["source"]).name, noted["terms"]
    title, terms = _OWN.get(noted["source"], (title, terms))
    return replace(corpus, title=title, terms=terms)


def _steps_per_epoch(documents: Sequence[np.ndarray], settings: PretrainSettings) -> int:
    rows = max(1, math.ceil((sum(map(len, documents)) - 1) / settings.context))
    return math.ceil(rows / settings.batch_size)


def _draw_batches(
    documents: Sequence[np.ndarray], settings: PretrainSettings, seed: int, start: int
) -> Iterator[Tensor]:
    """Endless batches [R, T + 1] from step `start` on; each epoch has an order of its own."""
    size, per_epoch = settings.batch_size, _steps_per_epoch(documents, settings)
    while True:
        epoch, first = divmod(start, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(documents))
        rows = pack_rows([documents[index] for index in order], settings.context)
        for number in range(first, per_epoch):
            yield torch.from_numpy(rows[number * size :][:size].astype(np.int64))
        start += per_epoch - first


def build_model(tokenizer: PreTrainedTokenizerBase, settings: PretrainSettings, seed: int) -> LlamaForCausalLM:
    """The untrained model; the same seed draws the same weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_key_value_heads,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,  # its embedding would be zero and never learned
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def count_parameters(model: LlamaForCausalLM) -> dict[str, int]:
    """Parameters in all, in the embeddings (which the output shares), and in the rest."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embeddings = model.get_input_embeddings().weight.numel()
    return {"total": total, "layers": total - embeddings, "embeddings": embeddings}


def describe_model(report: dict[str, Any]) -> str:
    """The model card, in Markdown, from what pretrain.json holds."""
    settings, training, heldout = report["settings"], report["training"], report["heldout"]
    corpora = "\n".join(
        f"| {corpus['title']} | {corpus['documents']:,} | {corpus['file']}, {corpus['bytes'] / 1e6:.1f} MB "
        f"| {corpus['terms']} | {corpus['heldout_bits_per_byte']['model']:.3f} |"
        for corpus in report["corpora"]
    )
    titles = ""
    if report["titles"]:
        model, untrained = (report["titles"][name]["bits_per_byte"] for name in ("model", "untrained"))
        count = report["titles"]["model"]["documents"]
        titles = f"| bits per byte of {count:,} item titles | {model:.3f} | {untrained:.3f} |\n"
    provenance = report["provenance"]
    return f"""# {report["name"]}

A small causal language model of the Llama architecture, pretrained from random weights by `python -m darec pretrain`
as a backbone for DARec. It knows only what the texts below say. It is no chat model, follows no instructions, and what
it writes is not to be relied on.

| | |
| --- | --- |
| parameters | {report["parameters"]["total"]:,}, of them {report["parameters"]["layers"]:,} in the layers |
| shape | {settings["num_layers"]} layers, width {settings["hidden_size"]}, {settings["num_heads"]} heads \
with {settings["num_key_value_heads"]} of keys and values, MLP width {settings["intermediate_size"]}, tied embeddings |
| tokenizer | byte-level BPE learned from the same texts, {report["vocabulary"]:,} tokens; reads any text |
| context | {settings["context"]} tokens |

## Texts

| text | documents | file | terms | bits per byte |
| --- | --- | --- | --- | --- |
{corpora}

The last column is of held-out documents. sha256 and size of every file stand in `{REPORT}`.

## Training

{training["tokens_read"]:,} tokens read in {training["steps"]:,} steps, of {training["tokens_per_epoch"]:,} an epoch.
{training["minutes"]:g} minutes on {provenance["device"]} ({provenance["platform"]}), seed {report["seed"]}.
Documents were packed into rows of {settings["context"]} tokens; no token looked beyond its own document.

## What it learned

On {heldout["model"]["documents"]:,} held-out documents, beside the same model before its training:

| | trained | untrained |
| --- | --- | --- |
| perplexity of a token | {heldout["model"]["perplexity"]:.1f} | {heldout["untrained"]["perplexity"]:.0f} |
| bits per byte | {heldout["model"]["bits_per_byte"]:.3f} | {heldout["untrained"]["bits_per_byte"]:.3f} |
{titles}
Some held-out documents resemble training documents; only exact copies within one file were removed.
"""


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
