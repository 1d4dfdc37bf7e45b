"""What is drawn in a figure, for tests of all figures: its colours, and the quantities on its axes."""

from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go

from darec.figures.palette import CATEGORIES, GREY, LINE

# Titles of axes that count something or give its place: no unit goes with them. NDCG@10 and HR@10 are means over users.
COUNTED = ("layer", "head", "users", "items in", "training interactions", "trials", "parameters", "weight over")
MEASURED = ("NDCG@10", "HR@10", "validation NDCG@10", "drop of NDCG@10")


def colors_of(figure: go.Figure) -> set[str]:
    """All colours of a figure, as `#RRGGBB` whatever their opacity, by name, or `clear`; the template's left out."""
    return {_spell(color) for color in _colors(figure.to_dict())}


def _colors(part: Any, of_color: bool = False) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key not in ("template", "bdata", "dtype"):
                yield from _colors(value, of_color or key.endswith(("color", "colors", "colorscale", "colorway")))
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _colors(value, of_color)
    elif of_color and isinstance(part, str):
        yield part


def _spell(color: str) -> str:
    if not color.startswith("rgba("):
        return color.upper() if color.startswith("#") else color
    *parts, opacity = color.removeprefix("rgba(").removesuffix(")").split(",")
    return "#" + "".join(f"{int(part):02X}" for part in parts) if float(opacity) or any(map(int, parts)) else "clear"


PALETTE = {*CATEGORIES, GREY, _spell(LINE), "black", "white", "clear"}


def axes_without_unit(figure: go.Figure) -> list[str]:
    """Titles of the axes with numbers on them that name no unit in brackets and do not say what they count."""
    found = []
    for side in "xy":
        for trace in figure.data:
            axis = figure.layout[(trace[f"{side}axis"] or side).replace(side, f"{side}axis", 1)]
            values = trace[side]
            named = values is None or not len(values) or isinstance(values[0], str) or axis.ticktext
            title = (axis.title.text or "").replace("<br>", " ")
            if not named and title and "(" not in title and not title.startswith((*COUNTED, *MEASURED)):
                found.append(title)
    return found
