"""Bring a data set, whatever its format, into the normalised form."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from darec.data.demo.truth import save_truth
from darec.data.demo.world import make_world
from darec.data.download import KnownSource, fetch_source, find_source
from darec.data.interactions import NOTE, Dataset, validated
from darec.data.k_core import k_core
from darec.data.sources.amazon import read_amazon
from darec.data.sources.files import SourceFiles, SourceTables
from darec.data.sources.movielens import read_movielens
from darec.data.sources.recbole import read_recbole
from darec.data.sources.table import read_tables
from darec.errors import DataError
from darec.progress import OnProgress, OnStage, say_nothing
from darec.runs import write_json, writing_folder

MADE_HERE = "made here"  # the format of what is read from nowhere
STAGES = 3  # of `prepare`: reading or making, checking, writing
_READERS: tuple[Callable[[SourceFiles], SourceTables | None], ...] = (
    read_movielens,
    read_recbole,
    read_amazon,
    read_tables,
)


@dataclass(frozen=True)
class PreparedReport:
    """What `prepare` made, also written beside the pair as prepared.json.

    Attributes:
        source: the known name, or the name of the file or folder it was made from, without its place: runs carry it on.
        format: what the source turned out to be.
        users: with at least one interaction.
        items: in the catalogue, with and without interactions.
        items_without_interactions: those that stay in the catalogue though nobody has them: they can be recommended
            from their text.
        interactions: rows.
        removed_interactions: rows that the k-core filter took out.
        median_length: interactions of the median user.
        split: `published`, or `leave-one-out` where the source has none.
        terms: what the source may be used for, as far as it is known.
        citation: what to cite, where it is known.
    """

    source: str
    format: str
    users: int
    items: int
    items_without_interactions: int
    interactions: int
    removed_interactions: int
    median_length: float
    split: str
    terms: str
    citation: str


def prepare(
    source: str,
    out: str | Path,
    *,
    columns: dict[str, str] | None = None,
    min_interactions: int = 0,
    on_progress: OnProgress | None = None,
    on_stage: OnStage = say_nothing,
) -> PreparedReport:
    """Write the normalised pair of a source into a new folder, whole or not at all.

    The format is told from the files themselves. Items without interactions, from the source or through the filter,
    stay in the catalogue.

    Args:
        source: a known name (downloaded on first use; the demo world is made here, with its truth beside it), a zip,
            or a folder. A name wins over a folder of that name, which `./name` still reaches.
        out: a folder that does not exist yet.
        columns: from a name of the normalised form to the one in a CSV, TSV or Parquet source.
        min_interactions: k of the k-core; 0 keeps everything.
        on_progress: called while downloading with the file's name, bytes so far and bytes in all (None if unknown).
        on_stage: told what is done once the source is here, of 3 stages.

    Raises:
        DataError: the source is of no known format, or breaks a rule of the normalised form, or the demo world is
            asked for in part.
        RunError: `out` exists and is not empty.
    """
    known = find_source(source)
    if known and not known.files:
        return _make_demo(known, out, bool(columns or min_interactions), on_stage)
    with writing_folder(out) as folder:
        path = fetch_source(known, on_progress) if known else Path(source)
        on_stage(1, STAGES, "reading the files")
        tables = _read_source(SourceFiles(path), columns)
        on_stage(2, STAGES, "checking every row")
        dataset = validated(tables.interactions, tables.items, str(path), files=tables.files)
        on_stage(3, STAGES, "writing the data set")
        kept = k_core(dataset.interactions, min_interactions).reset_index(drop=True)
        report = _report(source, known, tables.format, Dataset(dataset.catalog, kept), len(dataset.interactions))
        Dataset(dataset.catalog, kept).save(folder)
        write_json(folder / NOTE, asdict(report))
    return report


def _make_demo(known: KnownSource, out: str | Path, altered: bool, on_stage: OnStage) -> PreparedReport:
    if altered:
        raise DataError(
            f"The {known.name} world is made whole; got a column mapping or a k-core filter. Leave both out, or "
            "prepare the folder that this makes."
        )
    with writing_folder(out) as folder:
        on_stage(1, STAGES, "drawing the world")
        world = make_world()
        on_stage(2, STAGES, "checking every row")
        dataset = validated(world.interactions, world.items, known.name)
        on_stage(3, STAGES, "writing the data set")
        dataset.save(folder)
        save_truth(world, folder)
        report = _report(known.name, known, MADE_HERE, dataset, len(dataset.interactions))
        write_json(folder / NOTE, asdict(report))
    return report


def _read_source(files: SourceFiles, columns: dict[str, str] | None) -> SourceTables:
    if columns:
        tables = read_tables(files, columns)
    else:
        tables = next((found for reader in _READERS if (found := reader(files))), None)
    if tables is None:
        names = ", ".join(files.names[:10]) or "nothing"
        raise DataError(
            f"{files.path} must hold MovieLens, Amazon or RecBole files, or interactions and items as CSV, TSV or "
            f"Parquet; found {names}. Name another folder or zip."
        )
    return tables


def _name_of(path: Path) -> str:
    name = path.resolve().name
    return f"./{name}" if find_source(name) else name


def _report(source: str, known: KnownSource | None, kind: str, dataset: Dataset, before: int) -> PreparedReport:
    lengths = dataset.interactions["user_id"].value_counts()
    return PreparedReport(
        source=source if known else _name_of(Path(source)),
        format=kind,
        users=len(lengths),
        items=len(dataset.catalog),
        items_without_interactions=len(dataset.catalog) - dataset.interactions["item_id"].nunique(),
        interactions=len(dataset.interactions),
        removed_interactions=before - len(dataset.interactions),
        median_length=float(lengths.median()),
        split="published" if "split" in dataset.interactions else "leave-one-out",
        terms=known.terms if known else "Not known here: see where the data come from.",
        citation=known.citation if known else "",
    )
