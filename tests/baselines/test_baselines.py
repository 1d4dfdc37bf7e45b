import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from darec.baselines import (
    NAMES,
    READ_TEXT,
    default_settings,
    load_baseline,
    save_baseline,
    train_baseline,
    write_baseline_run,
)
from darec.baselines.gru4rec import GRU4Rec
from darec.baselines.itemknn import ItemKNN, nearest_neighbours, recency_weights
from darec.baselines.text_neighbours import TextNeighbours
from darec.config import CollaborativeSettings
from darec.data.interactions import Dataset, fingerprint, validated
from darec.data.splits import Cases, Split, split
from darec.errors import ConfigError, RunError
from darec.evaluation.metrics import ndcg
from darec.evaluation.protocol import rank_cases
from darec.model.backbone import tiny_backbone
from darec.model.quantization import save_four_bit
from darec.runs import read_run
from darec.serving import Recommender

N = 24
WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "gold", *(f"film{i}" for i in range(N))]
SETTINGS = CollaborativeSettings(
    hidden_size=16, num_layers=1, dropout=0.0, max_items=10, learning_rate=0.01, batch_size=16, epochs=10, patience=10
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("backbone")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), **shape)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


def make_dataset() -> Dataset:
    """Items come in four colours, six each; a user stays with one colour and steps through it in a fixed order."""
    random = np.random.default_rng(0)
    colours = ["red", "green", "blue", "gold"]
    titles = [f"{colours[i % 4]} {colours[i % 4]} film{i}" for i in range(N)]
    items = pd.DataFrame({"item_id": [f"i{i}" for i in range(N)], "title": titles})
    rows = []
    for user in range(48):
        start = random.integers(N)
        rows += [(f"u{user}", f"i{(start + 4 * step) % N}", step) for step in range(5)]
    return validated(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), items, "planted data")


DATASET = make_dataset()


@pytest.fixture(scope="module")
def scorers(backbone: str) -> dict[str, Any]:
    return {name: train_baseline(name, DATASET, settings=SETTINGS, backbone=backbone) for name in NAMES}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "popularity"])
def test_baseline_beats_popularity_on_planted_data(scorers, name):
    parts = split(DATASET)
    value = ndcg(rank_cases(scorers[name], parts, "test")["rank"].to_numpy(), 10)
    popularity = ndcg(rank_cases(scorers["popularity"], parts, "test")["rank"].to_numpy(), 10)
    assert value > popularity + 0.2


@pytest.mark.parametrize("name", NAMES)
def test_saved_baseline_scores_as_before(scorers, name, tmp_path):
    histories: list[list[int | str]] = [[1, 5, 9], [2], [3, "unheard of", 7], []]
    save_baseline(name, scorers[name], tmp_path)
    loaded = load_baseline(tmp_path)
    before = scorers[name].score(histories)
    assert before.shape == (4, N)
    assert before.dtype == np.float32
    np.testing.assert_array_equal(loaded.score(histories), before)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "text_neighbours"])
def test_unknown_title_in_a_history_is_skipped(scorers, name):
    np.testing.assert_allclose(
        scorers[name].score([[3, "unheard of", 7]]), scorers[name].score([[3, 7]]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_items_may_be_numbers_of_numpy(scorers, name):
    history = np.array([3, 7])
    np.testing.assert_array_equal(scorers[name].score([history]), scorers[name].score([history.tolist()]))


def test_text_neighbours_read_a_title_nobody_has_seen(scorers):
    best = scorers["text_neighbours"].score([["gold gold"]])[0].argsort()[::-1][:6]
    assert sorted(best) == [3, 7, 11, 15, 19, 23]


def test_popularity_counts_training_interactions_alone(scorers):
    counts = np.bincount(np.concatenate(split(DATASET).train), minlength=N)
    np.testing.assert_allclose(np.expm1(scorers["popularity"].score([[0], [1]])), np.stack([counts, counts]), rtol=1e-5)


def small_split(train: list[list[int]], num_items: int) -> Split:
    nobody = Cases([], [], np.array([], np.int64))
    return Split(num_items, [np.array(history) for history in train], nobody, nobody)


def test_together_is_the_cosine_of_user_vectors():
    neighbours, similarities = nearest_neighbours(small_split([[0, 1], [0, 1, 2], [0]], 3), "together", 3)
    assert neighbours[0, :2].tolist() == [1, 2]
    assert similarities[0, :2].tolist() == pytest.approx([2 / np.sqrt(3 * 2), 1 / np.sqrt(3)])
    assert similarities[0, 2] == 0  # itself


def test_next_counts_what_follows_by_gap():
    neighbours, similarities = nearest_neighbours(small_split([[0, 1, 2]], 3), "next", 2)
    assert neighbours[0].tolist() == [1, 2]
    assert similarities[0].tolist() == pytest.approx([1.0, 0.5])
    assert similarities[2].tolist() == [0, 0]


def test_recent_entries_weigh_more_and_decay_zero_leaves_the_last():
    items = torch.tensor([[-1, 4, 2, 5]])
    assert recency_weights(items, 0.5).tolist() == [[0, 0.25, 0.5, 1]]
    assert recency_weights(items, 0.0).tolist() == [[0, 0, 0, 1]]
    assert recency_weights(items, 1.0).tolist() == [[0, 1, 1, 1]]


def test_neighbours_add_up_over_the_history():
    knn = ItemKNN(torch.tensor([[1], [2], [1]]), torch.tensor([[0.5], [0.25], [1.0]]), 0.5, {})
    assert knn.score([[0, 2]]).tolist() == [[0, 0.5 * 0.5 + 1.0, 0]]


def test_item_without_training_interactions_is_never_scored_by_identity(scorers):
    dataset = make_dataset()
    items = pd.concat([dataset.catalog.items, pd.DataFrame({"item_id": ["new"], "title": ["gold gold film3"]})])
    extended = validated(dataset.interactions, items, "planted data")
    scorer = train_baseline("sasrec", extended, settings=SETTINGS.model_copy(update={"epochs": 1}))
    assert scorer.score([[1, 5]])[0, N] == -np.inf
    assert np.isfinite(scorer.score([[1, 5]])[0, :N]).all()


def test_gru_skips_gaps_padding_and_later_items():
    torch.manual_seed(0)
    model = GRU4Rec(N, CollaborativeSettings(hidden_size=8, num_layers=2)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    dense, gapped = model(torch.tensor([[3, 5, 7]])), model(torch.tensor([[-1, 3, -1, 5, 7]]))
    assert torch.allclose(dense[0], gapped[0, [1, 3, 4]], atol=1e-6)
    assert torch.equal(gapped[0, 2], gapped[0, 1])
    assert gapped[0, 0].abs().sum() == 0
    changed = model(torch.tensor([[3, 5, 8]]))
    assert torch.allclose(dense[0, :2], changed[0, :2], atol=1e-6)
    assert not torch.allclose(dense[0, 2], changed[0, 2], atol=1e-3)


def test_baseline_run_holds_all_it_needs_and_is_reproducible(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    DATASET.save(data)
    events: list[dict[str, Any]] = []
    run = write_baseline_run("sasrec", data, tmp_path / "a", seed=3, settings=SETTINGS, on_epoch=events.append)
    assert read_run(tmp_path / "a") == json.loads(json.dumps(run))
    assert run.keys() >= {"kind", "name", "settings", "data_fingerprint", "seed", "provenance", "validation", "seconds"}
    assert (run["kind"], run["name"], run["seed"]) == ("baseline", "SASRec", 3)
    assert run["data_fingerprint"] == fingerprint(data) == fingerprint(tmp_path / "a" / "data")
    assert run["validation"]["ndcg@10"] == pytest.approx(max(event["ndcg@10"] for event in events))
    again = write_baseline_run("sasrec", data, tmp_path / "b", seed=3, settings=SETTINGS)
    assert again["validation"] == run["validation"]
    for name in ("a", "b"):
        parts = split(Dataset.load(tmp_path / name / "data"))
        assert len(rank_cases(load_baseline(tmp_path / name), parts, "test")) == 48


def test_moved_run_still_reads_titles_nobody_has_seen(backbone, tmp_path):
    data, encoder = tmp_path / "data", tmp_path / "minilm"
    data.mkdir()
    DATASET.save(data)
    shutil.copytree(backbone, encoder)
    run = write_baseline_run("text_neighbours", data, tmp_path / "here", backbone=str(encoder))
    before = Recommender.load(tmp_path / "here").probabilities(["gold gold"])
    encoder.rename(tmp_path / "gone")
    moved = Recommender.load((tmp_path / "here").rename(tmp_path / "there"))
    assert moved.reads_text
    np.testing.assert_array_equal(moved.probabilities(["gold gold"]), before)
    assert run["backbone"] == "minilm"
    assert str(tmp_path) not in (tmp_path / "there" / "run.json").read_text() + json.dumps(run)


def test_encoder_in_four_bits_goes_into_the_run_too(tmp_path):
    model, tokenizer = tiny_backbone(["red", "green"])
    save_four_bit(model, tmp_path / "four")
    tokenizer.save_pretrained(tmp_path / "four")
    scorer = TextNeighbours(torch.eye(64), torch.zeros(64), torch.eye(64), 0.5, str(tmp_path / "four"))
    save_baseline("text_neighbours", scorer, tmp_path)
    before = scorer.score([["gold"]])
    (tmp_path / "four").rename(tmp_path / "gone")
    np.testing.assert_array_equal(load_baseline(tmp_path).score([["gold"]]), before)


def test_run_of_an_earlier_version_reads_titles_with_the_encoder_it_names(scorers, backbone, tmp_path):
    save_baseline("text_neighbours", scorers["text_neighbours"], tmp_path)
    shutil.rmtree(tmp_path / "encoder")
    state = json.loads((tmp_path / "baseline.json").read_text())
    state["values"]["backbone"] = backbone
    (tmp_path / "baseline.json").write_text(json.dumps(state))
    np.testing.assert_array_equal(
        load_baseline(tmp_path).score([["gold gold"]]), scorers["text_neighbours"].score([["gold gold"]])
    )


def test_baseline_whose_features_are_trained_in_carries_no_encoder(backbone, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    DATASET.save(data)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    run = write_baseline_run("sasrec_text", data, tmp_path / "run", settings=settings, backbone=backbone)
    assert run["backbone"] == Path(backbone).name
    assert not (tmp_path / "run" / "encoder").exists()


def test_baseline_without_given_settings_uses_those_tuned_for_it(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    DATASET.save(data)
    run = write_baseline_run("gru4rec", data, tmp_path / "run")
    assert run["settings"] == default_settings("gru4rec").model_dump()
    assert run["settings"] != default_settings("sasrec").model_dump()


def test_failed_baseline_leaves_nothing_behind(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    DATASET.save(data)

    def fail(event: dict[str, Any]) -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_baseline_run("itemknn", data, tmp_path / "run", on_epoch=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_unknown_baseline_is_refused():
    with pytest.raises(ConfigError, match=r"one of popularity, itemknn, .*; got 'bpr'"):
        train_baseline("bpr", DATASET)


@pytest.mark.parametrize("name", READ_TEXT)
def test_baseline_that_reads_text_needs_a_backbone(name):
    with pytest.raises(ConfigError, match=f"{name} reads text and needs a backbone"):
        train_baseline(name, DATASET)


def test_folder_that_holds_no_baseline_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="must hold a baseline"):
        load_baseline(tmp_path)
