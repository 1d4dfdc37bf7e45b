import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from darec.cli import main
from darec.errors import RunError
from darec.runs import verify_manifest, write_json, write_manifest

ROOT = Path(__file__).parent.parent
TITLES = ["Alpha", "Bravo", "Crème Brûlée", "Heat", "Heat", "=1+1", "Golf Club", "Hôtel", "India Song", "Juliet"]
YEARS = [1990, 1991, 1992, 1995, 1986, 1994, 1995, 1996, 1997, 1998]
COMMANDS = [
    "data",
    "train",
    "search",
    "pretrain",
    "baseline",
    "quantize",
    "rebuild-demo",
    "evaluate",
    "recommend",
    "info",
]


def succeed(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert not stop.value.code


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with invented tables: 30 users walk around the circle of 10 items from different places."""
    folder = tmp_path_factory.mktemp("tables")
    rows = [
        (f"u{user}", f"i{(user * 3 + step) % 10}", 1000 * user + step)
        for user in range(30)
        for step in range(4 + user % 4)
    ]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).to_csv(folder / "interactions.csv", index=False)
    items = {"item_id": [f"i{number}" for number in range(10)], "title": TITLES, "year": YEARS}
    pd.DataFrame(items).to_csv(folder / "items.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def data(tables, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "data"
    succeed("data", "prepare", tables, "--out", out)
    return out


@pytest.fixture(scope="module")
def popularity(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "popularity"
    succeed("baseline", "popularity", "--data", data, "--out", out)
    return out


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A DARec run on a tiny random backbone, trained just long enough to leave the CF model's own ranking."""
    out = tmp_path_factory.mktemp("runs") / "darec"
    quick = [
        "training.epochs=6",
        "training.batch_size=4",
        "training.learning_rate=0.01",
        "training.evaluation_batch_size=30",
    ]
    quick += ["collaborative.epochs=1", "collaborative.hidden_size=8"]
    settings = [word for setting in quick for word in ("--set", setting)]
    succeed("train", "--preset", "smoke", "--data", data, "--out", out, "--device", "cpu", *settings)
    return out


def assert_one_line(err, message):
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert message in err


def test_help_names_every_command(run_command):
    code, out, err = run_command("--help")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.strip()] == [
        *COMMANDS[1:],
        "data",
    ]


def test_nothing_asked_shows_the_help(run_command):
    assert run_command() == run_command("--help")


@pytest.mark.parametrize("command", [*COMMANDS, "data list", "data prepare"])
def test_every_command_explains_itself(run_command, command):
    code, out, _ = run_command(*command.split(), "--help")
    assert code == 0
    assert f"python -m darec {command}" in out


def test_help_of_baseline_names_every_one(run_command):
    from darec.baselines import NAMES

    words = run_command("baseline", "--help")[1].replace(",", " ").split()
    assert set(NAMES) <= {word.rstrip(".") for word in words}


def test_help_and_usage_errors_load_no_heavy_library():
    script = "import sys, darec.cli; print({'torch', 'pandas', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["data"], "Missing command"),
        (["info"], "Missing argument 'RUN'"),
        (["recommend", "r", "--history", "a", "-k", "0"], "-k"),
        (["train", "--data", "d", "--out", "r", "--set", "training.epoch=1"], "There is no setting training.epoch."),
        (["train", "--data", "d", "--out", "r", "--preset", "no"], "Unknown preset 'no'"),
        (["data", "prepare", "x", "--out", "y", "--column", "user_id"], "ours=theirs"),
        (["info", "no-such-run"], "no-such-run is not a run"),
        (["quantize", "no-such-run", "--out", "r"], "no-such-run is not a run"),
        (["evaluate", "no-such-run", "--out", "m.json"], "no-such-run is not a run"),
        (["evaluate", "no-such-run", "--out", "m.json", "--split", "train"], "--split"),
        (["recommend", "no-such-run", "--history", "Heat"], "no-such-run is not a run"),
        (["data", "prepare", "no-such-source", "--out", "y"], "no-such-source"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(run_command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_command(*arguments)
    assert (code, out) == (2, "")
    assert_one_line(err, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_anywhere_adds_the_traceback(run_command, place):
    arguments = ["info", "no-such-run"]
    arguments.insert(place, "--debug")
    code, _, err = run_command(*arguments)
    assert code == 2
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("Error: no-such-run is not a run")


def test_a_fault_of_ours_is_one_line_too_and_exit_code_1(run_command, tmp_path):
    write_json(tmp_path / "run.json", ["not", "what a run holds"])
    write_manifest(tmp_path)
    code, _, err = run_command("info", tmp_path)
    assert code == 1
    assert_one_line(err, "TypeError")
    assert "--debug" in err
    assert "Traceback" in run_command("info", tmp_path, "--debug")[2]


def test_known_sources_are_listed_with_their_terms(run_command):
    code, out, _ = run_command("data", "list")
    assert code == 0
    assert "ml-100k" in out
    assert "research" in out


def test_prepare_reports_what_it_found(run_command, tables, tmp_path):
    code, out, _ = run_command("data", "prepare", tables, "--out", tmp_path / "data")
    assert code == 0
    assert {"30", "10"} <= set(out.replace(",", " ").split())
    assert {"interactions.parquet", "items.parquet"} <= {path.name for path in (tmp_path / "data").iterdir()}


def test_prepare_maps_columns(run_command, tables, tmp_path):
    mine = pd.read_csv(tables / "interactions.csv").rename(columns={"user_id": "customer"})
    (tmp_path / "mine").mkdir()
    mine.to_csv(tmp_path / "mine" / "interactions.csv", index=False)
    (tmp_path / "mine" / "items.csv").write_bytes((tables / "items.csv").read_bytes())
    arguments = ["data", "prepare", tmp_path / "mine", "--out", tmp_path / "data"]
    code, _, err = run_command(*arguments)
    assert code == 2
    assert_one_line(err, "user_id")
    assert run_command(*arguments, "--column", "user_id=customer")[0] == 0
    assert pd.read_parquet(tmp_path / "data" / "interactions.parquet")["user_id"].nunique() == 30


def test_existing_output_folder_is_refused(run_command, popularity, data):
    code, _, err = run_command("baseline", "popularity", "--data", data, "--out", popularity)
    assert code == 2
    assert_one_line(err, "must not exist yet")


def test_unknown_baseline_lists_the_known_ones(run_command, data, tmp_path):
    code, _, err = run_command("baseline", "nonsense", "--data", data, "--out", tmp_path / "run")
    assert code == 2
    assert_one_line(err, "popularity, itemknn")


def test_train_without_a_backbone_is_refused(run_command, data, tmp_path):
    code, _, err = run_command("train", "--data", data, "--out", tmp_path / "run")
    assert code == 2
    assert_one_line(err, "backbone")


def test_recommendations_as_json_are_all_that_stdout_holds(run_command, popularity):
    code, out, err = run_command("recommend", popularity, "--history", "alpha", "--history", "Bravo", "-k", 3, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [set(item) for item in found] == [{"rank", "item_id", "title", "probability"}] * 3
    assert [item["rank"] for item in found] == [1, 2, 3]
    probabilities = [item["probability"] for item in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert not {"i0", "i1"} & {item["item_id"] for item in found}


def test_probabilities_over_the_whole_catalogue_sum_to_one(run_command, popularity):
    _, out, _ = run_command("recommend", popularity, "--history", "Alpha", "-k", 99, "--json", "--keep-seen")
    found = json.loads(out)
    assert len(found) == 10
    assert sum(item["probability"] for item in found) == pytest.approx(1, abs=1e-5)


def test_table_and_json_show_the_same_items(run_command, popularity):
    _, table, _ = run_command("recommend", popularity, "--history", "Alpha", "-k", 4)
    _, out, _ = run_command("recommend", popularity, "--history", "Alpha", "-k", 4, "--json")
    lines = table.splitlines()
    assert lines[0].split() == ["rank", "probability", "item_id", "title"]
    assert [line.split()[2] for line in lines[1:]] == [item["item_id"] for item in json.loads(out)]
    assert all(line.endswith(item["title"]) for line, item in zip(lines[1:], json.loads(out), strict=True))


def test_shared_title_without_a_terminal_lists_the_choices(run_command, popularity, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, out, err = run_command("recommend", popularity, "--history", "Heat")
    assert (code, out) == (2, "")
    assert_one_line(err, "Heat (1995) (id:i3)")
    assert "--history id:i3, --history id:i4" in err


def test_year_or_id_tells_a_shared_title_apart(run_command, popularity):
    by_year = run_command("recommend", popularity, "--history", "Heat (1986)", "--json")
    by_id = run_command("recommend", popularity, "--history", "id:i4", "--json")
    assert by_year == by_id
    assert by_id[0] == 0
    assert "i4" not in by_id[1]
    assert '"i3"' in by_id[1]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a thing of Unix")
def test_shared_title_on_a_terminal_asks_until_it_gets_a_number(popularity):
    import pty

    ours, theirs = pty.openpty()
    os.write(ours, b"7\n2\n")
    command = [sys.executable, "-m", "darec", "recommend", popularity, "--history", "Heat", "-k", "99", "--json"]
    done = subprocess.run(command, cwd=ROOT, stdin=theirs, capture_output=True, text=True, encoding="utf-8")
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    assert "2  Heat (1986) (id:i4)" in done.stderr
    assert "a number from 1 to 2" in done.stderr
    assert {item["item_id"] for item in json.loads(done.stdout)} == {f"i{number}" for number in range(10)} - {"i4"}


def test_unknown_item_id_is_refused(run_command, popularity):
    code, _, err = run_command("recommend", popularity, "--history", "id:nowhere")
    assert code == 2
    assert_one_line(err, "nowhere")


def test_blank_title_is_refused(run_command, popularity):
    code, _, err = run_command("recommend", popularity, "--history", " ")
    assert code == 2
    assert_one_line(err, "must not be blank")


def test_unknown_title_says_that_it_is_skipped_where_nothing_reads_text(run_command, popularity):
    code, out, err = run_command("recommend", popularity, "--history", "Golf Klub", "--history", "Alpha", "--json")
    assert code == 0
    assert "Golf Klub" in err
    assert "skipped" in err
    assert "Did you mean Golf Club (1995)?" in err
    assert out == run_command("recommend", popularity, "--history", "Alpha", "--json")[1]


def test_evaluation_writes_metrics_and_one_rank_a_user(run_command, popularity, tmp_path):
    code, out, _ = run_command("evaluate", popularity, "--split", "valid", "--out", tmp_path / "deep" / "metrics.json")
    metrics = json.loads((tmp_path / "deep" / "metrics.json").read_text(encoding="utf-8"))
    ranks = pd.read_parquet(popularity / "ranks-valid.parquet")
    assert code == 0
    assert metrics["split"] == "valid"
    assert len(ranks) == metrics["users"] == 30
    assert metrics["seen_removed"]["hr@5"]["mean"] == pytest.approx(np.mean(ranks["rank"] <= 5))
    assert "hr@5" in out
    assert run_command("info", popularity)[0] == 0  # the rank file does not break the run's manifest


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def never_ranks(monkeypatch):
    monkeypatch.setattr("darec.evaluation.protocol.rank_cases", lambda *_, **__: pytest.fail("it ranked before"))


def test_folder_in_the_place_of_the_metrics_is_refused_before_ranking(run_command, popularity, tmp_path, never_ranks):
    code, out, err = run_command("evaluate", popularity, "--out", tmp_path)
    assert (code, out) == (2, "")
    assert_one_line(err, f"--out names a file; {tmp_path} is a folder. Name a file in it")
    assert files_in(tmp_path) == []


def test_path_that_the_system_refuses_is_the_users_to_mend(run_command, popularity, tmp_path, never_ranks):
    (tmp_path / "file").touch()
    code, _, err = run_command("evaluate", popularity, "--out", tmp_path / "file" / "metrics.json")
    assert code == 2
    assert_one_line(err, f"{tmp_path / 'file'} cannot be used: ")


@pytest.mark.parametrize("why", ["shipped with others", "not to be written to"])
def test_run_that_is_to_stay_as_it_is_has_its_ranks_beside_the_metrics(
    run_command, popularity, tmp_path, monkeypatch, why
):
    run = shutil.copytree(popularity, tmp_path / "demo" / "popularity", ignore=shutil.ignore_patterns("ranks-*"))
    if why == "shipped with others":
        write_manifest(tmp_path / "demo")
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: (Path(path), mode) != (run, os.W_OK))
    before = files_in(tmp_path / "demo")
    code, _, err = run_command("evaluate", run, "--out", tmp_path / "out" / "of-it.json")
    assert code == 0
    assert files_in(tmp_path / "demo") == before
    assert files_in(tmp_path / "out") == ["of-it-ranks-test.parquet", "of-it.json"]
    assert len(pd.read_parquet(tmp_path / "out" / "of-it-ranks-test.parquet")) == 30
    assert "of-it-ranks-test.parquet" in err
    verify_manifest(tmp_path / "demo" if why == "shipped with others" else run)


def test_evaluation_that_cannot_write_its_ranks_keeps_those_of_before(run_command, popularity, tmp_path, monkeypatch):
    run_command("evaluate", popularity, "--out", tmp_path / "metrics.json")
    before = files_in(popularity), (popularity / "ranks-test.parquet").read_bytes()

    def write_half(self, path, **_):
        Path(path).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", write_half)
    assert run_command("evaluate", popularity, "--out", tmp_path / "metrics.json")[0] == 1
    assert (files_in(popularity), (popularity / "ranks-test.parquet").read_bytes()) == before


def test_info_shows_what_run_json_holds_and_the_bytes_of_every_file(run_command, popularity):
    code, out, _ = run_command("info", popularity, "--json")
    shown = json.loads(out)
    written = json.loads((popularity / "run.json").read_text(encoding="utf-8"))
    assert code == 0
    assert written.items() <= shown.items()
    assert shown["bytes"]["run.json"] == (popularity / "run.json").stat().st_size
    text = run_command("info", popularity)[1]
    assert "name: Popularity" in text.splitlines()


def test_trained_quantized_evaluated_recommended_from_the_command_line(run_command, trained, tmp_path):
    small = tmp_path / "small"
    code, out, err = run_command("quantize", trained, "--out", small)
    assert code == 0
    assert "before" in out
    stages = [line for line in err.splitlines() if " of 4: " in line]
    assert [stage[:7] for stage in stages] == ["1 of 4:", "2 of 4:", "3 of 4:", "4 of 4:"]
    users = json.loads((small / "run.json").read_text(encoding="utf-8"))["quantization"]["validation"]["users"]
    assert stages[2] == f"3 of 4: ranking {users} validation users before quantization"
    assert run_command("evaluate", small, "--out", tmp_path / "metrics.json")[0] == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert {"seen_removed", "seen_kept", "cf_off_seen_removed"} <= set(metrics)
    code, out, err = run_command("recommend", small, "--history", "Alpha", "--history", "A New Song", "--json")
    assert code == 0
    assert len(json.loads(out)) == 9
    assert 'No item has the title "A New Song": it is read as new text.' in err


def test_new_text_changes_what_is_recommended(run_command, trained):
    def scores(*history):
        words = [word for title in history for word in ("--history", title)]
        _, out, _ = run_command("recommend", trained, *words, "--json", "-k", 99)
        return {item["item_id"]: item["probability"] for item in json.loads(out)}

    assert scores("Alpha", "Something else") != scores("Alpha", "Entirely another")


def test_info_of_a_darec_run_names_the_adapters_of_each_layer(run_command, trained):
    shown = json.loads(run_command("info", trained, "--json")[1])
    layers = shown["adapters"]
    assert len(layers) >= 2
    rank = shown["settings"]["adapters"]["rank"]
    assert all(f"rank {rank}" in line for line in layers.values())


def test_search_hands_on_what_was_asked_for(monkeypatch, capsys, tmp_path):
    asked = []

    def search(data, out, settings, **options):
        asked.append((data, out, settings, options))
        raise RunError("Enough is known.")

    monkeypatch.setattr("darec.search.chain.search", search)
    data, out, journal = tmp_path / "data", tmp_path / "run", tmp_path / "journal"
    words = f"search --data {data} --out {out} --trials 7 --random-trials 5 --users 30 --keep 2 --retrain-epochs 3"
    words += f" --kind attention --kind attention+mlp --max-size 16 --workers 2 --storage {journal} --resume --seed 4"
    words += " --preset smoke --set adapters.weights=static --device cpu"
    with pytest.raises(SystemExit):
        main(words.split())
    assert "Enough is known." in capsys.readouterr().err
    [(*places, settings, options)] = asked
    assert places == [data, out]
    assert (settings.adapters.weights, settings.backbone.tiny) == ("static", True)
    assert options == {
        "backbone": None,
        "trials": 7,
        "random_trials": 5,
        "users": 30,
        "k": 2,
        "retrain_epochs": 3,
        "kinds": ["attention", "attention+mlp"],
        "max_size": 16,
        "workers": 2,
        "storage": journal,
        "resume": True,
        "seed": 4,
        "device": "cpu",
    }


def test_an_interrupted_command_says_so_in_one_line(monkeypatch, capsys, tables, tmp_path):
    def interrupt(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("darec.data.sources.prepare", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["data", "prepare", str(tables), "--out", str(tmp_path / "out")])
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("Interrupted. A training or a search goes on")
