import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darec.config import parse_settings
from darec.data.interactions import Dataset
from darec.data.splits import split
from darec.errors import RunError
from darec.model.quantization import is_four_bit
from darec.model.recommender import DarecModel
from darec.runs import read_run
from darec.training.loop import train
from darec.training.quantize import quantize_run
from darec.training.tuning import validation_ndcg

NOTE_ON_FILMS = '{"terms": "Ask the owner."}'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, film_dataset: Dataset) -> Path:
    folder = tmp_path_factory.mktemp("four")
    (folder / "data").mkdir()
    replace(film_dataset, note=NOTE_ON_FILMS).save(folder / "data")
    settings = parse_settings(
        {
            "sequence": {"max_items": 4, "max_text_tokens": 8, "max_encoding_tokens": 24},
            "backbone": {"tiny": True},
            "collaborative": {"hidden_size": 16, "max_items": 8, "epochs": 2},
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"},
        }
    )
    return train(folder / "data", folder / "run", settings, backbone=None)


@pytest.fixture(scope="module")
def quantized(run: Path) -> tuple[Path, dict[str, Any]]:
    report = quantize_run(run, run.parent / "run4")
    return run.parent / "run4", report


@pytest.fixture(scope="module")
def scores(run: Path, quantized: tuple[Path, dict[str, Any]]) -> list[np.ndarray]:
    """[60, 20] before and after, of the whole training histories, with CF switched off: what the backbone says."""
    histories = [history.tolist() for history in split(Dataset.load(run / "data")).train]
    return [DarecModel.load(folder).score_without_collaborative(histories) for folder in (run, quantized[0])]


def test_quantized_run_loads_and_its_figures_are_those_of_the_loaded_model(quantized: tuple[Path, dict[str, Any]]):
    folder, report = quantized
    info = read_run(folder)
    assert info["kind"] == "darec"
    assert info["quantization"] == json.loads(json.dumps(report))
    assert is_four_bit(folder / "backbone")
    cases = split(Dataset.load(folder / "data")).valid
    model = DarecModel.load(folder)
    compared = report["validation"]
    assert compared["users"] == len(cases) == 60
    assert validation_ndcg(model, cases, 16) == pytest.approx(compared["ndcg@10_after"], abs=1e-9)
    cf_off = validation_ndcg(model, cases, 16, collaborative=False)
    assert cf_off == pytest.approx(compared["ndcg@10_cf_off_after"], abs=1e-9)


def test_validation_of_all_users_is_not_overwritten_by_that_of_those_compared(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("darec.training.quantize._COMPARED_USERS", 20)
    report = quantize_run(run, tmp_path / "run4")
    info = read_run(tmp_path / "run4")
    assert info["validation"] == read_run(run)["validation"]
    assert (info["validation"]["users"], report["validation"]["users"]) == (60, 20)
    assert info["quantization"]["validation"]["ndcg@10_before"] != info["validation"]["ndcg@10"]


def test_scores_stay_close_but_do_not_stay_equal(scores: list[np.ndarray]):
    before, after = scores
    assert not np.array_equal(before, after)
    assert np.abs(after - before).mean() < 0.3 * before.std()
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.95


def test_report_says_how_rankings_changed(run: Path, quantized: tuple[Path, dict[str, Any]]):
    validation = quantized[1]["validation"]
    assert 0.8 < validation["overlap@10"] <= 1
    assert 0.8 < validation["kendall_tau"] <= 1
    for name in ("ndcg@10", "ndcg@10_cf_off"):
        assert validation[f"{name}_before"] == pytest.approx(read_run(run)["validation"][name], abs=1e-9)


def test_linear_maps_shrink_to_an_eighth_and_what_their_scales_take(run: Path, quantized: tuple[Path, dict[str, Any]]):
    report = quantized[1]
    before, after = (report["backbone"][f"bytes_{when}"]["linear_maps"] for when in ("before", "after"))
    # Two layers of four 64 x 64 maps in attention and three 64 x 128 maps in the MLP, 4 bytes a value.
    assert before == 2 * (4 * 64 * 64 + 3 * 64 * 128) * 4
    assert before / 8 < after < before / 5  # in maps as small as these, codebooks and shapes count
    sizes = [(folder / "backbone" / "model.safetensors").stat().st_size for folder in (run, quantized[0])]
    assert sizes[1] < sizes[0]
    # Of the trained parts only three masks of items (known, twice, and cold), their times and one more are not halved.
    before, after = (report["trained"][f"bytes_{when}"] for when in ("before", "after"))
    assert sum(before.values()) - 228 == 2 * (sum(after.values()) - 228)
    assert before["collaborative"] - 20 == 2 * (after["collaborative"] - 20)  # the first of the masks is its
    for when in ("before", "after"):
        parts = report["backbone"][f"bytes_{when}"] | report["trained"][f"bytes_{when}"]
        assert report[f"bytes_{when}"] == sum(parts.values())


def test_what_was_noted_on_the_data_goes_along(run: Path, quantized: tuple[Path, dict[str, Any]]):
    for folder in (run, quantized[0]):
        assert (folder / "data" / "prepared.json").read_text(encoding="utf-8") == NOTE_ON_FILMS


def test_adapters_and_heads_are_kept_to_half_precision(run: Path, quantized: tuple[Path, dict[str, Any]]):
    before, after = (DarecModel.load(folder).trained_state() for folder in (run, quantized[0]))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name].half(), after[name].half())}
    assert changed == {
        "item_encodings",
        "encoding_mean",
        "encoding_map",
    }  # made anew with the backbone as it is now


def test_quantizing_twice_is_refused(quantized: tuple[Path, dict[str, Any]], tmp_path: Path):
    with pytest.raises(RunError, match="is in 4 bits already"):
        quantize_run(quantized[0], tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_baseline_is_refused(film_run: Path, tmp_path: Path):
    with pytest.raises(RunError, match="is a baseline"):
        quantize_run(film_run, tmp_path / "four")


def test_existing_folder_is_not_overwritten(run: Path, quantized: tuple[Path, dict[str, Any]]):
    with pytest.raises(RunError, match="must not exist yet"):
        quantize_run(run, quantized[0])
    assert read_run(quantized[0])["kind"] == "darec"
