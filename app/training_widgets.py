"""Pieces of the Training page: what to train, what runs, what came of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import resources, training_resources
from app.charts import show_figure
from app.widgets import SIMULATED, choose_run, errors_shown, literal, pick_model, title_row
from darec.background import LOG, Job, Jobs, describe_progress, plan_training, read_events
from darec.config import load_settings, preset_names
from darec.errors import DataError
from darec.figures.training import LOSSES, training_curves_figure, training_curves_table
from darec.model.quantization import is_four_bit
from darec.runs import part_of

POLL = 2.0  # seconds between two looks at what runs
SMOOTHED = 10  # steps over which drawn losses are averaged
DRAWN_STEPS = 500  # of a log, evenly chosen
CHECKPOINT_MINUTES = 0.25  # at most so much is lost when a training is stopped
TINY = "Tiny and random (nothing to fetch)"
NEXT_ITEM = "Next item"
FIGURES = {
    "next_item": (
        "Loss of the next item",
        f"Mean over the last {SMOOTHED} steps, in nats: 0.69 less doubles the probability of the item that came next. "
        f"Below it the change from the first {SMOOTHED}.",
    ),
    "ndcg@10": (
        "Validation NDCG@10",
        "Of each user's last item but one, which training has not seen; seen items left out. Errors shows the last "
        "ones. Below it the change from the first validation.",
    ),
    "ndcg@10_cf_off": ("Validation, CF off", "The same without collaborative filtering (CF): what is ranked by words."),
}


def open_page(title: str, caption: str) -> None:
    """The page's head, with the models where there are any; none has to be loaded here.

    The menus of this page follow the link without being bound to it. Were *Model* bound, streamlit would take the run
    out of a link that leads from here to another one, such as *Open on Recommend*; and what is bound, another menu
    cannot change in one step with its own.
    """
    under_title, right = title_row(title, caption)
    if runs := resources.list_runs():
        name = pick_model(right, runs, _show_picked)
        with errors_shown():
            if resources.is_simulated(training_resources.read_info(runs[name])):
                under_title.caption(f"{caption} {SIMULATED}")


def _show_picked() -> None:
    """Have the link, and by it the other menus that have this model, show it; in one step of the browser's history."""
    name = st.session_state["run"]
    run = resources.list_runs()[name]
    changed = {"run": name}
    if (run / LOG).is_file() and not training_resources.open_jobs().running():
        changed["training_shown"] = name
    with errors_shown():
        if "quantization" in training_resources.read_info(run):
            changed["quantized"] = name
    st.query_params.update(changed)


def choose_training(jobs: Jobs) -> None:
    """Data, backbone and settings of a training, and the button that starts it."""
    data, may_type = training_resources.list_data(), resources.serves_this_machine_only()
    if not data:
        st.info("There is no prepared data yet. Bring some on the Data page, or fetch some from a terminal:")
        st.code("python -m darec data prepare ml-100k --out data/ml-100k", language="bash")
    chosen = st.selectbox(
        "Data",
        list(data),
        key="training_data",
        accept_new_options=may_type,
        placeholder="Choose, or type a folder" if may_type else "Choose",
        help="Prepared folders in ./data and the data of runs; where the app serves this machine only, also a folder "
        "that `data prepare` wrote, by its path.",
    )
    about = st.container()
    backbone = st.selectbox(
        "Backbone",
        [TINY, *training_resources.list_backbones()],
        key="training_backbone",
        accept_new_options=may_type,
        help="The language model; where the app serves this machine only, also a folder, or the name of one on the "
        "Hugging Face hub.",
    )
    presets = preset_names()
    left, middle, right = st.columns([2, 1, 1])
    preset = left.selectbox(
        "Preset",
        presets,
        presets.index("classroom"),
        key="training_preset",
        help="Committed settings; classroom learns visibly within three minutes on a laptop, with the tiny backbone.",
    )
    whole = load_settings(preset).training.epochs
    epochs = middle.number_input("Epochs", 1, 1000, whole, key=f"epochs {preset}", help="Passes over the users.")
    seed = right.number_input("Seed", 0, 2**31 - 1, 0, key="training_seed", help="The same seed gives the same run.")
    suggestion = free_name(jobs, preset)
    name = st.text_input("Name of the run", suggestion, key=f"name {suggestion}", max_chars=64)
    running = jobs.running()
    started = st.button(
        "Start training",
        icon=":material/play_arrow:",
        type="primary",
        disabled=running is not None,
        help=f"{running.name} is running; one job runs at a time." if running else None,
    )
    with errors_shown():
        if chosen:
            dataset, parts = training_resources.load_split(data.get(chosen, Path(chosen)))
            sample = load_settings(preset).training.users
            learned = f" · {preset} learns from {sample:,} of the users" if 0 < sample < len(parts.train) else ""
            about.caption(
                f"{len(parts.train):,} users · {len(dataset.catalog):,} items · "
                f"{len(dataset.interactions):,} interactions{learned}"
            )
        if started:
            if not chosen:
                raise DataError("Training needs data, and none is chosen. Choose a data set, or type its folder.")
            overrides = [f"training.epochs={epochs}", f"training.checkpoint_minutes={CHECKPOINT_MINUTES}"]
            arguments = ["train", "--data", str(data.get(chosen, Path(chosen))), "--out", str(jobs.folder / name)]
            if backbone in (None, TINY):
                overrides.append("backbone.tiny=true")
            else:
                arguments += ["--backbone", backbone]
            arguments += ["--preset", preset, "--seed", str(seed)]
            arguments += [word for override in overrides for word in ("--set", override)]
            plan = plan_training(parts, load_settings(preset, None, tuple(overrides)))
            jobs.start(Job(name, tuple(arguments), plan))
            st.rerun()


def free_name(jobs: Jobs, stem: str) -> str:
    """`stem`, or with a number behind it where that is taken."""
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    taken = {job.name for job in [*jobs.unfinished(), jobs.running()] if job}
    return next((name for name in names if name not in taken and not (jobs.folder / name).exists()), stem)


def watch(jobs: Jobs) -> None:
    """What runs, or else a training that is over; looks again by itself every few seconds."""
    running = jobs.running()
    draw = st.fragment(_watch, run_every=POLL)
    draw(jobs, running)


def _watch(jobs: Jobs, was_running: Job | None) -> None:
    running = jobs.running()
    if running != was_running:  # begun or ended since the page was drawn, perhaps by another session
        st.rerun(scope="app")
    if running is None:
        _show_past(jobs)
    elif running.command == "train":
        if st.query_params.get("training_shown") != running.name:
            st.query_params["training_shown"] = running.name  # so it stays in view when it ends
        _show_training(jobs, running)
    else:
        with st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.subheader(f"{literal(running.name)} is being made", anchor=False, width="stretch")
                _stop_button(jobs)
            standing = jobs.stage_of(running)
            st.progress(standing.share, standing.stage)
            st.caption("Its weights go to 4 bits; then 500 validation users at most are ranked before and after.")


def _show_training(jobs: Jobs, job: Job) -> None:
    events = jobs.events_of(job)
    standing = describe_progress(events, job.plan)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader(f"{literal(job.name)} is learning", anchor=False, width="stretch")
            _stop_button(jobs)
        left = "" if standing.seconds_left is None else f" · {spell_seconds(standing.seconds_left)} left"
        st.progress(standing.share, f"{standing.stage}{left}")
        _metric_row(events)
    _show_curves(events, job.name, live=True)


def _stop_button(jobs: Jobs) -> None:
    stopping = jobs.is_stopping()
    st.button(
        "Stopping …" if stopping else "Stop",
        icon=":material/stop:",
        key="stop",
        on_click=jobs.stop,
        disabled=stopping,
        help="A training keeps its checkpoint and can go on later; of a run in 4 bits nothing is kept.",
    )


def _show_past(jobs: Jobs) -> None:
    """A training that was stopped, failed or is finished, and what can be done with it."""
    latest = jobs.latest()
    if latest and latest.command != "train" and (complaint := jobs.complaint(latest)):
        st.error(f"{literal(latest.name)} was not made. {literal(complaint)}", icon=":material/error:")
    unfinished = {job.name: job for job in jobs.unfinished()}
    finished = {name: run for name, run in resources.list_runs().items() if (run / LOG).is_file()}
    options = {**{name: jobs.folder / name for name in unfinished}, **finished}
    if not options:
        with st.container(border=True):
            st.subheader("Nothing has been trained here yet", anchor=False)
            st.markdown(
                "Press **Start training**. First a collaborative filtering (CF) model learns who takes what after "
                "what; then the language model learns to read histories. Its loss, and how it ranks held-out items, "
                "are drawn here as they change."
            )
        return
    begun = latest.name if latest else ""
    picked = st.session_state.get("picked", "")
    # By its name alone: this is about how it was trained, and it stands beside nothing.
    name = choose_run("Training", "training_shown", options, begun, picked, width="stretch", shown=lambda name, _: name)
    if name in unfinished:
        _show_unfinished(jobs, unfinished[name])
        events = jobs.events_of(unfinished[name])
    else:
        events = read_events(finished[name] / LOG)
        with errors_shown():
            _show_finished(jobs, name, finished[name])
    _show_curves(events, name)


def _show_unfinished(jobs: Jobs, job: Job) -> None:
    events = jobs.events_of(job)
    complaint = jobs.complaint(job)
    with st.container(border=True):
        if complaint:
            st.error(literal(complaint), icon=":material/error:")
        else:
            standing = describe_progress(events, job.plan)
            st.progress(standing.share, f"Stopped. {standing.stage}")
        with st.container(horizontal=True, vertical_alignment="center"):
            resumed = st.button("Resume", icon=":material/resume:", type="primary", help="Go on from the checkpoint.")
            with st.popover("Delete", icon=":material/delete:"):
                st.markdown("What it has learned so far is lost.")
                dropped = st.button("Delete for good", type="primary")
        _metric_row(events)
    with errors_shown():
        if resumed:
            jobs.start(job, resume=True)
        if dropped:
            jobs.drop(job)
            st.query_params.pop("training_shown", None)
        if resumed or dropped:
            st.rerun(scope="app")


def _show_finished(jobs: Jobs, name: str, run: Path) -> None:
    info = training_resources.read_info(run)
    with st.container(border=True):
        seconds = spell_seconds(info["seconds"]) if "seconds" in info else "an unknown time"
        kept = f"; the weights of epoch {info['best_epoch']} were kept" if "best_epoch" in info else ""
        st.markdown(f":material/check_circle: **{literal(name)}** is finished, after {seconds} of training{kept}.")
        with st.container(horizontal=True, vertical_alignment="center"):
            query = {"run": name}
            link = "app/app_pages/recommend.py"
            st.page_link(link, label="Open on Recommend", icon=":material/recommend:", query_params=query)
            if info["kind"] == "darec" and not is_four_bit(part_of(run, "backbone")):
                clicked = st.button("Quantize to 4 bits", icon=":material/compress:")
                if clicked:
                    small = free_name(jobs, f"{run.resolve().name}-4bit")
                    jobs.start(Job(small, ("quantize", str(run), "--out", str(jobs.folder / small))))
                    st.rerun(scope="app")
        _metric_row(read_events(run / LOG))


def _metric_row(events: Sequence[Mapping[str, Any]]) -> None:
    """Loss and NDCG@10 now, and what they gained since the beginning."""
    row = st.container(horizontal=True, gap="large")  # none is cut off
    for key, (label, meaning) in FIGURES.items():
        values = [event[key] for event in events if event["stage"] in ("training", "validation") and key in event]
        window = SMOOTHED if key == "next_item" else 1
        if values:
            first, last = (sum(part) / len(part) for part in (values[:window], values[-window:]))
            digits = 2 if key == "next_item" else 4
            change = f"{last - first:+.{digits}f}" if len(values) > window else None
            row.metric(
                label,
                f"{last:.{digits}f}",
                change,
                delta_color="inverse" if key == "next_item" else "normal",
                help=meaning,
                width="content",
            )
        else:
            row.metric(label, "…", help=meaning, width="content")


def _show_curves(events: Sequence[dict[str, Any]], name: str, live: bool = False) -> None:
    table = training_curves_table(events)
    if table.empty:
        return
    losses = st.segmented_control(
        "Losses",
        [NEXT_ITEM, "All losses"],
        default=NEXT_ITEM,
        required=True,
        key="losses",
        bind="query-params",
        width="content",
    )
    alt = f"Losses over time, and validation NDCG@10 of all that is trained, of {name}"
    drawn = smooth_losses(table, LOSSES if losses == "All losses" else ("next_item",))
    show_figure(training_curves_figure(drawn), table, "training", alt, live=live)
    st.caption(
        f"Losses, those of the joint training, are drawn as means over {SMOOTHED} steps; the numbers are those of each "
        f"step. {_describe_users(events)}"
    )


def _describe_users(events: Sequence[Mapping[str, Any]]) -> str:
    """Whose ranks are drawn: means over other users do not compare."""
    users = next((event["users"] for event in events if "users" in event), None)
    before = any(event["stage"] in ("collaborative", "short way") for event in events)
    if users is None or not before:
        return ""
    return f"DARec ranks {users:,} validation users; what learns before it ranks all of those that are learned from."


def smooth_losses(table: pd.DataFrame, losses: Sequence[str]) -> pd.DataFrame:
    """What to draw: losses averaged over the last steps, few enough to be drawn again every two seconds.

    Args:
        table: from `training_curves_table`.
        losses: its columns that are wanted; all others go.
    """
    steps, others = table[table["stage"] == "training"], table[table["stage"] != "training"]
    means = steps[list(losses)].rolling(SMOOTHED, min_periods=1).mean()
    drawn = steps.assign(**dict.fromkeys(LOSSES, math.nan)).assign(**{name: means[name] for name in losses})
    return pd.concat([drawn.iloc[:: max(1, math.ceil(len(drawn) / DRAWN_STEPS))], others])


def spell_seconds(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
