import stat
import threading
from pathlib import Path

import pytest

from darec.annotations import NotedCase, Notes, NotesError, notes_path

CASE = NotedCase("films", "user 7", "run1", "DARec", "f3", 12)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "deep" / "notes.sqlite")


def test_before_the_first_note_there_is_no_file_and_no_note(notes: Notes):
    assert notes.read("films").empty
    assert not notes.path.exists()


def test_a_note_is_read_back_from_the_file(notes: Notes):
    notes.write(CASE, " Ada ", ["sequel", " sequel ", "", "=cold"], "  Why not the sequel?\nOdd. ")
    [row] = Notes(notes.path).read("films").to_dict("records")
    assert row.pop("written_at").endswith("+00:00")
    assert row == {
        "author": "Ada",
        "run_name": "DARec",
        "run_id": "run1",
        "user_id": "user 7",
        "target_item_id": "f3",
        "rank": 12,
        "tags": ["sequel", "=cold"],
        "note": "Why not the sequel?\nOdd.",
    }


def test_writing_again_replaces_only_ones_own_note_on_that_case_and_run(notes: Notes):
    notes.write(CASE, "Ada", note="first")
    notes.write(CASE, "Bob", note="mine")
    notes.write(NotedCase("films", "user 7", "run2", "SASRec", "f3", 3), "Ada", note="of the other run")
    notes.write(NotedCase("films", "user 8", "run1", "DARec", "f3", 3), "Ada", note="of the other user")
    notes.write(CASE, "Ada", note="second")
    assert sorted(notes.read("films")["note"]) == ["mine", "of the other run", "of the other user", "second"]
    assert sorted(notes.read("films", "user 7")["note"]) == ["mine", "of the other run", "second"]


def test_writing_nothing_deletes_the_note(notes: Notes):
    notes.write(CASE, "Ada", ["odd"])
    notes.write(CASE, "Bob", ["odd"])
    notes.write(CASE, "Ada", [" "], " ")
    assert notes.read("films")["author"].tolist() == ["Bob"]


def test_other_data_has_other_notes(notes: Notes):
    notes.write(CASE, "Ada", note="here")
    assert notes.read("beauty").empty


def test_many_threads_write_and_none_is_lost(notes: Notes):
    def write(author: int) -> None:
        for user in range(5):
            notes.write(NotedCase("films", f"user {user}", "run1", "DARec", "f3", 1), f"author {author}", note="x")
            assert len(notes.read("films", f"user {user}"))

    threads = [threading.Thread(target=write, args=(author,)) for author in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = notes.read("films")
    assert len(found) == 30
    assert found.groupby("author")["user_id"].nunique().tolist() == [5] * 6


def test_words_of_sql_are_only_words(notes: Notes):
    notes.write(CASE, "x'); DROP TABLE notes; --", note="'; DELETE FROM notes; --")
    assert notes.read("films")["author"].tolist() == ["x'); DROP TABLE notes; --"]
    assert notes.read("films' OR '1'='1").empty


@pytest.mark.parametrize(
    ("author", "tags", "note", "message"),
    [
        ("  ", [], "x", "name of 1 to 80 characters; got 0"),
        ("n" * 81, [], "x", "got 81"),
        ("Ada", ["t" * 41], "", r"at most 40 characters; .* has 41"),
        ("Ada", [], "n" * 10_001, "this has 10,001"),
    ],
)
def test_overlong_and_nameless_notes_are_refused(notes: Notes, author, tags, note, message):
    with pytest.raises(NotesError, match=message):
        notes.write(CASE, author, tags, note)
    assert not notes.path.exists()


def test_a_file_that_is_no_notes_file_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "thesis.txt"
    path.write_text("many words, " * 200)
    for use in (lambda: Notes(path).read("films"), lambda: Notes(path).write(CASE, "Ada", note="x")):
        with pytest.raises(NotesError, match=r"cannot be used .*--notes FILE"):
            use()
    assert path.read_text() == "many words, " * 200


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotesError, match="cannot be used"):
        Notes(tmp_path / "file" / "notes.sqlite").write(CASE, "Ada", note="x")


def test_a_file_that_may_only_be_read_is_read(notes: Notes):
    notes.write(CASE, "Ada", note="kept")
    notes.path.chmod(stat.S_IREAD)
    assert notes.read("films")["note"].tolist() == ["kept"]


def test_the_place_is_what_is_given_then_the_environment_then_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("USERPROFILE", "/somewhere")
    monkeypatch.delenv("DAREC_NOTES", raising=False)
    assert notes_path() == Path("/somewhere/.darec/notes.sqlite")
    monkeypatch.setenv("DAREC_NOTES", "from/env.sqlite")
    assert notes_path() == Path("from/env.sqlite")
    assert notes_path("given.sqlite") == Path("given.sqlite")
