"""Files that people already have -> records.

| format     | a row                                                      | becomes          |
| ---------- | ---------------------------------------------------------- | ---------------- |
| hh         | chosen, rejected: dialogues with Human and Assistant turns | rankings         |
| preference | prompt, chosen, rejected (TRL; the TL;DR comparisons)      | rankings         |
| completion | prompt, completion (TRL)                                   | demonstrations   |
| prompt     | prompt (TRL)                                               | prompts          |
| alpaca     | instruction, input, output; with history also LIMA         | demonstrations   |
| dolly      | instruction, context, response, category                   | demonstrations   |
| text       | .txt, or rows with the field text                          | pretraining text |

Rows come as JSON lines, a JSON array, .csv or .tsv, packed or not. The format is told from the
fields of the first row, or given with --format. Equal prompts share one id. Who judged or wrote is
not in these files, so the labeler is "unknown".

Left out on purpose: messages as lists of roles (a prompt is one text here), formats with scores or
with more than two responses, downloads.

    instil convert --files train.jsonl.gz --out data/tldr
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal, TypeVar

from instil import jsonl
from instil.convert.rows import READERS, Format, Item, Row, detect, text_of
from instil.errors import InstilError
from instil.records import Demonstration, Prompt, Ranking, Record, Response, Split, Text

T = TypeVar("T")
Separator = Literal["endoftext", "blank", "none"]

LABELER = "unknown"
END_OF_TEXT = "<|endoftext|>"
OUTPUTS = ("prompts", "demonstrations", "responses", "rankings", "text")
"""The files that a conversion may write, without .jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of `instil convert`."""

    files: tuple[Path, ...]
    """Files of one format; their rows are put together."""
    out: Path
    """Folder for prompts.jsonl and demonstrations.jsonl, or prompts.jsonl, responses.jsonl and
    rankings.jsonl, or text.jsonl."""
    format: Format = "auto"
    """How the rows are to be read; auto looks at the fields of the first one."""
    bad_rows: Literal["stop", "skip"] = "stop"
    """What to do at a row that cannot be converted: stop and write nothing, or leave it out."""
    source: str = ""
    """What the records say about where they come from; the name of the file when empty."""
    split: Split = "train"
    """The split of the prompts."""
    valid: float = 0.0
    """Share of the prompts to put into the split `valid` instead, by a hash of the prompt."""
    separator: Literal["auto", "endoftext", "blank", "none"] = "auto"
    """What ends a document in a .txt file: a line <|endoftext|>, a blank line, or only the end of
    the file; auto is endoftext where such a line exists, else blank."""

    def __post_init__(self) -> None:
        if not self.files:
            raise InstilError("no files to convert; name at least one with --files")
        if not 0 <= self.valid <= 1:
            raise InstilError(f"valid {self.valid} is not a share between 0 and 1")


@dataclass(slots=True)
class Converted:
    """The records of a conversion, in order of the first row of each prompt."""

    prompts: list[Prompt] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)


def run(config: Config) -> None:
    """Convert the files and write the records: all of them, or on a bad row none."""
    skipped: list[str] = []
    plain = [_is_plain_text(path) for path in config.files]
    if any(plain) and not all(plain):
        raise InstilError("text files and files of rows cannot be converted together; do one first")
    kind = "text" if all(plain) else _format(config)
    records: dict[str, Iterable[Record]]
    if kind == "text":
        records = {"text": _plain_texts(config) if all(plain) else _text_rows(config, skipped)}
    else:
        made = convert(_read(config, READERS[kind], skipped), config.split, config.valid)
        named = {name: getattr(made, name) for name in OUTPUTS if name != "text"}
        records = {name: some for name, some in named.items() if some}
    if not records:
        raise InstilError(f"{config.files[0]}: there is no row to convert")
    _refuse_leftovers(config.out, records)
    jsonl.write_all({config.out / f"{name}.jsonl": some for name, some in records.items()})
    if skipped:
        print(f"left out {len(skipped)} rows, the first: {skipped[0]}")
    print(f"wrote {', '.join(f'{name}.jsonl' for name in records)} to {config.out}")


def convert(
    items: Iterable[tuple[str, Item]], split: Split = "train", valid: float = 0.0
) -> Converted:
    """Records of (source, item) pairs: one Prompt per text, one Ranking per item with two answers.

    Rows of one prompt come out together. Equal answers to a prompt are one Response.
    """
    prompts: dict[str, Prompt] = {}
    responses: dict[str, dict[str, Response]] = {}
    demonstrations: dict[str, list[Demonstration]] = {}
    rankings: dict[str, list[Ranking]] = {}
    for source, item in items:
        prompt_id = jsonl.content_id("p", item.prompt)
        if prompt_id not in prompts:
            prompts[prompt_id] = Prompt(
                id=prompt_id,
                text=item.prompt,
                source=source,
                use_case=item.use_case,
                split="valid" if _uniform(prompt_id) < valid else split,
            )
        if len(item.answers) == 1:
            demonstrations.setdefault(prompt_id, []).append(
                Demonstration(prompt_id=prompt_id, labeler_id=LABELER, text=item.answers[0])
            )
        elif item.answers:
            ids = [jsonl.content_id("r", item.prompt, answer) for answer in item.answers]
            known = responses.setdefault(prompt_id, {})
            for response_id, text in zip(ids, item.answers, strict=True):
                known[response_id] = Response(id=response_id, prompt_id=prompt_id, text=text)
            tiers = tuple((response_id,) for response_id in ids)
            rankings.setdefault(prompt_id, []).append(
                Ranking(prompt_id=prompt_id, labeler_id=LABELER, tiers=tiers)
            )
    return Converted(
        prompts=list(prompts.values()),
        demonstrations=[d for i in prompts for d in demonstrations.get(i, ())],
        responses=[r for i in prompts for r in responses.get(i, {}).values()],
        rankings=[r for i in prompts for r in rankings.get(i, ())],
    )


def read_texts(path: Path) -> list[str]:
    """The documents of plain text (.txt, .txt.gz) or of records of text (.jsonl, .jsonl.gz)."""
    if _is_plain_text(path):
        config = Config(files=(path,), out=path.parent)
        return [record.text for record in _plain_texts(config)]
    return [record.text for record in jsonl.iter_records(path, Text)]


def documents(lines: Iterable[str], separator: Separator) -> Iterator[str]:
    """The documents of a text, without the lines that separate them and without empty ones."""
    document: list[str] = []
    for line in lines:
        bare = line.strip()
        if bare == END_OF_TEXT if separator == "endoftext" else separator == "blank" and not bare:
            yield from _whole(document)
            document = []
        else:
            document.append(line)
    yield from _whole(document)


def _whole(lines: list[str]) -> Iterator[str]:
    text = "".join(lines).replace("\r\n", "\n").strip("\n")
    if text.strip():
        yield text


def _format(config: Config) -> Format:
    """The format asked for, or that of the first row of the first file that has one."""
    if config.format != "auto":
        return config.format
    for path in config.files:
        for number, row in jsonl.iter_objects(path):
            try:
                return detect(row)
            except InstilError as error:
                raise InstilError(f"{path}:{number}: {error}") from error
    return "prompt"


def _read(
    config: Config, reader: Callable[[Row], T], skipped: list[str]
) -> Iterator[tuple[str, T]]:
    """(source, what `reader` makes of a row) of all files; bad rows stop or go to `skipped`."""
    for path in config.files:
        for number, row in jsonl.iter_objects(path):
            try:
                item = reader(row)
            except InstilError as error:
                where = f"{path}:{number}: {error}"
                if config.bad_rows == "stop":
                    raise InstilError(f"{where} (--bad-rows skip leaves such rows out)") from error
                skipped.append(where)
            else:
                yield config.source or path.name, item


def _text_rows(config: Config, skipped: list[str]) -> Iterator[Text]:
    for source, text in _read(config, lambda row: text_of(row, "text"), skipped):
        yield Text(text=text, source=source)


def _plain_texts(config: Config) -> Iterator[Text]:
    """The documents of the .txt files, one in memory at a time."""
    for path in config.files:
        separator = config.separator
        if separator == "auto":
            marked = any(line.strip() == END_OF_TEXT for line in _text_lines(path))
            separator = "endoftext" if marked else "blank"
        for document in documents(_text_lines(path), separator):
            yield Text(text=document, source=config.source or path.name)


def _text_lines(path: Path) -> Iterator[str]:
    with jsonl.reading(path) as handle:
        for number, line in enumerate(handle, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InstilError(
                    f"{path}:{number}:{error.start + 1}: byte 0x{error.object[error.start]:02x} "
                    "is not UTF-8; convert the file to UTF-8"
                ) from error


def _is_plain_text(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".txt", ".text", ".md"))


def _refuse_leftovers(out: Path, written: Iterable[str]) -> None:
    """An earlier conversion's files must not be mistaken for this one's."""
    for name in sorted(set(OUTPUTS) - set(written)):
        path = out / f"{name}.jsonl"
        if path.exists():
            raise InstilError(
                f"{path}: is from another conversion and would stay beside this one's files; "
                "choose another --out or remove it"
            )


def _uniform(name: str) -> float:
    """A number in [0, 1) that depends on the name only."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
