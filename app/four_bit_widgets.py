"""What four bits changed in a quantized run, on the Training page: bytes, rankings, weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import resources, training_resources
from app.charts import show_figure
from app.widgets import choose_run, errors_shown, metric_cards
from darec.errors import RunError
from darec.figures.training import four_bit_weights_figure, four_bit_weights_table
from darec.runs import part_of

ALMOST_ALL = 0.999  # of the items of lists before and after: what is left to chance where nothing changes
TABLE_WIDTH, FIGURE_WIDTH = 420, 680  # pixels
PARTS = {
    "linear_maps": "Linear maps of the layers",
    "embeddings": "Word embeddings",
    "other": "Norms and biases",
    "trained": "Adapters, heads, CF model",
}


def show_four_bits() -> None:
    """What four bits changed in a quantized run: bytes, rankings, weights."""
    runs = {}
    for name, run in resources.list_runs().items():
        with errors_shown():
            runs[name] = (run, training_resources.read_info(run))
    quantized = {name: entry for name, entry in runs.items() if "quantization" in entry[1]}
    if not quantized:
        st.info(
            "No run is in 4 bits yet. Finish a training and press *Quantize to 4 bits*.",
            icon=":material/compress:",
        )
        return
    folders = {name: run for name, (run, _) in quantized.items()}
    name = choose_run("Run in 4 bits", "quantized", folders, st.session_state["picked"], width=400)
    run, info = quantized[name]
    report = info["quantization"]
    compared = report["validation"]
    before, after = report["bytes_before"], report["bytes_after"]
    cards = [
        ("Size", spell_bytes(after), f"{after / before - 1:.0%} of {spell_bytes(before)}", "All weights of the run."),
        ("Same in the first 10", f"{compared['overlap@10']:.1%}", None, "Items of a list that are in the other too."),
        ("Kendall's tau", f"{compared['kendall_tau']:.3f}", None, "1: the whole catalogue in the same order."),
    ]
    for key, label in (("ndcg@10", "NDCG@10"), ("ndcg@10_cf_off", "NDCG@10, CF off")):
        if f"{key}_after" in compared:
            change = compared[f"{key}_after"] - compared[f"{key}_before"]
            cards.append((label, f"{compared[f'{key}_after']:.4f}", f"{change:+.4f}", "After; below it the change."))
    metric_cards((label, value, below or "before against after", meaning) for label, value, below, meaning in cards)
    st.caption(f"Rankings of {compared['users']:,} validation users, before against after.")
    if compared["overlap@10"] > ALMOST_ALL:
        st.caption(
            "Almost nothing changed. That happens where the backbone had been in 4 bits before training, so that its "
            "weights already lay on the levels; the shipped models are of this kind."
        )
    beside = st.container(horizontal=True)  # one below the other where the page is narrow
    with beside.container(width=TABLE_WIDTH):
        st.subheader("Bytes by part", anchor=False)
        narrow = {name: st.column_config.TextColumn(width=70) for name in ("Before", "After", "Left")}
        st.dataframe(
            bytes_table(report),
            hide_index=True,
            height="content",
            column_config=narrow,
            alt="Bytes by part before and after",
        )
        st.caption(
            "NF4: each weight of the layers' linear maps becomes one of 16 levels (4 bits) times a scale of its block; "
            "the scales are rounded too (double quantization). Everything else is kept in half precision."
        )
    with beside.container(width=FIGURE_WIDTH), errors_shown():
        _show_weights(run, info, [entry for entry in runs.values() if "quantization" not in entry[1]])


def bytes_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """Part, kilobytes before and after, and the share that is left, of a run's quantization; all parts last."""
    before, after = dict(report["backbone"]["bytes_before"]), dict(report["backbone"]["bytes_after"])
    before["trained"] = report["bytes_before"] - sum(before.values())
    after["trained"] = report["bytes_after"] - sum(after.values())
    before["all"], after["all"] = report["bytes_before"], report["bytes_after"]
    rows = [
        {
            "Part": PARTS.get(part, "All"),
            "Before": spell_bytes(size),
            "After": spell_bytes(after[part]),
            "Left": f"{after[part] / size:.0%}" if size else "",
        }
        for part, size in before.items()
    ]
    return pd.DataFrame(rows)


def spell_bytes(size: float) -> str:
    """A size in kB or MB, of 1,000 each."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def _show_weights(run: Path, info: Mapping[str, Any], wholes: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """One map's weights against the levels: those before quantization, where the run it came from is at hand."""
    same = ("settings", "seed", "data_fingerprint", "backbone")
    source = next((path for path, other in wholes if all(other.get(key) == info.get(key) for key in same)), None)
    backbone = part_of(run, "backbone")
    name = st.selectbox("Linear map", training_resources.list_maps(backbone), key="map", bind="query-params")
    if name is None:
        raise RunError("This backbone has no map in four bits: none has an input width that 64 divides.")
    read = training_resources.load_map(backbone, name, source and part_of(source, "backbone"))
    if read.before is None:
        st.caption("The run it was made from is not at hand: these are the weights after, which lie on the levels.")
    else:
        st.caption(f"Weights before quantization. The change is {read.relative_error:.1%} of their norm.")
    weights = read.after if read.before is None else read.before
    figure, table = (draw(weights, read.levels) for draw in (four_bit_weights_figure, four_bit_weights_table))
    show_figure(figure, table, "levels", f"Weights of {name} over their block's largest, and the 16 levels")
