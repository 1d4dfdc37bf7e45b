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
    """Bars of the likeliest words under both readings, one above the other; the true word is green."""
    figure = make_subplots(rows=2, shared_xaxes=True, subplot_titles=list(READING_NAMES.values()), vertical_spacing=0.2)
    for row, (reading, color) in enumerate(((word.context, BLUE), (word.causal, ORANGE)), start=1):
        bars = go.Bar(
            x=100 * reading.probabilities,
            y=labels([text.strip() or "␣" for text in reading.words]),  # numbered, so that two may read alike
            orientation="h",
            marker_color=[GREEN if text == word.word else color for text in reading.words],
            hovertemplate="%{y}<br>%{x:.2f} %<extra></extra>",
            showlegend=False,
        )
        figure.add_trace(bars, row=row, col=1)
    title = f"What is expected at position {word.position}, where “{plain(word.word.strip())}” stands"
    height = 190 + 24 * sum(len(reading.words) for reading in (word.context, word.causal))
    frame(figure, title, "", "word", height=height, margin={"l": 10, "r": 10, "t": 80, "b": 10})
    figure.update_annotations(x=0, xanchor="left")  # from the bars' foot on: longer than the bars' panel is wide
    figure.update_xaxes(title_text="probability (%)", row=2)
    return figure.update_yaxes(autorange="reversed", showgrid=False)


def expected_words_table(word: HiddenWord) -> pd.DataFrame:
    """One row a reading and word, the true word last: reading, rank, word, probability 0 to 1, trained."""
    rows = []
    for reading in (word.context, word.causal):
        words = [*zip(range(1, len(reading.words) + 1), reading.words, reading.probabilities, strict=True)]
        if all(rank != reading.true_rank for rank, _, _ in words):
            words.append((reading.true_rank, word.word, reading.true_probability))
        rows += [(READING_NAMES[reading.reading], *entry, reading.trained) for entry in words]
    return pd.DataFrame(rows, columns=["reading", "rank", "word", "probability", "trained"])
