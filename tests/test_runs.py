import hashlib
import json
import shutil

import pytest

from darec.errors import RunError
from darec.runs import (
    hold_to,
    is_shared,
    model_name,
    part_of,
    provenance,
    read_run,
    recover_folder,
    sha256_of,
    share_parts,
    verify_manifest,
    write_json,
    write_manifest,
    writing_file,
    writing_folder,
)


@pytest.fixture
def run(tmp_path):
    """A finished run with a file in a sub-folder."""
    with writing_folder(tmp_path / "run") as folder:
        (folder / "data").mkdir()
        (folder / "data" / "weights.bin").write_bytes(bytes(range(256)))
        write_json(folder / "run.json", {"kind": "baseline", "name": "popularity"})
        write_manifest(folder)
    return tmp_path / "run"


def fail_halfway(folder):
    (folder / "half").write_text("half", encoding="utf-8")
    raise RuntimeError("halfway")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_finished_run_is_read_back(run):
    assert read_run(run) == {"kind": "baseline", "name": "popularity"}
    assert names_in(run.parent) == ["run"]


def test_manifest_holds_the_sha256_of_every_file_but_its_own(run):
    sums = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert set(sums) == {"run.json", "data/weights.bin"}
    assert sums["data/weights.bin"] == hashlib.sha256(bytes(range(256))).hexdigest()


def test_manifest_of_a_folder_inside_is_covered_too(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "manifest.json").write_text("{}", encoding="utf-8")
    write_manifest(tmp_path)
    (tmp_path / "inner" / "manifest.json").write_text("{ }", encoding="utf-8")
    with pytest.raises(RunError, match=r"inner.manifest\.json does not have the bytes"):
        verify_manifest(tmp_path)


def test_sha256_agrees_with_the_whole_file_hash(tmp_path):
    content = b"\x01\x02\x03" * 700_000
    (tmp_path / "large").write_bytes(content)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_one_flipped_bit_is_found(run):
    weights = run / "data" / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RunError, match=r"weights\.bin does not have the bytes"):
        read_run(run)
    assert read_run(run, verify=False)["name"] == "popularity"


def test_missing_file_is_found(run):
    (run / "data" / "weights.bin").unlink()
    with pytest.raises(RunError, match=r"lacks data/weights\.bin"):
        read_run(run)


def test_file_added_later_does_not_break_a_run(run):
    write_json(run / "metrics.json", {"ndcg@10": 0.1})
    assert read_run(run)["kind"] == "baseline"


def test_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"is not a run: it has no run\.json"):
        read_run(tmp_path)


def test_path_that_does_not_exist_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        read_run(tmp_path / "nowhere")


def test_run_without_manifest_was_not_finished(run):
    (run / "manifest.json").unlink()
    with pytest.raises(RunError, match="not written to its end"):
        read_run(run)


def test_cut_manifest_is_reported(run):
    (run / "manifest.json").write_text('{"run.json": ', encoding="utf-8")
    with pytest.raises(RunError, match=r"manifest\.json is not valid JSON"):
        read_run(run)


def test_failure_inside_the_block_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="halfway"), writing_folder(tmp_path / "deep" / "run") as folder:
        fail_halfway(folder)
    assert names_in(tmp_path / "deep") == []


def test_folder_appears_only_at_the_end(tmp_path):
    with writing_folder(tmp_path / "run") as folder:
        assert folder.parent == tmp_path
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "run").is_dir()


def test_existing_folder_is_refused_and_stays_whole(run):
    with pytest.raises(RunError, match="must not exist yet"), writing_folder(run):
        pytest.fail("the block must not start")
    assert read_run(run)["name"] == "popularity"


def test_existing_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="must not exist yet"), writing_folder(tmp_path / "run"):
        pytest.fail("the block must not start")
    assert (tmp_path / "run").read_text(encoding="utf-8") == "mine"


def test_file_above_the_output_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="a file stands in the place"), writing_folder(tmp_path / "file" / "run"):
        pytest.fail("the block must not start")


def test_empty_existing_folder_may_be_filled(tmp_path):
    (tmp_path / "run").mkdir()
    with writing_folder(tmp_path / "run") as folder:
        (folder / "new").touch()
    assert names_in(tmp_path) == ["run"]
    assert names_in(tmp_path / "run") == ["new"]


def test_replacing_swaps_the_whole_folder(run):
    with writing_folder(run, replace=True) as folder:
        (folder / "new").touch()
        assert (run / "run.json").exists()
    assert names_in(run) == ["new"]
    assert names_in(run.parent) == ["run"]


def test_failed_replacement_keeps_the_old_folder(run):
    with pytest.raises(RuntimeError, match="halfway"), writing_folder(run, replace=True) as folder:
        fail_halfway(folder)
    assert read_run(run)["name"] == "popularity"
    assert names_in(run.parent) == ["run"]


@pytest.mark.parametrize("half_written", [(), (".run-new1",), (".run-new1", ".run-new2")])
def test_folder_set_aside_by_a_killed_swap_is_put_back(run, half_written):
    (run.parent / ".run-old-x").mkdir()
    run.rename(run.parent / ".run-old-x" / "folder")
    for name in half_written:
        (run.parent / name).mkdir()
    recover_folder(run)
    assert names_in(run.parent) == ["run"]
    assert read_run(run)["name"] == "popularity"


def test_folder_in_its_place_is_not_exchanged_for_one_set_aside(run):
    (run.parent / ".run-old-x" / "folder").mkdir(parents=True)
    recover_folder(run)
    assert names_in(run.parent) == ["run"]
    assert read_run(run)["name"] == "popularity"


def test_folders_of_like_names_are_no_leftovers(run):
    for name in (".runs-x", ".run", "run-old-x"):
        (run.parent / name).mkdir()
    recover_folder(run)
    assert names_in(run.parent) == [".run", ".runs-x", "run", "run-old-x"]


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    (tmp_path / "ranks").write_text("old", encoding="utf-8")

    def write_half(file):
        file.write_text("ne", encoding="utf-8")
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"), writing_file(tmp_path / "ranks") as temporary:
        write_half(temporary)
    assert names_in(tmp_path) == ["ranks"]
    assert (tmp_path / "ranks").read_text(encoding="utf-8") == "old"


REQUEST = {"seed": 0, "settings": {"epochs": 3, "layers": None}}


def test_steps_go_on_with_the_request_they_were_begun_with(tmp_path):
    hold_to(tmp_path / "steps", REQUEST)
    (tmp_path / "steps" / "data").mkdir()
    hold_to(tmp_path / "steps", REQUEST)


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("settings", {"epochs": 4, "layers": None}), ("new", 1)])
def test_steps_of_another_request_are_refused(tmp_path, name, value):
    hold_to(tmp_path, REQUEST)
    with pytest.raises(RunError, match=rf"begun with another {name} .* Give that one, or choose another folder\.$"):
        hold_to(tmp_path, REQUEST | {name: value})
    hold_to(tmp_path, REQUEST)


def test_steps_that_do_not_say_what_they_were_begun_with_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(RunError, match=r"is not empty, and has no request\.json"):
        hold_to(tmp_path, REQUEST)
    assert names_in(tmp_path) == ["data"]


def test_a_folder_is_called_by_its_name_and_a_hub_model_by_all_of_it(tmp_path):
    (tmp_path / "mini").mkdir()
    assert model_name(str(tmp_path / "mini" / ".")) == "mini"
    assert model_name("organization/mini") == "organization/mini"


def test_json_keeps_letters_of_every_language_and_leaves_no_temporary_file(tmp_path):
    write_json(tmp_path / "a.json", {"title": "Amélie, 千と千尋"})
    assert "Amélie, 千と千尋" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert names_in(tmp_path) == ["a.json"]


def test_provenance_names_date_device_and_versions():
    facts = provenance("cpu")
    assert facts["device"] == "cpu"
    assert facts["date"].endswith("+00:00")
    assert {"python", "torch", "transformers", "peft", "bitsandbytes"} <= set(facts["versions"])


class TestSharedParts:
    @pytest.fixture
    def shipped(self, tmp_path):
        """Three runs; two of them hold `backbone`, all hold `data`."""
        for name, backbone in (("first", b"same"), ("second", b"same"), ("third", None)):
            with writing_folder(tmp_path / name) as folder:
                for part, content in (("data", b"rows"), ("backbone", backbone)):
                    if content is not None:
                        (folder / part).mkdir()
                        (folder / part / "file").write_bytes(content)
                write_json(folder / "run.json", {"name": name})
                write_manifest(folder)
        return tmp_path

    def test_lie_once_beside_the_runs_which_stay_whole(self, shipped):
        share_parts(shipped, ["backbone", "data"])
        assert (shipped / "backbone" / "file").read_bytes() == b"same"
        for name in ("first", "second", "third"):
            assert names_in(shipped / name) == ["manifest.json", "run.json"]
            assert read_run(shipped / name) == {"name": name}
            assert part_of(shipped / name, "data") == shipped / "data"

    def test_runs_are_shared_where_a_manifest_beside_them_names_them(self, shipped):
        assert not is_shared(shipped / "first")
        write_manifest(shipped)
        assert is_shared(shipped / "first")
        shutil.copytree(shipped / "first", shipped / "later")
        assert not is_shared(shipped / "later")

    def test_part_of_a_run_of_its_own_lies_in_it(self, shipped):
        assert part_of(shipped / "first", "data") == shipped / "first" / "data"

    def test_altered_shared_file_is_found_by_every_run_that_uses_it(self, shipped):
        share_parts(shipped, ["backbone", "data"])
        (shipped / "backbone" / "file").write_bytes(b"other")
        for name in ("first", "second"):
            with pytest.raises(RunError, match="does not have the bytes"):
                read_run(shipped / name)
        assert read_run(shipped / "third") == {"name": "third"}

    def test_a_run_that_holds_something_else_keeps_its_own(self, shipped):
        (shipped / "second" / "data" / "file").write_bytes(b"other rows")
        write_manifest(shipped / "second")
        share_parts(shipped, ["data"])
        assert (shipped / "data" / "file").read_bytes() == b"rows"
        assert part_of(shipped / "second", "data") == shipped / "second" / "data"
        for name in ("first", "second", "third"):
            assert read_run(shipped / name) == {"name": name}
