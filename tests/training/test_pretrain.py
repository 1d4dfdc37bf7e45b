import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from darec.data.corpus import Corpus
from darec.errors import ConfigError, DataError, RunError
from darec.model.backbone import learn_tokenizer, load_backbone
from darec.runs import recorded_files, verify_manifest
from darec.training.log import TrainingLog
from darec.training.pretrain import (
    PRESETS,
    PretrainSettings,
    build_model,
    count_parameters,
    load_pretrain_settings,
    pretrain,
)
from darec.training.text_rows import encode_documents, hold_out, measure_loss

TINY = PRESETS["tiny"].model_copy(update={"vocab_size": 320})
WORDS = [first + second for first in "bdgk" for second in "aeiu"]
FOLLOWS = 0.8  # how often the next word of the list comes next; else any word


def walk(random: np.random.Generator, length: int) -> str:
    """A walk around the list of words that mostly goes forward."""
    word, words = int(random.integers(len(WORDS))), []
    for _ in range(length):
        words.append(WORDS[word])
        word = (word + 1) % len(WORDS) if random.random() < FOLLOWS else int(random.integers(len(WORDS)))
    return " ".join(words)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """800 documents of 24 words each."""
    random = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("text") / "walks.txt"
    file.write_text("\n".join(walk(random, 24) for _ in range(800)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "titles.txt").write_text("ba be bi\nku ba\n")
    out = folder / "walker"
    pretrain([text], out, TINY.model_copy(update={"epochs": 2.0}), titles=folder / "titles.txt", seed=3)
    return out


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Interruption(BaseException):
    pass


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    write = TrainingLog.write

    def write_or_stop(self: TrainingLog, **event: float) -> None:
        write(self, **event)
        if event["step"] == steps:
            raise Interruption

    monkeypatch.setattr(TrainingLog, "write", write_or_stop)


@pytest.mark.parametrize(
    "words",
    [
        "Heat (1995)",
        "  two  spaces\tand\n\nlines \r\n ",
        "Amélie, 东京物语, Жизнь, ไทย, 👩‍🚀 e\u0301 \u200b \x00 \ufeff",
        "do n't say </s> or <s> or <pad> , or @-@",
        "12345678901234567890",
        "".join(map(chr, [*range(0xD800 - 300, 0xD800), *range(0x1F600, 0x1F700)])),
    ],
)
def test_tokenizer_gives_back_any_text(trained, words):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    (ids,) = encode_documents(tokenizer, [words])
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert not set(ids[1:-1].tolist()) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids[1:-1].tolist()) == words
    assert tokenizer.decode(tokenizer(words, add_special_tokens=False)["input_ids"]) == words


def test_model_learns_which_word_follows(trained):
    report = json.loads((trained / "pretrain.json").read_text(encoding="utf-8"))
    # The next word has 0.8 and its share of the rest: a perplexity of 2.7. Who knows frequencies alone has 16.
    assert report["heldout"]["model"]["perplexity"] < 4
    assert report["heldout"]["untrained"]["perplexity"] == pytest.approx(report["vocabulary"], rel=0.3)
    assert report["titles"]["model"]["bits_per_byte"] < report["titles"]["untrained"]["bits_per_byte"] / 2
    assert report["corpora"][0]["heldout_documents"] == report["heldout"]["model"]["documents"] == 8


def test_folder_is_whole_and_is_read_by_transformers_and_as_a_backbone(trained):
    verify_manifest(trained)
    assert not (trained / "checkpoint").exists()
    tokenizer, plain = AutoTokenizer.from_pretrained(trained), AutoModelForCausalLM.from_pretrained(trained)
    model, _ = load_backbone(trained)
    ids = torch.tensor(
        [[tokenizer.bos_token_id, *tokenizer(" ".join(WORDS[3:8]), add_special_tokens=False)["input_ids"]]]
    )
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, plain.eval()(ids).logits)
        following = tokenizer.decode(model(ids).logits[0, -1].argmax())
    assert following == f" {WORDS[8]}"


def test_report_is_what_its_own_model_measures_again(trained, text):
    report = json.loads((trained / "pretrain.json").read_text(encoding="utf-8"))
    documents = text.read_text(encoding="utf-8").splitlines()
    heldout = hold_out([Corpus("walks.txt", "walks.txt", "", 0, "", list(dict.fromkeys(documents)))], 0.01, seed=3)[1]
    for name, random_init in (("model", False), ("untrained", True)):
        model, tokenizer = load_backbone(trained, random_init=random_init, seed=3)
        loss = measure_loss(model, tokenizer, heldout["walks.txt"], 8)
        assert report["heldout"][name]["perplexity"] == pytest.approx(loss.perplexity, rel=1e-5)


def test_card_tells_texts_terms_and_figures(trained, text, tmp_path):
    listed = tmp_path / "list.toml"
    listed.write_text(f'[[corpus]]\nfile = "{text.as_posix()}"\ntitle = "Invented walks"\nterms = "CC0"\n')
    out = tmp_path / "named"
    report = pretrain([], out, TINY.model_copy(update={"epochs": 0.1}), corpora=listed)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# named\n")
    assert f"| Invented walks | {len(set(text.read_text().splitlines()))} | walks.txt, 0.1 MB | CC0 |" in card
    assert (
        f"{report['heldout']['model']['bits_per_byte']:.3f} | {report['heldout']['untrained']['bits_per_byte']:.3f}"
        in card
    )
    assert str(tmp_path) not in card + (out / "pretrain.json").read_text(encoding="utf-8")
    assert "item titles" in (trained / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("noted", "title", "terms"),
    [
        ({"source": "demo", "terms": "Part of DARec."}, "The demo catalogue of this project", "MIT"),
        ({"source": "ml-1m", "terms": "Research use."}, "MovieLens 1M: 6,040 users", "Research use."),
        ({"source": "/home/somebody/shop.zip", "terms": "Not known here."}, "shop.zip", "Not known here."),
        (None, "films", "not stated"),
    ],
)
def test_prepared_folder_is_called_by_its_source_and_has_its_terms(tmp_path, film_dataset, noted, title, terms):
    folder = tmp_path / "films"
    folder.mkdir()
    film_dataset.save(folder)
    if noted is not None:
        (folder / "prepared.json").write_text(json.dumps(noted))
    report = pretrain([folder], tmp_path / "out", TINY.model_copy(update={"epochs": 0.1}))
    (corpus,) = report["corpora"]
    assert corpus["title"].startswith(title)
    assert terms in corpus["terms"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"| {corpus['title']} |" in card
    assert f"| {corpus['terms']} |" in card
    assert "somebody" not in card


def test_corpus_list_has_the_say_over_title_and_terms(text, tmp_path, film_dataset):
    (tmp_path / "films").mkdir()
    film_dataset.save(tmp_path / "films")
    (tmp_path / "films" / "prepared.json").write_text(json.dumps({"source": "demo", "terms": "Part of DARec."}))
    listed = tmp_path / "list.toml"
    listed.write_text('[[corpus]]\nfile = "films"\ntitle = "My films"\nterms = "CC0"\n')
    report = pretrain([text], tmp_path / "out", TINY.model_copy(update={"epochs": 0.1}), corpora=listed)
    assert [(corpus["title"], corpus["terms"]) for corpus in report["corpora"]] == [
        ("My films", "CC0"),
        ("walks.txt", "not stated"),
    ]


class TestResuming:
    settings = TINY.model_copy(update={"epochs": 1.3, "checkpoint_minutes": 1e-9})

    def cut(self, text: Path, out: Path, steps: int) -> Path:
        """A training that was interrupted so many steps after its begin, and one after its last checkpoint."""
        with pytest.MonkeyPatch.context() as patch:
            interrupt_after(patch, steps)
            with pytest.raises(Interruption):
                pretrain([text], out, self.settings, seed=1)
        return out

    def test_interrupted_training_goes_on_as_it_would_have_gone(self, text, tmp_path):
        whole = pretrain([text], tmp_path / "whole", self.settings, seed=1)
        epoch = round(whole["training"]["steps"] / 1.3)
        cut = self.cut(text, tmp_path / "cut", epoch + 3)
        (cut / ".checkpoint-old-x").mkdir()  # as if it had been killed while a checkpoint was exchanged
        (cut / "checkpoint").rename(cut / ".checkpoint-old-x" / "folder")
        (cut / ".checkpoint-y").mkdir()
        with pytest.raises(ValueError, match="Unrecognized model"):
            AutoModelForCausalLM.from_pretrained(cut)
        assert not (cut / "manifest.json").exists()
        torch.manual_seed(99)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("darec.training.pretrain.learn_tokenizer", lambda *_: pytest.fail("it began again"))
            resumed = pretrain([text], cut, self.settings, seed=1, resume=True)
        assert resumed["training"]["tokens_read"] == whole["training"]["tokens_read"]
        assert losses(cut) == losses(tmp_path / "whole")
        assert not [name for name in recorded_files(cut) if "checkpoint" in name]
        one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
        assert all(torch.equal(one[name], other[name]) for name in other)
        assert (cut / "tokenizer.json").read_bytes() == (tmp_path / "whole" / "tokenizer.json").read_bytes()

    def test_with_another_seed_settings_or_text_is_refused(self, text, tmp_path):
        cut = self.cut(text, tmp_path / "cut", steps=2)
        (tmp_path / "other.txt").write_text("one\ntwo\nthree\n")
        changed = self.settings.model_copy(update={"learning_rate": 0.5})
        with pytest.raises(RunError, match="begun with another seed"):
            pretrain([text], cut, self.settings, seed=2, resume=True)
        with pytest.raises(RunError, match="begun with another settings"):
            pretrain([text], cut, changed, seed=1, resume=True)
        with pytest.raises(RunError, match="begun with another text"):
            pretrain([tmp_path / "other.txt"], cut, self.settings, seed=1, resume=True)

    def test_unfinished_folder_is_not_begun_again_unasked(self, text, tmp_path):
        cut = self.cut(text, tmp_path / "cut", steps=1)
        with pytest.raises(RunError, match="add --resume to go on"):
            pretrain([text], cut, self.settings, seed=1)


def test_finished_folder_is_left_alone(trained, text):
    for resume in (False, True):
        with pytest.raises(RunError, match="holds a finished run"):
            pretrain([text], trained, TINY, resume=resume)


def test_time_limit_ends_training_with_the_learning_rate_brought_down(text, tmp_path):
    settings = TINY.model_copy(update={"epochs": 1000.0, "max_minutes": 0.01})
    report = pretrain([text], tmp_path / "out", settings)
    rates = [
        json.loads(line)["learning_rate"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    ]
    assert report["training"]["steps"] == len(rates) < 1000
    assert max(rates) > 10 * rates[-1]


class TestSettings:
    def test_default_model_is_small_enough_and_its_widths_fit_four_bits(self):
        tokenizer = learn_tokenizer(WORDS, 320)
        settings = PRESETS["mini"]
        counts = count_parameters(build_model(tokenizer, settings, seed=0))
        # 6 layers: q, k, v, o 256 x (256 + 128 + 128 + 256), three maps of the MLP 256 x 512, two norms; a last norm
        assert counts["layers"] == 6 * (256 * 768 + 3 * 256 * 512 + 2 * 256) + 256 == 3_542_272
        assert counts["layers"] + settings.vocab_size * 256 < 8_000_000
        assert counts["embeddings"] == len(tokenizer) * 256

    @pytest.mark.parametrize("preset", PRESETS)
    def test_presets_are_valid(self, preset):
        assert load_pretrain_settings(preset) == PretrainSettings.model_validate(PRESETS[preset].model_dump())

    def test_overrides_come_last(self):
        settings = load_pretrain_settings("tiny", ("epochs=0.5", "precision=fp32", "max_minutes=30"))
        assert (settings.epochs, settings.precision, settings.max_minutes) == (0.5, "fp32", 30)
        assert settings.hidden_size == PRESETS["tiny"].hidden_size

    @pytest.mark.parametrize(
        ("override", "complaint"),
        [
            ("hidden_size=200", "hidden_size must be a multiple of 64, .* got 200"),
            ("intermediate_size=100", "intermediate_size must be a multiple of 64, .* got 100"),
            ("num_heads=24", "must be a multiple of twice num_heads 24"),
            ("num_key_value_heads=3", "num_heads 4 must be a multiple of num_key_value_heads 3"),
            ("epochs=0", "Setting epochs: .* greater than 0; got 0"),
            ("precision=fp8", "Setting precision: .*; got 'fp8'"),
            ("layers=3", "There is no setting layers. Known: vocab_size,"),
            ("epochs", "given as key=value"),
        ],
    )
    def test_setting_that_cannot_be_is_refused(self, override, complaint):
        with pytest.raises(ConfigError, match=complaint):
            load_pretrain_settings("mini", (override,))

    def test_unknown_preset_is_refused(self):
        with pytest.raises(ConfigError, match="Known: mini, mini-gpu, tiny"):
            load_pretrain_settings("maxi")


def test_text_that_cannot_be_split_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("only one line")
    with pytest.raises(DataError, match="needs two documents"):
        pretrain([tmp_path / "a.txt"], tmp_path / "out", TINY)
    (tmp_path / "a.txt").write_text("one\ntwo")
    with pytest.raises(DataError, match=r"two are called a\.txt"):
        pretrain([tmp_path / "a.txt"] * 2, tmp_path / "out", TINY)
    assert not (tmp_path / "out").exists()


def test_diverging_training_says_what_to_change(text, tmp_path):
    with pytest.raises(ConfigError, match="Lower learning_rate"):
        pretrain([text], tmp_path / "out", TINY.model_copy(update={"learning_rate": 1e30, "warmup_share": 0.0}))
