"""What only a CUDA GPU can show, in at most nine minutes:

    python -m darec data prepare ml-100k --out data/ml-100k
    python -m benchmarks.gpu_check --data data/ml-100k --preset ml-100k

1. throughput   training steps of a backbone of about a billion parameters, over NF4 and over bfloat16: tokens/s, memory
2. curves       DARec trained over NF4 and over unquantized weights, both in bfloat16: loss curves differ within noise
3. whole        the whole ML-100K training over NF4, with its test metrics
4. reading      that run with its backbone quantized on the GPU, read there and on the CPU: rankings agree

The result goes to benchmarks/results/gpu_check.json; the exit code is 1 where a criterion is not met. `--tiny` dry-runs
every step on a CPU with made-up data and writes no result: it shows that the script runs, nothing else.
"""

import argparse
import dataclasses
import gc
import itertools
import json
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from darec.config import AdapterSettings, load_settings
from darec.data.catalog import Catalog
from darec.data.interactions import Dataset
from darec.evaluation.protocol import rank_cases, summarize
from darec.model.adapters import attach_adapters, plan_adapters
from darec.model.backbone import load_backbone, run_backbone, tiny_backbone
from darec.model.quantization import QuantizationReport, compare_rankings, load_four_bit, save_four_bit
from darec.model.recommender import BACKBONE
from darec.runs import model_name, provenance, write_json, write_manifest
from darec.serving import Recommender
from darec.training.loop import train

RESULT = Path(__file__).parent / "results" / "gpu_check.json"
MINUTES = 9
SEGMENTS = 10  # a loss curve is compared by the means of this many equal parts
NDCG_TOLERANCE = 0.005  # the GPU computes in bfloat16, the CPU in float32
OVERLAP_FLOOR = 0.95


@dataclass(frozen=True)
class Size:
    """How much of everything: full on a GPU, next to nothing in a dry run."""

    throughput_model: dict[str, int]
    batch: int  # sequences a throughput step
    length: int  # tokens a sequence
    steps: int  # timed
    curve_epochs: int
    overrides: tuple[str, ...]  # of the settings of every training
    compared_users: int


FULL = Size(
    throughput_model={
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    batch=16,
    length=512,
    steps=20,
    curve_epochs=3,
    overrides=(),
    compared_users=256,
)
TINY = Size(
    throughput_model={
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    batch=2,
    length=16,
    steps=2,
    curve_epochs=1,
    overrides=("training.epochs=2", "collaborative.epochs=2"),
    compared_users=16,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a prepared ML-100K, say data/ml-100k")
    parser.add_argument("--backbone", default="sentence-transformers/all-MiniLM-L6-v2", help="hub name or folder")
    parser.add_argument("--preset", help="committed settings of the trainings; the defaults without it")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the result goes")
    parser.add_argument("--tiny", action="store_true", help="dry run on a CPU; writes no result")
    arguments = parser.parse_args()
    if not arguments.tiny and (arguments.data is None or not torch.cuda.is_available()):
        parser.error(
            "needs a CUDA GPU and --data, as in --data data/ml-100k --preset ml-100k after "
            "`python -m darec data prepare ml-100k --out data/ml-100k`; --tiny dry-runs the steps without either"
        )

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if arguments.tiny:
            torch.set_num_threads(1)
            data, backbone = make_tiny(work)
            result = check(TINY, data, backbone, arguments.preset, "cpu", work)
        else:
            result = check(FULL, arguments.data, arguments.backbone, arguments.preset, "cuda", work)
    minutes = round((time.monotonic() - start) / 60, 2)
    result["minutes"] = {"value": minutes, "criterion": f"at most {MINUTES}", "met": minutes <= MINUTES}
    missed = [step for step, content in result.items() if not content.get("met", True)]
    backbone = "tiny" if arguments.tiny else model_name(arguments.backbone)
    result |= {"preset": arguments.preset, "backbone": backbone}
    if arguments.tiny:
        print("DRY RUN: tiny sizes on a CPU. Nothing below is a result.")
    else:
        result["provenance"] = provenance(torch.cuda.get_device_name())
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, result)
    print(json.dumps(result, indent=2))
    print(f"Criteria not met: {', '.join(missed) or 'none'}")
    return 1 if missed and not arguments.tiny else 0


def check(size: Size, data: Path, backbone: str, preset: str | None, device: str, work: Path) -> dict[str, Any]:
    """All four steps; each entry of the result says what was measured, by which criterion, and whether it is met."""
    result: dict[str, Any] = {"throughput": measure_throughput(size, device, work)}
    result["curves"] = compare_curves(size, data, backbone, preset, device, work)
    start = time.monotonic()
    run = train_over_nf4(data, work / "whole", preset, size.overrides, backbone, device)
    seconds = round(time.monotonic() - start, 1)
    report = quantize_backbone(backbone, device, work / "quantized")
    requantized = shutil.copytree(run, work / "requantized")
    shutil.rmtree(requantized / BACKBONE)
    shutil.copytree(work / "quantized", requantized / BACKBONE)
    write_manifest(requantized)
    on_device = Recommender.load(requantized, device)
    summary = summarize(rank_cases(on_device.scorer, on_device.split, "test"), on_device.catalog, on_device.split)
    result["whole"] = {"seconds": seconds, "users": summary["users"], "test": pick_metrics(summary)}
    result["whole"]["quantization"] = dataclasses.asdict(report)
    result["reading"] = compare_reading(size, on_device, Recommender.load(requantized, "cpu"))
    return result


def measure_throughput(size: Size, device: str, work: Path) -> dict[str, Any]:
    """Tokens a second and peak memory of training steps (forward, backward, AdamW on LoRA) over random weights."""
    with torch.device(device):
        plain = AutoModelForCausalLM.from_config(LlamaConfig(**size.throughput_model), dtype=torch.float32)
    save_four_bit(plain, work / "throughput")
    parameters = sum(parameter.numel() for parameter in plain.parameters())
    bf16 = time_steps(plain.to(torch.bfloat16), size, device)
    del plain
    nf4 = time_steps(load_four_bit(work / "throughput", device), size, device)
    return {"parameters": parameters, "tokens_a_step": size.batch * size.length, "bf16": bf16, "nf4": nf4}


def time_steps(model: PreTrainedModel, size: Size, device: str) -> dict[str, float | None]:
    settings = AdapterSettings()
    model.requires_grad_(False)
    attach_adapters(model, plan_adapters(model.config.num_hidden_layers, settings), settings.dropout)
    model.to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    embeds = torch.randn(size.batch, size.length, model.config.hidden_size, device=device)
    mask = torch.ones(size.batch, size.length, size.length, dtype=torch.bool, device=device).tril()
    positions = torch.arange(size.length, device=device).expand(size.batch, -1)
    on_gpu = device == "cuda"
    if on_gpu:
        gc.collect()  # the model measured before is gone, and so must be its memory
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = 0.0
    for step in range(size.steps + 3):  # three to warm up
        if step == 3:
            if on_gpu:
                torch.cuda.synchronize()
            start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext():
            states = run_backbone(model, embeds.to(torch.bfloat16 if on_gpu else model.dtype), mask, positions)
        states.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "tokens_per_second": round(size.steps * size.batch * size.length / seconds),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
    }


def compare_curves(
    size: Size, data: Path, backbone: str, preset: str | None, device: str, work: Path
) -> dict[str, Any]:
    """Loss curves over unquantized weights (three seeds) and over NF4 (the first of these seeds).

    The gap of two curves is the root mean square difference of their segments' mean losses. Noise is the largest gap
    between two seeds; NF4 is within noise where its gap to the unquantized training of the same seed is no larger.
    """
    overrides = (*size.overrides, f"training.epochs={size.curve_epochs}")
    settings = load_settings(preset, overrides=overrides)
    plain = []
    for seed in range(3):
        run = train(data, work / f"plain-{seed}", settings, backbone=backbone, seed=seed, device=device)
        plain.append(loss_curve(run))
    nf4 = loss_curve(train_over_nf4(data, work / "nf4-0", preset, overrides, backbone, device))
    noise = max(gap(a, b) for a, b in itertools.combinations(plain, 2))
    return {
        "unquantized": [curve.tolist() for curve in plain],
        "nf4": nf4.tolist(),
        "gap": gap(nf4, plain[0]),
        "noise": noise,
        "criterion": "gap <= noise",
        "met": gap(nf4, plain[0]) <= noise,
    }


def train_over_nf4(
    data: Path, out: Path, preset: str | None, overrides: tuple[str, ...], backbone: str, device: str
) -> Path:
    """Train with seed 0 over 4-bit weights; a CPU, which cannot, trains over the same values decoded."""
    if device == "cuda":
        overrides = (*overrides, "backbone.four_bit=true")
    else:
        quantize_backbone(backbone, device, out.with_name(f"{out.name}-backbone"))
        backbone = str(out.with_name(f"{out.name}-backbone"))
    return train(data, out, load_settings(preset, overrides=overrides), backbone=backbone, seed=0, device=device)


def quantize_backbone(backbone: str, device: str, folder: Path) -> QuantizationReport:
    model, tokenizer = load_backbone(backbone, device=device)
    report = save_four_bit(model, folder)
    tokenizer.save_pretrained(folder)
    return report


def loss_curve(run: Path) -> np.ndarray:
    """[SEGMENTS] mean training loss of equal parts of a run's log."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = np.array([line["loss"] for line in lines if line["stage"] == "training"])
    return np.array([part.mean() for part in np.array_split(losses, min(SEGMENTS, len(losses)))])


def gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def compare_reading(size: Size, on_device: Recommender, on_cpu: Recommender) -> dict[str, Any]:
    """The run read where it was quantized and on the CPU: NDCG@10 of all validation users, and the rankings of some."""
    metrics = [
        pick_metrics(summarize(rank_cases(each.scorer, each.split, "valid"), each.catalog, each.split))
        for each in (on_device, on_cpu)
    ]
    histories = [history.tolist() for history in on_cpu.split.valid.histories[: size.compared_users]]
    rankings = compare_rankings(on_device.scorer.score(histories), on_cpu.scorer.score(histories))
    difference = abs(metrics[0]["ndcg@10"] - metrics[1]["ndcg@10"])
    return {
        "valid_on_device": metrics[0],
        "valid_on_cpu": metrics[1],
        **rankings,
        "criterion": f"NDCG@10 differs by at most {NDCG_TOLERANCE}, overlap@10 is at least {OVERLAP_FLOOR}",
        "met": difference <= NDCG_TOLERANCE and rankings["overlap@10"] >= OVERLAP_FLOOR,
    }


def pick_metrics(summary: dict[str, Any]) -> dict[str, float]:
    return {name: summary["seen_removed"][name]["mean"] for name in ("hr@10", "ndcg@10")}


def make_tiny(work: Path) -> tuple[Path, str]:
    """Made-up data in which item i is followed by item i + 1, and a tiny random backbone."""
    items = pd.DataFrame({"item_id": [str(i) for i in range(30)], "title": [f"Film number {i}" for i in range(30)]})
    rows = [(str(user), str((user + place) % 30), place) for user in range(40) for place in range(8)]
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    (work / "data").mkdir()
    Dataset(Catalog(items), interactions).save(work / "data")
    model, tokenizer = tiny_backbone(list(items["title"]))
    model.save_pretrained(work / "tiny")
    tokenizer.save_pretrained(work / "tiny")
    return work / "data", str(work / "tiny")


if __name__ == "__main__":
    sys.exit(main())
