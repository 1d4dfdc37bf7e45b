"""From a trained run to one whose backbone is stored in 4 bits, with what that saves and what it costs."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from darec.data.interactions import Dataset
from darec.data.splits import Cases, split
from darec.errors import RunError
from darec.model.backbone import load_backbone, save_backbone
from darec.model.quantization import bytes_by_prefix, compare_rankings, halve, is_four_bit, save_four_bit
from darec.model.recommender import BACKBONE, DarecModel
from darec.model.trained import save_trained
from darec.progress import OnStage, say_nothing
from darec.runs import (
    RUN,
    part_of,
    provenance,
    read_run,
    recorded_files,
    write_json,
    write_manifest,
    writing_folder,
)
from darec.training.tuning import validation_ndcg

_COMPARED_USERS = 500  # validation users on whom the rankings before and after are compared
_STAGES = 4  # reading, 4 bits, ranking before and after


def quantize_run(
    run: str | Path,
    out: str | Path,
    *,
    device: str = "cpu",
    name: str | None = None,
    on_stage: OnStage = say_nothing,
) -> dict[str, Any]:
    """Write a run whose backbone is in NF4 with double quantization, its adapters and heads in half precision.

    Item encodings that come from the backbone's states are made anew. Validation figures stay those of `run`, over all
    users; what became of some of them is in the report.

    Args:
        run: a DARec run.
        out: the run to make; it must not exist yet.
        device: where the rankings are compared, `cpu` or `cuda`.
        name: by which the new run is shown; that of `run` if None.
        on_stage: told what is done now.

    Returns:
        `backbone` and `trained`: `bytes_before` and `bytes_after` by part, and what of the backbone was left
        unquantized; `bytes_before` and `bytes_after` of all weights; `validation`: users (500 at most), `overlap@10`,
        `kendall_tau`, and NDCG@10 before and after, with the CF path on and off. It stands in the new run's run.json.

    Raises:
        RunError: `run` is no DARec run or is in 4 bits already, or `out` exists.
    """
    run, out = Path(run), Path(out)
    info = read_run(run)
    if info["kind"] != "darec" or is_four_bit(part_of(run, BACKBONE)):
        what = "in 4 bits already" if info["kind"] == "darec" else f"a {info['kind']}"
        raise RunError(
            f"Only a DARec run in full precision can be quantized; {run} is {what}. Name the run it came from."
        )
    on_stage(1, _STAGES, "reading the run")
    before = DarecModel.load(run, device)
    dataset = Dataset.load(part_of(run, "data"))
    parts = split(dataset)
    with writing_folder(out) as folder:
        on_stage(2, _STAGES, "bringing the weights to 4 bits")
        model, tokenizer = load_backbone(part_of(run, BACKBONE))
        save_backbone(model, tokenizer, folder / BACKBONE)
        report = asdict(save_four_bit(model, folder / BACKBONE))
        after = DarecModel.build(folder / BACKBONE, dataset.catalog, parts.popularity, before.settings, device)
        after.eval().load_trained_state(before.trained_state())
        if before.settings.sequence.encoded_from == "states":
            after.refresh_item_encodings()
        trained = {name: halve(tensor) for name, tensor in after.trained_state().items()}
        after.load_trained_state(trained)  # what is compared is what is written
        save_trained(trained, folder)
        states = {"bytes_before": before.trained_state(), "bytes_after": trained}
        by_part = {moment: bytes_by_prefix(state) for moment, state in states.items()}
        result = {
            "backbone": report,
            "trained": by_part,
            **{moment: sum(report[moment].values()) + sum(sizes.values()) for moment, sizes in by_part.items()},
            "validation": _compare(before, after, parts.valid, on_stage),
        }
        (folder / "data").mkdir()
        dataset.save(folder / "data")
        info |= {"name": name or info["name"], "quantization": result, "provenance": provenance(device)}
        write_json(folder / RUN, info)
        for file in recorded_files(run):  # the log, and what a search has left
            if "/" not in file and not (folder / file).exists():
                shutil.copy(run / file, folder / file)
        write_manifest(folder)
    return result


def _compare(before: DarecModel, after: DarecModel, cases: Cases, on_stage: OnStage) -> dict[str, Any]:
    cases = cases.subset(np.sort(np.random.default_rng(0).permutation(len(cases))[:_COMPARED_USERS]))
    size = before.settings.training.evaluation_batch_size
    figures, scores = {}, {}
    for number, (moment, model) in enumerate((("before", before), ("after", after)), start=_STAGES - 1):
        on_stage(number, _STAGES, f"ranking {len(cases):,} validation users {moment} quantization")
        scores[moment] = _score(model, cases, size)
        figures[f"ndcg@10_{moment}"] = validation_ndcg(model, cases, size)
        if model.collaborative is not None:
            figures[f"ndcg@10_cf_off_{moment}"] = validation_ndcg(model, cases, size, collaborative=False)
    return {"users": len(cases)} | compare_rankings(scores["before"], scores["after"]) | figures


def _score(model: DarecModel, cases: Cases, size: int) -> np.ndarray:
    return np.concatenate(
        [model.asked(batch.asked).score([h.tolist() for h in batch.histories]) for batch in cases.batches(size)]
    )
