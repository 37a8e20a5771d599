"""Where the data of `instil eval` come from: a folder of files, or a hub by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from instil.errors import InstilError
from instil.jsonl import iter_lines, iter_objects

T = TypeVar("T")


class Folder:
    """Files in their published formats, plain or packed, here or one folder below."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InstilError(f"{path}: is not a folder; give --data the folder of the data files")
        self.path = path

    def find(self, *names: str) -> Path | None:
        """The first of these files that is there, also with .gz; None if none is."""
        for name in names:
            for packed in (name, f"{name}.gz"):
                for found in (self.path / packed, *sorted(self.path.glob(f"*/{packed}"))):
                    if found.is_file():
                        return found
        return None

    def hub(self, name: str, split: str, config: str = "") -> Sequence[Mapping[str, Any]] | None:
        """Nothing: only files are read."""
        return None


class Hub(Folder):
    """The same folder, and for what is not in it the Hugging Face hub, through `datasets`."""

    def hub(self, name: str, split: str, config: str = "") -> Sequence[Mapping[str, Any]]:
        """The rows of a data set; it is fetched over the network where it is not kept yet."""
        try:
            import datasets
        except ImportError as error:
            raise InstilError(
                f"{name}: --hub needs datasets; pip install 'instil[datasets]'"
            ) from error
        try:
            rows: Sequence[Mapping[str, Any]] = datasets.load_dataset(
                name, config or None, split=split
            )
        except Exception as error:  # whatever a hub, a network or a changed data set raises
            raise InstilError(
                f"{name} ({split}): cannot be had from the hub ({type(error).__name__}: {error}); "
                "put its file into --data (docs/evals.md) or leave --hub out"
            ) from error
        return rows


def rows(path: Path, *fields: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path:line, row) of a file, each with all of `fields`."""
    tabs = ".tsv" in path.suffixes
    for number, row in _unquoted(path) if tabs else iter_objects(path):
        where = f"{path}:{number}"
        if missing := [name for name in fields if name not in row]:
            raise InstilError(
                f"{where}: no field {missing[0]!r} (there are: {', '.join(row)}); is this the "
                "published file? docs/evals.md says where it comes from"
            )
        yield where, row


def hub_rows(
    listed: Iterable[Mapping[str, Any]], name: str, *fields: str
) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set of a hub, each with all of `fields`."""
    for number, row in enumerate(listed, start=1):
        if missing := [field for field in fields if field not in row]:
            raise InstilError(
                f"{name}:{number}: no field {missing[0]!r} (there are: {', '.join(row)}); put the "
                "file into --data (docs/evals.md)"
            )
        yield row


def _unquoted(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a .tsv file as these are published: a quotation mark is a mark like others."""
    names: list[str] = []
    for number, line in iter_lines(path):
        try:
            cells = line.decode().split("\t")
        except UnicodeDecodeError as error:
            raise InstilError(f"{path}:{number}: is not UTF-8 ({error.reason})") from error
        if names and len(cells) != len(names):
            raise InstilError(f"{path}:{number}: {len(cells)} columns, the header has {len(names)}")
        if names:
            yield number, dict(zip(names, cells, strict=True))
        names = names or cells


def spread(items: Sequence[T], limit: int) -> list[T]:
    """`limit` of the items, evenly spaced, the first among them; 0 takes all."""
    if not limit or limit >= len(items):
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]
