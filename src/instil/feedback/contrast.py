"""Rankings that cost no labels: a reply stands above replies to prompts that are like its own.

Before it learns what labelers like, a reward model can learn from text that people wrote which
reply belongs to which prompt (preference model pre-training: Askell et al. 2021, section 4, there
with the votes of readers). A small model needs that: from some thousand rankings it learns how good
responses look, hardly what they have to be about (docs/method.md, row 44). The other replies are
those of the prompts that come before and after by alphabet, read forwards (who is asked about
differs) and read backwards (what is asked differs).

    instil contrast --text text.jsonl --source thread --out runs/contrast
    instil rm --model runs/ppo-init --prompts runs/contrast/prompts.jsonl \\
        --responses runs/contrast/responses.jsonl --rankings runs/contrast/rankings.jsonl \\
        --lr 4e-4 --batch-size 16 --out runs/rm-text
    instil rm --model runs/rm-text ...      # then the labelers' rankings, as ever

A document is a prompt and its reply, blank lines between them, and at times another prompt and its
reply. Left out: judging whether the reply is any good, or the others as good: of many it evens out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from instil.errors import InstilError
from instil.jsonl import content_id, iter_records, read_records, write_all
from instil.records import Demonstration, Prompt, Ranking, Response, Text
from instil.runs import say

Pair = tuple[str, str]
"""A prompt and a reply to it."""

STEPS = 20
"""How far from a prompt others are looked for, on either side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Make rankings of text: each reply above replies to similar prompts."""

    out: Path
    """Directory for prompts.jsonl, responses.jsonl and rankings.jsonl."""
    text: tuple[Path, ...] = ()
    """JSON lines of text: documents of prompts and replies in turn, blank lines between them."""
    source: str = ""
    """Only documents of this source; empty is all."""
    prompts: tuple[Path, ...] = ()
    """Prompts of the demonstrations; only those of split "train" are taken."""
    demonstrations: tuple[Path, ...] = ()
    """Demonstrations, which are replies, too."""
    limit: int = 24_000
    """The most rankings that are made, drawn from all."""
    others: int = 4
    """Replies to other prompts in each ranking."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit < 1 or self.others < 1:
            raise InstilError(f"limit {self.limit} and others {self.others} must be at least 1")
        if not self.text and not self.demonstrations:
            raise InstilError("nothing to read: give --text, or --demonstrations with --prompts")


def run(config: Config) -> None:
    """Read the pairs and write the three files, all or none."""
    pairs = [
        pair
        for path in config.text
        for text in iter_records(path, Text)
        if config.source in ("", text.source)
        for pair in turns(text.text)
    ]
    pairs += demonstrated(config)
    made = list(rankings(pairs, config.limit, config.others, config.seed))
    if not made:
        only = f" of source {config.source!r}" * bool(config.source)
        raise InstilError(
            f"{len(pairs)} prompts with replies{only}, and no two that differ in both: there is "
            "nothing to rank"
        )
    write_all(
        {
            config.out / "prompts.jsonl": (prompt for prompt, _, _ in made),
            config.out / "responses.jsonl": (r for _, responses, _ in made for r in responses),
            config.out / "rankings.jsonl": (ranking for _, _, ranking in made),
        }
    )
    say(f"{config.out}: {len(made)} rankings of {len(pairs)} prompts with replies")


def turns(document: str) -> list[Pair]:
    """The prompts of a document, each with the reply after it; none where one has no reply."""
    parts = document.split("\n\n")
    whole = len(parts) % 2 == 0 and all(part.strip() for part in parts)
    return list(zip(parts[::2], parts[1::2], strict=True)) if whole else []


def demonstrated(config: Config) -> list[Pair]:
    """Prompts of the training split with their demonstrations."""
    prompts = {p.id: p for path in config.prompts for p in read_records(path, Prompt)}
    pairs = []
    for path in config.demonstrations:
        for one in iter_records(path, Demonstration):
            if one.prompt_id not in prompts:
                raise InstilError(
                    f"{path}: demonstration of {one.prompt_id} by {one.labeler_id}: no such prompt "
                    "in --prompts; give the file that holds it"
                )
            if prompts[one.prompt_id].split in ("", "train"):
                pairs.append((prompts[one.prompt_id].text, one.text))
    return pairs


def rankings(
    pairs: Iterable[Pair], limit: int, others: int, seed: int
) -> Iterator[tuple[Prompt, list[Response], Ranking]]:
    """At most `limit` of the pairs, drawn, each as a ranking: its reply first, below it up to
    `others` replies to other prompts, tied; half are of prompts that begin alike, half of ones that
    end alike."""
    unique = sorted(set(pairs))
    backwards = sorted(unique, key=lambda pair: (pair[0].split()[::-1], pair))
    place = {pair: number for number, pair in enumerate(backwards)}
    rng = Random(f"contrast {seed}")
    for number in rng.sample(range(len(unique)), min(limit, len(unique))):
        pair = unique[number]
        found: list[str] = []
        _look(unique, number, (others + 1) // 2, found, rng)
        _look(backwards, place[pair], others, found, rng)
        if found:
            yield _records(pair, found)


def _look(order: Sequence[Pair], start: int, enough: int, found: list[str], rng: Random) -> None:
    """Add replies from around a place, nearest first, until `found` has `enough`."""
    prompt, reply = order[start]
    sides = [start, start]
    for _ in range(2 * STEPS):
        if len(found) == enough:
            return
        side = rng.randrange(2)
        sides[side] += 2 * side - 1
        if 0 <= sides[side] < len(order):
            asked, other = order[sides[side]]
            if asked != prompt and other != reply and other not in found:
                found.append(other)


def _records(pair: Pair, others: Sequence[str]) -> tuple[Prompt, list[Response], Ranking]:
    prompt = Prompt(id=content_id("text", *pair), text=pair[0], source="text", split="train")
    responses = [
        Response(id=f"{prompt.id}-{number}", prompt_id=prompt.id, text=text, policy="text")
        for number, text in enumerate((pair[1], *others))
    ]
    below = tuple(response.id for response in responses[1:])
    ranking = Ranking(prompt_id=prompt.id, labeler_id="text", tiers=((responses[0].id,), below))
    return prompt, responses, ranking
