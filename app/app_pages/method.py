"""Method: the four parts, each with its formula and a picture of the loaded model; exercises; what is assumed."""

from app import method_widgets, state, widgets

recommender = widgets.page_header("How does it work?", "Four parts, each seen at work in the model that is picked.")
selection = state.read_selection(recommender)
recommender = recommender.asked(selection.asked)
widgets.show_complaints(selection)
parts = {f"{number} {part.label}": part for number, part in enumerate(method_widgets.PARTS, start=1)}
view = widgets.choose_view("Part", [*parts, "Exercises", "Assumptions"], "part")
with widgets.errors_shown():
    if view in parts:
        method_widgets.show_part(parts[view], recommender, selection)
    elif view == "Exercises":
        method_widgets.show_exercises(recommender, selection)
    else:
        method_widgets.explain_assumptions()
