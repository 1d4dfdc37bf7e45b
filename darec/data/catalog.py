"""The catalogue: every item that can be recommended, with its title and whatever else is known of it in words."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from darec.errors import DataError

# Columns of items.parquet that identify or decorate an item rather than describe it.
_NOT_TEXT = {"item_id", "title", "title_source", "title_missing", "release_date", "asin"}
_LEADING_ARTICLE = re.compile(r"^(the|a|an)\s+")
_TRAILING_ARTICLE = re.compile(r"^(.*),\s*(the|a|an)$")
_YEAR_SUFFIX = re.compile(r"\s*\((\d{4})\)$")


@dataclass(frozen=True, eq=False)
class Catalog:
    """N items; an item's row number is its `item_index`, from 0 to N - 1.

    Attributes:
        items: one row an item, in catalogue order: item_id (str, unique), title (str), any further text columns.
    """

    items: pd.DataFrame

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def item_ids(self) -> np.ndarray:
        """[N] str."""
        return self.items["item_id"].to_numpy(dtype=object)

    @cached_property
    def titles(self) -> list[str]:
        """N titles, the year in brackets behind each where the catalogue has a year column: `Heat (1995)`."""
        return [with_year(title, year) for title, year in zip(self.items["title"], self._years, strict=True)]

    @cached_property
    def short_texts(self) -> list[str]:
        """N texts for use inside a history: title, and genres where there are any."""
        genres = self._text_column("genres")
        return [f"{title}, {genre}" if genre else title for title, genre in zip(self.titles, genres, strict=True)]

    @cached_property
    def full_texts(self) -> list[str]:
        """N texts with every text column: `Heat (1995). genres: Action, Crime`."""
        columns = [name for name in self.items.columns if name not in _NOT_TEXT | {"year"}]
        texts = list(self.titles)
        for name in columns:
            values = self._text_column(name)
            texts = [f"{text}. {name}: {value}" if value else text for text, value in zip(texts, values, strict=True)]
        return texts

    def index_of(self, item_id: str) -> int:
        """The item_index of an item_id.

        Raises:
            DataError: the catalogue has no such item.
        """
        try:
            return self._index_by_id[str(item_id)]
        except KeyError:
            raise DataError(f"The catalogue has no item_id {item_id!r}. Look its id up in items.parquet.") from None

    def find(self, title: str) -> list[int]:
        """Indices of the items with this title; case, accents, a leading article and a year not given are ignored."""
        key, year = _title_key(title)
        found = self._indices_by_title.get(key, [])
        return [index for index in found if year is None or self._years[index] == year]

    @cached_property
    def _years(self) -> list[str | None]:
        if "year" not in self.items:
            return [None] * len(self)
        return [
            None if pd.isna(year) else str(int(year)) for year in pd.to_numeric(self.items["year"], errors="coerce")
        ]

    @cached_property
    def _index_by_id(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    @cached_property
    def _indices_by_title(self) -> dict[str, list[int]]:
        indices: dict[str, list[int]] = {}
        for index, title in enumerate(self.items["title"]):
            indices.setdefault(_title_key(title)[0], []).append(index)
        return indices

    def _text_column(self, name: str) -> list[str]:
        if name not in self.items:
            return [""] * len(self)
        return [re.sub(r"\s*\|\s*", ", ", str(value)).strip() for value in self.items[name].fillna("")]


def with_year(title: str, year: str | None) -> str:
    """`Heat`, `1995` -> `Heat (1995)`; a title that ends in that year already stays as it is."""
    return title if year is None or title.endswith(f"({year})") else f"{title} ({year})"


def _title_key(title: str) -> tuple[str, str | None]:
    text = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() or title
    text = " ".join(text.casefold().split())
    year = _YEAR_SUFFIX.search(text)
    text = _YEAR_SUFFIX.sub("", text)
    trailing = _TRAILING_ARTICLE.match(text)
    text = trailing.group(1) if trailing else _LEADING_ARTICLE.sub("", text)
    return text, year.group(1) if year else None
