"""What the benchmarks record and refuse; nothing is trained here."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import demo_controls, gpu_check, ml100k, searches
from benchmarks.documents import insert_results
from darec.config import parse_settings
from darec.errors import RunError
from darec.runs import read_run


def test_quick_steps_are_not_taken_for_finished_full_ones(tmp_path: Path):
    made = []
    for quick in (True, False, True, False):
        ml100k.Bench(tmp_path, "ml-100k", "mini", quick).step("data", lambda folder: made.append(folder.mkdir()))
    assert len(made) == 2
    assert (tmp_path / "quick" / "data") != ml100k.Bench(tmp_path, "ml-100k", "mini", False).data


@pytest.mark.parametrize(
    ("name", "source", "backbone"), [("source", "ml-1m", "mini"), ("backbone", "ml-100k", "another")]
)
def test_steps_of_another_source_or_backbone_are_refused(tmp_path: Path, name: str, source: str, backbone: str):
    ml100k.Bench(tmp_path, "ml-100k", "mini", False)
    with pytest.raises(RunError, match=f"begun with another {name}"):
        ml100k.Bench(tmp_path, source, backbone, False)


def test_results_replace_what_stands_between_their_own_marks_and_nothing_else(tmp_path: Path):
    document = tmp_path / "README.md"
    document.write_text("a\n<!-- results:x -->\nold\n<!-- /results:x -->\nb <!-- results:y --><!-- /results:y -->\n")
    for _ in range(2):
        insert_results(document, "x", "new")
    assert document.read_text().splitlines() == [
        "a",
        "<!-- results:x -->",
        "new",
        "<!-- /results:x -->",
        "b <!-- results:y --><!-- /results:y -->",
    ]
    with pytest.raises(ValueError, match="<!-- results:z -->"):
        insert_results(document, "z", "new")
    assert "new" in document.read_text()


def test_a_table_of_searches_holds_every_seed_and_refuses_one_in_another_form():
    interval = {"mean": 0.1, "low": 0.05, "high": 0.15}
    models = {
        name: {"parameters": 1000, "steps": 40, "validation": {"ndcg@10": value}}
        for name, value in (("searched", 0.2), ("random", 0.3), ("uniform LoRA", 0.1))
    }
    seeds = [
        {
            "seed": seed,
            "k": 1,
            "search": {
                "users": 64,
                "trials": {"random": 8},
                "trial_share": 0.005,
                "layers_reused": 0.03,
            },
            "best_so_far": {
                name: [6.0, value]
                for name, value in (
                    ("searched", 5.5),
                    ("random_low", 5.6),
                    ("random_median", 5.7),
                    ("random_high", 5.8),
                )
            }
            | {"trial": [1, 2]},
            "models": models,
            "provenance": {"date": "2026-01-02T03", "platform": "a PC", "device": "cpu", "versions": {"torch": "2"}},
        }
        for seed in (3, 4)
    ]
    over = {"searched": {"with CF": interval, "CF off": interval}}
    results = {"data": "films", "backbone": "mini", "preset": "smoke", "overrides": ["training.epochs=3"]}
    results |= {"over_seeds": over, "seeds": seeds}
    text = searches.describe(results)
    assert "| 3 | 2 | 5.5000 | 5.7000 (5.6000 to 5.8000), of 8 | 0.50 % | 3 % | random |" in text
    assert "| searched | 1,000, 1,000 | 0.1000 (0.0500 to 0.1500) |" in text
    assert "mean over 2 seeds" in text
    assert "preset smoke `--set training.epochs=3`: " in text
    del seeds[1]["search"]["layers_reused"]
    with pytest.raises(KeyError):
        searches.describe(results)


def test_only_seeds_of_the_same_trials_and_users_are_joined():
    def seed(number: int, k: int = 1, users: int = 64, trials: int = 300, ranks: str = "1 2") -> dict:
        search = {"users": users, "trials": {"bayesian": trials, "random": 10 * number}}
        return {"seed": number, "k": k, "search": search, "models": {"searched": {"ranks": {"with CF": ranks}}}}

    others = [seed(4), seed(1), seed(2, k=3), seed(5, users=128), seed(6, trials=60), seed(7, ranks="1 2 3"), seed(3)]
    others.append({**seed(8), "models": {"searched": {}}})  # in another form
    found = seed(3, ranks="9 9")
    joined = searches.add_seed(found, others)
    assert [each["seed"] for each in joined] == [1, 3, 4]
    assert joined[1] is found


def test_controls_of_a_model_that_is_shipped_no_more_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo_controls, "RESULTS", tmp_path / "controls.json")
    monkeypatch.setattr(demo_controls, "SHIPPED", tmp_path)
    (tmp_path / "darec").mkdir()
    weights = tmp_path / "darec" / "model.safetensors"
    weights.write_text("these")
    known = demo_controls.read_results() | {"controls": {"twin": 1}}
    (tmp_path / "controls.json").write_text(json.dumps(known))
    assert demo_controls.read_results()["controls"] == {"twin": 1}
    weights.write_text("others")
    assert demo_controls.read_results()["controls"] == {}


def test_seeds_are_joined_user_by_user():
    def seed(searched: str, random: str) -> dict:
        return {"models": {name: {"ranks": {"with CF": ranks, "CF off": "99 99"}} for name, ranks in
                           (("searched", searched), ("random", random))}}  # fmt: skip

    found = searches.join([seed("1 99", "99 99"), seed("3 1", "1 99")])
    assert found["searched"]["with CF"]["mean"] == pytest.approx(
        ((1 + 0.5) / 2 + (0 + 1) / 2) / 2
    )  # 1 / log2(1 + rank)
    assert found["random"]["searched minus it, with CF"]["mean"] == pytest.approx(((0.75 - 0.5) + (0.5 - 0)) / 2)
    assert found["random"]["CF off"]["mean"] == 0
    assert found["searched"]["seeds"] == 2


@pytest.mark.parametrize(
    ("control", "changed"),
    [
        ("random", {"adapters.layers"}),
        ("uniform", {"adapters.layers"}),
        ("static", {"adapters.weights"}),
        ("fixed", {"adapters.weights"}),
        ("balanced", {"adapters.balance_loss_weight"}),
        ("seed", set()),
        ("twin", {"backbone.random_init"}),
    ],
)
def test_a_control_of_the_demo_differs_from_what_is_shipped_in_one_thing(control: str, changed: set[str]):
    info = read_run(demo_controls.SHIPPED / "darec", verify=False)
    shipped = parse_settings(info["settings"]).model_dump(mode="json")
    own = demo_controls.settings_for(control).model_dump(mode="json")
    differs = {
        f"{section}.{name}" for section in own for name in own[section] if own[section][name] != shipped[section][name]
    }
    assert differs == changed


def check_gpu(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    return gpu_check.main()


def test_gpu_check_records_preset_and_the_name_of_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    monkeypatch.setattr(gpu_check, "check", lambda *_: {"curves": {"met": True}})
    (tmp_path / "mini").mkdir()
    given = ("--data", "data", "--preset", "ml-100k", "--backbone", str(tmp_path / "mini"))
    assert check_gpu(monkeypatch, *given, "--out", str(tmp_path / "result.json")) == 0
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert (result["preset"], result["backbone"]) == ("ml-100k", "mini")
    assert str(tmp_path) not in json.dumps(result)


def test_gpu_check_without_data_shows_how_it_is_called(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        check_gpu(monkeypatch)
    assert "--data data/ml-100k --preset ml-100k" in " ".join(capsys.readouterr().err.split())
