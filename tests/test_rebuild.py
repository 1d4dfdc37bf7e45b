"""The chain that makes the shipped demo, at its smallest."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from darec.errors import RunError
from darec.evaluation.metrics import gains
from darec.model_card import VARIANTS
from darec.rebuild import CARD, MINI, RANKS, README, SHIPPED_BASELINES, UNSEARCHED, Chain
from darec.runs import MANIFEST, hold_to, read_run, verify_manifest
from darec.search.results import load_search
from darec.serving import Recommender, find_runs

TRIALS = 4


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("rebuilt")
    Chain(folder / "scratch", trials=TRIALS, tiny=True, on_step=steps.append).run(folder / "demo")
    return folder / "demo"


def test_shipped_runs_share_one_backbone_and_one_data_set(shipped: Path):
    assert {run.name for run in find_runs(shipped)} == {*VARIANTS, *SHIPPED_BASELINES}
    assert len(list(shipped.rglob("tokenizer.json"))) == 1
    assert len(list(shipped.rglob("interactions.parquet"))) == 1
    verify_manifest(shipped)


def test_every_shipped_run_recommends(shipped: Path):
    for run in find_runs(shipped):
        recommender = Recommender.load(run)
        assert len(recommender.recommend([0, 1], k=3)) == 3


def test_variants_differ_in_the_part_that_was_switched_off(shipped: Path):
    settings = {name: read_run(shipped / name)["settings"] for name in VARIANTS}
    for own in settings.values():
        del own["adapters"]["layers"]  # another test's
    for name, section, key, value in (
        ("without-context-masking", "masking", "enabled", False),
        ("without-cf", "collaborative", "enabled", False),
        ("without-adapters", "adapters", "enabled", False),
        ("without-dynamic-adaption", "adapters", "weights", "fixed"),
    ):
        assert settings[name] == settings["darec"] | {section: settings["darec"][section] | {key: value}}
        assert settings["darec"][section][key] != value


def test_card_says_what_the_rank_files_say(shipped: Path):
    card = json.loads((shipped / CARD).read_text(encoding="utf-8"))
    text = (shipped / README).read_text(encoding="utf-8")
    for run in find_runs(shipped):
        ranks = pd.read_parquet(run / RANKS)
        figure = card["models"][run.name]["seen_removed"]["ndcg@10"]["mean"]
        assert figure == pytest.approx(gains(ranks["rank"].to_numpy(), 10).mean(), abs=1e-12)
        assert f"| {card['models'][run.name]['name']} |" in text
        assert f"{figure:.4f}" in text
        assert len(ranks) == card["users"]


def test_finished_steps_are_not_made_again(shipped: Path, steps: list[str]):
    assert "darec" in steps
    before = len(steps)
    manifest = (shipped / "darec" / MANIFEST).read_bytes()
    Chain(shipped.parent / "scratch", trials=TRIALS, tiny=True, on_step=steps.append).run(shipped)
    assert steps[before:] == []
    assert (shipped / "darec" / MANIFEST).read_bytes() == manifest


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("size", {"tiny": False}),
        ("seed", {"seed": 1}),
        ("backbone", {"backbone": Path("another")}),
        ("corpora", {"corpora": Path("texts.toml")}),
        ("number of trials", {"trials": TRIALS + 1}),
    ],
)
def test_steps_of_another_request_are_not_shipped(shipped: Path, steps: list[str], name: str, changed: dict[str, Any]):
    before, card = len(steps), (shipped / CARD).read_bytes()
    same = {"scratch": shipped.parent / "scratch", "trials": TRIALS, "tiny": True, "on_step": steps.append}
    chain = Chain(**{**same, **changed})
    with pytest.raises(RunError, match=f"scratch was begun with another {name} and can only go on with the same"):
        chain.run(shipped)
    assert steps[before:] == []
    assert (shipped / CARD).read_bytes() == card


def test_steps_of_other_settings_are_not_shipped(shipped: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("darec.rebuild._TINY", ("training.epochs=2",))
    with pytest.raises(RunError, match="begun with another settings"):
        Chain(shipped.parent / "scratch", trials=TRIALS, tiny=True).run(shipped)


def test_training_that_had_not_come_to_its_log_is_begun_again(tmp_path: Path):
    begun = tmp_path / "sasrec" / "backbone"
    begun.mkdir(parents=True)
    Chain(tmp_path)._step("sasrec", lambda folder: folder.mkdir())
    assert not begun.exists()


def test_searched_adapters_are_those_of_every_variant_that_adapts_by_layer(shipped: Path):
    result = load_search(shipped / "darec")
    assert len(result.trials) == 2 * TRIALS  # as many at random
    card = json.loads((shipped / CARD).read_text(encoding="utf-8"))
    assert card["search"]["trials"] == result.summary["trials"]
    assert f"Shipped is what the search found, {result.summary['winner']}" in (shipped / README).read_text(
        encoding="utf-8"
    )
    winner = json.loads(result.retrained.loc[result.retrained["winner"], "architecture"].item())
    assert "none" not in result.summary["space"]["kinds"]
    assert all(all(json.loads(each)) for each in result.trials["architecture"])  # no layer is without, in no trial
    layers = {name: read_run(shipped / name)["settings"]["adapters"]["layers"] for name in VARIANTS}
    unlayered = dict.fromkeys((UNSEARCHED, "without-adapters"))
    assert layers == dict.fromkeys(VARIANTS, winner) | unlayered


def test_a_chain_can_do_without_a_search_and_without_comparisons(shipped: Path, tmp_path: Path):
    chain = Chain(tmp_path / "scratch", only=(), tiny=True, on_step=lambda step: None)
    hold_to(chain.scratch, chain._request())
    for step in ("whole-data", "data", MINI, *SHIPPED_BASELINES):  # as they would be made here, too
        shutil.copytree(shipped.parent / "scratch" / step, chain.scratch / step)
    card = chain.run(tmp_path / "demo")
    assert {run.name for run in find_runs(tmp_path / "demo")} == {"darec", *SHIPPED_BASELINES}
    assert (card["settings"]["darec"]["adapters"]["layers"], card["search"]) == (None, None)
    verify_manifest(tmp_path / "demo")
