"""Files of records -> items: every demonstration and ranking with its prompt and its responses.

Prompts and responses are held in memory; rankings and demonstrations are read one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from instil import jsonl
from instil.convert.item import Item, ranked
from instil.errors import InstilError, one_line
from instil.records import Demonstration, Labeler, Prompt, Ranking, Rating, Record, Response

R = TypeVar("R", bound=Record)
Named = TypeVar("Named", Prompt, Response)

KINDS: Mapping[str, type[Record]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (Prompt, Response, Demonstration, Ranking, Rating, Labeler)
}
LABELER = "unknown"
"""The labeler of records that were made from a file that does not say who labeled."""


def read_joined(paths: Sequence[Path], lost: Counter[str]) -> Iterator[tuple[str, Item]]:
    """(source of the prompt, item) of all demonstrations and rankings, then of the responses that
    nobody ranked and the prompts that nothing was said to. `lost` counts what items cannot hold.

    Raises InstilError, with file and line, for an id that occurs twice or in none of the files.
    """
    files = _by_kind(paths)
    for kind in (Rating, Labeler):
        lost[kind.__name__.lower()] += sum(1 for _ in _numbered(files, kind))
    prompts = _by_id(_numbered(files, Prompt))

    def answers() -> Iterator[tuple[str, Response]]:
        for where, response in _numbered(files, Response):
            _find(prompts, response.prompt_id, where, "prompt_id")
            yield where, response

    responses = _by_id(answers())
    unused, unranked = dict.fromkeys(prompts), dict.fromkeys(responses)

    def item_of(prompt: Prompt, item: Item) -> tuple[str, Item]:
        unused.pop(prompt.id, None)
        lost.update(f"{name} of a prompt" for name in ("source", "split") if getattr(prompt, name))
        return prompt.source, item

    for where, demonstration in _numbered(files, Demonstration):
        prompt = _find(prompts, demonstration.prompt_id, where, "prompt_id")
        item = Item(prompt.text, (demonstration.text,), **_said(prompt, demonstration.labeler_id))
        yield item_of(prompt, item)
    for where, ranking in _numbered(files, Ranking):
        prompt = _find(prompts, ranking.prompt_id, where, "prompt_id")
        judged = []
        for response_id, rank in ranking.ranks().items():
            response = _find(responses, response_id, where, "tiers")
            if response.prompt_id != prompt.id:
                ids = [one_line(i, 60) for i in (response_id, response.prompt_id, prompt.id)]
                raise InstilError(
                    f"{where}: tiers: response {ids[0]} answers prompt {ids[1]}, not {ids[2]}"
                )
            unranked.pop(response_id, None)
            lost["sampling of a response"] += bool(response.sampling)
            judged.append((rank, response.text, response.policy))
        item = ranked(prompt.text, judged, **_said(prompt, ranking.labeler_id))
        lost.update(item.lost)
        yield item_of(prompt, item)
    for response in (responses[response_id] for response_id in unranked):
        prompt = prompts[response.prompt_id]
        lost["sampling of a response"] += bool(response.sampling)
        said = _said(prompt, "")
        yield item_of(
            prompt, Item(prompt.text, (response.text,), policies=(response.policy,), **said)
        )
    for prompt in [prompts[prompt_id] for prompt_id in unused]:
        yield item_of(prompt, Item(prompt.text, **_said(prompt, "")))


def _said(prompt: Prompt, labeler_id: str) -> dict[str, Any]:
    return {
        "use_case": prompt.use_case,
        "user_id": prompt.user_id,
        "meta": prompt.meta,
        "labeler": "" if labeler_id == LABELER else labeler_id,
    }


def _by_kind(paths: Sequence[Path]) -> dict[type[Record], list[Path]]:
    """The files of each kind of record, told from the schema of their first lines."""
    files: dict[type[Record], list[Path]] = {}
    for path in paths:
        for number, row in jsonl.iter_objects(path):
            schema = row.get("schema")
            if not isinstance(schema, str) or schema not in KINDS:
                got = f"{schema!r:.60}" if isinstance(schema, str) else "what is no text"
                raise InstilError(
                    f"{path}:{number}: schema: {got} is not one of {', '.join(KINDS)}"
                )
            files.setdefault(KINDS[schema], []).append(path)
            break
    return files


def _numbered(
    files: Mapping[type[Record], Sequence[Path]], kind: type[R]
) -> Iterator[tuple[str, R]]:
    """(path:line, record) of all files of one kind."""
    for path in files.get(kind, ()):
        lines = (number for number, _ in jsonl.iter_lines(path))
        for number, record in zip(lines, jsonl.iter_records(path, kind), strict=True):
            yield f"{path}:{number}", record


def _by_id(numbered: Iterable[tuple[str, Named]]) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for where, record in numbered:
        if found.setdefault(record.id, record) != record:
            raise InstilError(
                f"{where}: id: {one_line(record.id, 60)} occurs before with other content"
            )
    return found


def _find(records: Mapping[str, R], name: str, where: str, field: str) -> R:
    if name not in records:
        raise InstilError(
            f"{where}: {field}: {one_line(name, 60)} is in none of the files; name its file too"
        )
    return records[name]
