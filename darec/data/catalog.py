"""The catalogue: every item that can be recommended, with its title and whatever else is known of it in words."""

import bisect
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from darec.errors import DataError

# Columns of items.parquet that identify or decorate an item rather than describe it; so do all named title_...
_NOT_TEXT = {"item_id", "title", "year", "release_date", "asin"}
_PLACEHOLDERS = {"(no genres listed)"}  # how MovieLens writes that there is nothing to say
_LEADING_ARTICLE = re.compile(r"^(the|a|an)\s+")
_TRAILING_ARTICLE = re.compile(r"^(.*),\s*(the|a|an)$")
_YEAR_SUFFIX = re.compile(r"\s*\((\d{4})\)$")
# Letters that Unicode does not take apart into a plain letter and an accent.
_UNDECOMPOSED = str.maketrans(
    {"ø": "o", "Ø": "o", "ł": "l", "Ł": "l", "đ": "d", "Đ": "d", "æ": "ae", "Æ": "ae", "œ": "oe", "Œ": "oe"}
)
_APOSTROPHES = re.compile("['`\u2019\u00b4]")
_LAST_CHARACTER = chr(0x10FFFF)

History = Sequence[int | str]  # item indices, and titles the catalogue has never seen, oldest first


def check_history(history: History, num_items: int) -> None:
    """Refuse a history that no model can be asked about.

    Args:
        history: oldest first.
        num_items: N, items in the catalogue.

    Raises:
        DataError: an empty history, an item_index outside the catalogue, a blank title.
    """
    if not len(history):
        raise DataError("A history needs at least one item, and this one is empty. Add an item or a title.")
    for entry in history:
        if isinstance(entry, str):
            if not entry.strip():
                raise DataError(f"A title needs at least one letter; got {entry!r}. Remove it or write it out.")
        else:
            check_items([entry], num_items)


def check_items(items: Iterable[int], num_items: int) -> None:
    """Refuse items that a catalogue of N does not hold.

    Raises:
        DataError: an item_index outside 0 to N - 1.
    """
    for item in items:
        if not 0 <= item < num_items:
            raise DataError(f"An item_index lies between 0 and {num_items - 1}; got {item}.")


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
        columns = [
            name
            for name in self.items.columns.drop(list(_NOT_TEXT), errors="ignore")
            if not (name.startswith("title_") or pd.api.types.is_numeric_dtype(self.items[name]))
        ]
        texts = list(self.titles)
        for name in columns:
            values = self._text_column(name)
            texts = [f"{text}. {name}: {value}" if value else text for text, value in zip(texts, values, strict=True)]
        return texts

    def about(self, item: int) -> str:
        """What is known of an item besides its title: `genres: Action, Crime`; empty where nothing is."""
        return self.full_texts[item].removeprefix(self.titles[item]).lstrip(". ")

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
        """Indices of the items with this title; case, accents, a leading article and a year not given are ignored.

        Where some of them bear the title exactly as it is written here, only those are returned.
        """
        key, year = _title_key(title)
        found = [i for i in self._indices_by_title.get(key, []) if year is None or self._years[i] == year]
        wanted = " ".join(title.split())
        exact = [i for i in found if wanted in (self.titles[i], self.items["title"].iat[i])]
        return exact or found

    def search(self, query: str, limit: int) -> list[int]:
        """Indices of at most `limit` items in whose title every word of `query` begins a word.

        Case, accents and punctuation are ignored. Titles that equal the query come first, then titles that begin with
        it, then the rest, each in catalogue order. A query without words finds nothing.
        """
        words = _words(query)
        if not words:
            return []
        found = np.ones(len(self), dtype=bool)
        for word in set(words):
            found &= self._has_word_from(word)
        phrase = " ".join(words)
        ranked = sorted(np.flatnonzero(found).tolist(), key=lambda index: (self._phrase_rank(index, phrase), index))
        return ranked[:limit]

    def _has_word_from(self, prefix: str) -> np.ndarray:
        """[N] bool: the titles that hold a word with this beginning."""
        vocabulary, starts, items = self._inverted_titles
        first = bisect.bisect_left(vocabulary, prefix)
        end = bisect.bisect_left(vocabulary, prefix + _LAST_CHARACTER)
        has = np.zeros(len(self), dtype=bool)
        has[items[starts[first] : starts[end]]] = True
        return has

    def _phrase_rank(self, index: int, phrase: str) -> int:
        with_article, without = self._phrases[index]
        if phrase in (with_article, without):
            return 0
        return 1 if with_article.startswith(phrase) or without.startswith(phrase) else 2

    @cached_property
    def _phrases(self) -> list[tuple[str, str]]:
        """N pairs: the words of the title, and the same without a leading article and the year."""
        return [(" ".join(_words(title)), " ".join(_words(_title_key(title)[0]))) for title in self.titles]

    @cached_property
    def _inverted_titles(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The words of all titles, sorted; where each one's items start; the items of all words in a row."""
        pairs = sorted({(word, index) for index, (title, _) in enumerate(self._phrases) for word in title.split()})
        words = [word for word, _ in pairs]
        vocabulary = sorted(set(words))
        starts = [bisect.bisect_left(words, word) for word in vocabulary]
        return vocabulary, np.append(starts, len(pairs)), np.array([index for _, index in pairs], np.int64)

    @cached_property
    def _years(self) -> list[str | None]:
        """N years, from the year column or else from brackets behind the title."""
        if "year" not in self.items:
            return [_title_key(title)[1] for title in self.items["title"]]
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
        values = [re.sub(r"\s*\|\s*", ", ", str(value)).strip() for value in self.items[name].fillna("")]
        return ["" if value in _PLACEHOLDERS else value for value in values]


def with_year(title: str, year: str | None) -> str:
    """`Heat`, `1995` -> `Heat (1995)`; a title that ends in that year already stays as it is."""
    return title if year is None or title.endswith(f"({year})") else f"{title} ({year})"


def _plain(text: str) -> str:
    """Lower case without accents, white space squeezed."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_UNDECOMPOSED))
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(bare.casefold().split())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", _APOSTROPHES.sub("", _plain(text)))


def _title_key(title: str) -> tuple[str, str | None]:
    text = _plain(title)
    year = _YEAR_SUFFIX.search(text)
    text = _YEAR_SUFFIX.sub("", text)
    trailing = _TRAILING_ARTICLE.match(text)
    text = trailing.group(1) if trailing else _LEADING_ARTICLE.sub("", text)
    return text, year.group(1) if year else None
