"""Raw prompts of users -> clean prompts: consent, PII, duplicates, a cap per user, splits by user.

The rules are those of Ouyang et al. 2022, section 3.2 and appendix A: prompts that share a long
common prefix are dropped, a user gives at most 200, splits are by user, and prompts with personal
data leave the training split. Every dropped prompt is counted under its reason. The same input
gives the same output; cleaning clean prompts changes nothing; lines appended to a log move no user
to another split.

Left out on purpose: filters by length in tokens (a matter of the model, done where it is known),
and near duplicates that do not share their beginning.

    instil intake --raw log.jsonl --out data
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import msgspec

from instil import jsonl
from instil.errors import InstilError, nearest
from instil.intake.dedup import normal_form, prefix_duplicates, tidy
from instil.intake.language import is_ascii, language
from instil.intake.pii import first_kind
from instil.records import USE_CASES, Prompt, Record, Split

_YES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class RawPrompt(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.raw_prompt/1"):
    """A prompt as a user sent it. Without consent it goes no further."""

    text: str
    user_id: str = ""
    use_case: str = ""
    source: str = "api"
    consent: bool = True
    meta: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.use_case and self.use_case not in USE_CASES:
            raise InstilError(
                f"use_case: {self.use_case!r} is not known{nearest(self.use_case, USE_CASES)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of `instil intake`."""

    raw: Path
    """The log: JSON lines, a JSON array, .csv or .tsv; also with .gz."""
    out: Path
    """Folder for prompts.jsonl and intake.json."""
    text_field: str = "text"
    """Name of the field with the prompt, in the log."""
    user_field: str = "user_id"
    """Name of the field with the user or, better, the organisation; the cap and splits use it."""
    use_case_field: str = "use_case"
    """Name of the field with the use case, if there is one."""
    consent_field: str = "consent"
    """Name of the field with the user's consent; where a line has none, it is taken as given."""
    source: str = "api"
    """Where the prompts come from, for lines that do not say it in the field `source`."""
    hide_users: bool = True
    """Replace user ids by keyed hashes of them (a pseudonym, as secret as the seed)."""
    pii: Literal["drop-train", "drop-all", "keep"] = "drop-train"
    """Drop prompts with personal data from the training split (the paper), from all, or not."""
    prefix_chars: int = 100
    """Two prompts are duplicates if they share a prefix of this many characters ..."""
    prefix_share: float = 0.8
    """... that is also this share of the shorter one."""
    cap: int = 200
    """Prompts kept per user; which, is random but fixed by the seed. 0 is no cap."""
    min_chars: int = 1
    """Characters a prompt has at least."""
    max_chars: int = 100_000
    """Characters a prompt has at most."""
    english_only: bool = False
    """Drop what looks like another language."""
    valid: float = 0.1
    """Share of users whose prompts are for validation."""
    test: float = 0.2
    """Share of users whose prompts are for testing."""
    seed: int = 0
    """Key of the hashes behind splits, cap and pseudonyms."""

    def __post_init__(self) -> None:
        if self.valid < 0 or self.test < 0 or self.valid + self.test > 1:
            raise InstilError(f"valid {self.valid} and test {self.test} must be shares of users")
        if not 0 <= self.prefix_share <= 1 or self.prefix_chars < 1:
            raise InstilError(
                f"prefix_share {self.prefix_share} must be 0 to 1 and prefix_chars "
                f"{self.prefix_chars} at least 1"
            )
        if self.cap < 0 or not 0 <= self.min_chars <= self.max_chars:
            raise InstilError(
                f"cap {self.cap} must be at least 0 and min_chars {self.min_chars} at most "
                f"max_chars {self.max_chars}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeReport:
    """What happened to the prompts: `read` = `kept` + the sum of `dropped`."""

    read: int
    kept: int
    users: int
    """Users with at least one kept prompt."""
    ascii_share: float
    """Share of the kept prompts that are plain ASCII, typographic quotes and dashes aside."""
    dropped: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    use_cases: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Candidate:
    """A prompt on its way through the rules."""

    raw: RawPrompt
    text: str
    key: str
    split: Split
    language: str


def run(config: Config) -> None:
    """Clean the log and write `prompts.jsonl` and `intake.json`."""
    prompts, report = clean(read_raw(config), config)
    jsonl.write_records(config.out / "prompts.jsonl", prompts)
    jsonl.write_json(config.out / "intake.json", asdict(report))
    dropped = ", ".join(f"{reason} {n}" for reason, n in report.dropped.items())
    print(f"read {report.read} prompts, kept {report.kept}; dropped: {dropped or 'none'}")


def clean(
    raw: Iterable[RawPrompt], config: Config, split_of: Callable[[str], Split] | None = None
) -> tuple[list[Prompt], IntakeReport]:
    """The prompts that pass all rules, in the order given, and what happened to the others.

    Rules, in this order: consent, length, language, PII, equal texts, shared prefix, cap. Of
    duplicates the first one is kept. `split_of` (user id -> split) replaces the hashed split.
    """

    def hashed_split(user_id: str) -> Split:
        return split_of_user(user_id, config.seed, config.valid, config.test)

    split_of = split_of or hashed_split
    dropped: Counter[str] = Counter()
    candidates: list[_Candidate] = []
    seen: set[str] = set()
    read = 0
    for prompt in raw:
        read += 1
        text = tidy(prompt.text)
        key = normal_form(text)
        who = prompt.user_id or key
        split = split_of(who)
        spoken = language(text)
        reason = _reason(prompt, text, split, spoken, config)
        if not reason and key in seen:
            reason = "duplicate"
        if reason:
            dropped[reason] += 1
            continue
        seen.add(key)
        candidates.append(_Candidate(prompt, text, key, split, spoken))

    same = prefix_duplicates([c.key for c in candidates], config.prefix_chars, config.prefix_share)
    dropped["prefix"] = sum(same)
    unlike = [c for c, duplicate in zip(candidates, same, strict=True) if not duplicate]
    kept = _capped(unlike, config)
    dropped["cap"] = len(unlike) - len(kept)
    report = IntakeReport(
        read=read,
        kept=len(kept),
        users=len({c.raw.user_id or c.key for c in kept}),
        ascii_share=sum(is_ascii(c.text) for c in kept) / max(len(kept), 1),
        dropped=_sorted(+dropped),
        splits=_sorted(Counter(c.split for c in kept)),
        use_cases=_sorted(Counter(c.raw.use_case or "unknown" for c in kept)),
        languages=_sorted(Counter(c.language for c in kept)),
    )
    return [_prompt(c, config) for c in kept], report


def split_of_user(user_id: str, seed: int, valid: float, test: float) -> Split:
    """The split of all prompts of a user: a keyed hash, so nobody crosses and nobody ever moves."""
    u = _hash(seed, "split", user_id) / 2**64
    return "test" if u < test else "valid" if u < test + valid else "train"


def read_raw(config: Config) -> Iterator[RawPrompt]:
    """The lines of `config.raw` as raw prompts; fields that are not asked for are ignored."""
    schema = RawPrompt.__struct_config__.tag
    for number, row in jsonl.iter_objects(config.raw):
        where = f"{config.raw}:{number}"
        if row.get("schema", schema) != schema:
            raise InstilError(
                f"{where}: schema: got {row['schema']!r}, expected {schema!r} or none"
            )
        text = row.get(config.text_field)
        if not isinstance(text, str):
            got = f"got {text!r:.40}" if config.text_field in row else "missing"
            hint = nearest(config.text_field, row) + "; name it with --text-field"
            raise InstilError(f"{where}: {config.text_field}: {got}, expected text{hint}")
        meta = row.get("meta")
        try:
            yield RawPrompt(
                text=text,
                user_id=_word(row, config.user_field),
                use_case=_word(row, config.use_case_field),
                source=_word(row, "source") or config.source,
                consent=_consent(row, config.consent_field),
                meta=meta if isinstance(meta, dict) else {},
            )
        except InstilError as error:
            raise InstilError(f"{where}: {error}") from error


def _reason(raw: RawPrompt, text: str, split: Split, spoken: str, config: Config) -> str:
    """Why a prompt is dropped on its own account, or the empty string."""
    if not raw.consent:
        return "no consent"
    if not text:
        return "empty"
    if len(text) < config.min_chars:
        return "too short"
    if len(text) > config.max_chars:
        return "too long"
    if config.english_only and spoken == "other":
        return "language"
    if config.pii == "drop-all" or (config.pii == "drop-train" and split == "train"):
        kind = first_kind(text)
        return f"pii:{kind}" if kind else ""
    return ""


def _capped(candidates: list[_Candidate], config: Config) -> list[_Candidate]:
    """At most `cap` of each user, the same ones in whatever order they come; no user, no cap."""
    if not config.cap:
        return candidates
    by_user: dict[str, list[int]] = {}
    for i, candidate in enumerate(candidates):
        if candidate.raw.user_id:
            by_user.setdefault(candidate.raw.user_id, []).append(i)
    over: set[int] = set()
    for user_id, indices in by_user.items():
        if len(indices) > config.cap:
            chosen = heapq.nsmallest(
                config.cap,
                indices,
                key=lambda i: (_hash(config.seed, "cap", user_id, candidates[i].key), i),
            )
            over |= set(indices) - set(chosen)
    return [candidate for i, candidate in enumerate(candidates) if i not in over]


def _prompt(candidate: _Candidate, config: Config) -> Prompt:
    raw, user_id = candidate.raw, candidate.raw.user_id
    if user_id and config.hide_users:
        user_id = f"u-{_hash(config.seed, 'user', user_id):016x}"
    return Prompt(
        id=jsonl.content_id("p", candidate.text),
        text=candidate.text,
        source=raw.source,
        user_id=user_id,
        use_case=raw.use_case,
        split=candidate.split,
        meta=raw.meta,
    )


def _hash(seed: int, *parts: str) -> int:
    """A number below 2**64 from the parts, keyed by the seed and the first part."""
    digest = blake2b(digest_size=8, key=str(seed).encode()[:64])
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "big")


def _word(row: dict[str, Any], name: str) -> str:
    """An optional field that is a text or a number."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InstilError(f"{name}: got {value!r:.40}, expected text or a whole number")
    return str(value).strip()


def _consent(row: dict[str, Any], name: str) -> bool:
    value = row.get(name, True)
    consent = _YES.get(str(value).strip().lower())
    if consent is None:
        raise InstilError(f"{name}: got {value!r:.40}, expected true or false")
    return consent


def _sorted(counts: Counter[Any]) -> dict[str, int]:
    """Most frequent first; equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
