"""Raw prompts of users -> clean prompts: consent, PII, duplicates, a cap per user, splits by user.

The rules are those of Ouyang et al. 2022, section 3.2 and appendix A: prompts that share a long
common prefix are dropped, a user or organisation gives at most 200, splits are by user or
organisation, and prompts with personal data leave the training split. Every dropped prompt is
counted under its reason. The same input gives the same output; cleaning clean prompts changes
nothing; lines appended to a log move no user to another split. Memory does not grow with the log.

Left out on purpose: filters by length in tokens (a matter of the model, done where it is known),
near duplicates that do not share their beginning, and personal data in the field `meta`, which
goes through unread.

    instil intake --raw log.jsonl --out data
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from instil import __version__, jsonl
from instil.config import to_dict
from instil.errors import InstilError
from instil.intake.dedup import normal_form, tidy
from instil.intake.language import ENGLISH_OR_UNTOLD, is_ascii, language
from instil.intake.log import Log, RawPrompt, read_raw
from instil.intake.pii import first_kind
from instil.intake.sieve import Candidate, Sieve
from instil.progress import EVERY
from instil.records import Prompt, Split
from instil.runs import say

SplitOf = Callable[[str], Split]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Log):
    """Settings of `instil intake`."""

    out: Path
    """Folder for prompts.jsonl and intake.json."""
    hide_users: bool = True
    """Replace ids of users and organisations by pseudonyms: keyed hashes, as secret as the seed."""
    pii: Literal["drop-train", "drop-all", "keep"] = "drop-train"
    """Drop prompts with personal data from the training split (the paper), from all, or not."""
    prefix_chars: int = 100
    """Two prompts are duplicates if they share a prefix of this many characters ..."""
    prefix_share: float = 0.8
    """... that is also this share of the shorter one."""
    cap: int = 200
    """Prompts kept per user or organisation; which, is random but fixed by the seed. 0: no cap."""
    min_chars: int = 1
    """Characters a prompt has at least."""
    max_chars: int = 100_000
    """Characters a prompt has at most."""
    english_only: bool = False
    """Drop what looks like another language."""
    valid: float = 0.1
    """Share of users or organisations whose prompts are for validation."""
    test: float = 0.2
    """Share of users or organisations whose prompts are for testing."""
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
    """Users or organisations with at least one kept prompt."""
    unsigned: int
    """Kept prompts without a user or organisation: no cap holds, and each is split by its text."""
    ascii_share: float
    """Share of the kept prompts that are plain ASCII, typographic quotes and dashes aside."""
    dropped: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    use_cases: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)


def run(config: Config) -> None:
    """Clean the log and write `prompts.jsonl` and `intake.json`, unless they are those already."""
    prompts, summary = config.out / "prompts.jsonl", config.out / "intake.json"
    origin = _origin(config)
    if _is_done(prompts, summary, origin):
        print(f"{prompts}: made from this log with these settings before; nothing to do")
        return
    with _sieve(config) as sieve:
        report = _sift(_shown(read_raw(config)), config, None, sieve)
        if not report.read:
            raise InstilError(f"{config.raw}: has no prompts; is it the right file, and whole?")
        digest = hashlib.sha256()
        for line in sieve.records():
            digest.update(line)
        made = {**asdict(report), "made_from": origin, "prompts_sha256": digest.hexdigest()}
        told = msgspec.json.format(msgspec.json.encode(made), indent=2)
        jsonl.replace_files({prompts: sieve.records(), summary: [told, b"\n"]})
    print(_told(report))


def clean(
    raw: Iterable[RawPrompt], config: Config, split_of: SplitOf | None = None
) -> tuple[list[Prompt], IntakeReport]:
    """The prompts that pass all rules, in the order given, and what happened to the others.

    Rules, in this order: consent, a user seen in another split (through another organisation),
    length, language, PII, equal texts, shared prefix, cap. Of duplicates the first one is kept.
    `split_of` (id of a user or organisation -> split) replaces the hashed split.
    """
    with _sieve(config) as sieve:
        report = _sift(raw, config, split_of, sieve)
        decode = msgspec.json.Decoder(Prompt).decode
        return [decode(line) for line in sieve.records()], report


def split_of_user(user_id: str, seed: int, valid: float, test: float) -> Split:
    """The split of all prompts of a user: a keyed hash, so nobody crosses and nobody ever moves."""
    u = _hash(seed, "split", user_id) / 2**64
    return "test" if u < test else "valid" if u < test + valid else "train"


def pseudonym(name: str, seed: int, kind: Literal["user", "organisation"] = "user") -> str:
    """What stands for a user or organisation in prompts, given the id in the log and the seed.

    `Prompt.user_id` is the pseudonym of the organisation where the log names one, and then
    `Prompt.meta["user_id"]` that of the user.
    """
    return f"{kind[0]}-{_hash(seed, kind, name):016x}" if name else ""


def _shown(raw: Iterable[RawPrompt]) -> Iterator[RawPrompt]:
    """The same, and from time to time a line that says how many have been read."""
    said = time.monotonic()
    for number, prompt in enumerate(raw):
        if time.monotonic() - said >= EVERY:
            say(f"intake  {number} prompts read")
            said = time.monotonic()
        yield prompt


def _sieve(config: Config) -> Sieve:
    return Sieve(config.prefix_chars, config.prefix_share)


def _sift(
    raw: Iterable[RawPrompt], config: Config, split_of: SplitOf | None, sieve: Sieve
) -> IntakeReport:
    """Leave in the sieve what passes all rules."""

    def hashed_split(owner: str) -> Split:
        return split_of_user(owner, config.seed, config.valid, config.test)

    dropped: Counter[str] = Counter()
    read = 0
    for prompt in raw:
        read += 1
        if reason := _drop_or_keep(prompt, config, split_of or hashed_split, sieve):
            dropped[reason] += 1
    if config.cap:
        dropped["cap"] = sieve.cap(config.cap)
    mixes: tuple[Counter[Any], ...] = (Counter(), Counter(), Counter(), Counter())
    for traits, count in sieve.traits():
        for mix, trait in zip(mixes, traits, strict=True):
            mix[trait] += count
    splits, use_cases, languages, ascii_only = mixes
    kept = splits.total()
    users, unsigned = sieve.users()
    return IntakeReport(
        read=read,
        kept=kept,
        users=users,
        unsigned=unsigned,
        ascii_share=ascii_only[True] / max(kept, 1),
        dropped=_sorted(+dropped),
        splits=_sorted(splits),
        use_cases=_sorted(use_cases),
        languages=_sorted(languages),
    )


def _drop_or_keep(raw: RawPrompt, config: Config, split_of: SplitOf, sieve: Sieve) -> str:
    """Put a prompt into the sieve, or say why it is dropped."""
    if not raw.consent:
        return "no consent"
    text = tidy(raw.text)
    key = normal_form(text)
    owner = raw.organisation_id or raw.user_id
    split = split_of(owner or key)
    if raw.user_id and sieve.split_of(raw.user_id, split) != split:
        return "user in another split"
    spoken = language(text)
    if reason := _unfit(text, split, spoken, config):
        return reason
    who = ("organisation " if raw.organisation_id else "user ") + owner
    prompt = _prompt(raw, text, split, config)
    return sieve.add(
        Candidate(
            key=key,
            owner=who.encode("utf-8", "surrogatepass") if owner else b"",
            draw=_hash(config.seed, "cap", owner, key).to_bytes(8, "big"),
            traits=(split, raw.use_case or "unknown", spoken, is_ascii(text)),
            record=msgspec.json.encode(prompt) + b"\n",
        )
    )


def _unfit(text: str, split: Split, spoken: str, config: Config) -> str:
    """Why a text is dropped on its own account, or the empty string."""
    if not text:
        return "empty"
    if len(text) < config.min_chars:
        return "too short"
    if len(text) > config.max_chars:
        return "too long"
    if config.english_only and spoken not in ENGLISH_OR_UNTOLD:
        return "language"
    if config.pii == "drop-all" or (config.pii == "drop-train" and split == "train"):
        kind = first_kind(text)
        return f"pii:{kind}" if kind else ""
    return ""


def _prompt(raw: RawPrompt, text: str, split: Split, config: Config) -> Prompt:
    user_id, organisation_id = raw.user_id, raw.organisation_id
    if config.hide_users:
        user_id = pseudonym(user_id, config.seed)
        organisation_id = pseudonym(organisation_id, config.seed, "organisation")
    return Prompt(
        id=jsonl.content_id("p", text),
        text=text,
        source=raw.source,
        user_id=organisation_id or user_id,
        use_case=raw.use_case,
        split=split,
        meta={**raw.meta, "user_id": user_id} if organisation_id and user_id else raw.meta,
    )


def _origin(config: Config) -> str:
    """A name for the log's content, the settings and the version of the rules.

    One hash of all, since one of the settings alone would tell whoever guesses the seed that he is
    right, and with it who is behind a pseudonym.
    """
    with jsonl.reading(config.raw) as handle:
        content = hashlib.file_digest(cast(Any, handle), "sha256").hexdigest()
    settings = to_dict(config)
    del settings["raw"], settings["out"]
    return hashlib.sha256(json.dumps([__version__, content, settings]).encode()).hexdigest()


def _is_done(prompts: Path, summary: Path, origin: str) -> bool:
    """Whether both files are there, whole, and what would be written again."""
    try:
        made = json.loads(summary.read_bytes())
        with prompts.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return bool((made["made_from"], made["prompts_sha256"]) == (origin, digest))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _told(report: IntakeReport) -> str:
    """The report as lines to read."""

    def numbers(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"

    def shares(counts: dict[str, int]) -> str:
        return ", ".join(f"{n} {count / report.kept:.1%}" for n, count in counts.items()) or "none"

    return (
        f"read {report.read} prompts, kept {report.kept}\n"
        f"from: {report.users} users or organisations; {report.unsigned} prompts name nobody\n"
        f"dropped: {numbers(report.dropped)}\n"
        f"splits: {numbers(report.splits)}\n"
        f"languages: {shares(report.languages)}\n"
        f"use cases: {shares(report.use_cases)}"
    )


def _hash(seed: int, *parts: str) -> int:
    """A number below 2**64 from the parts, keyed by the seed and the first part."""
    digest = blake2b(digest_size=8, key=str(seed).encode()[:64])
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "big")


def _sorted(counts: Counter[Any]) -> dict[str, int]:
    """Most frequent first; equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
