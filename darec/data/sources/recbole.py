"""RecBole's atomic files: tab-separated, each column named `field:type`.

    NAME.inter      user_id:token, item_id:token, timestamp:float, where known rating:float
    NAME.item       item_id:token, a title of type token_seq, further fields

Source: https://recbole.io/docs/user_guide/data/atomic_files.html.
"""

import pandas as pd

from darec.data.sources.files import SourceFiles, SourceTables
from darec.errors import DataError

_OUR_NAMES = {"release_year": "year", "class": "genres", "genre": "genres", "categories": "category"}
_WORDS = ("token", "token_seq")


def read_recbole(files: SourceFiles) -> SourceTables | None:
    """Read one pair of atomic files; None if there is no .inter file.

    The title is the field `title`, or else the first that ends in `title` or `name`. Fields of numbers are left out.

    Raises:
        DataError: one of the two is lacking or there are several, or a header is not `field:type`.
    """
    inter = [name for name in files.names if name.endswith(".inter")]
    item = [name for name in files.names if name.endswith(".item")]
    if not inter:
        return None
    if len(inter) > 1 or len(item) != 1:
        raise DataError(
            f"{files.path} must hold one .inter and one .item file; it has {', '.join([*inter, *item])}. "
            f"Keep one of each."
        )
    interactions, _ = _read_atomic(files, inter[0])
    items, types = _read_atomic(files, item[0])
    titles = [name for name in types if name.endswith(("title", "name"))]
    title = ["title"] if "title" in titles else titles[:1]
    words = [name for name, kind in types.items() if kind in _WORDS and name not in title]
    items = items[[*title, *words]].rename(columns=_OUR_NAMES | dict.fromkeys(title, "title"))
    return SourceTables(interactions, items, (inter[0], item[0]), "RecBole atomic files")


def _read_atomic(files: SourceFiles, name: str) -> tuple[pd.DataFrame, dict[str, str]]:
    table = files.read_delimited(name, "\t")
    fields = {}
    for column in table.columns:
        field, separator, kind = column.partition(":")
        if not separator:
            raise DataError(f"{files.path}: {name}: a column must be named field:type; got {column!r}. Rename it.")
        fields[field] = kind
    return table.set_axis(list(fields), axis="columns"), fields
