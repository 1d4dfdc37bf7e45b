import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from darec.data import download as module
from darec.data.download import KnownSource, RemoteFile, cache_folder, download, find_source, known_sources
from darec.data.interactions import Dataset
from darec.data.sources import prepare
from darec.errors import DataError

CONTENT = bytes(range(256)) * 4000  # about 1 MB, no two neighbouring bytes alike
SUM = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """A loopback server whose habits a test sets; it remembers the Range header of each request."""

    content = CONTENT
    knows_ranges = True
    breaks_after: int | None = None  # bytes of a body
    version = '"one"'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    def url(self, name: str = "file.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if self.path == "/missing":
            self.send_error(404)
            return
        same_version = self.headers.get("If-Range", self.server.version) == self.server.version
        start = int(asked[6:-1]) if asked and self.server.knows_ranges and same_version else 0
        total = len(self.server.content)
        if start >= total:
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.server.version:
            self.send_header("ETag", self.server.version)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # a proxy of this machine would not reach the loopback
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_whole_file_arrives_and_progress_ends_at_its_size(server, tmp_path):
    seen = []
    path = download(RemoteFile(server.url(), len(CONTENT), SUM), tmp_path / "f", lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_broken_transfer_goes_on_from_where_it_stopped(server, tmp_path):
    server.breaks_after = 300_000
    with pytest.raises(DataError, match=r"broke off after 300,000 of 1,024,000 bytes.*goes on from there"):
        download(RemoteFile(server.url(), None, SUM), tmp_path / "f")
    assert not (tmp_path / "f").exists()
    server.breaks_after = None
    assert download(RemoteFile(server.url(), None, SUM), tmp_path / "f").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_a_server_that_ignores_ranges_sends_it_whole_and_nothing_is_doubled(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT[:5000])
    server.knows_ranges = False
    assert download(RemoteFile(server.url(), None, SUM), tmp_path / "f").read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-"]


def test_pieces_of_two_versions_never_meet(server, tmp_path):
    server.breaks_after = 1000
    with pytest.raises(DataError, match="broke off"):
        download(RemoteFile(server.url()), tmp_path / "f")
    server.breaks_after, server.content, server.version = None, CONTENT[::-1], '"two"'
    assert download(RemoteFile(server.url()), tmp_path / "f").read_bytes() == CONTENT[::-1]


def test_without_a_checksum_or_a_version_it_starts_anew(server, tmp_path):
    server.version = ""
    (tmp_path / "f.part").write_bytes(b"of something else")
    assert download(RemoteFile(server.url()), tmp_path / "f").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_part_that_is_longer_than_the_file_is_given_up(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT + b"more")
    assert download(RemoteFile(server.url(), None, SUM), tmp_path / "f").read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server, tmp_path):
    with pytest.raises(DataError, match=f"should have the SHA-256 {'0' * 64}; got {SUM}.*thrown away"):
        download(RemoteFile(server.url(), len(CONTENT), "0" * 64), tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert not (tmp_path / "f.part").exists()


def test_a_wrong_size_is_refused_before_a_byte_is_kept(server, tmp_path):
    with pytest.raises(DataError, match="should have 5 bytes; the server offers 1,024,000"):
        download(RemoteFile(server.url(), 5, SUM), tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_and_right_is_not_fetched_again_and_what_is_wrong_is(server, tmp_path):
    (tmp_path / "f").write_bytes(CONTENT)
    download(RemoteFile(server.url(), len(CONTENT), SUM), tmp_path / "f")
    assert server.ranges == []
    (tmp_path / "f").write_bytes(b"altered")
    assert download(RemoteFile(server.url(), len(CONTENT), SUM), tmp_path / "f").read_bytes() == CONTENT


def test_a_missing_file_and_an_unreachable_server_are_told_apart(server, tmp_path):
    with pytest.raises(DataError, match=r"/missing answers 404 .*new address"):
        download(RemoteFile(server.url("missing")), tmp_path / "f")
    closed = Server()
    url = closed.url()
    closed.server_close()
    with pytest.raises(DataError, match=r"could not be read .*Check the connection"):
        download(RemoteFile(url), tmp_path / "f")


@pytest.mark.parametrize("name", ["file.json.gz", "file.zip"])
def test_without_a_checksum_the_format_is_looked_at(name, server, tmp_path):
    server.content = gzip.compress(CONTENT)[:-9] if name.endswith("gz") else b"<html>moved</html>"
    with pytest.raises(DataError, match=r"is not a whole (gzip|zip) file.*thrown away"):
        download(RemoteFile(server.url(name)), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_known_name_is_fetched_once_into_the_cache_and_prepared(server, tmp_path, monkeypatch):
    server.content = gzip.compress(
        b'{"reviewerID": "u", "asin": "a", "unixReviewTime": 1, "overall": 5.0, "title": "both files are this one"}\n'
    )
    toy = KnownSource(
        name="toy",
        title="",
        files=(RemoteFile(server.url("reviews.json.gz")), RemoteFile(server.url("meta.json.gz"))),
        homepage="",
        terms="Only for tests.",
        citation="Nobody.",
    )
    monkeypatch.setattr(module, "_KNOWN", (toy,))
    monkeypatch.setenv("DAREC_CACHE", str(tmp_path / "cache"))
    meta = tmp_path / "cache" / "toy" / "meta.json.gz"
    meta.parent.mkdir(parents=True)
    meta.write_bytes(gzip.compress(b"{'asin': 'a', 'title': 'Heat'}\n"))
    report = prepare("toy", tmp_path / "out")
    assert (report.terms, report.citation) == ("Only for tests.", "Nobody.")
    assert Dataset.load(tmp_path / "out").catalog.titles == ["Heat"]
    prepare("toy", tmp_path / "again")
    assert len(server.ranges) == 1


def test_known_names_are_unique_and_say_what_they_are_checked_by():
    sources = known_sources()
    assert len({source.name for source in sources}) == len(sources) >= 5
    for source in sources:
        assert source.terms
        assert source.citation
        assert source.homepage.startswith("https://") or not source.files
        assert find_source(source.name) is source
        for file in source.files:
            assert file.url.startswith("https://")
            assert (file.sha256 is None) == (file.size is None)
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
    assert find_source("ml-101k") is None


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DAREC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("DAREC_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "darec")
