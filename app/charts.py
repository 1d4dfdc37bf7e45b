"""How every chart is shown: the picture, the numbers behind it, and their download."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from darec.export import to_csv

SHOWN_ROWS = 500  # of a table on the page; the download has all
TITLE, TEXT, NAMES = 21, 17, 14  # pixels of large type; names are long, and there are many
GROWTH, LEGEND_ROW, LETTERS = 1.25, 24, 40  # of figures in large type: times, pixels, of a title that half a page holds
INK = {"light": "#3d4647", "dark": "#c3cacb"}  # of text in figures, by the page's theme
_DRAWING = [  # Streamlit's own scripts for tables and figures
    path.name
    for pattern in ("DataFrame.*.js", "PlotlyChart.*.js")
    for path in Path(st.__file__).parent.glob(f"static/static/js/{pattern}")
]
_FETCH = """<script>{{
  const scripts = {names}.map(name => new URL(name, document.querySelector('script[src*="static/js/"]').src));
  document.head.append(...scripts.map(
    href => Object.assign(document.createElement("link"), {{ rel: "modulepreload", href }})));
  const run = () => scripts.forEach(script => import(script));
  const runUnlessTyping = () => document.activeElement?.matches("input, textarea")
    ? setTimeout(runUnlessTyping, 1000) : run();
  setTimeout(runUnlessTyping, 3000);
  document.addEventListener("pointerdown", press => press.target.closest("a, [role=radio]") && run());
}}</script>"""


def fetch_ahead() -> None:
    """Have a browser fetch the megabytes that draw tables and figures while it waits for the first of them.

    Running them takes a second, which would hold up whoever types just then: it is done when nobody does, or once
    another page or view is asked for, while the server makes it.
    """
    st.html(_FETCH.format(names=_DRAWING), unsafe_allow_javascript=True)


def show_figure(
    figure: go.Figure,
    table: pd.DataFrame | Callable[[], pd.DataFrame],
    name: str,
    alt: str,
    on_click: Callable[[int], None] | None = None,
    live: bool = False,
) -> None:
    """A figure, and below it a fold with its table and a CSV.

    Args:
        figure: with title, and axes with units.
        table: what it is drawn from; of millions of cells, what makes it, which is asked once the fold is open.
        name: of the downloaded files; unique on the page.
        alt: what the figure shows, for those who do not see it.
        on_click: told the number of the point that was clicked, among those of its trace.
        live: drawn anew every few seconds, so that a CSV would be gone before a browser asks for it: there is none.
    """
    key = f"figure-{name}"
    draw_figure(figure, key, name, alt, (lambda: _tell_click(key, on_click)) if on_click else "ignore")
    fold = st.expander(
        "The numbers",
        icon=":material/table_chart:",
        type="compact",
        key=f"numbers-{name}",
        on_change="rerun" if callable(table) else "ignore",
    )
    if callable(table):
        if not fold.open:
            return
        table = table()
    with fold:
        st.dataframe(
            table.head(SHOWN_ROWS), hide_index=table.index.name is None, height=260, alt=f"The numbers of: {alt}"
        )
        if len(table) > SHOWN_ROWS:
            st.caption(f"The first {SHOWN_ROWS:,} of {len(table):,} rows; the CSV has all.")
        if not live:
            download_table(table, name)


def draw_figure(
    figure: go.Figure, key: str, name: str, alt: str, on_select: Callable[[], None] | Literal["ignore"] = "ignore"
) -> None:
    """Draw a figure as all are drawn, without its table: one that is still growing has none yet.

    Args:
        figure: with title, and axes with units.
        key: of the element; another one is drawn anew.
        name: of the saved picture.
        alt: what the figure shows, for those who do not see it.
        on_select: called when a point is clicked.
    """
    ink(figure)
    if st.session_state.get("presenter"):
        enlarge(figure)
    st.plotly_chart(
        figure,
        key=key,
        on_select=on_select,
        selection_mode="points",
        alt=alt,
        config={
            "displaylogo": False,
            "modeBarButtonsToRemove": ["lasso2d", "select2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
            "toImageButtonOptions": {"format": "svg", "filename": name},
        },
    )


def ink(figure: go.Figure) -> None:
    """Put a figure on the page's own paper, which a saved picture takes along, and its words into an ink that can be
    read from afar; streamlit's own is a faint grey.
    """
    theme = st.context.theme.type or "light"
    color = INK[theme]
    figure.update_layout(legend_font_color=color, paper_bgcolor=st.get_option(f"theme.{theme}.backgroundColor"))
    scale = {"tickfont": {"color": color}, "title": {"font": {"color": color}}}
    figure.update_traces(colorbar=scale, selector={"type": "heatmap"})
    figure.for_each_annotation(lambda note: note.update(font_color=note.font.color or color))
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(tickfont_color=color, title_font_color=color)


def enlarge(figure: go.Figure) -> go.Figure:
    """The figure in large type, for the back row of a class: higher, and its legend below, clear of the title.

    Figures know no sizes relative to the page's.
    """
    named = sum(bool(trace.name) and trace.showlegend is not False for trace in figure.data)
    rows = named if named > 1 or figure.layout.showlegend else 0  # as many as the legend needs on half a page
    figure.update_layout(
        font_size=TEXT,
        title_font_size=TITLE if len(figure.layout.title.text) <= LETTERS else TEXT,
        margin_t=90 if "<br>" in figure.layout.title.text else 70,  # some have room for a legend there
        height=GROWTH * figure.layout.height + LEGEND_ROW * rows,
        # From the figure's edge on, not from the axis, which long names push to the right.
        legend={"xref": "container", "x": 0, "yref": "container", "y": 0, "entrywidth": None, "entrywidthmode": None},
    )
    figure.update_annotations(font_size=NAMES).update_xaxes(tickfont_size=TEXT, title_font_size=TEXT)
    names = figure.layout.yaxis.ticktext or any(
        isinstance(trace.y[0], str) for trace in figure.data if trace.y is not None and len(trace.y)
    )
    return figure.update_yaxes(tickfont_size=NAMES if names else TEXT, title_font_size=TEXT)


def _tell_click(key: str, on_click: Callable[[int], None]) -> None:
    for point in st.session_state[key]["selection"]["points"][:1]:
        on_click(point["point_index"])


def download_table(table: pd.DataFrame, name: str) -> None:
    """A button that saves a table as CSV without formulas."""
    whole = table if table.index.name is None else table.reset_index()
    st.download_button(
        "CSV",
        to_csv(whole),  # at once: one made on demand is swept away when any session's page ends before it is fetched
        f"{name}.csv",
        "text/csv",
        icon=":material/download:",
        type="tertiary",
        on_click="ignore",
        key=f"csv-{name}",
    )
