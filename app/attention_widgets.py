"""Pieces of the Attention page: words to hide and what follows, one head, all heads, items, shares, the mask."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import streamlit as st

from app import state
from app.charts import show_figure
from app.explain_widgets import show_rank_changes
from app.state import Selection
from app.widgets import choose_view, literal
from darec.explain.attention import Attention, MaskName, WindowTokens, draw_mask, explain_attention, own_mask
from darec.explain.masked_tokens import HiddenWord, HiddenWords, WordExpectation, hide_words
from darec.figures.attention import (
    attention_figure,
    attention_shares_figure,
    attention_shares_table,
    attention_table,
    attention_wall_figure,
    attention_wall_table,
    head_name,
    hidden_word_attention_figure,
    hidden_word_attention_table,
    item_attention_figure,
    item_attention_table,
    mask_figure,
    mask_table,
)
from darec.figures.masked_tokens import expected_words_figure, expected_words_table
from darec.figures.palette import plain
from darec.model.recommender import DarecModel
from darec.serving import Recommender

INK = ("blue", "orange", "green", "violet", "red")  # of items in turn: neighbours differ, and each has its number too
SOFT_TOKENS = "[ITEM] closes an item, and from there the next one is told; [USER] stands for the long past."
ALL = "all, mean"  # in menus of layers and heads
MANY, CHIPS = 40, 560  # more words scroll, in so many pixels, so that what a click changes stays in sight
READINGS: dict[str, tuple[str, str]] = {
    "context": (
        "Context mask",
        "The word itself is covered by [MASK], as are all others that you hide. The place sees earlier items, and the "
        "words of its own item on both sides.",
    ),
    "causal": (
        "Causal mask",
        "Ordinary language modelling: nothing is covered. The word before the place sees all earlier words and tells "
        "what comes next; it sees nothing of what follows.",
    ),
}


# -- hidden words ------------------------------------------------------------------------------------------------------


def keep_hidden_words(model: DarecModel, selection: Selection) -> None:
    """After a change of page, hide the same words of the same history again, unless the link says something else.

    Another model that cuts the same titles into other words begins with its own.
    """
    params, names = st.query_params, list(state.OF_ONE_HISTORY)
    words = draw_mask(model, selection.history, "context")[0].texts
    kept_history, kept_words, kept = st.session_state.get("hidden words", (selection.history, words, {}))
    if st.session_state["arrived"]:
        if kept_words == words and not any(map(params.get_all, names)):
            params.update(kept)
    elif kept_history == selection.history and kept_words != words:
        for name in names:
            params.pop(name, None)
    own = {name: params[name] for name in names if params.get_all(name)}
    st.session_state["hidden words"] = selection.history, words, own


def hidden_positions(tokens: WindowTokens) -> list[int]:
    """Positions of the words that the link hides, or the newest item's longest word; none where it says so.

    Positions that hold no word are dropped.
    """
    params, words = st.query_params, tokens.words().tolist()
    if not params.get_all("hidden"):
        newest = [position for position in words if tokens.span[position] == len(tokens.entries) - 1]
        return sorted(newest, key=lambda position: -len(tokens.texts[position]))[:1]
    asked = params["hidden"].split(".")
    return [position for position in words if str(position) in asked]


def choose_words(recommender: Recommender, tokens: WindowTokens, longest: int) -> list[int]:
    """The window's words as chips, item by item; a click hides one or shows it again. Returns the hidden positions."""
    hidden, titles = hidden_positions(tokens), recommender.catalog.titles
    words, spans = tokens.words(), range(len(tokens.entries))

    def keep() -> None:
        chosen = [position for span in spans for position in st.session_state.get(f"words of {span}", ())]
        changed = {"hidden": ".".join(map(str, sorted(chosen)))}
        if added := set(chosen) - set(hidden):  # the word that was just clicked is the one to look at
            changed["looked_at"] = str(max(added))
        st.query_params.update(changed)  # in one step of the browser's history

    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Click a word to hide it**, once more to show it.", width="stretch")
        st.button(
            "Show all words", type="tertiary", disabled=not hidden, on_click=lambda: st.query_params.update(hidden="")
        )
    many = len(words) > MANY
    with st.container(height=CHIPS if many else "content", border=many):
        for span in reversed(spans):
            own = words[tokens.span[words] == span].tolist()
            if not own:
                continue
            entry, ink = tokens.entries[span], INK[span % len(INK)]
            name = entry if isinstance(entry, str) else titles[entry]
            # Chips carry their position, as the axes of the figures do: a word that stands twice is two chips.
            labels = {place: f":{ink}[{place}] {literal(tokens.texts[place].strip()) or '␣'}" for place in own}
            st.session_state[f"words of {span}"] = [position for position in own if position in hidden]
            st.pills(
                f":{ink}-badge[{span + 1}] {literal(name)}",
                own,
                selection_mode="multi",
                format_func=labels.__getitem__,
                key=f"words of {span}",
                on_change=keep,
                wrap=True,
            )
    left_out = f" {tokens.left_out} earlier ones lie before what the model reads." if tokens.left_out else ""
    st.caption(
        f"Newest item first. Words are read whole or in pieces, {longest} of an item at most; numbers count them as "
        f"they are read.{left_out}"
    )
    return hidden


def show_hidden_words(recommender: Recommender, model: DarecModel, selection: Selection) -> None:
    """Chips to hide words by on the left; what is expected there, where the place looks, or ranks on the right."""
    tokens, _ = draw_mask(model, selection.history, "context")
    grid = st.grid(2, min_column_width=440, gap="large")
    with grid.cell():
        positions = choose_words(recommender, tokens, model.settings.sequence.max_text_tokens)
    with grid.cell():
        if not positions:
            st.info("No word is hidden. Click one.", icon=":material/touch_app:")
            return
        view = choose_view("What hiding shows", ["Expected there", "Looks at", "Changes ranks"], "hiding")
        result = hide_words(model, selection.history, positions)
        if view == "Changes ranks":
            count = f"{len(positions)} {'word' if len(positions) == 1 else 'words'}"
            show_rank_changes(recommender, selection, result.ranks_before, result.ranks_after, f"hiding {count}")
            if model.collaborative is not None:
                st.caption("Hiding takes words away; collaborative filtering (CF) still knows which items they are.")
            return
        word = _choose_hidden(result)
        if view == "Looks at":
            _show_looks(word, result.tokens)
        else:
            _show_expected(word)


def _show_expected(word: HiddenWord) -> None:
    figure = expected_words_figure(word).update_annotations(font_size=12)
    figure.update_layout(title_text=f"What is expected for “{plain(word.word.strip())}”")
    show_figure(
        figure,
        expected_words_table(word),
        "expected-words",
        f"The likeliest words at position {word.position} under the context mask and under the causal mask",
    )
    st.caption("Green marks the true word, where it is among the likeliest.")
    for reading in (word.context, word.causal):
        st.markdown(describe_reading(reading, word))


def _show_looks(word: HiddenWord, tokens: WindowTokens) -> None:
    with st.container(width=160):
        head = _choose_head(word.context.attention.shape[1])
    for name in READINGS:
        show_figure(
            hidden_word_attention_figure(word, tokens, name, head),
            hidden_word_attention_table(word, tokens, name, head),
            f"looks-{name}",
            f"Where the {name} reading of position {word.position} looks, in each layer, {head_name(head)}",
        )
    st.caption("Under the context mask the hidden place itself looks, under the causal mask the word before.")


def _choose_hidden(result: HiddenWords) -> HiddenWord:
    words = {word.position: word for word in result.hidden}
    if len(words) == 1:
        return result.hidden[0]
    key = f"looked_at {'.'.join(map(str, words))}"  # other hidden words are another choice
    asked = st.query_params.get("looked_at", "")
    st.session_state[key] = next((place for place in words if str(place) == asked), result.hidden[-1].position)
    st.segmented_control(
        "Hidden word to look at",
        list(words),
        required=True,
        format_func=lambda place: f"{place} {literal(words[place].word.strip())}",
        key=key,
        on_change=lambda: st.query_params.update(looked_at=str(st.session_state[key])),
    )
    return words[st.session_state[key]]


def describe_reading(reading: WordExpectation, word: HiddenWord) -> str:
    """One reading by its name: what it sees, and what it makes of the word that stands there."""
    name, sees = READINGS[reading.reading]
    found = (
        f"“{literal(word.word.strip())}” has {100 * reading.true_probability:.1f} % there, rank {reading.true_rank:,}."
    )
    warning = "" if reading.trained else " :orange-badge[Not a part of this model's training: the words mean nothing]"
    return f"**{name}.** {found} :gray[{sees}]{warning}"


# -- attention of one pass ---------------------------------------------------------------------------------------------


def choose_mask(model: DarecModel) -> MaskName:
    """Under which mask to read, with what it is."""
    name = st.segmented_control(
        "Read under",
        list(READINGS),
        default=own_mask(model),
        required=True,
        key="attention_mask",
        bind="query-params",
        format_func=lambda mask: READINGS[mask][0],
        help="Context: the words of an item see each other on both sides, items only what came before. "
        "Causal: every word sees only what came before.",
    )
    return "causal" if name == "causal" else "context"


def describe_mask(model: DarecModel, mask: MaskName) -> str:
    """Whether predictions are made under this mask."""
    if mask == own_mask(model):
        return "So this model reads when it recommends."
    return f"Another reading than the one it recommends by, which is under the {own_mask(model)} mask."


def read_pair(attention: Attention) -> tuple[int, int] | None:
    """The two items whose words alone the link asks for: which looks, and which is looked at; 0 is the prefix."""
    places = st.query_params.get("pair", "").split(".")
    if len(places) != 2 or not all(place.isdecimal() and int(place) < attention.items.shape[1] for place in places):
        return None
    return int(places[0]), int(places[1])


def show_pair(attention: Attention, titles: Sequence[str]) -> tuple[int, int] | None:
    """That pair, told by name, with a button to see all words."""
    if (pair := read_pair(attention)) is None:
        return None
    looks, looked_at = pair
    names = item_attention_table(attention, titles).columns
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"How **{literal(names[looks])}** looks at **{literal(names[looked_at])}**", width="stretch")
        st.button("Show all words", type="tertiary", on_click=lambda: st.query_params.update(pair=[]))
    return pair


def _choose_head(num_heads: int) -> int | None:
    """A menu of heads that all views share; the chosen one from 0, or None for the mean over them."""
    heads = [ALL, *map(str, range(1, num_heads + 1))]
    place = heads.index(st.selectbox("Head", heads, key="head", bind="query-params"))
    return place - 1 if place else None


def show_one_head(attention: Attention, mask: MaskName, titles: Sequence[str]) -> None:
    """The map of one layer and head, with selectors beside it."""
    num_layers, num_heads = attention.weights.shape[:2]
    left, right = st.columns([2, 7], gap="large")
    with left:
        layer = st.selectbox(
            "Layer",
            range(1, num_layers + 1),
            num_layers - 1,
            key="layer",
            bind="query-params",
            help="1 reads the words, the last one is what predictions are made from.",
        )
        one = _choose_head(num_heads)
        shares = attention.shares[layer - 1] if one is None else attention.head_shares[layer - 1, one]
        names = ("Own item", "Other items", "Prefix")
        for name, share in zip(names, shares, strict=True):
            st.metric(name, f"{100 * share:.0f} %")
        st.caption(
            f"Share of the attention that words of items pay; the three make 100 %, but for rounding. {SOFT_TOKENS}"
        )
    with right:
        pair = show_pair(attention, titles)
        show_figure(
            attention_figure(attention, layer - 1, one, pair),
            partial(attention_table, attention, layer - 1, one),
            "attention",
            f"Attention of layer {layer}, {head_name(one)}, {mask} mask, tokens by tokens",
        )


def show_all_heads(attention: Attention, mask: MaskName) -> None:
    """A wall of small maps, each of which opens its head."""

    def open_head(number: int) -> None:
        layer, head = divmod(number, attention.weights.shape[1])
        st.session_state.update(layer=layer + 1, head=str(head + 1), attention_view="One head")
        # Selectors that a page sets are in no link.
        st.query_params.update({"layer": str(layer + 1), "head": str(head + 1), "pair": []})

    show_figure(
        attention_wall_figure(attention),
        attention_wall_table(attention),
        "heads",
        f"The attention of every head of every layer, {mask} mask",
        on_click=open_head,
    )
    st.caption("Click a picture to open that head, with the numbers of all its cells; here they are shares of heads.")


def show_items(recommender: Recommender, attention: Attention, mask: MaskName) -> None:
    """Attention between whole items; a click on a cell, or the menu of pairs, opens the words of two of them."""
    layers = [ALL, *map(str, range(1, len(attention.items) + 1))]
    place = st.container(horizontal=True)
    chosen = place.selectbox("Layer", layers, key="item_layer", bind="query-params", width=160)
    layer = None if chosen == layers[0] else layers.index(chosen) - 1
    titles = recommender.catalog.titles
    table = item_attention_table(attention, titles, layer)
    # Where an item may look at all: newest first, as in the history.
    pairs = [(int(looks), int(looked_at)) for looks, looked_at in np.argwhere(attention.items.any(axis=0))[::-1]]

    def open_words(pair: tuple[int, int] | None) -> None:
        if pair is None:
            st.query_params["pair"] = []
        if pair not in pairs:
            return  # it may not look there
        changed: dict[str, str | list[str]] = {"pair": f"{pair[0]}.{pair[1]}", "head": []}
        st.session_state.update(attention_view="One head", head=ALL)
        if layer is not None:
            st.session_state["layer"] = layer + 1
            changed["layer"] = str(layer + 1)  # selectors that a page sets are in no link
        st.query_params.update(changed)

    pair = read_pair(attention)
    st.session_state["pair_of_items"] = pair if pair in pairs else None
    place.selectbox(
        "Words of two items",
        pairs,
        None,
        key="pair_of_items",
        format_func=lambda pair: f"{table.columns[pair[0]]} looks at {table.columns[pair[1]]}",
        placeholder="Choose a pair, or click its cell",
        on_change=lambda: open_words(st.session_state["pair_of_items"]),
        width=480,
    )
    show_figure(
        item_attention_figure(attention, titles, layer),
        table,
        "items",
        f"What items give to items and to the prefix, {mask} mask",
        on_click=lambda number: open_words(divmod(number, attention.items.shape[1])),
    )
    st.caption(
        "A row is the mean over the item's words of what they give to all words of the column; it sums to 1. Click a "
        "cell, or choose the pair, to see its words, in one layer."
    )


def show_shares(attention: Attention, mask: MaskName) -> None:
    """Own item against other items, by layer."""
    show_figure(
        attention_shares_figure(attention),
        attention_shares_table(attention),
        "shares",
        f"Share of attention within the item, to other items and to the prefix, by layer, {mask} mask",
    )
    st.caption(
        "Mean over heads and over the words of items. Within an item attention joins its words; between items it "
        "follows the history. The prefix is what stands before the first item; points leave it aside."
    )


def show_mask(model: DarecModel, selection: Selection, mask: MaskName) -> None:
    """Who may look at whom, without a forward pass."""
    tokens, allowed = draw_mask(model, selection.history, mask)
    table = partial(mask_table, tokens, allowed)
    show_figure(mask_figure(tokens, allowed, mask), table, "mask", f"The {mask} mask, drawn")
    ahead = int(np.triu(allowed, 1).sum())
    which = f"{ahead:,} of them ahead, within one item" if ahead else "none of them ahead"
    st.caption(f"{int(allowed.sum()):,} pairs are allowed, {which}. {SOFT_TOKENS}")


def show_pass(recommender: Recommender, model: DarecModel, selection: Selection, view: str) -> None:
    """One of the views of a pass under the mask that is chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        mask = choose_mask(model)
        st.caption(describe_mask(model, mask))
    if view == "Mask":
        show_mask(model, selection, mask)
        return
    attention = explain_attention(model, selection.history, mask)
    if hidden_positions(attention.tokens):
        st.caption("Every word is read here, also those that are hidden under *Hidden words*.")
    if view == "One head":
        show_one_head(attention, mask, recommender.catalog.titles)
    elif view == "All heads":
        show_all_heads(attention, mask)
    elif view == "Items":
        show_items(recommender, attention, mask)
    else:
        show_shares(attention, mask)
