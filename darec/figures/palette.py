"""The colours of every figure, and the frame they stand in.

Categories are from Okabe and Ito's set, told apart under the common forms of colour blindness (Color universal design,
2008). Backgrounds are transparent and the colour of text is left to the page, so that figures fit light and dark;
scales start from the background for the same reason.
"""

import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
GREY = "#686D6F"  # darker than green and pink are to eyes that see no green
CATEGORIES = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION)
# Of items in turn, as words that can be clicked are blue, orange, green, violet and red: the theme has these colours.
ITEM_COLORS = (BLUE, ORANGE, GREEN, PINK, VERMILION)
POSITIVE, NEGATIVE = BLUE, VERMILION
# One hue that only gains strength, so that more stands out more on light and on dark; the weak gain faster.
SEQUENTIAL = [[0.0, "rgba(0,114,178,0)"], [0.2, "rgba(0,114,178,0.4)"], [1.0, "rgba(0,114,178,1)"]]
DIVERGING = [[0.0, VERMILION], [0.5, "rgba(138,143,145,0.15)"], [1.0, BLUE]]
LINE = "rgba(138,143,145,0.5)"  # borders and zero lines
CLEAR = "rgba(0,0,0,0)"


def item_color(span: int) -> str:
    """The colour of an item by its place in the window, neighbours differing; grey for the prefix and padding (< 0)."""
    return GREY if span < 0 else ITEM_COLORS[span % len(ITEM_COLORS)]


def sign_colors(values: Iterable[float]) -> list[str]:
    """One colour a value: above 0, or not."""
    return [POSITIVE if value > 0 else NEGATIVE for value in values]


def frame(figure: go.Figure, title: str, x: str, y: str, **layout: Any) -> go.Figure:
    """Give a figure its title, the titles of its axes with their units, and the house's look; returns it."""
    figure.update_layout(
        # A little below the edge, or the tops of its letters are cut.
        title={
            "text": title,
            "automargin": True,
            "yref": "container",
            "x": 0,
            "xref": "container",
            "pad": {"t": 6, "l": 10},
        },
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        margin={"l": 10, "r": 10, "t": 50, "b": 10},
        colorway=CATEGORIES,
        height=380,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
    )
    figure.update_xaxes(title_text=x, automargin=True, gridcolor=LINE, zerolinecolor=LINE)
    figure.update_yaxes(title_text=y, automargin=True, gridcolor=LINE, zerolinecolor=LINE)
    return figure.update_layout(**layout)


def ink_on(fill: str) -> str:
    """Black or white, whichever stands out more from a fill `#rrggbb` (WCAG 2 contrast)."""
    parts = [int(fill[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    light = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (light + 0.05) / 0.05 > 1.05 / (light + 0.05) else "white"


def interval_bars(rows: pd.DataFrame, value: str = "mean") -> dict[str, Any]:
    """Error bars from the columns low and high around the column `value`."""
    return {"array": rows["high"] - rows[value], "arrayminus": rows[value] - rows["low"], "symmetric": False}


def plain(text: str) -> str:
    """Text that a figure shows as it is written: neither its markup nor its mathematics are read."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def wrap(text: str, width: int = 38) -> str:
    """A long title or name in lines of about `width` letters, broken between words: half a page has no room for more.

    Args:
        text: plain already.
        width: letters of a line; a longer word stays whole.
    """
    return "<br>".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def log_axis(last: float) -> dict[str, Any]:
    """A logarithmic axis from 1 to `last` that is labelled at powers of ten, or at 1, 2 and 5 where it ends before 10.

    Plotly's own labels between powers are bare digits, such as a 2 for 20, which are read as numbers of their own.
    """
    powers = [10**power for power in range(len(str(int(last))))]
    return {"type": "log", "tickvals": [1, 2, 5] if last < 10 else powers, "tickformat": ","}


def name_of(entry: int | str, titles: Sequence[str]) -> str:
    """How an entry of a history is called: the title of an item_index, or the text itself."""
    return entry if isinstance(entry, str) else titles[entry]


def labels(names: Sequence[str], numbers: Iterable[int | str] | None = None, width: int = 32) -> list[str]:
    """Axis labels that differ even where names do not: a number before each name, which is cut to `width` letters."""
    cut = [name if len(name) <= width else name[: width - 1].rstrip() + "…" for name in names]
    counted = range(1, len(names) + 1) if numbers is None else numbers
    return [f"{number} {plain(name)}" for number, name in zip(counted, cut, strict=True)]
