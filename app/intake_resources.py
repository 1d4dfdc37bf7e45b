"""Tables that someone brings, as files for as long as they are cached; each folder then goes by itself."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from darec.data import intake
from darec.data.sources.files import SourceFiles


@st.cache_resource(max_entries=4, show_spinner=False)
def stage_uploads(file_ids: tuple[str, str], _uploads: Sequence[Any]) -> tempfile.TemporaryDirectory:
    """Two uploads, interactions and items, side by side.

    Raises:
        DataError: see `intake.stage_pair`.
    """
    folder = tempfile.TemporaryDirectory(prefix="darec-")
    for upload in _uploads:
        upload.seek(0)
    interactions, items = _uploads
    intake.stage_pair(Path(folder.name), (interactions.name, interactions), (items.name, items))
    return folder


@st.cache_resource(max_entries=4, show_spinner=False)
def stage_files(path: str, names: tuple[str, str], written_at: tuple[int, ...]) -> tempfile.TemporaryDirectory:
    """Two files of a folder or zip, interactions and items, side by side.

    Raises:
        DataError: see `intake.stage_pair`.
    """
    folder = tempfile.TemporaryDirectory(prefix="darec-")
    files = SourceFiles(Path(path))
    with files.open(names[0]) as interactions, files.open(names[1]) as items:
        plain = [name.removesuffix(".gz") for name in names]  # `open` has ungzipped them
        intake.stage_pair(Path(folder.name), (plain[0], interactions), (plain[1], items))
    return folder
