"""Pieces of the Method page: four parts in formulas, words and pictures of the model; exercises; what is assumed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count

import streamlit as st

from app.charts import show_figure
from app.state import Selection, encode_history
from app.widgets import literal, metric_cards
from darec.explain.attention import draw_mask
from darec.explain.layers import read_adapters
from darec.explain.score_terms import explain_scores
from darec.figures.attention import mask_figure, mask_table
from darec.figures.cf_ranks import cf_ranks_figure, cf_ranks_table
from darec.figures.layers import contributions_figure, contributions_table
from darec.figures.score_terms import score_terms_figure, score_terms_table
from darec.model.recommender import DarecModel
from darec.serving import Recommender

FIRST = 6  # recommendations in a picture
MASKED_ITEMS = 3  # newest items whose words the mask is drawn for


@dataclass(frozen=True)
class Part:
    """One of the four parts of the method.

    Attributes:
        label: short, for the menu.
        name: as the paper calls it.
        question: that it answers.
        words: two or three sentences.
        formulas: each with what it is, LaTeX, and what its letters mean.
        further: formulas of terms that not every model has; those that the loaded one has not are folded away.
    """

    label: str
    name: str
    question: str
    words: str
    formulas: tuple[tuple[str, str, str], ...]
    further: tuple[tuple[str, str, str], ...] = ()


PARTS = (
    Part(
        "Coarse-grained adaption",
        "Coarse-grained adaption",
        "How do items follow one another?",
        "The language model itself stays as it is. Beside its linear maps stand pairs of thin matrices: in it, "
        "training moves only these. After each item of a history the state scores the whole catalogue, and the loss "
        "asks for the item that really came next: one pass over a history holds as many lessons as it has items.",
        (
            ("A map with its adapter", r"W' = W + \tfrac{\alpha}{r}\, B A", "$W$ frozen; $B A$ of rank $r$, trained"),
            (
                "The score of item $j$ after item $k$",
                r"s_k(j) = h_k^\top W_t\, t_j + h_k^\top W_v\, v_j + b_j + g\, c_k(j)",
                "$h_k$ the state; $t_j$ the item's words, $v_j$ its place in the collaborative filtering (CF) model, "
                "$b_j$ its popularity, $c_k$ the CF model's own score, trusted by $g$; in the end all is divided by a "
                "temperature",
            ),
            (
                "An item's words",
                r"\begin{gathered} t_j = \operatorname{norm}\big((\bar x_j - \mu)\, M\big) \\ "
                r"x_{[\text{ITEM}]_k} \mathrel{+}= E\, t_{i_k} \end{gathered}",
                "$\\bar x_j$ the mean state of its full text in the language model as it came, or else which words it "
                "holds; $\\mu$ its mean over the catalogue; $M$ leads to the directions in which items differ; $E$ is "
                "learned",
            ),
            (
                "The loss",
                r"\mathcal{L} = -\sum_k \log \operatorname{softmax}(s_k)_{i_{k+1}}",
                "$i_{k+1}$ came next; the softmax leaves out what was read before",
            ),
        ),
        (
            (
                "The short way, where settings open it",
                r"s_k(j) \mathrel{+}= \Big(\sum_a S_a \sum_{i \le k} \lambda_a^{k - i}\, f_{i}\Big)^{\!\top} f_j",
                "past the language model: $f$ is each word that an item holds, or $t$; sums over the items so far that "
                "forget fast or slowly; $S_a$ and $\\lambda_a$ are learned",
            ),
            (
                "What often follows, where settings ask for it",
                r"s_k(j) \mathrel{+}= \rho \sum_{i \in \{i_1, \dots, i_k\}} B_{ij}",
                "$B$ makes the next item a linear function of which items came so far, fitted to all histories at once "
                "and never large without need; of each item the few largest weights are kept; $\\rho$ is chosen on "
                "validation",
            ),
            (
                "An item that is new",
                r"s_k(j) \mathrel{+}= \kappa\, e^{-a_j / \theta}",
                "text alone speaks of it; $a_j$ is how long before the question it was first taken in training, or, "
                "where nobody took it, how long the question is before the newest one known; $\\kappa$ and $\\theta$ "
                "are chosen on validation, where that asks for new items",
            ),
        ),
    ),
    Part(
        "Context masking",
        "Context masking",
        "How do the words within an item belong together?",
        "A language model reads from left to right, so the first word of a title knows nothing of its last. Here "
        "the words of one item may look at each other in both directions, while items still see only what came "
        "before them. In training some words are hidden, to be found again from their item and its neighbours.",
        (
            (
                "Who may look at whom",
                r"M_{qk} = 1 \iff k \le q \;\text{ or }\; k \in \operatorname{words}(q)",
                "$q$ looks, $k$ is looked at, $\\operatorname{words}(q)$ are those of $q$'s own item; the token that "
                "closes an item is no word, so its words do not see it",
            ),
            (
                "The loss on hidden words",
                r"\mathcal{L}_{\text{mask}} = -\sum_{q \text{ hidden}} \log p(w_q \mid \{k : M_{qk} = 1\})",
                "$w_q$ the word that was hidden",
            ),
        ),
    ),
    Part(
        "Knowledge injection",
        "Collaborative knowledge injection",
        "What do other people's histories say?",
        "A small model that knows no words, only who took what and in which order, is trained along. Its view of each "
        "item enters the language model where the item ends, its view of the long past as one token in front, and "
        "its own score is added at the end, weighted. In a part of the training it is silenced, so that words learn.",
        (
            (
                "Into the language model",
                r"x_{[\text{ITEM}]_k} \mathrel{+}= P\,[v_{i_k};\, z_k] \qquad x_{[\text{USER}]} \mathrel{+}= U z_0",
                "$z_k$ the CF state after item $k$, $z_0$ the one before the window; $P$, $U$ are learned",
            ),
            (
                "Into the score",
                r"s_k(j) \mathrel{+}= g\, c_k(j)",
                "$c_k$ the CF model's score, $g$ one number, chosen on validation",
            ),
        ),
    ),
    Part(
        "Dynamic adaption",
        "Dynamic adaption",
        "Does every layer need the same help?",
        "Layers near the words and layers near the answer do different work, so each may carry adapters of its own "
        "kind and size, or none. Adaption weights say how much each takes part; they may follow the history, but "
        "know only what came before the item being read. Which kinds and sizes a layer gets is a search problem, "
        "and the paper's answer to it is Bayesian optimization.",
        (
            (
                "Adaption weights of layer $l$",
                r"w^l = \operatorname{softmax}\!\big((a^l + G^l(z_{k-1}, \bar h^l_{<k})) / \tau\big)",
                "$a$ learned and the same for all; $G$ a small gate; $\\tau$ a temperature; one weight is for *none*",
            ),
            (
                "The layer's output",
                r"h^l \mathrel{+}= \sum_a n\, w^l_a\, \Delta^l_a",
                "$\\Delta_a$ is what adapter $a$ adds, $n$ the number of options: equal weights are plain adapters",
            ),
            (
                "The search",
                r"\min_\pi \; \big(\mathcal{L}_{\text{validation}}(\pi),\; \text{parameters}(\pi)\big)",
                "$\\pi$ names a kind and a size for each layer",
            ),
        ),
    ),
)


def show_part(part: Part, recommender: Recommender, selection: Selection) -> None:
    """Words and formulas on the left, a picture of the loaded model on the right."""
    # A slanted last letter leans out of its box: without room for it a formula that fits would seem to need scrolling.
    st.html("<style>.katex-display { padding-inline: 4px }</style>")
    grid = st.grid(2, min_column_width=440, gap="large")  # below that, formulas and titles would be cut
    with grid.cell():
        st.header(part.question, anchor=False)
        st.markdown(f"**{part.name}.** {part.words}")
        _show_formulas(part.formulas)
        if part.further:
            own = list(zip(part.further, _has_terms(recommender.scorer), strict=True))
            _show_formulas([formula for formula, present in own if present])
            if others := [formula for formula, present in own if not present]:
                with st.expander("Terms that a score may have besides", icon=":material/add:"):
                    _show_formulas(others)
    with grid.cell():
        if not isinstance(recommender.scorer, DarecModel):
            st.info(
                f"{literal(recommender.name)} has no such part. Pick a DARec model above to see it at work.",
                icon=":material/model_training:",
            )
        elif not selection.history:
            st.info("Build a history on the Recommend page to see the model read it.", icon=":material/history:")
        else:
            draw = (draw_scores, draw_who_sees_whom, draw_ranks_without, draw_adapters)[PARTS.index(part)]
            draw(recommender, recommender.scorer, list(selection.history))


def _has_terms(model: object) -> tuple[bool, bool, bool]:
    """Which of the further terms of a score a model has, in their order."""
    if not isinstance(model, DarecModel):
        return False, False, False
    followed = model.followers is not None and bool(model.followers.trust)
    return model.settings.sequence.skip, followed, bool(model.cold_prior)


def _show_formulas(formulas: Sequence[tuple[str, str, str]]) -> None:
    for what, formula, letters in formulas:
        with st.container(border=True, gap="xsmall"):
            st.caption(what)
            st.latex(formula)
            st.caption(letters)


def draw_scores(recommender: Recommender, model: DarecModel, history: list[int | str]) -> None:
    """What the scores of the first recommendations are made of."""
    first = [line.item_index for line in recommender.recommend(history, FIRST)]
    breakdown, titles = explain_scores(model, history, first), recommender.catalog.titles
    show_figure(
        score_terms_figure(breakdown, titles),
        score_terms_table(breakdown, titles),
        "score-terms",
        f"The signed score terms of the first {len(first)} recommendations",
    )
    st.caption(
        "This model, this history, now. Each term stands against the catalogue's mean, so bars are signed terms, not "
        "shares; the diamond is their sum. One more in score is 2.7 times the odds."
    )


def draw_who_sees_whom(recommender: Recommender, model: DarecModel, history: list[int | str]) -> None:
    """The mask over the words of the newest items."""
    name = st.segmented_control(
        "Mask", ["context", "causal"], default="context", required=True, key="method_mask", bind="query-params"
    )
    tokens, mask = draw_mask(model, history[-MASKED_ITEMS:], "causal" if name == "causal" else "context")
    show_figure(
        mask_figure(tokens, mask, name), mask_table(tokens, mask), f"{name}-mask", f"Who may look at whom, {name} mask"
    )
    st.caption(
        f"The words of the {len(tokens.entries)} newest items as this model reads them. Orange is what context masking "
        "adds: looking ahead, within one item."
    )
    if not model.settings.masking.enabled:
        st.warning("This model was trained without context masking: it reads under the causal mask only.")


def draw_ranks_without(recommender: Recommender, model: DarecModel, history: list[int | str]) -> None:
    """Where the first recommendations would stand without the CF model."""
    if model.collaborative is None:
        st.info("This model was trained without collaborative knowledge.", icon=":material/group_off:")
        return
    first = [line.item_index for line in recommender.recommend(history, 10)]
    breakdown, titles = explain_scores(model, history, first), recommender.catalog.titles
    stay = int((breakdown.rank_cf_off <= len(first)).sum())
    about_ten = "How many of the first 10 are among the first 10 when the whole CF path is off."
    about_gate = "The CF model's own score is multiplied by it; chosen on validation."
    metric_cards(
        [
            ("Still first 10", f"{stay} of {len(first)}", None, about_ten),
            ("Weight *g* of CF", f"{model.late_gate.item():.2f}", None, about_gate),
        ]
    )
    show_figure(
        cf_ranks_figure(breakdown, titles),
        cf_ranks_table(breakdown, titles),
        "ranks-without-cf",
        "Ranks of the first recommendations with the CF path and without it",
    )
    st.caption("Switched off, not retrained: a model trained without this knowledge may rank otherwise.")


def draw_adapters(recommender: Recommender, model: DarecModel, history: list[int | str]) -> None:
    """The adapters of every layer at work."""
    readings = read_adapters(model, history)
    if not readings:
        st.info("This model was trained without adapters.", icon=":material/layers_clear:")
        return
    show_figure(
        contributions_figure(readings, len(model.bank.layers)),
        contributions_table(readings),
        "adapters",
        "How far each layer's output moves when one of its adapters alone is switched off",
    )
    layers = [{(own.kind, own.size) for own in adapters} for adapters in model.bank.layers]
    alike = all(layer == layers[0] for layer in layers)
    weighting = {
        "fixed": "their weights are fixed and equal",
        "static": "their weights are learned, the same for every history",
        "gated": "their weights are learned and follow the history",
    }[model.bank.weighting]
    parameters = sum(own.parameters for own in readings)
    st.caption(
        f"In this model {'every layer carries the same adapters' if alike else 'layers carry different adapters'}, "
        f"{parameters:,} parameters in all; {weighting}. A contribution is how far the layer's output moves, on "
        "average over this history, when that adapter alone is switched off."
    )


# -- exercises ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exercise:
    """A task for a class.

    Attributes:
        title: in a few words.
        task: what to do and what to answer.
        page: the file in app_pages that it uses.
        link: what the link says.
        query: what the link selects, beside the model.
    """

    title: str
    task: str
    page: str
    link: str
    query: dict[str, str] = field(default_factory=dict)


def _selected(recommender: Recommender, selection: Selection) -> dict[str, str]:
    """The part of a link that shows the history at hand."""
    shown = {"history": encode_history(selection.history, recommender.catalog)} if selection.history else {}
    return shown if selection.user_id is None else shown | {"user": selection.user_id}


def make_exercises(recommender: Recommender, selection: Selection) -> list[Exercise]:
    """Five exercises on the model and the history at hand."""
    catalog, shown = recommender.catalog, _selected(recommender, selection)
    newest = next((item for item in reversed(selection.history) if not isinstance(item, str)), 0)
    sequel = f"Return of {catalog.items['title'].iat[newest]}"
    new_title = next(title for title in chain([sequel], (f"{sequel} {n}" for n in count(2))) if not catalog.find(title))
    return [
        Exercise(
            "Does the order count?",
            "Write down the first three recommendations. Now move the newest item of the history down to the oldest "
            "place. Which titles rise, which fall? Say what that tells about how far back this model looks.",
            "recommend",
            "Open this history",
            {"panel": "List", **shown},
        ),
        Exercise(
            "A title that nobody has seen",
            f"“{literal(new_title)}” is not in this catalogue. Let it be the whole history and look at the list: "
            "what can the model know about it? Change one word of the title and predict what will move before you look."
            + ("" if recommender.reads_text else " It takes a model that reads text; this one does not."),
            "recommend",
            "Open the invented title",
            {"panel": "List", "history": encode_history([new_title], catalog)},
        ),
        Exercise(
            "Count the orange cells",
            "An item has $m$ words. By how many cells does the context mask exceed the causal one within it? Derive a "
            "formula in $m$, then check it against the picture, item by item.",
            "method",
            "Open the context mask",
            {"part": "2 Context masking", **shown},
        ),
        Exercise(
            "Whom does it fail?",
            "Compare HR@10 of users with short and with long histories. Are the intervals apart? Name two explanations "
            "that would look the same in this table, and say what else you would measure to tell them apart.",
            "errors",
            "Open the errors by history length",
            {"view": "Slices", "slice": "History length", "metric": "HR@10"},
        ),
        Exercise(
            "The rich and the poor",
            "Which share of all interactions belongs to the most popular tenth of the items? What would a recommender "
            "reach that always lists the ten most popular ones, and who would be served badly by it?",
            "data",
            "Open the popularity curve",
            {"data": "This data set"},
        ),
    ]


def show_exercises(recommender: Recommender, selection: Selection) -> None:
    """The vote before a list, and the exercises as cards, each with its link."""
    run = {"run": st.session_state["run"]}
    with st.container(border=True):
        st.markdown(
            "**Predict, then reveal.** Before any exercise the class votes what comes next, then sees the list."
        )
        st.page_link(
            "app/app_pages/recommend.py",
            label="Open the vote",
            icon=":material/how_to_vote:",
            query_params=run | _selected(recommender, selection) | {"vote": "true"},
        )
    st.markdown("Each exercise takes ten to twenty minutes and uses the model that is picked above.")
    for number, exercise in enumerate(make_exercises(recommender, selection), start=1):
        with st.container(border=True):
            st.subheader(f"{number}. {exercise.title}", anchor=False)
            st.markdown(exercise.task)
            st.page_link(
                f"app/app_pages/{exercise.page}.py",
                label=exercise.link,
                icon=":material/arrow_forward:",
                query_params=run | exercise.query,
            )


def explain_assumptions() -> None:
    """What the paper says, and what is ours."""
    with st.container(width=820):
        st.header("What the paper says, and what we assume", anchor=False)
        st.markdown(
            "The method follows *Beyond Inter-Item Relations: Dynamic Adaption for Enhancing LLM-Based Sequential "
            "Recommendation* by Liu, Li, Zhang, Li and Ji "
            "([arXiv 2408.07427](https://arxiv.org/abs/2408.07427)). **Only its abstract was public to us.** It names "
            "the three gaps (relations within an item, long-term knowledge shared between users, one and the same "
            "adaption for every layer) and the four parts that answer them, Bayesian optimization among them. "
            "Everything more exact on these pages is our own reading: the layout of the tokens, both masks, SASRec as "
            "the collaborative model, the three places where it enters, the kinds of adapters, the gate, every loss "
            "weight and every setting. Nothing here is the authors' code, and no figure is theirs. Where our "
            "measurements disappoint, that speaks about our reading and our small models, not about the paper."
        )
        st.caption("These are small models on small data; a difference inside its interval is no difference.")
