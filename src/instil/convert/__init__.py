"""Files that people already have <-> records.

| format        | a row                                                       | becomes        |
| ------------- | ----------------------------------------------------------- | -------------- |
| hh            | chosen, rejected: dialogues with Human and Assistant turns  | rankings       |
| preference    | prompt, chosen, rejected (TRL; the TL;DR comparisons)       | rankings       |
| rewardbench   | the same with chosen_model, rejected_model, subset          | rankings       |
| alpacafarm    | instruction, input, output_1, output_2, preference          | rankings       |
| ultrafeedback | instruction, completions with overall_score                 | rankings       |
| oasst         | message_tree_id, prompt with replies (Open-Assistant)       | all kinds      |
| completion    | prompt, completion (TRL)                                    | demonstrations |
| openai        | messages of role, content (TRL, OpenAI)                     | demonstrations |
| sharegpt      | conversations of from, value                                | demonstrations |
| alpaca        | instruction, input, output; with history also LIMA          | demonstrations |
| dolly         | instruction, context, response, category                    | demonstrations |
| prompt        | prompt (TRL)                                                | prompts        |
| text          | .txt, or rows with the field text                           | text           |

Rows come as JSON lines, a JSON array, .csv or .tsv, packed or not. The format is told from the
fields of the first row, or given with --from. Where TRL has text it also has lists of messages; a
conversation becomes one prompt (`messages.py`). Equal prompts share one id. All but dolly, prompt
and text are also written. What a format or a record has no place for is counted and told.
docs/formats.md has the details.

    instil convert --files train.jsonl.gz --out data/tldr
    instil convert --files data/tldr/*.jsonl --to preference-messages --out tldr.jsonl.gz

Left out on purpose: other formats with scores, calls of tools, pictures, downloads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import tyro

from instil import jsonl
from instil.convert.formats import READERS, WRITERS, Source, Target, detect, read_row, write_rows
from instil.convert.item import Item, Row, text_of
from instil.convert.joined import LABELER, read_joined
from instil.errors import InstilError, one_line
from instil.records import Demonstration, Prompt, Ranking, Record, Response, Split, Text

T = TypeVar("T")
Separator = Literal["endoftext", "blank", "none"]

END_OF_TEXT = "<|endoftext|>"
OUTPUTS = ("prompts", "demonstrations", "responses", "rankings", "text")
"""The files that a conversion may write, without .jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of `instil convert`."""

    files: tuple[Path, ...]
    """Files of one format; their rows are put together."""
    out: Path
    """Folder for records: those of prompts, demonstrations, responses, rankings and text.jsonl that
    there are. For another format the file to write, .jsonl or .jsonl.gz."""
    from_format: Annotated[Source, tyro.conf.arg(aliases=("--from",))] = "auto"
    """How the rows are to be read; auto looks at the fields of the first one. instil: records."""
    to: Target = "instil"
    """What is written: records (instil) or rows of another format."""
    bad_rows: Literal["stop", "skip"] = "stop"
    """What to do at a row that cannot be converted: stop and write nothing, or leave it out. A
    record that is wrong always stops."""
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
        if self.to == "instil":
            return
        if (self.source, self.split, self.valid) != ("", "train", 0.0):
            raise InstilError(
                f"source, split and valid are for records; --to {self.to} has no place"
            )
        if not self.out.name.endswith((".jsonl", ".jsonl.gz")):
            raise InstilError(f"{self.out}: --to {self.to} writes one file, .jsonl or .jsonl.gz")
        if self.out.resolve() in {path.resolve() for path in self.files}:
            raise InstilError(f"{self.out}: is one of the files to convert; choose another --out")


@dataclass(slots=True)
class Converted:
    """The records of a conversion, in order of the first row of each prompt."""

    prompts: list[Prompt] = field(default_factory=list)
    demonstrations: list[Demonstration] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)


def run(config: Config) -> None:
    """Convert the files and write what came of them: all of it, or on a bad row nothing."""
    skipped: list[str] = []
    lost: Counter[str] = Counter()
    plain = [_is_plain_text(path) for path in config.files]
    if any(plain) and not all(plain):
        raise InstilError("text files and files of rows cannot be converted together; do one first")
    kind = "text" if all(plain) else _format(config)
    if kind == "instil" == config.to:
        raise InstilError(f"{config.files[0]}: holds records already; --to names another format")
    if kind == "text":
        _write_texts(config, _plain_texts(config) if all(plain) else _text_rows(config, skipped))
    else:
        joined = kind == "instil"
        items = read_joined(config.files, lost) if joined else _items(config, kind, skipped, lost)
        (_write_records if config.to == "instil" else _write_rows)(config, items, lost)
    if skipped:
        print(f"left out {len(skipped)} rows, the first: {skipped[0]}")
    if told := _told(lost):
        print(f"no place for: {told}")


def convert(
    items: Iterable[tuple[str, Item]],
    split: Split = "train",
    valid: float = 0.0,
    lost: Counter[str] | None = None,
) -> Converted:
    """Records of (source, item) pairs: one Prompt per text, one Ranking per item with answers that
    were compared.

    Rows of one prompt come out together. Equal answers to a prompt are one Response. What later
    rows say differently of a prompt or response is counted in `lost`.
    """
    lost = Counter() if lost is None else lost
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
                user_id=item.user_id,
                use_case=item.use_case,
                split="valid" if _uniform(prompt_id) < valid else split,
                meta=dict(item.meta),
            )
        said = prompts[prompt_id]
        if (said.user_id, said.use_case, said.meta) != (item.user_id, item.use_case, item.meta):
            lost["another user_id, use_case or meta of an equal prompt"] += 1
        labeler_id = item.labeler or LABELER
        if item.kind == "demonstration":
            demonstrations.setdefault(prompt_id, []).append(
                Demonstration(prompt_id=prompt_id, labeler_id=labeler_id, text=item.answers[0])
            )
            continue
        known = responses.setdefault(prompt_id, {})
        tiers: dict[int, tuple[str, ...]] = {}
        for text, rank, policy in zip(item.answers, item.places(), item.authors(), strict=True):
            response_id = jsonl.content_id("r", item.prompt, text)
            response = Response(id=response_id, prompt_id=prompt_id, text=text, policy=policy)
            if known.setdefault(response_id, response).policy != policy:
                lost["another policy of an equal response"] += 1
            tiers[rank] = (*tiers.get(rank, ()), response_id)
        if item.kind == "ranking":
            rankings.setdefault(prompt_id, []).append(
                Ranking(prompt_id=prompt_id, labeler_id=labeler_id, tiers=tuple(tiers.values()))
            )
    return Converted(
        prompts=list(prompts.values()),
        demonstrations=[d for i in prompts for d in demonstrations.get(i, ())],
        responses=[r for i in prompts for r in responses.get(i, {}).values()],
        rankings=[r for i in prompts for r in rankings.get(i, ())],
    )


def _write_texts(config: Config, texts: Iterable[Text]) -> None:
    if config.to != "instil":
        raise InstilError(f"{config.files[0]}: is plain text, which {config.to} cannot hold")
    _write_files(config, {"text": texts})


def _write_records(config: Config, items: Iterable[tuple[str, Item]], lost: Counter[str]) -> None:
    made = convert(items, config.split, config.valid, lost)
    named = {name: getattr(made, name) for name in OUTPUTS if name != "text"}
    _write_files(config, {name: some for name, some in named.items() if some})


def _write_files(config: Config, records: Mapping[str, Iterable[Record]]) -> None:
    if not records:
        raise InstilError(f"{config.files[0]}: there is no row to convert")
    _refuse_leftovers(config.out, records)
    jsonl.write_all({config.out / f"{name}.jsonl": some for name, some in records.items()})
    print(f"wrote {', '.join(f'{name}.jsonl' for name in records)} to {config.out}")


def _write_rows(config: Config, items: Iterable[tuple[str, Item]], lost: Counter[str]) -> None:
    """Rows of another format, one item in memory at a time."""
    written = 0

    def lines() -> Iterator[bytes]:
        nonlocal written
        for _, item in items:
            for row in write_rows(WRITERS[config.to], item, lost):
                yield msgspec.json.encode(row) + b"\n"
                written += 1
        if not written:
            raise InstilError(
                f"{config.files[0]}: has nothing that {config.to} can hold; "
                f"found: {_told(lost) or 'no row'}"
            )

    jsonl.replace_files({config.out: lines()})
    print(f"wrote {written} rows to {config.out}")


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


def _format(config: Config) -> str:
    """The format asked for, or that of the first row of the first file that has one."""
    if config.from_format != "auto":
        return config.from_format
    for path in config.files:
        for number, row in jsonl.iter_objects(path):
            try:
                return detect(row)
            except InstilError as error:
                raise InstilError(f"{path}:{number}: {one_line(error)}") from error
    return "prompt"


def _read(
    config: Config, reader: Callable[[Row], T], skipped: list[str]
) -> Iterator[tuple[str, T]]:
    """(source, what `reader` makes of a row) of all files; bad rows stop or go to `skipped`."""
    for path in config.files:
        for number, row in jsonl.iter_objects(path):
            try:
                item = reader(row)
            except (InstilError, RecursionError) as error:
                deep = isinstance(error, RecursionError)
                where = f"{path}:{number}: {'nested too deeply' if deep else one_line(error)}"
                if config.bad_rows == "stop":
                    raise InstilError(f"{where} (--bad-rows skip leaves such rows out)") from error
                skipped.append(where)
            else:
                yield config.source or path.name, item


def _items(
    config: Config, kind: str, skipped: list[str], lost: Counter[str]
) -> Iterator[tuple[str, Item]]:
    reader = READERS[kind]
    for source, items in _read(config, lambda row: read_row(reader, row, lost), skipped):
        for item in items:
            yield source, item


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


def _told(lost: Counter[str]) -> str:
    """What was lost, the most frequent first; the names of fields are the file's own."""
    return ", ".join(f"{one_line(name, 60)} ({n})" for name, n in lost.most_common() if n)


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
