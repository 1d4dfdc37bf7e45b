"""The command line: every command reads what it was given and calls one function of a floor below.

Results go to stdout, progress and remarks to stderr, so that a result can be piped. Heavy libraries are imported inside
the commands, so that help and mistakes are answered at once.
"""

import difflib
import io
import json
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from darec.errors import ConfigError, DarecError, DataError
from darec.progress import say_nothing

if TYPE_CHECKING:
    from darec.data.catalog import Catalog

_INTERRUPTED = 130  # exit code, also what typer makes of Ctrl-C
Device = Literal["auto", "cpu", "cuda"]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train, baseline or quantize wrote.")]
DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help="A folder that `data prepare` wrote.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="RUN", help="The run folder to make; it must not exist yet.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed twice gives the same run.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="auto takes a CUDA GPU where there is one.")]
BackboneOption = Annotated[
    str | None, typer.Option("--backbone", metavar="NAME_OR_DIR", help="A causal language model: hub name or folder.")
]
PresetOption = Annotated[
    str | None, typer.Option("--preset", metavar="NAME", help="Committed settings, such as smoke.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Your settings, over the preset's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. training.epochs=5; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
data_app = typer.Typer(rich_markup_mode=None)
app.add_typer(data_app, name="data", help="List public data sets, or prepare one.")


@app.callback(help="DARec: an LLM-based sequential recommender that people can see into.")
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; goes anywhere.")] = False,
) -> None:
    """`main` itself reads --debug; it is declared here so that the help names it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 unexpected failure, 2 something the user can mend, 130 interrupted.

    An error is one line on stderr; its traceback shows only with `--debug`, which may stand anywhere.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # titles come in every script, also into a pipe on Windows
    words = [word for word in arguments if word != "--debug"]
    try:
        code = app(words or ["--help"], standalone_mode=False, prog_name="python -m darec")
        if code == _INTERRUPTED:
            print("Interrupted. A training or a search goes on with --resume, a download by itself.", file=sys.stderr)
    except DarecError as error:
        code = _report(str(error), 2, debug)
    except typer.TyperException as error:
        code = _report(f"{error.format_message()} (--help after a command explains it)", 2, debug)
    except typer.Abort:
        code = _report("Interrupted.", _INTERRUPTED, debug)
    except Exception as error:
        if isinstance(error, OSError) and error.filename:  # the system refuses a path, which the user can mend
            remedy = "Mend that, or name another path."
            code = _report(f"{error.filename} cannot be used: {error.strerror}. {remedy}", 2, debug)
        else:
            code = _report(f"{type(error).__name__}: {error} (run again with --debug to see where)", 1, debug)
    sys.exit(code)


@data_app.command("list")
def list_data() -> None:
    """List the public data sets that `data prepare` fetches by name."""
    from darec.data.download import known_sources

    for source in known_sources():
        sizes = [file.size for file in source.files]
        total = f"{sum(size or 0 for size in sizes) / 1e6:.1f} MB" if all(sizes) else "size not published"
        total = total if sizes else "made here, without a download"
        print(f"{source.name}: {source.title} ({total})", f"  {source.homepage}", f"  {source.terms}", sep="\n")


@data_app.command("prepare")
def prepare_data(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A name from `data list`, a zip, or a folder: CSV or Parquet pair, known layout.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make; it must not exist yet.")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="OURS=THEIRS",
            help="A column under another name, e.g. user_id=customer; repeatable. "
            "Where the two files differ: interactions.item_id=asin, items.item_id=id.",
        ),
    ] = None,
    min_interactions: Annotated[
        int, typer.Option("--min-interactions", min=0, help="Keep users and items with at least so many (k-core).")
    ] = 0,
) -> None:
    """Bring a data set into the form that train reads."""
    columns = _parse_pairs(column or [])
    from darec.data.download import find_source
    from darec.data.sources import prepare

    if known := find_source(source):
        print(f"{known.title}: {known.terms}", file=sys.stderr)
    report = prepare(
        source,
        out,
        columns=columns,
        min_interactions=min_interactions,
        on_progress=_show_download,
        on_stage=_show_stage if sys.stderr.isatty() else say_nothing,
    )
    _print_tree(asdict(report))


@app.command()
def train(
    data: DataOption,
    out: OutOption,
    backbone: BackboneOption = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where RUN was interrupted.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train DARec on prepared data."""
    from darec.config import load_settings

    settings = load_settings(preset, config, tuple(overrides or ()))  # before the slow import: mistakes come at once
    from darec.training.loop import train as train_run

    run = train_run(data, out, settings, backbone=backbone, seed=seed, resume=resume, device=_resolve(device))
    _print_written(run)


@app.command()
def search(
    data: DataOption,
    out: OutOption,
    trials: Annotated[int, typer.Option("--trials", metavar="N", help="Architectures to score, uniform LoRA first.")],
    backbone: BackboneOption = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    random_trials: Annotated[
        int | None, typer.Option("--random-trials", metavar="N", help="Random architectures to compare; N of --trials.")
    ] = None,
    users: Annotated[int, typer.Option("--users", min=1, help="Validation users that each trial is scored on.")] = 256,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Architectures of the Pareto front to retrain.")] = 3,
    retrain_epochs: Annotated[
        int | None, typer.Option("--retrain-epochs", min=1, metavar="N", help="Of each; training.epochs if not given.")
    ] = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="What a layer may have, e.g. attention+mlp; repeat it. All.")
    ] = None,
    max_size: Annotated[int | None, typer.Option("--max-size", metavar="N", help="The largest size; 64.")] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Processes that score trials.")] = 1,
    storage: Annotated[Path | None, typer.Option(metavar="FILE", help="Journal of the trials; RUN.search/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the search for RUN was interrupted.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Search each layer's adapters by Bayesian optimization, and train the best.

    Works in RUN.search, which may be deleted in the end.
    """
    from darec.config import load_settings

    settings = load_settings(preset, config, tuple(overrides or ()))
    from darec.search.chain import search as search_adapters
    from darec.search.results import load_search

    search_adapters(
        data,
        out,
        settings,
        backbone=backbone,
        trials=trials,
        random_trials=random_trials,
        users=users,
        k=keep,
        retrain_epochs=retrain_epochs,
        workers=workers,
        storage=storage,
        kinds=kinds,
        max_size=max_size,
        seed=seed,
        resume=resume,
        device=_resolve(device),
    )
    result = load_search(out)
    columns = ["label", "parameters", "cross_entropy", "ndcg@10"]
    rows = [
        (f"{label} *" if label == result.summary["winner"] else label, f"{parameters:,}", f"{loss:.4f}", f"{ndcg:.4f}")
        for label, parameters, loss, ndcg in result.retrained[columns].itertuples(index=False)
    ]
    _print_table(("trained alone", "parameters", "cross-entropy in the supernet", "validation NDCG@10"), rows)
    seconds, share = result.summary["seconds"], result.summary["trial_share"]
    print(
        f"A trial took {seconds['trial']:.2f} s, {share:.2%} of the supernet's training ({seconds['supernet']:.0f} s); "
        f"{result.summary['layers_reused']:.0%} of its layers were known from others. A proposal took "
        f"{seconds['proposal']:.2f} s.",
        file=sys.stderr,
    )
    _print_written(out)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The model folder to make; it must not exist yet.")],
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A .txt, .txt.zst or .parquet file to learn from; may be repeated."),
    ] = None,
    corpora: Annotated[
        Path | None, typer.Option(metavar="LIST.toml", help="Files with title and terms, for the model card.")
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Item titles to measure the model on: a catalogue, or lines.")
    ] = None,
    preset: Annotated[str, typer.Option(metavar="NAME", help="mini, mini-gpu (larger), or tiny (seconds).")] = "mini",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. epochs=3; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where DIR was interrupted.")] = False,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Pretrain a small language model on plain text, to be a backbone for train.

    In a text file blank lines separate documents; without any, each line is one. In a table each row is one.
    """
    from darec.training.pretrain import load_pretrain_settings
    from darec.training.pretrain import pretrain as pretrain_model

    settings = load_pretrain_settings(preset, tuple(overrides or ()))
    report = pretrain_model(
        text or [], out, settings, corpora=corpora, titles=titles, seed=seed, resume=resume, device=_resolve(device)
    )
    _print_tree({"heldout": report["heldout"], "titles": report["titles"]})
    print(f"Wrote {out}. Train on it with `python -m darec train --backbone {out}`.", file=sys.stderr)


@app.command()
def baseline(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="popularity, itemknn, gru4rec, sasrec, sasrec_text (frozen text) or text_neighbours."
        ),
    ],
    data: DataOption,
    out: OutOption,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME_OR_DIR", help="Text encoder of the baselines that read text.")
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train a baseline on prepared data."""
    from darec.baselines import write_baseline_run

    write_baseline_run(name, data, out, seed=seed, backbone=backbone, device=_resolve(device), on_epoch=_show_epoch)
    _print_written(out)


@app.command()
def quantize(run: RunArgument, out: OutOption, device: DeviceOption = "auto") -> None:
    """Store a DARec run in 4 bits, and show what that saves.

    The backbone goes to NF4 with double quantization; adapters and heads to half precision.
    """
    from darec.training.quantize import quantize_run

    _print_tree(quantize_run(run, out, device=_resolve(device), on_stage=_show_stage))
    _print_written(out)


@app.command("rebuild-demo")
def rebuild_demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to ship, replaced at the end.")] = Path(
        "models/demo"
    ),
    scratch: Annotated[
        Path, typer.Option("--scratch", metavar="DIR", help="Keeps the steps of one request; none is made twice.")
    ] = Path("runs/rebuild-demo"),
    corpora: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Texts to pretrain on, as pretrain takes them.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A finished backbone, instead of pretraining one.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Compare with this alone, say without-cf; repeatable."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", help="Search the adapters with so many; 0: one LoRA for all layers.  [default: 60]"),
    ] = None,
    seed: SeedOption = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="In a minute, to see that the chain holds together.")] = False,
) -> None:
    """Make the shipped demo anew: world, backbone, all trainings, 4 bits, model card. Takes hours."""
    from darec.rebuild import Chain

    if corpora is None and backbone is None:
        print("The backbone will read the catalogue alone; --corpora gives it more to read.", file=sys.stderr)
    chain = Chain(
        scratch,
        corpora,
        backbone,
        seed,
        None if only is None else tuple(only),
        (4 if tiny else 60) if trials is None else trials,
        tiny,
        on_step=lambda name: print(f"== {name}", file=sys.stderr),
    )
    chain.run(out)
    print(f"Wrote {out}.", file=sys.stderr)


@app.command()
def evaluate(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="metrics.json", help="Where to write the metrics.")],
    split: Annotated[Literal["test", "valid"], typer.Option(help="Choose on valid; read test once.")] = "test",
    device: DeviceOption = "auto",
) -> None:
    """Rank the whole catalogue for every user.

    Writes the metrics to --out, and each user's rank of the right item to RUN/ranks-SPLIT.parquet. A RUN that is
    shipped with others, or cannot be written to, stays as it is: with --out metrics.json the ranks then go beside it,
    to metrics-ranks-SPLIT.parquet.
    """
    if out.is_dir():
        raise ConfigError(f"--out names a file; {out} is a folder. Name a file in it, say {out / 'metrics.json'}.")
    from darec.evaluation.protocol import rank_cases, summarize
    from darec.runs import is_shared, provenance, write_json, writing_file
    from darec.serving import Recommender

    where = _resolve(device)
    recommender = Recommender.load(run, where)
    out.parent.mkdir(parents=True, exist_ok=True)
    for_ranks = run / f"ranks-{split}.parquet"
    if is_shared(run) or not os.access(run, os.W_OK):
        for_ranks = out.with_name(f"{out.stem}-{for_ranks.name}")
    ranks = rank_cases(recommender.scorer, recommender.split, split, on_progress=_show_progress)
    with writing_file(for_ranks) as temporary:
        ranks.to_parquet(temporary, index=False)
    summary = summarize(ranks, recommender.catalog, recommender.split)
    write_json(out, {"run": str(run), "split": split, **summary, "provenance": provenance(where)})
    print(f"Wrote {out} and {for_ranks}.", file=sys.stderr)
    rankings = {name: metrics for name, metrics in summary.items() if isinstance(metrics, dict) and "mrr" in metrics}
    rows = [
        (metric, *("{mean:.4f} [{low:.4f}, {high:.4f}]".format(**rankings[name][metric]) for name in rankings))
        for metric in rankings["seen_removed"]
    ]
    _print_table(("metric", *rankings), rows)


@app.command()
def recommend(
    run: RunArgument,
    history: Annotated[
        list[str],
        typer.Option("--history", metavar="TITLE", help="A title, or id:ITEM_ID; repeat it, the oldest first."),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many to recommend.")] = 10,
    as_json: JsonOption = False,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Let items of the history be recommended.")] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Recommend what could follow a history of titles.

    A title that several items share asks which is meant; one that no item has is read as new text.
    """
    from darec.serving import Recommender

    recommender = Recommender.load(run, _resolve(device))
    entries = [_find_item(entry, recommender.catalog, recommender.reads_text) for entry in history]
    found = recommender.recommend(entries, k, exclude_seen=not keep_seen)
    if as_json:
        fields = ("rank", "item_id", "title", "probability")
        _print_json([{name: getattr(item, name) for name in fields} for item in found])
    else:
        rows = [(str(item.rank), f"{item.probability:.2%}", item.item_id, item.title) for item in found]
        _print_table(("rank", "probability", "item_id", "title"), rows)


@app.command()
def info(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show what a run is.

    Its kind, settings, data, seed, versions, validation metrics, the adapters of each layer, and its bytes.
    """
    from darec.runs import read_run

    content = read_run(run)
    if content["kind"] == "darec":
        content["adapters"] = _adapters_by_layer(run, content["settings"])
    files = sorted(path for path in run.rglob("*") if path.is_file())
    sizes = {path.relative_to(run).as_posix(): path.stat().st_size for path in files}
    content["bytes"] = {**sizes, "total": sum(sizes.values())}
    if as_json:
        _print_json(content)
    else:
        _print_tree(content)


def _adapters_by_layer(run: Path, settings: dict[str, Any]) -> dict[str, str]:
    """`layer 1` -> `lora_attention rank 8 alpha 16, parallel width 16`, for every layer of a run's backbone."""
    from transformers import AutoConfig

    from darec.config import parse_settings
    from darec.model.adapters import plan_adapters
    from darec.model.recommender import BACKBONE
    from darec.runs import part_of

    num_layers = AutoConfig.from_pretrained(part_of(run, BACKBONE)).num_hidden_layers
    layers: dict[str, list[str]] = {f"layer {layer + 1}": [] for layer in range(num_layers)}
    for adapter in plan_adapters(num_layers, parse_settings(settings).adapters):
        layers[f"layer {adapter.layer + 1}"].append(str(adapter))
    return {layer: ", ".join(adapters) or "none" for layer, adapters in layers.items()}


def _find_item(entry: str, catalog: "Catalog", reads_text: bool) -> int | str:
    """The item_index that a word of the history stands for, or the word itself where no item has that title."""
    if entry.startswith("id:"):
        return catalog.index_of(entry.removeprefix("id:"))
    if not entry.strip():
        raise DataError("A title of the history must not be blank. Give it as --history TITLE.")
    matches = catalog.find(entry)
    if len(matches) > 1:
        return _ask_which(entry, matches, catalog)
    if matches:
        return matches[0]
    close = difflib.get_close_matches(entry, catalog.titles, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    use = "it is read as new text" if reads_text else "this model reads no text, so it is skipped"
    print(f'No item has the title "{entry}": {use}.{hint}', file=sys.stderr)
    return entry.strip()


def _ask_which(entry: str, matches: list[int], catalog: "Catalog") -> int:
    """Ask on a terminal which of several items is meant.

    Raises:
        DataError: there is no terminal to ask on.
    """
    choices = [f"{catalog.titles[index]} (id:{catalog.item_ids[index]})" for index in matches]
    if not sys.stdin.isatty():
        options = ", ".join(f"--history id:{catalog.item_ids[index]}" for index in matches)
        raise DataError(f'{len(matches)} items have the title "{entry}": {"; ".join(choices)}. Say which by {options}.')
    print(f'{len(matches)} items have the title "{entry}":', file=sys.stderr)
    for number, choice in enumerate(choices, start=1):
        print(f"  {number}  {choice}", file=sys.stderr)

    def chosen(answer: str) -> int:
        if answer not in map(str, range(1, len(matches) + 1)):
            raise typer.BadParameter(f"answer with a number from 1 to {len(matches)}")
        return matches[int(answer) - 1]

    return int(typer.prompt("Which one", value_proc=chosen, err=True))


def _parse_pairs(pairs: list[str]) -> dict[str, str] | None:
    for pair in pairs:
        if not all(pair.partition("=")):
            raise ConfigError(f"A column is given as ours=theirs, for example user_id=customer; got {pair!r}.")
    return dict(pair.split("=", 1) for pair in pairs) or None


def _resolve(device: Device) -> str:
    """A torch device name.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda needs a CUDA GPU and a torch built for it; none is found. Use --device cpu.")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _show_epoch(event: dict[str, Any]) -> None:
    words = [f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in event.items()]
    print("  ".join(words), file=sys.stderr)


def _show_stage(number: int, of: int, what: str) -> None:
    print(f"{number} of {of}: {what}", file=sys.stderr)  # the app reads it from a job's log


def _show_download(name: str, done: int, total: int | None) -> None:
    if sys.stderr.isatty():
        of = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{name}: {done / 1e6:.1f}{of} MB", end="\n" if done == total else "", file=sys.stderr)


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} users", end="\n" if done == total else "", file=sys.stderr)


def _print_written(run: Path) -> None:
    print(f"Wrote {run}. Look at it with `python -m darec info {run}`.", file=sys.stderr)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _print_tree(content: dict[str, Any], indent: str = "") -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            print(f"{indent}{key}")
            _print_tree(value, indent + "  ")
        else:
            print(f"{indent}{key}: {value}")


def _report(message: str, code: int, debug: bool) -> int:
    """Show an error in one line, after its traceback if asked for; return the exit code."""
    if debug:
        traceback.print_exc()
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    return code
