"""Pictures of attention, and of the mask under which it was paid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from darec.errors import ConfigError
from darec.explain.attention import SHARES, Attention, WindowTokens
from darec.explain.masked_tokens import HiddenWord
from darec.figures.palette import BLUE, CATEGORIES, GREY, LINE, ORANGE, SEQUENTIAL, frame, item_color, labels, name_of

_SHARE_COLORS = dict(zip(SHARES, (*CATEGORIES[:2], GREY), strict=True))
_PIXELS = 13  # a token's height where there is room


def attention_figure(
    attention: Attention, layer: int, head: int | None = None, pair: tuple[int, int] | None = None
) -> go.Figure:
    """Heatmap of one layer, tokens by tokens; all heads' mean where no head is given. Borders divide items; the
    strongest hundredth of the weights share the last colour, so that the rest can be told apart.

    Args:
        attention: of one pass.
        layer: from 0.
        head: from 0.
        pair: begin with the words of these two only, that look and that are looked at: 0 the prefix, k + 1 the item of
            span k, as in `Attention.items`.

    Raises:
        ConfigError: there is no such layer or head.
    """
    names = _token_labels(attention.tokens)
    weights = np.where(attention.mask, _head(attention, layer, head), np.nan)
    strong = _strong(weights, attention)
    heatmap = go.Heatmap(
        z=weights,
        x=names,
        y=names,
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=strong,
        colorbar=_colorbar("weight", strong),
        hoverongaps=False,
        hovertemplate="%{y}<br>looks at %{x}<br>weight %{z:.3f}<extra></extra>",
    )
    title = f"Layer {layer + 1}, {head_name(head)}, {attention.mask_name} mask"
    figure = _token_frame(go.Figure(heatmap), attention.tokens, title)
    if pair is not None:
        rows, columns = (np.flatnonzero(attention.tokens.span == of - 1) for of in pair)
        figure.update_yaxes(autorange=None, range=[rows[-1] + 0.5, rows[0] - 0.5])
        figure.update_xaxes(range=[columns[0] - 0.5, columns[-1] + 0.5])
    return figure


def attention_table(attention: Attention, layer: int, head: int | None = None) -> pd.DataFrame:
    """One row a pair that the mask allows: from, to (positions and words), weight 0 to 1; each `from` sums to 1."""
    query, key = np.nonzero(attention.mask)
    texts = np.array(attention.tokens.texts, dtype=object)
    return pd.DataFrame(
        {
            "from position": query,
            "from": texts[query],
            "to position": key,
            "to": texts[key],
            "weight": _head(attention, layer, head)[query, key],
        }
    )


def attention_wall_figure(attention: Attention) -> go.Figure:
    """Every head of every layer as a small heatmap, in one picture; a head's shares are under the pointer."""
    num_layers, num_heads, size, _ = attention.weights.shape
    percent = np.round(100 * attention.weights).astype(np.uint8)  # one byte a cell: some walls have millions
    wall = percent.transpose(0, 2, 1, 3).reshape(num_layers * size, num_heads * size)
    layers, heads = np.divmod(np.arange(num_layers * num_heads), num_heads)
    centres = go.Scatter(
        x=heads * size + size / 2 - 0.5,
        y=layers * size + size / 2 - 0.5,
        mode="markers",
        marker={"size": 40, "symbol": "square", "opacity": 0, "color": BLUE},
        customdata=np.column_stack([layers + 1, heads + 1, 100 * attention.head_shares.reshape(-1, 3)]),
        hovertemplate="Layer %{customdata[0]}, head %{customdata[1]}<br>"
        + "<br>".join(f"{name} %{{customdata[{2 + column}]:.0f}} %" for column, name in enumerate(SHARES))
        + "<extra></extra>",
        showlegend=False,
    )
    strong = _strong(attention.weights, attention)
    heatmap = go.Heatmap(
        z=wall,
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=100 * strong,
        colorbar=_colorbar("weight", 100 * strong, "{:.1f} %"),
        hoverinfo="skip",
    )
    figure = frame(
        go.Figure([heatmap, centres]),
        f"All heads, {attention.mask_name} mask (rows of a picture look, columns are looked at)",
        "head",
        "layer",
        height=max(300, 110 * num_layers),
        shapes=_grid(np.arange(1, num_heads) * size, np.arange(1, num_layers) * size),
        hoverdistance=-1,  # anywhere in a picture its own centre is nearest, so that all of it can be clicked
    )
    figure.update_xaxes(tickvals=(np.arange(num_heads) + 0.5) * size, ticktext=list(range(1, num_heads + 1)))
    figure.update_yaxes(tickvals=(np.arange(num_layers) + 0.5) * size, ticktext=list(range(1, num_layers + 1)))
    figure.update_xaxes(showgrid=False, range=[-0.5, num_heads * size - 0.5])
    return figure.update_yaxes(showgrid=False, range=[num_layers * size - 0.5, -0.5])


def attention_wall_table(attention: Attention) -> pd.DataFrame:
    """One row a head: layer, head (from 1), and its shares, which sum to 1."""
    num_layers, num_heads = attention.head_shares.shape[:2]
    index = [(layer + 1, head + 1) for layer, head in np.ndindex(num_layers, num_heads)]
    shares = pd.DataFrame(attention.head_shares.reshape(-1, 3), columns=list(SHARES))
    return pd.concat([pd.DataFrame(index, columns=["layer", "head"]), shares], axis=1)


def item_attention_figure(attention: Attention, titles: Sequence[str], layer: int | None = None) -> go.Figure:
    """Heatmap of what items give to items and to the prefix, of one layer or averaged over all; rows sum to 1.

    Its second trace holds the cells by number, row by row, so that they can be clicked.

    Raises:
        ConfigError: there is no such layer.
    """
    names = _item_labels(attention, titles)
    weights = _item_weights(attention, layer)
    strong = float(weights[1:].max())  # of items; the prefix can see but itself
    rows, columns = np.indices(weights.shape).reshape(2, -1)
    cells = go.Scatter(
        x=columns,
        y=rows,
        mode="markers",
        marker={"size": 24, "symbol": "square", "opacity": 0, "color": BLUE},
        customdata=[
            (names[row], names[column], weights[row, column]) for row, column in zip(rows, columns, strict=True)
        ],
        hovertemplate="%{customdata[0]}<br>looks at %{customdata[1]}<br>share %{customdata[2]:.3f}<extra></extra>",
        showlegend=False,
    )
    heatmap = go.Heatmap(
        z=weights,
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=strong,
        colorbar=_colorbar("share", strong),
        hoverinfo="skip",
    )
    which = "all layers" if layer is None else f"layer {layer + 1}"
    figure = frame(
        go.Figure([heatmap, cells]), f"Items look at items, {which}, {attention.mask_name} mask", "looked at", "looks"
    )
    figure.update_layout(height=max(320, 180 + 26 * len(names)), hoverdistance=-1)  # the nearest cell, wherever it is
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False, "zeroline": False}
    figure.update_xaxes(tickangle=-40, range=[-0.5, len(names) - 0.5], **ticks)
    return figure.update_yaxes(range=[len(names) - 0.5, -0.5], **ticks)


def item_attention_table(attention: Attention, titles: Sequence[str], layer: int | None = None) -> pd.DataFrame:
    """Square table of the same: a row looks, a column is looked at; rows sum to 1."""
    names = [f"{n} {name}" for n, name in enumerate(_item_names(attention, titles))]
    return pd.DataFrame(_item_weights(attention, layer), index=pd.Index(names, name="looks"), columns=names)


def attention_shares_figure(attention: Attention) -> go.Figure:
    """Bars by layer: what tokens of items give to their own item, to other items and to the prefix.

    Points above them leave the prefix aside: of what items get, the share that stays within the item.
    """
    layers = np.arange(1, len(attention.shares) + 1)
    bars = [
        go.Bar(
            x=layers,
            y=100 * share,
            name=name,
            marker_color=_SHARE_COLORS[name],
            hovertemplate=f"Layer %{{x}}<br>{name} %{{y:.1f}} %<extra></extra>",
        )
        for name, share in zip(SHARES, attention.shares.T, strict=True)
    ]
    intra = go.Scatter(
        x=layers,
        y=100 * attention.item_shares[:, 0],
        name="intra-item share, prefix aside",
        mode="markers",
        marker={"color": "white", "size": 10, "line": {"color": "black", "width": 2}},  # seen on every bar
        hovertemplate="Layer %{x}<br>of what items get, %{y:.1f} % stays within<extra></extra>",
    )
    figure = frame(
        go.Figure([*bars, intra]),
        f"Where attention goes, by layer, {attention.mask_name} mask",
        "layer",
        "share of attention (%)",
        barmode="stack",
    )
    return figure.update_xaxes(dtick=1, showgrid=False)


def attention_shares_table(attention: Attention) -> pd.DataFrame:
    """One row a layer (from 1): its three shares, which sum to 1, and the two without the prefix, which do too."""
    names = [*SHARES, "intra-item", "inter-item"]
    table = pd.DataFrame(np.hstack([attention.shares, attention.item_shares]), columns=names)
    table.insert(0, "layer", np.arange(1, len(table) + 1))
    return table


def mask_figure(tokens: WindowTokens, mask: np.ndarray, mask_name: str) -> go.Figure:
    """Who may look at whom: backwards in blue, ahead, among an item's own words, in orange."""
    names = _token_labels(tokens)
    ahead = np.triu(np.ones_like(mask), 1)
    figure = go.Figure(
        go.Heatmap(
            z=np.where(mask, np.where(ahead, 1.0, 0.0), np.nan),
            x=names,
            y=names,
            zmin=0,
            zmax=1,
            colorscale=[[0, BLUE], [0.5, BLUE], [0.5, ORANGE], [1, ORANGE]],
            colorbar={"tickvals": [0.25, 0.75], "ticktext": ["itself and<br>before", "ahead"], "len": 0.4},
            opacity=0.75,
            hoverongaps=False,
            hovertemplate="%{y}<br>may look at %{x}<extra></extra>",
        )
    )
    return _token_frame(figure, tokens, f"The {mask_name} mask: who may look at whom")


def mask_table(tokens: WindowTokens, mask: np.ndarray) -> pd.DataFrame:
    """Square table of booleans: a row may look at a column."""
    names = [f"{position} {text}" for position, text in enumerate(tokens.texts)]
    return pd.DataFrame(mask, index=pd.Index(names, name="looks"), columns=names)


def tokens_table(tokens: WindowTokens, titles: Sequence[str]) -> pd.DataFrame:
    """One row a token: position, text, item (title, or prefix) and the colour that its item has in pictures."""
    owners = ["prefix" if span < 0 else name_of(tokens.entries[span], titles) for span in tokens.span]
    return pd.DataFrame(
        {
            "position": np.arange(len(tokens.texts)),
            "text": tokens.texts,
            "item": owners,
            "color": [item_color(span) for span in tokens.span],
        }
    )


def hidden_word_attention_figure(
    word: HiddenWord, tokens: WindowTokens, reading: str = "context", head: int | None = None
) -> go.Figure:
    """Heatmap, layers by tokens: where the position looks that a reading of a hidden word takes its words from; all
    heads' mean where no head, from 0, is given.

    Raises:
        ConfigError: there is no such reading or head.
    """
    table = hidden_word_attention_table(word, tokens, reading, head)
    names = _token_labels(tokens)
    weights = table.drop(columns=["position", "text"]).to_numpy().T  # [L, T]
    expectation = word.context if reading == "context" else word.causal
    heatmap = go.Heatmap(
        z=np.where(weights > 0, weights, np.nan),
        x=names,
        y=list(range(1, len(weights) + 1)),
        colorscale=SEQUENTIAL,
        zmin=0,
        zmax=weights.max(),
        colorbar={"title": {"text": "weight"}},
        hoverongaps=False,
        hovertemplate="Layer %{y}<br>looks at %{x}<br>weight %{z:.3f}<extra></extra>",
    )
    title = f"Where position {expectation.looks_from} looks, {reading} mask"
    height = max(280, 200 + 24 * len(weights))
    figure = frame(go.Figure(heatmap), title, "token", f"layer, {head_name(head)}", height=height)
    return figure.update_xaxes(tickangle=-60, showgrid=False).update_yaxes(
        dtick=1, showgrid=False, autorange="reversed"
    )


def hidden_word_attention_table(
    word: HiddenWord, tokens: WindowTokens, reading: str = "context", head: int | None = None
) -> pd.DataFrame:
    """One row a token: position, text, and its weight in each layer; all heads' mean where no head, from 0, is given.
    Each layer sums to 1.

    Raises:
        ConfigError: there is no such reading or head.
    """
    if reading not in ("context", "causal"):
        raise ConfigError(f"A reading is context or causal; got {reading!r}.")
    attention = (word.context if reading == "context" else word.causal).attention  # [L, H, T]
    if not (head is None or 0 <= head < attention.shape[1]):
        raise ConfigError(f"Heads lie between 0 and {attention.shape[1] - 1}; got {head}.")
    weights = attention.mean(axis=1) if head is None else attention[:, head]
    table = pd.DataFrame({"position": np.arange(len(tokens.texts)), "text": tokens.texts})
    return table.assign(**{f"layer {layer}": row for layer, row in enumerate(weights, start=1)})


def head_name(head: int | None) -> str:
    """What a head, from 0, is called, or all of them together."""
    return "mean over heads" if head is None else f"head {head + 1}"


def _head(attention: Attention, layer: int, head: int | None) -> np.ndarray:
    """[T, T]."""
    num_layers, num_heads = attention.weights.shape[:2]
    if not 0 <= layer < num_layers or not (head is None or 0 <= head < num_heads):
        raise ConfigError(
            f"Layers lie between 0 and {num_layers - 1}, heads between 0 and {num_heads - 1}; got {layer} and {head}."
        )
    weights = attention.weights[layer]
    return weights.mean(axis=0) if head is None else weights[head]


def _strong(weights: np.ndarray, attention: Attention) -> float:
    """What 99 % of the weights that tokens of items give do not exceed; the prefix, which can see but itself, aside."""
    allowed = attention.mask & (attention.tokens.span >= 0)[:, None]
    return float(np.quantile(weights[..., allowed], 0.99))


def _colorbar(title: str, end: float, spelled: str = "{:.2f}") -> dict[str, Any]:
    """A scale whose last colour stands for its end and all beyond."""
    signs = [spelled.format(value) for value in (0, end / 2, end)]
    return {"title": {"text": title}, "tickvals": [0, end / 2, end], "ticktext": [*signs[:-1], f"≥ {signs[-1]}"]}


def _item_weights(attention: Attention, layer: int | None) -> np.ndarray:
    """[S + 1, S + 1]."""
    if layer is None:
        return attention.items.mean(axis=0)
    if not 0 <= layer < len(attention.items):
        raise ConfigError(f"Layers lie between 0 and {len(attention.items) - 1}; got {layer}.")
    return attention.items[layer]


def _token_labels(tokens: WindowTokens) -> list[str]:
    return labels(tokens.texts, range(len(tokens.texts)))


def _item_names(attention: Attention, titles: Sequence[str]) -> list[str]:
    return ["prefix", *(name_of(entry, titles) for entry in attention.tokens.entries)]


def _item_labels(attention: Attention, titles: Sequence[str]) -> list[str]:
    names = _item_names(attention, titles)
    return labels(names, range(len(names)))


def _token_frame(figure: go.Figure, tokens: WindowTokens, title: str) -> go.Figure:
    borders = np.flatnonzero(np.diff(tokens.span)) + 1
    size = max(420, 200 + _PIXELS * len(tokens.texts))
    frame(figure, title, "looked at", "looks", height=min(size, 1000), shapes=_grid(borders, borders))
    ticks = {"showgrid": False, "tickfont": {"size": 10}}
    return figure.update_xaxes(tickangle=-60, **ticks).update_yaxes(autorange="reversed", **ticks)


def _grid(columns: np.ndarray, rows: np.ndarray) -> list[dict[str, object]]:
    """Thin lines before these columns and rows of a heatmap."""
    line = {"type": "line", "line": {"color": LINE, "width": 1}}
    upright = [{**line, "yref": "paper", "y0": 0, "y1": 1, "x0": x - 0.5, "x1": x - 0.5} for x in columns.tolist()]
    level = [{**line, "xref": "paper", "x0": 0, "x1": 1, "y0": y - 0.5, "y1": y - 0.5} for y in rows.tolist()]
    return upright + level
