"""The model card of the shipped demo: every figure computed from rank files and reports, and the card in Markdown."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from darec.baselines import NAMES as BASELINES
from darec.data.interactions import NOTE, Dataset
from darec.data.splits import COLD_BELOW, Split, split
from darec.evaluation.metrics import spell_difference, spell_mean
from darec.evaluation.protocol import compare_ranks, summarize
from darec.runs import provenance, read_run
from darec.search.results import RANDOM, SEARCH, load_search
from darec.training.pretrain import REPORT as PRETRAINED

VARIANTS = {  # folder -> the name shown, and what is switched off while it is trained
    "darec": ("DARec", ()),
    "without-context-masking": ("DARec retrained without context masking", ("masking.enabled=false",)),
    "without-cf": ("DARec retrained without CF", ("collaborative.enabled=false",)),
    "without-dynamic-adaption": ("DARec retrained without dynamic adaption", ("adapters.weights=fixed",)),
    "without-adapters": ("DARec retrained without adapters", ("adapters.enabled=false",)),
}
CEILING = "ceiling"  # who knows what each viewer likes
TWIN = "twin"  # of DARec, over random weights: compared, not shipped
WHOLE = "darec in full precision"
_SHOWN = {
    **{name: shown for name, (shown, _) in VARIANTS.items()},
    **BASELINES,
    WHOLE: "DARec in full precision",
    TWIN: "DARec over random weights, full precision",
    CEILING: "Ceiling",
}


def make_card(
    ranks: dict[str, pd.DataFrame], shipped: dict[str, Path], backbone: Path, data: Path, seed: int
) -> dict[str, Any]:
    """Everything that the model card says in figures, from the rank files and what the steps reported.

    Args:
        ranks: name -> rank file on test; `darec` is what the others are compared with.
        shipped: name -> run.
        backbone: what pretraining wrote, or any other backbone.
        data: the prepared world.
        seed: of every step.
    """
    dataset = Dataset.load(data)
    parts = split(dataset)
    late = {name: frame["target_popularity"] < COLD_BELOW for name, frame in ranks.items()}
    return {
        "users": len(parts.test),
        "items": len(dataset.catalog),
        "interactions": len(dataset.interactions),
        "data": json.loads((data / NOTE).read_text(encoding="utf-8")),
        "backbone": _about_backbone(backbone),
        "models": {name: {"name": _SHOWN[name], **_summarize(frame, dataset, parts)} for name, frame in ranks.items()},
        "darec minus": {
            name: {
                "all": compare_ranks(ranks["darec"]["rank"], frame["rank"]),
                "late releases": compare_ranks(ranks["darec"].loc[late[name], "rank"], frame.loc[late[name], "rank"]),
            }
            for name, frame in ranks.items()
            if name != "darec"
        },
        "cf off": compare_ranks(ranks["darec"]["rank_cf_off"], ranks["popularity"]["rank"]),
        "validation": {name: read_run(run)["validation"] for name, run in shipped.items()},
        "settings": {name: read_run(run)["settings"] for name, run in shipped.items()},
        "seconds": {name: read_run(run)["seconds"] for name, run in shipped.items()},
        "quantization": {name: read_run(run)["quantization"] for name, run in shipped.items() if name in VARIANTS},
        "search": load_search(shipped["darec"]).summary if (shipped["darec"] / SEARCH).is_file() else None,
        "seed": seed,
        "provenance": provenance("cpu"),
    }


def _summarize(ranks: pd.DataFrame, dataset: Dataset, parts: Split) -> dict[str, Any]:
    summary = summarize(ranks, dataset.catalog, parts)
    return {
        name: summary[name]
        for name in ("seen_removed", "seen_kept", "cf_off_seen_removed", "slices")
        if name in summary
    }


def _about_backbone(folder: Path) -> dict[str, Any]:
    if not (folder / PRETRAINED).is_file():
        return {"name": folder.name}
    about = json.loads((folder / PRETRAINED).read_text(encoding="utf-8"))
    return {key: about[key] for key in ("name", "parameters", "vocabulary", "corpora", "training", "heldout", "titles")}


def describe(card: dict[str, Any]) -> str:
    """The model card in Markdown: what the model is, what it was made from, and every figure from card.json."""
    made, backbone = card["provenance"], card["backbone"]
    rows = [
        "| model | HR@10 | NDCG@10 | DARec minus it | CF off | late releases | DARec minus it | training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in card["models"].items():
        late = [row for row in figures["slices"] if row["slice"] == "cold_target" and row["from"] == 0]
        minus = {of: spell_difference(found) for of, found in card["darec minus"].get(name, {}).items()}
        cells = [
            spell_mean(figures["seen_removed"]["hr@10"]),
            spell_mean(figures["seen_removed"]["ndcg@10"]),
            minus.get("all", ""),
            spell_mean(figures["cf_off_seen_removed"]["ndcg@10"]) if "cf_off_seen_removed" in figures else "",
            spell_mean(late[0]["ndcg@10"]) if late else "",
            minus.get("late releases", ""),
            f"{card['seconds'][name]:.0f} s" if name in card["seconds"] else "",
        ]
        rows.append(f"| {figures['name']} | {' | '.join(cells)} |")
    corpora = [
        f"| {corpus['title']} | {corpus['documents']:,} | {corpus['terms']} |" for corpus in backbone.get("corpora", [])
    ]
    return "\n".join(
        [
            "# The shipped demo",
            "",
            f"DARec and what it is compared with, trained on the demo world: {card['users']:,} simulated viewers of "
            f"{card['items']:,} real films, {card['interactions']:,} interactions. The viewers are invented; a gain "
            "in this world says what the method can do where text carries taste, and is no evidence about people, nor "
            "for the paper.",
            "",
            f"`{_command(card)}` makes such a demo; this one was made on {made['date'][:10]} ({made['platform']}, "
            f"{made['device']}, torch {made['versions']['torch']}, seed {card['seed']}). "
            "`manifest.json` has the sha256 of every file, `card.json` all figures, settings and slices, "
            "`ranks-test.parquet` of each run every viewer's rank.",
            "",
            "## Figures on test",
            "",
            f"The whole catalogue ranked for {card['users']:,} viewers, seen films removed; in brackets the 95 % "
            "bootstrap interval, of differences the paired one. *CF off* and *late releases* (films with 0 to 4 "
            "training interactions): NDCG@10.",
            "",
            *rows,
            "",
            "What is retrained without a part had as many steps as DARec; of each training were kept "
            f"{_kept(card)}. DARec is in 4 bits unless said. The ceiling is an "
            "oracle that knows what each viewer likes. DARec is told when each viewer chose, by which it lifts films "
            "that were new then; the baselines know no time, and a history that is typed into the app has none. *In "
            "full precision* is DARec before quantization.",
            "",
            "## Adapters",
            "",
            _describe_adapters(card["search"]),
            "",
            f"## Backbone: {backbone['name']}",
            "",
            *([_describe_backbone(backbone)] if corpora else ["Not pretrained by this project."]),
            *(["", "| corpus | documents | terms |", "| --- | --- | --- |", *corpora] if corpora else []),
            "",
            "## Limits",
            "",
            "A backbone of a few million parameters knows little beyond the words of its corpora. Probabilities are a "
            "softmax over this catalogue, not chances that somebody will like a film. The catalogue was written by "
            "hand and is no canon. Each model was trained once, and the intervals, which are over viewers, know "
            "nothing of what another seed would change. `docs/demo-world.md` tells how the world was made, how often "
            "its test part was read, and what DARec's lead rests on.",
            "",
        ]
    )


def _describe_adapters(found: dict[str, Any] | None) -> str:
    if found is None:
        return "LoRA of one size in every layer; nothing was searched."
    trials = ", ".join(f"{count} {sampler}" for sampler, count in found["trials"].items())
    scores = ", ".join(f"{row['label']}: {row['ndcg@10']:.4f}" for row in found["retrained"])
    bare = "" if "none" in found["space"]["kinds"] else ", none left without"
    return (
        f"Each layer's adapters were searched{bare}: {trials} trials, scored with inherited weights on "
        f"{found['users']} validation users. Trained alone for as many epochs, NDCG@10 of all validation users was: "
        f"{scores}. Shipped is what the search found, {found['winner']}; every variant that adapts by layer has its "
        "adapters."
    )


def _describe_backbone(backbone: dict[str, Any]) -> str:
    parameters, heldout, titles = backbone["parameters"], backbone["heldout"], backbone["titles"]
    return (
        f"{parameters['total']:,} parameters ({parameters['layers']:,} in the layers), vocabulary "
        f"{backbone['vocabulary']:,}, pretrained for {backbone['training']['minutes']} minutes on "
        f"{backbone['training']['tokens_read']:,} tokens, which is "
        f"{backbone['training']['tokens_read'] / backbone['training']['tokens_per_epoch']:.2f} times its texts. Before "
        f"quantization: perplexity {heldout['model']['perplexity']:.1f} on texts held out, of its random twin "
        f"{heldout['untrained']['perplexity']:.0f}; bits per byte on the titles of {titles['model']['documents']:,} "
        f"films of its texts {titles['model']['bits_per_byte']:.2f} against {titles['untrained']['bits_per_byte']:.2f}."
    )


def _kept(card: dict[str, Any]) -> str:
    training = card["settings"]["darec"]["training"]
    return "the last weights" if training.get("keep") == "last" else "the weights that rank best on validation"


def _command(card: dict[str, Any]) -> str:
    """What makes such a demo; where a list of texts lies on somebody's disk is nobody's business."""
    corpora = " --corpora FILE.toml" if len(card["backbone"].get("corpora", [])) > 1 else ""
    trials = (
        sum(count for sampler, count in card["search"]["trials"].items() if sampler != RANDOM) if card["search"] else 0
    )
    return f"python -m darec rebuild-demo{corpora}{f' --trials {trials}' if trials else ''}"
