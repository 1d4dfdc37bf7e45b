"""Tables that benchmarks write into documents, between marks."""

from pathlib import Path


def insert_results(document: Path, name: str, text: str) -> None:
    """Put text between `<!-- results:NAME -->` and `<!-- /results:NAME -->` of a document, instead of what is there.

    Raises:
        ValueError: the document lacks one of the marks.
    """
    opening, closing = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        raise ValueError(f"{document} needs the lines {opening} and {closing}. Add them where the results belong.")
    document.write_text(f"{before}{opening}\n{text}\n{closing}{after}", encoding="utf-8")
