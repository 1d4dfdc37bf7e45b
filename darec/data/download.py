"""Public data sets by name, fetched from their official address: resumable, checked, whole or not at all.

MovieLens sizes and SHA-256 sums are those that TensorFlow Datasets records for the same addresses
(tensorflow_datasets/url_checksums/movielens.txt). No checksum is published for the Amazon files: of them, the announced
size and the CRC inside the gzip are checked, and no more.
"""

import gzip
import http.client
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from darec.errors import DataError
from darec.progress import OnProgress
from darec.runs import sha256_of

_CHUNK = 1 << 18  # bytes
_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class RemoteFile:
    """One file at its official address.

    Attributes:
        url: http or https.
        size: bytes, or None where it is not known beforehand.
        sha256: hex, or None where no sum is known.
    """

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class KnownSource:
    """A public data set.

    Attributes:
        name: what `data prepare` takes.
        title: what it is, with its counts as its publisher gives them.
        files: what is downloaded; none where it is made here.
        homepage: where its publisher describes it; a file of this repository where it is made here.
        terms: in our words; the publisher's own text binds.
        citation: what to cite.
    """

    name: str
    title: str
    files: tuple[RemoteFile, ...]
    homepage: str
    terms: str
    citation: str


_GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/"
_MOVIELENS_TERMS = (
    "Research use; acknowledge GroupLens, imply no endorsement, no commercial use without permission{}. "
    "The README in the zip has the full terms."
)
_MOVIELENS_CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19."
)
_AMAZON_TERMS = "The publisher states no licence; made for research. Do not publish the data onward without asking."

_KNOWN = (
    KnownSource(
        name="demo",
        title="Demo world: simulated viewers of real films",
        files=(),
        homepage="docs/demo-world.md",
        terms="Simulated viewers of real films; nobody watched these. A gain in this world is no evidence for the "
        "paper. Part of DARec, under its licence.",
        citation="DARec, docs/demo-world.md.",
    ),
    KnownSource(
        name="ml-100k",
        title="MovieLens 100K: 943 users, 1,682 films, 100,000 ratings",
        files=(
            RemoteFile(
                _GROUPLENS + "ml-100k.zip",
                4_924_029,
                "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            ),
        ),
        homepage="https://grouplens.org/datasets/movielens/100k/",
        terms=_MOVIELENS_TERMS.format(", no redistribution without permission"),
        citation=_MOVIELENS_CITATION,
    ),
    KnownSource(
        name="ml-1m",
        title="MovieLens 1M: 6,040 users, 3,883 films, 1,000,209 ratings",
        files=(
            RemoteFile(
                _GROUPLENS + "ml-1m.zip",
                5_917_549,
                "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            ),
        ),
        homepage="https://grouplens.org/datasets/movielens/1m/",
        terms=_MOVIELENS_TERMS.format(", no redistribution without permission"),
        citation=_MOVIELENS_CITATION,
    ),
    KnownSource(
        name="ml-latest-small",
        title="MovieLens latest small, edition of September 2018: 610 users, 9,742 films, 100,836 ratings",
        files=(
            RemoteFile(
                _GROUPLENS + "ml-latest-small.zip",
                978_202,
                "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            ),
        ),
        homepage="https://grouplens.org/datasets/movielens/latest/",
        terms=_MOVIELENS_TERMS.format(""),
        citation=_MOVIELENS_CITATION,
    ),
    KnownSource(
        name="amazon-beauty",
        title="Amazon Beauty 2014, 5-core: 22,363 users, 12,101 products, 198,502 reviews",
        files=(RemoteFile(_SNAP + "reviews_Beauty_5.json.gz"), RemoteFile(_SNAP + "meta_Beauty.json.gz")),
        homepage="https://jmcauley.ucsd.edu/data/amazon/",
        terms=_AMAZON_TERMS,
        citation="Julian McAuley, Christopher Targett, Qinfeng Shi and Anton van den Hengel. 2015. Image-Based "
        "Recommendations on Styles and Substitutes. SIGIR.",
    ),
    KnownSource(
        name="amazon-games",
        title="Amazon Video Games 2018, 5-core",  # the 2014 metadata lack most titles of games
        files=(
            RemoteFile(_UCSD + "categoryFilesSmall/Video_Games_5.json.gz"),
            RemoteFile(_UCSD + "metaFiles2/meta_Video_Games.json.gz"),
        ),
        homepage="https://nijianmo.github.io/amazon/",
        terms=_AMAZON_TERMS,
        citation="Jianmo Ni, Jiacheng Li and Julian McAuley. 2019. Justifying Recommendations using Distantly-Labeled "
        "Reviews and Fine-Grained Aspects. EMNLP.",
    ),
)


def known_sources() -> list[KnownSource]:
    """Every data set that can be prepared by name."""
    return list(_KNOWN)


def find_source(name: str) -> KnownSource | None:
    """The known data set of this name."""
    return next((source for source in _KNOWN if source.name == name), None)


def cache_folder() -> Path:
    """Where downloads are kept: $DAREC_CACHE, or else ~/.cache/darec."""
    return Path(os.environ.get("DAREC_CACHE") or Path.home() / ".cache" / "darec")


def fetch_source(source: KnownSource, on_progress: OnProgress | None = None) -> Path:
    """Download what is not in the cache yet; return the zip, or the folder where there are several files.

    Raises:
        DataError: as `download`.
    """
    folder = cache_folder() / source.name
    folder.mkdir(parents=True, exist_ok=True)
    paths = [download(file, folder / file.name, on_progress) for file in source.files]
    return paths[0] if len(paths) == 1 else folder


def download(file: RemoteFile, target: Path, on_progress: OnProgress | None = None) -> Path:
    """Download a file unless it is there, going on from where an interrupted download stopped.

    Bytes arrive in `TARGET.part`, which becomes `target` once its size, checksum and format have been checked.

    Args:
        file: what and from where.
        target: where to put it; its folder exists.
        on_progress: called with the file's name, bytes so far and bytes in all (None if unknown).

    Returns:
        `target`.

    Raises:
        DataError: the server cannot be reached or refuses, the transfer broke off, or the bytes are not the right ones.
    """
    if target.is_file() and (file.sha256 is None or sha256_of(target) == file.sha256):
        return target
    part = target.with_name(f"{target.name}.part")
    try:
        total = _receive(file, part, on_progress)
    except urllib.error.HTTPError as error:
        raise DataError(
            f"{file.url} answers {error.code} {error.reason}. Look for its new address, download it and give its path."
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        done = part.stat().st_size if part.is_file() else 0
        raise DataError(
            f"{file.url} could not be read ({reason}); {done:,} bytes are here. Check the connection and fetch it "
            f"again: it goes on from there. Or download it otherwise and give its path."
        ) from None
    _check_size(file, part, total)
    try:
        _check_content(file, part)
    except DataError:
        part.unlink()
        raise
    os.replace(part, target)
    _version_path(part).unlink(missing_ok=True)
    return target


def _receive(file: RemoteFile, part: Path, on_progress: OnProgress | None) -> int | None:
    """Append to `part` what it lacks; return the file's full size as the server gives it."""
    start = part.stat().st_size if part.is_file() else 0
    if start and start == file.size:
        return start
    if file.sha256 is None and not _version_of(part):
        start = 0  # nothing would tell whether the rest belongs to these bytes
    try:
        response = _request(file.url, part, start)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:  # 416: the range begins behind the end, so these bytes are of another file
            raise
        part.unlink()
        start, response = 0, _request(file.url, part, 0)
    with response:
        if response.status != 206 or not _range_starts_at(response.headers, start):
            start = 0  # the server sends the whole file: it knows no ranges, or the file has changed
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if file.size is not None and total is not None and total != file.size:
            raise DataError(
                f"{file.url} should have {file.size:,} bytes; the server offers {total:,}. It may be a new "
                f"edition: download it yourself, look at it and give its path."
            )
        _version_path(part).write_text(_version_in(response.headers), encoding="utf-8")
        with open(part, "ab" if start else "wb") as output:
            done = start
            while chunk := response.read(_CHUNK):
                output.write(chunk)
                done += len(chunk)
                if on_progress:
                    on_progress(file.name, done, total)
    return total


def _request(url: str, part: Path, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "darec"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version := _version_of(part):
            headers["If-Range"] = version
    response: http.client.HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
    )
    return response


def _range_starts_at(headers: Message, start: int) -> bool:
    return headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _version_path(part: Path) -> Path:
    """Where the version that `part` is a piece of is written down, so that pieces of two versions never meet."""
    return part.with_name(f"{part.name}.version")


def _version_of(part: Path) -> str:
    path = _version_path(part)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _version_in(headers: Message) -> str:
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _check_size(file: RemoteFile, part: Path, total: int | None) -> None:
    size = part.stat().st_size
    expected = file.size if file.size is not None else total
    if expected is not None and size < expected:
        raise DataError(
            f"{file.url} broke off after {size:,} of {expected:,} bytes. Fetch it again: it goes on from there."
        )
    if expected is not None and size > expected:
        part.unlink()
        raise DataError(f"{file.url} should have {expected:,} bytes; {size:,} came. Fetch it again.")


def _check_content(file: RemoteFile, part: Path) -> None:
    if file.sha256 is not None:
        found = sha256_of(part)
        if found != file.sha256:
            raise DataError(
                f"{file.url} should have the SHA-256 {file.sha256}; got {found}. It was thrown away. Fetch it "
                f"again; if that does not help, the file was issued anew: download it yourself and give its path."
            )
    elif file.name.endswith(".gz"):
        try:
            with gzip.open(part) as unzipped:
                while unzipped.read(_CHUNK):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{file.url} is not a whole gzip file ({error}). It was thrown away. Fetch it again."
            ) from None
    elif file.name.endswith(".zip") and not zipfile.is_zipfile(part):
        raise DataError(f"{file.url} is not a whole zip file. It was thrown away. Fetch it again.")
