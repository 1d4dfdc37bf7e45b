"""Pictures of what the model expects in the place of a hidden word."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from darec.explain.masked_tokens import HiddenWord
from darec.figures.palette import BLUE, GREEN, ORANGE, frame, labels, plain

READING_NAMES = {
    "context": "context mask, read off the hidden place itself",
    "causal": "causal mask, read off the word before it",
}


def expected_words_figure(word: HiddenWord) -> go.Figure:
    """Bars of the likeliest words under both readings side by side; the true word is green."""
    names = [name.replace(", ", "<br>") for name in READING_NAMES.values()]
    figure = make_subplots(cols=2, subplot_titles=names, horizontal_spacing=0.2)
    for column, (reading, color) in enumerate(((word.context, BLUE), (word.causal, ORANGE)), start=1):
        bars = go.Bar(
            x=100 * reading.probabilities,
            y=labels([repr(text) for text in reading.words]),
            orientation="h",
            marker_color=[GREEN if text == word.word else color for text in reading.words],
            hovertemplate="%{y}<br>%{x:.2f} %<extra></extra>",
            showlegend=False,
        )
        figure.add_trace(bars, row=1, col=column)
    title = f"What is expected at position {word.position}, where “{plain(word.word.strip())}” stands"
    frame(figure, title, "probability (%)", "", margin={"l": 10, "r": 10, "t": 110, "b": 10})
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_yaxes(title_text="word", col=1)


def expected_words_table(word: HiddenWord) -> pd.DataFrame:
    """One row a reading and word, the true word last: reading, rank, word, probability 0 to 1, trained."""
    rows = []
    for reading in (word.context, word.causal):
        words = [*zip(range(1, len(reading.words) + 1), reading.words, reading.probabilities, strict=True)]
        if all(rank != reading.true_rank for rank, _, _ in words):
            words.append((reading.true_rank, word.word, reading.true_probability))
        rows += [(READING_NAMES[reading.reading], *entry, reading.trained) for entry in words]
    return pd.DataFrame(rows, columns=["reading", "rank", "word", "probability", "trained"])
