import json
from pathlib import Path

import pytest

from darec.model.backbone import load_backbone

WORDS = ["heat", "casino", "ronin", "memento"]


@pytest.fixture
def text(tmp_path) -> Path:
    file = tmp_path / "films.txt"
    file.write_text("\n".join(f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS), encoding="utf-8")
    return file


def test_pretrain_writes_a_backbone_and_prints_how_well_it_reads(run_command, text, tmp_path):
    (tmp_path / "titles.txt").write_text("heat\nronin\n")
    out = tmp_path / "model"
    arguments = ["--text", text, "--out", out, "--preset", "tiny", "--set", "epochs=2", "--set", "vocab_size=300"]
    code, printed, progress = run_command(
        "pretrain", *arguments, "--titles", tmp_path / "titles.txt", "--device", "cpu"
    )
    assert code == 0
    report = json.loads((out / "pretrain.json").read_text(encoding="utf-8"))
    assert f"perplexity: {report['heldout']['model']['perplexity']}" in printed
    assert "titles" in printed
    assert f"{report['parameters']['total']:,} parameters, of them {report['parameters']['layers']:,}" in progress
    assert load_backbone(out)[0].config.vocab_size == report["vocabulary"]
    code, _, error = run_command("pretrain", *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert "holds a finished run" in error


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--text", "nowhere.txt"], "There is no file nowhere.txt"),
        ([], "none is given"),
        (["--text", "nowhere.txt", "--set", "hidden_size=100"], "must be a multiple of 64"),
        (["--text", "nowhere.txt", "--resume"], "nothing to go on with"),
    ],
)
def test_mistake_is_one_plain_line(run_command, tmp_path, arguments, complaint):
    code, printed, error = run_command("pretrain", "--out", tmp_path / "model", *arguments)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert complaint in error
