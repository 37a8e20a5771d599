"""Records <-> files, one JSON object a line, with path:line in every error.

Reading is strict: a line that is not a record of the expected kind is an `InstilError` that names
the file, the line and the field. Writing is whole or absent: a file appears under its name only
when every byte of it is on the disk. Files that end in .gz are packed; packed files are recognised
by their first bytes, whatever they are called.

Left out on purpose:
  repair            a torn line is reported, never skipped
  duplicate keys    the last of two equal keys in one object wins, as in other JSON readers
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import msgspec

from instil.errors import InstilError, nearest, one_line
from instil.records import Record

R = TypeVar("R", bound=Record)

_BOM = b"\xef\xbb\xbf"


class _NoSchema(msgspec.Struct, tag_field="schema", tag="none"):
    """In a union with it, msgspec insists that an object names its schema."""


def read_records(path: Path, kind: type[R]) -> list[R]:
    """All records of one kind in `path`, each checked; the first bad line is an `InstilError`."""
    return list(iter_records(path, kind))


def iter_records(path: Path, kind: type[R], longest: int | None = None) -> Iterator[R]:
    """Yield the records of one kind in `path`, one line in memory at a time. Blank lines pass.

    longest  bytes of a line, as in `iter_lines`
    """
    decoder = msgspec.json.Decoder(cast(Any, kind | _NoSchema))
    for number, line in iter_lines(path, longest):
        try:
            record = decoder.decode(line)
        except InstilError as error:
            raise InstilError(f"{path}:{number}: {one_line(error)}") from error
        except (ValueError, RecursionError) as error:
            raise _line_error(path, number, line, error, kind) from error
        if isinstance(record, _NoSchema):
            raise _schema_error(path, number, "none", kind)
        yield cast(R, record)


def iter_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a JSONL file, a JSON array of objects, or a .csv or .tsv file.

    Values from CSV are strings. Lines are streamed; an array is read as a whole. An object that
    spans lines (array, CSV) has the number of its first line.
    """
    path = Path(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix in (".csv", ".tsv"):
        yield from _csv_rows(path, "," if suffix == ".csv" else "\t")
        return
    with reading(path) as handle:
        start = handle.read(1024).removeprefix(_BOM).lstrip()
    for number, line in _array_items(path) if start[:1] == b"[" else iter_lines(path):
        try:
            value = msgspec.json.decode(line)
        except (ValueError, RecursionError) as error:
            raise _line_error(path, number, line, error, None) from error
        if not isinstance(value, dict):
            got = line[:40].decode(errors="replace")
            raise InstilError(f"{path}:{number}: expected an object {{...}}, got {got!r}")
        yield number, value


def iter_lines(path: Path, longest: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (number, bytes) of the lines of `path` that are not blank, unpacked.

    longest  bytes of a line; one that has more is an `InstilError`, and the rest of it is not read
    """
    with reading(path) as handle:
        size = -1 if longest is None else longest + 1
        for number, line in enumerate(iter(lambda: handle.readline(size), b""), start=1):
            if longest is not None and len(line) > longest and not line.endswith(b"\n"):
                raise InstilError(
                    f"{path}:{number}: the line is longer than {longest:,} bytes; shorten its "
                    "text, or see if a line break is missing"
                )
            if number == 1:
                line = line.removeprefix(_BOM)
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write `records` to `path`, one a line: the whole file or, on any failure, no change."""
    replace_files({Path(path): _encoded(path, records)})


def write_all(files: Mapping[Path, Iterable[Record]]) -> None:
    """Write several files of records; no name changes before all of them are on the disk."""
    replace_files({Path(path): _encoded(path, records) for path, records in files.items()})


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write plain objects to `path`, one a line, whole or absent. NaN and infinity become null."""
    lines = (msgspec.json.encode(row, enc_hook=_plain) + b"\n" for row in rows)
    replace_files({Path(path): lines})


def write_json(path: Path, value: object) -> None:
    """Write one JSON value to `path`, indented, whole or absent. NaN and infinity become null."""
    line = msgspec.json.encode(value, enc_hook=_plain)
    replace_files({Path(path): [msgspec.json.format(line, indent=2), b"\n"]})


def append_line(path: Path, value: Mapping[str, Any] | Record) -> None:
    """Append one object to `path` as a line, in one write. NaN and infinity become null.

    For logs that grow while a run lives (metrics, samples); no fsync, so that it is cheap.
    """
    line = msgspec.json.encode(value, enc_hook=_plain) + b"\n"
    with _naming(path), open(path, "ab") as handle:  # buffered: a short write is an error
        handle.write(line)


def replace_files(files: Mapping[Path, Iterable[bytes]]) -> None:
    """Give every path its new content (chunks of bytes), or on any failure leave all as they were.

    Each content goes to a temporary file in the folder of its path and is forced to the disk; only
    then are the temporary files renamed. Missing folders are made. A link is followed; what exists
    and is no file (a pipe, /dev/stdout) is an error.
    """
    staged: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        for path, chunks in files.items():
            with _naming(path):
                target = path.resolve()
                if target.exists() and not target.is_file():
                    raise InstilError(f"{path}: is not a file and cannot be replaced by one")
                temporary = target.parent / f".instil-{secrets.token_hex(6)}.tmp"
                staged.append((temporary, target))
                made += [folder for folder in target.parents if not folder.exists()]
                target.parent.mkdir(parents=True, exist_ok=True)
                _write_to_disk(temporary, chunks, packed=path.suffix == ".gz")
        for temporary, path in staged:
            with _naming(path):
                os.replace(temporary, path)
                _sync_folder(path.parent)
    finally:
        for temporary, _ in staged:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        for folder in sorted(made, reverse=True):  # the innermost first; what is not empty stays
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for reading bytes, unpacked; what goes wrong is an `InstilError`."""
    try:
        with open(path, "rb") as plain:
            packed = plain.peek(2)[:2] == b"\x1f\x8b"
            yield cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if packed else plain
    except FileNotFoundError as error:
        raise InstilError(f"{path}: no such file") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InstilError(f"{path}: the packed file is damaged ({error}); get it again") from error
    except OSError as error:
        raise InstilError(f"{path}: {error.strerror or error}") from error


def content_id(prefix: str, *texts: str) -> str:
    """A name made from content: equal texts get equal names in every file and on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return f"{prefix}-{digest.hexdigest()}"


def _encoded(path: Path, records: Iterable[Record]) -> Iterator[bytes]:
    encoder = msgspec.json.Encoder()
    for number, record in enumerate(records, start=1):
        try:
            yield encoder.encode(record) + b"\n"
        except UnicodeEncodeError as error:
            code = ord(error.object[error.start])
            raise InstilError(
                f"{path}:{number}: U+{code:04X} is half of a surrogate pair; remove it"
            ) from error


def _write_to_disk(path: Path, chunks: Iterable[bytes], packed: bool) -> None:
    with open(path, "xb") as plain:
        if packed:
            with gzip.GzipFile("", "wb", 6, plain, mtime=0) as zipped:
                zipped.writelines(chunks)
        else:
            plain.writelines(chunks)
        plain.flush()
        os.fsync(plain.fileno())


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into an `InstilError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise InstilError(f"{path}: cannot be written: {error.strerror or error}") from error


def _plain(value: object) -> object:
    """What msgspec cannot encode by itself: one-element arrays and tensors, and paths."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise NotImplementedError(f"{type(value)} cannot be written as JSON")


def _array_items(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of the items of a JSON array."""
    with reading(path) as handle:
        data = handle.read().removeprefix(_BOM)
    try:
        items = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (ValueError, RecursionError) as error:
        raise _line_error(path, 1, data, error, None) from error
    number, position = 1, 0
    for item in items:
        found = data.index(bytes(item), position)
        number += data.count(b"\n", position, found)
        yield number, bytes(item)
        position = found + len(item)
        number += data.count(b"\n", found, position)


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is shorter than some prompts
    with reading(path) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        first = 1
        try:
            header = next(rows, [])
            if twice := sorted({name for name in header if header.count(name) > 1}):
                raise InstilError(f"{path}:1: two columns are called {twice[0]!r:.60}; rename one")
            first = rows.line_num + 1
            for row in rows:
                if row and len(row) != len(header):
                    raise InstilError(
                        f"{path}:{first}: {len(row)} fields, but the header has {len(header)}; "
                        "a text with a comma, quote or line break needs quotes around it"
                    )
                if row:
                    yield first, dict(zip(header, row, strict=True))
                first = rows.line_num + 1
        except csv.Error as error:
            raise InstilError(f"{path}:{first}: not valid CSV: {one_line(error)}") from error
        except UnicodeDecodeError as error:
            raise InstilError(f"{path}:{first}: not UTF-8 ({error.reason})") from error


def _line_error(
    path: Path, number: int, line: bytes, error: Exception, kind: type[Record] | None
) -> InstilError:
    """The error for a line that could not be decoded: path:line[:column]: [field:] what."""
    if isinstance(error, RecursionError):
        return InstilError(f"{path}:{number}: nested too deeply")
    try:
        line.decode()
    except UnicodeDecodeError as bad:
        number += line.count(b"\n", 0, bad.start)
        column = bad.start - line.rfind(b"\n", 0, bad.start)
        return InstilError(
            f"{path}:{number}:{column}: byte 0x{line[bad.start]:02x} is not UTF-8; "
            "convert the file to UTF-8"
        )
    what = str(error)
    if isinstance(error, msgspec.ValidationError):
        try:  # the schema may be checked before the rest of the line is read
            value = msgspec.json.decode(line)
        except (ValueError, RecursionError) as bad:
            if not isinstance(bad, msgspec.ValidationError):
                return _line_error(path, number, line, bad, None)
            value = {}
        if kind is not None and ("`$.schema`" in what or "field `schema`" in what):
            return _schema_error(path, number, value.get("schema"), kind)
    else:
        where = re.search(r" \(byte (\d+)\)", what)
        offset = int(where[1]) if where else len(line.rstrip())
        number += line.count(b"\n", 0, offset)
        column = offset - line.rfind(b"\n", 0, offset)
        reason = what.removeprefix("JSON is malformed: ").replace(where[0] if where else "\0", "")
        return InstilError(f"{path}:{number}:{column}: not valid JSON: {reason}")
    reason, _, place = what.partition(" - at `$")
    field = place.strip("`.")
    if mentioned := re.fullmatch(r"Object (missing|contains).* field `(.*)`", reason):
        field = f"{field}.{mentioned[2]}" if field else mentioned[2]
        known = kind.__struct_fields__ if kind is not None else ()
        reason = "unknown field" + nearest(mentioned[2], known)
        if mentioned[1] == "missing":
            reason = "missing; add it to the line"
    named = f"{one_line(field, 100)}: " if field else ""
    return InstilError(f"{path}:{number}: {named}{reason}")


def _schema_error(path: Path, number: int, found: object, kind: type[Record]) -> InstilError:
    expected = kind.__struct_config__.tag
    got = f"its schema is {found!r:.60}" if found is not None else "it names no schema"
    if isinstance(found, list | dict):  # perhaps too deep to be shown
        got = "its schema is not text"
    return InstilError(
        f"{path}:{number}: schema: {got}, expected {expected!r} "
        f"({kind.__name__.lower()} records); is it the right file?"
    )
