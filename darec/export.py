"""What leaves the app: tables that no spreadsheet runs, and a page about one case that needs nothing but a browser."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from darec.evaluation.error_analysis import listed_items
from darec.evaluation.protocol import TOP
from darec.figures.palette import BLUE, ORANGE, SKY, VERMILION
from darec.serving import Recommender

_HISTORY = 30  # most recent items that a report lists
_RUNS_AS_FORMULA = (
    "=+\\-@\uff0b\uff0d\uff1d\uff20"  # the last four: their full-width forms, which some programs take too
)
# At the start of a cell, and after a sign at which a spreadsheet of another country starts a new cell.
_FORMULA = re.compile(rf"(^|[;\t\r\n])([\s\"']*)(?=[{_RUNS_AS_FORMULA}])")

_STYLE = f":root {{ --bar: {SKY}; --mark: {VERMILION}; }}\n"
_STYLE += f"@media (prefers-color-scheme: dark) {{ :root {{ --bar: {BLUE}; --mark: {ORANGE}; }} }}"
_STYLE += """
:root { color-scheme: light dark; --ink: #1d2526; --soft: #5b6566; --line: #ddd9cf; --paper: #fbfaf7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebea; --soft: #a3adac; --line: #344041; --paper: #14191a; } }
body { max-width: 54rem; margin: 2.5rem auto; padding: 0 1.25rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
p.lead, dt, figcaption, th { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.mark { font-weight: 600; }
figure { margin: 1rem 0 0; }
svg { width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .soft { fill: var(--soft); }
svg .bar { fill: var(--bar); }
svg .mark { fill: var(--mark); }
svg line { stroke: var(--line); }
ol { margin: 0; padding-left: 2.5rem; }
.note { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def to_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV whose cells no spreadsheet runs as formulas.

    A text that a spreadsheet could take for a formula gets an apostrophe in front; numbers stay numbers. A cell that
    holds several values has them joined by commas. UTF-8 with a mark at its start, by which spreadsheets know it.

    Args:
        table: any; its index is left out.
    """
    safe = pd.DataFrame(
        {disarm(str(name)): [_to_cell(value) for value in table[name]] for name in table.columns}, dtype=object
    )
    return safe.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig")


def disarm(text: str) -> str:
    """`text`, with an apostrophe wherever a spreadsheet could begin to read a formula."""
    disarmed = _FORMULA.sub(r"\1'\2", text)
    return f"'{disarmed}" if disarmed.startswith(("\t", "\r", "\n")) else disarmed


def _to_cell(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return disarm(", ".join(map(str, value)))
    return disarm(value) if isinstance(value, str) else value


def _list_as_evaluated(
    recommender: Recommender, history: Sequence[int], case: Mapping[str, Any]
) -> list[tuple[int, float]]:
    """The first ten items with their probabilities, ranked as evaluation does: the held-out item is a candidate even if
    it was seen before, and the last of its equals."""
    probability = recommender.probabilities(history, exclude_seen=False)
    probability[list({*history} - {int(case["target"])})] = 0
    probability /= probability.sum()
    return [(item, float(probability[item])) for item in listed_items(case)]


def write_case_report(
    recommender: Recommender,
    case: Mapping[str, Any],
    ranks: np.ndarray,
    *,
    run_id: str,
    link: str = "",
    notes: pd.DataFrame | None = None,
    label: str = "",
    terms: str = "",
) -> str:
    """One test case as an HTML page that is complete in itself: no script, no request, its figures drawn in SVG.

    Args:
        recommender: the run.
        case: a row of `list_cases`.
        ranks: [users] the ranks of all test users, among which this one's is shown.
        run_id: see `identify_run`.
        link: the address that shows the case in the app.
        notes: what was noted on the case; see `Notes.read`.
        label: what nobody may overlook who reads on, such as that these users are simulated.
        terms: what the data may be used for, as their note says.
    """
    catalog, info = recommender.catalog, recommender.info
    position = recommender.split.test.user_ids.index(str(case["user_id"]))
    history = recommender.split.test.histories[position].tolist()
    target, rank = int(case["target"]), int(case["rank"])
    listed = _list_as_evaluated(recommender.asked(recommender.split.test.asked_at(position)), history, case)
    title = catalog.titles[target]
    where = "in the list" if rank <= TOP else "not in the list"
    facts = {
        "Run": f"{info['name']} ({info['kind']}), id {run_id}",
        "Seed": info.get("seed", "not recorded"),
        "Data": f"fingerprint {info['data_fingerprint']}, {len(catalog):,} items, {len(ranks):,} test users",
        **({"Terms of the data": terms} if terms else {}),
        "Trained": _describe_provenance(info.get("provenance", {})),
        "User": case["user_id"],
        "History": f"{len(history):,} items",
        "Held-out item": f"{title} (item_id {catalog.item_ids[target]})",
        "Its popularity": f"{case['target_popularity']:,} training interactions",
        "Its rank": f"{rank:,}, seen items left out; {case['rank_seen_kept']:,} with seen items kept",
    }
    if "rank_cf_off" in case:
        facts["Its rank without CF"] = f"{case['rank_cf_off']:,}, collaborative knowledge switched off"
    rows = [
        (place, ("★ " if item == target else "") + catalog.titles[item], catalog.about(item), f"{share:.2%}")
        for place, (item, share) in enumerate(listed, start=1)
    ]
    bars = [(catalog.titles[item], 100 * share, item == target) for item, share in listed]
    recent = history[-_HISTORY:][::-1]
    parts = [
        f"<h1>{_escape(title)}: rank {rank:,}</h1>",
        f'<p class="lead">What {_escape(info["name"])} recommended to test user {_escape(case["user_id"])}; '
        f"the held-out item is {where} of {TOP}.</p>",
        f"<p><strong>{_escape(label)}</strong></p>" if label else "",
        _definitions(facts),
        f'<p>Open it in the app: <a href="{_escape(link)}">{_escape(link)}</a></p>' if link else "",
        "<h2>Recommended</h2>",
        _table(("#", "Title", "About", "Probability"), rows, marked={row for row, bar in enumerate(bars) if bar[2]}),
        _bar_figure(bars, "Probability of the first recommendations, in percent; the held-out item is marked."),
        "<h2>Among all test users</h2>",
        _rank_figure(ranks, rank),
        "<h2>History, the newest first</h2>",
        f'<ol reversed start="{len(history)}">'
        + "".join(f"<li>{_escape(catalog.titles[item])}</li>" for item in recent)
        + "</ol>",
        f"<p>{len(history) - len(recent):,} older items are left out.</p>" if len(history) > len(recent) else "",
        *_notes(notes),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(case['user_id'])}: {_escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _escape(value: Any) -> str:
    return html.escape(str(value))


def _describe_provenance(provenance: Mapping[str, Any]) -> str:
    versions = provenance.get("versions", {})
    words = [str(provenance.get("date", "")), str(provenance.get("device", ""))]
    words += [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    return ", ".join(filter(None, words)) or "not recorded"


def _definitions(facts: Mapping[str, Any]) -> str:
    rows = (f"<dt>{_escape(name)}</dt><dd>{_escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], marked: set[int]) -> str:
    numbers = {"#", "Probability"}
    kinds = [' class="number"' if name in numbers else "" for name in header]
    head = "".join(f"<th{kind}>{_escape(name)}</th>" for name, kind in zip(header, kinds, strict=True))
    body = "".join(
        ('<tr class="mark">' if number in marked else "<tr>")
        + "".join(f"<td{kind}>{_escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _bar_figure(bars: Sequence[tuple[str, float, bool]], caption: str, form: str = ".2f") -> str:
    """Horizontal bars, one a line: label, value, whether it is marked; values are written as `form` says."""
    longest = max((value for _, value, _ in bars), default=0.0) or 1.0
    lines = []
    for number, (label, value, marked) in enumerate(bars):
        y, width = 24 * number, 420 * value / longest
        short = label if len(label) <= 40 else f"{label[:39]}…"
        lines.append(
            f'<text x="290" y="{y + 16}" text-anchor="end">{_escape(short)}</text>'
            f'<rect class="{"mark" if marked else "bar"}" x="300" y="{y + 4}" width="{width:.1f}" height="16" rx="3"/>'
            f'<text class="soft" x="{308 + width:.1f}" y="{y + 16}">{value:{form}}</text>'
        )
    return _figure(780, 24 * len(bars), lines, caption)


def _rank_figure(ranks: np.ndarray, rank: int) -> str:
    """How many users have a rank in each class, classes doubling in width; the case's class is marked."""
    last = int(max(ranks.max(), rank))
    bounds = [2**power for power in range(math.floor(math.log2(last)) + 2)]
    counts = np.histogram(ranks, bounds)[0]
    bars = []
    for low, above, count in zip(bounds, bounds[1:], counts.tolist(), strict=False):
        label = f"rank {low:,}" if above == low + 1 else f"rank {low:,} to {above - 1:,}"
        bars.append((label, count, low <= rank < above))
    return _bar_figure(
        bars, "Test users by the rank of their held-out item; the class of this case is marked.", form=","
    )


def _figure(width: int, height: int, lines: Sequence[str], caption: str) -> str:
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{_escape(caption)}">{"".join(lines)}</svg>'
        f"<figcaption>{_escape(caption)}</figcaption></figure>"
    )


def _notes(notes: pd.DataFrame | None) -> list[str]:
    if notes is None or notes.empty:
        return []
    entries = [
        f"<dt>{_escape(row['author'])}, {_escape(row['written_at'][:10])}, on {_escape(row['run_name'])}</dt>"
        f'<dd class="note">{_escape(" ".join(f"[{tag}]" for tag in row["tags"]))} {_escape(row["note"])}</dd>'
        for _, row in notes.iterrows()
    ]
    return ["<h2>Notes</h2>", f"<dl>{''.join(entries)}</dl>"]
