"""Run folders: written whole or not at all, and checked when read.

A run holds everything that is needed to use it, so it can be moved, zipped or shipped:

    run.json            kind, name, settings, data fingerprint, seed, versions, device, date, validation metrics
    data/               the normalised pair the run was trained on (interactions.parquet, items.parquet; prepared.json)
    ...                 whatever its kind adds (weights, backbone or text encoder, training log)
    manifest.json       sha256 of every file above, written last

Files that are made later from a run (rank files, metrics) are not part of the manifest.

Runs that are shipped together may share a part: it then lies once, beside them, and each manifest names it there.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from darec.errors import RunError

MANIFEST = "manifest.json"
DAREC = "DARec"  # what a run of it calls its model
RUN = "run.json"
REQUEST = "request.json"  # of a folder of steps, not of a run
_REPORTED_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "pandas")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in chunks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling folder that takes the place of `folder` only when the block ends without an error.

    Args:
        folder: the folder to make. Its parents are created.
        replace: whether an existing folder may be replaced; otherwise it is refused.

    Raises:
        RunError: `folder` exists and is not empty, and `replace` is false.
    """
    folder = Path(folder)
    if folder.exists() and not replace and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"The output folder must not exist yet: {folder}. Choose another, or delete it first.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"{folder} cannot be made: a file stands in the place of a folder above it.") from None
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if folder.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
            os.replace(folder, retired / "folder")
            os.replace(temporary, folder)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Clear up beside `folder` after a `writing_folder` that was killed; no other may be at work on it.

    One killed in the middle of its swap has set the old folder aside, and no other is in its place: it is put back.
    """
    for retired in folder.parent.glob(f".{folder.name}-old-*/folder"):
        if not folder.exists():
            os.replace(retired, folder)
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left)


@contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling file that takes the place of `path` only when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.tmp")  # always the same: what a kill left is written over
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def hold_to(folder: Path, request: dict[str, Any]) -> None:
    """Note in a folder of steps what they are made for, so that steps of two requests never meet.

    Args:
        folder: made when it is missing.
        request: name -> value, all plain.

    Raises:
        RunError: the folder was begun with another request, or holds something and does not say for what.
    """
    noted = folder / REQUEST
    if not noted.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(
                f"{folder} is not empty, and has no {REQUEST} to say what it was begun with. "
                "Choose another folder, or delete it first."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(noted, request)
    begun = _read_json(noted, folder)
    for name, value in request.items():
        if begun.get(name) != value:
            raise RunError(
                f"{folder} was begun with another {name} and can only go on with the same. "
                "Give that one, or choose another folder."
            )


def write_manifest(folder: Path, without: str | None = None) -> None:
    """Record the sha256 of every file below `folder` in its manifest, which is written last.

    Args:
        folder: what to record.
        without: a folder in it that is not part of the record.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    if without is not None:
        files = [path for path in files if not path.is_relative_to(folder / without)]
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_json(folder / MANIFEST, sums)


def verify_manifest(folder: str | Path) -> None:
    """Check every file that the manifest of `folder` names.

    Raises:
        RunError: there is no manifest, or a named file is missing or has other bytes.
    """
    folder = Path(folder)
    sums = _read_json(folder / MANIFEST, folder)
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{folder} lacks {name}, which its manifest names. Copy the run again, whole.")
        if sha256_of(path) != expected:
            raise RunError(f"{path} does not have the bytes its manifest names. Copy the run again, whole.")


def recorded_files(folder: Path) -> list[str]:
    """The files that the manifest of `folder` names, relative to it, with slashes."""
    return list(_read_json(folder / MANIFEST, folder))


def part_of(run: Path, name: str) -> Path:
    """Where a part of a run lies, `data` say: in it, or beside it where it is shared."""
    return run / name if (run / name).exists() else run.parent / name


def is_shared(run: Path) -> bool:
    """Whether a manifest beside a run covers it too, as of runs that are shipped together: it is to stay as it is."""
    run = run.resolve()
    return (run.parent / MANIFEST).is_file() and f"{run.name}/{RUN}" in recorded_files(run.parent)


def share_parts(folder: Path, names: Sequence[str]) -> None:
    """Keep once, in `folder`, the parts that runs in it hold alike; a run that holds something else keeps its own.

    Args:
        folder: holds finished runs, each a folder.
        names: parts that a run may hold, `backbone` say. The first run by name that has one says what is shared.
    """
    runs = sorted(path.parent for path in folder.glob(f"*/{RUN}"))
    manifests = {run: _read_json(run / MANIFEST, run) for run in runs}
    for name in names:
        own = {
            run: {file: total for file, total in manifests[run].items() if file.startswith(f"{name}/")} for run in runs
        }
        holders = [run for run in runs if own[run]]
        for run in holders:
            if own[run] != own[holders[0]]:
                continue
            if run == holders[0]:
                os.replace(run / name, folder / name)
            else:
                shutil.rmtree(run / name)
            kept = {file: total for file, total in manifests[run].items() if file not in own[run]}
            manifests[run] = kept | {f"../{file}": total for file, total in own[run].items()}
    for run in runs:
        write_json(run / MANIFEST, manifests[run])


def read_run(folder: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """Return `run.json` of a finished run, after checking its files against the manifest.

    Raises:
        RunError: the folder is no run, or its files do not match the manifest.
    """
    folder = Path(folder)
    if not (folder / RUN).is_file():
        raise RunError(f"{folder} is not a run: it has no {RUN}. Name a folder that train, baseline or quantize wrote.")
    if verify:
        verify_manifest(folder)
    return _read_json(folder / RUN, folder)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: readers see the old file or the new one, never a part."""
    with writing_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def model_name(name_or_dir: str) -> str:
    """What a result calls a model: a hub name whole, of a folder the name alone, for paths are of one machine."""
    return Path(name_or_dir).resolve().name if Path(name_or_dir).is_dir() else name_or_dir


def provenance(device: str) -> dict[str, Any]:
    """What a result needs beside it to be believed: date (UTC, ISO 8601), device, platform and package versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _REPORTED_PACKAGES}},
    }


def _read_json(path: Path, folder: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{folder} has no {path.name}: it was not written to its end. Make the run again.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not valid JSON ({error}). Copy the run again, whole.") from None
