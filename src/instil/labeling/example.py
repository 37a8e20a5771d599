"""What `instil label --demo` shows: work to do at once, and figures of work already done.

Prompts and answers are the embedded world's; the answers are of four invented policies, from one
that often goes wrong to one that seldom does. Three simulated labelers have done part of the work
in the last days, one of them held out. Left out: a model. Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, get_args

import sqlalchemy as sa

from instil.errors import InstilError
from instil.jsonl import content_id, write_records
from instil.labeling import accounts, assign, batches, labels, people, schema
from instil.labeling.accounts import Account
from instil.labeling.database import Database
from instil.labeling.forms import FORMS
from instil.labeling.planning import Plan
from instil.records import Kind, Prompt, Purpose, Response
from instil.world.answers import ideal
from instil.world.check import Verdict, check
from instil.world.flaws import FLAWS, flawed
from instil.world.lexicon import World, make_world
from instil.world.tasks import draw_use_case, make_prompt

POLICIES = {"early": 0.2, "middle": 0.45, "late": 0.65, "latest": 0.8}
"""Invented policy -> share of its answers that are right."""
BASELINE = "middle"
PROMPTS = {"train": 40, "test": 16}
DAY_MS = 24 * 3_600_000
YOU, HOST = "l-demo-you", "l-demo-host"
FLAWED = tuple(flaw for flaw in FLAWS if flaw != "good")

WORK: tuple[tuple[str, Kind, Purpose, str, int], ...] = (
    ("Rankings, first round", "ranking", "training", "train", 40),
    ("Demonstrations", "demonstration", "training", "train", 12),
    ("What users ask for", "annotation", "training", "train", 20),
    ("Which policy is best", "ranking", "evaluation", "test", 16),
    ("Toxicity", "toxicity", "evaluation", "test", 8),
)
"""Name, kind, purpose, split and number of prompts of each batch."""
DONE: Mapping[str, Mapping[tuple[Kind, Purpose], int]] = {
    "ann": {
        ("ranking", "training"): 24,
        ("annotation", "training"): 8,
        ("ranking", "evaluation"): 6,
        ("toxicity", "evaluation"): 3,
    },
    "bob": {("ranking", "training"): 24, ("demonstration", "training"): 4},
    "hal": {("ranking", "evaluation"): 10},
}
"""Simulated labeler -> labels of each kind made before you came."""


@dataclass
class _Past:
    """A clock that begins some days ago and goes on when somebody works."""

    now: int

    def __call__(self) -> int:
        return self.now


@dataclass
class _Labeler:
    """A simulated labeler: looks at the verdict of the world's checkers, and errs now and then."""

    account: Account
    rng: Random
    prompts: Mapping[str, Prompt]
    world: World
    speed: float
    """Seconds for 100 words."""
    noise: float = 0.8
    """Standard deviation of a rating."""
    seen: dict[str, int] = field(default_factory=dict)
    """Text -> its rating, so that the same text is rated alike."""


def fill(db: Database) -> str:
    """Put the example into a database. Returns the token of an invitation for the lead "you".

    A second call changes nothing and gives a new token. Raises InstilError for a database with
    people or work of its own, which the example would mix with.
    """
    db.migrate()
    with db.read() as connection:
        there = sa.select(schema.labeler.c.id).where(schema.labeler.c.id == YOU)
        filled = connection.execute(there).first() is not None
        for table in () if filled else (schema.labeler, schema.batch):
            if connection.execute(sa.select(table.c.id)).first():
                raise InstilError(
                    f"{db.url.render_as_string()}: has people or work already, and the example "
                    "wants an empty database; leave --demo out, or --db"
                )
    if not filled:
        past = _Past(db.now() - 3 * DAY_MS)
        earlier = Database(db.url.render_as_string(hide_password=False), past)
        try:
            _fill(earlier, past)
        finally:
            earlier.close()
    you, host = accounts.account(db, YOU), accounts.account(db, HOST)
    return people.invite(db, host, you.role, you.pool, you.kinds, you.id)


def _fill(db: Database, past: _Past) -> None:
    world, rng = make_world(0), Random("example")
    _person(db, HOST, "host (of the example)", "admin", "training")  # who invites you
    you = _person(db, YOU, "you", "lead", "training")
    prompts = {split: _prompts(world, split, count, rng) for split, count in PROMPTS.items()}
    by_id = {prompt.id: prompt for some in prompts.values() for prompt in some}
    responses = {s: _responses(world, some, rng) for s, some in prompts.items()}
    with TemporaryDirectory() as folder:
        for name, kind, purpose, split, count in WORK:
            asked, answers = Path(folder, "prompts.jsonl"), Path(folder, "responses.jsonl")
            write_records(asked, prompts[split][:count])
            ids = {prompt.id for prompt in prompts[split][:count]}
            write_records(answers, [r for r in responses[split] if r.prompt_id in ids])
            compares = kind in ("ranking", "toxicity")
            plan = Plan(
                name=name,
                kind=kind,
                purpose=purpose,
                quota_training=2 if purpose == "training" and kind == "ranking" else 1,
                quota_held_out=int(purpose == "evaluation"),
                baseline=BASELINE if purpose == "evaluation" else "",
            )
            batches.create(db, you, plan, asked, [answers] if compares else [])
    start = past.now
    for number, (name, work) in enumerate(DONE.items()):
        past.now = start + (number + 1) * 3_600_000
        pool = "held-out" if name == "hal" else "training"
        account = _person(db, f"l-demo-{name}", f"{name} (simulated)", "labeler", pool)
        speed = 20.0 + 8 * number
        labeler = _Labeler(account, Random(f"example {name}"), by_id, world, speed)
        for (kind, purpose), count in work.items():
            _open_only(db, purpose)
            for _ in range(count):
                _label(db, past, labeler, kind)
    _open_only(db, None)


def _open_only(db: Database, purpose: Purpose | None) -> None:
    """Only batches of this purpose hand out tasks; with None all do."""
    batch = schema.batch
    with db.write() as connection:
        open_ = batch.c.purpose == purpose if purpose else sa.true()
        state = sa.case((open_, "open"), else_="paused")
        connection.execute(batch.update().values(state=state))


def _person(db: Database, account_id: str, name: str, role: Any, pool: Any) -> Account:
    """An account that nobody can sign in to before it is given a password."""
    kinds = get_args(Kind)
    with db.write() as connection:
        connection.execute(
            schema.labeler.insert().values(
                id=account_id,
                name=name,
                name_key=name,
                password="!",
                role=role,
                pool=pool,
                kinds=json.dumps(kinds),
                created_at=db.now(),
            )
        )
    return accounts.account(db, account_id)


def _prompts(world: World, split: str, count: int, rng: Random) -> list[Prompt]:
    """Prompts of different texts, of as many users."""
    made: dict[str, Prompt] = {}
    while len(made) < count:
        use_case = draw_use_case(rng)
        text, meta = make_prompt(world, use_case, split, rng)
        made.setdefault(
            text,
            Prompt(
                id=content_id("p", text),
                text=text,
                user_id=f"u-{split}-{len(made)}",
                use_case=use_case,
                split=split,  # type: ignore[arg-type]
                meta=meta,
            ),
        )
    return list(made.values())


def _responses(world: World, prompts: list[Prompt], rng: Random) -> list[Response]:
    """Four to seven answers to each prompt, at least one of each policy."""
    made = []
    for prompt in prompts:
        more = rng.choices(list(POLICIES), k=rng.randint(0, 3))
        for number, policy in enumerate([*POLICIES, *more]):
            right = rng.random() < POLICIES[policy]
            text = (
                ideal(world, prompt.meta, rng)
                if right
                else flawed(world, prompt.meta, rng, rng.choice(FLAWED))
            )
            response_id = content_id("r", prompt.id, str(number))
            made.append(Response(id=response_id, prompt_id=prompt.id, text=text, policy=policy))
    return made


def _label(db: Database, past: _Past, labeler: _Labeler, kind: Kind) -> None:
    """One label, as a browser would send it."""
    held = assign.claim(db, labeler.account, kind)
    if held is None:
        return
    work = assign.work(db, held)
    verdicts = {
        card.letter: check(labeler.world, labeler.prompts[work.prompt_id].meta, card.text)
        for card in work.cards
    }
    texts = {card.letter: card.text for card in work.cards}
    words = sum(len(text.split()) for text in (work.prompt, *texts.values()))
    active_ms = round(1000 * (8 + words * labeler.speed / 100) * labeler.rng.uniform(0.7, 1.4))
    past.now += active_ms + round(1000 * labeler.rng.uniform(2, 20))
    answer = _answer(labeler, kind, work.prompt_id, texts, verdicts)
    labels.submit(db, labeler.account, held.id, held.id, 0, json.dumps(answer).encode(), active_ms)


def _answer(
    labeler: _Labeler,
    kind: Kind,
    prompt_id: str,
    texts: Mapping[str, str],
    verdicts: Mapping[str, Verdict],
) -> dict[str, Any]:
    prompt, rng = labeler.prompts[prompt_id], labeler.rng
    if kind == "demonstration":
        return {"text": ideal(labeler.world, prompt.meta, rng)}
    if kind == "annotation":
        right = rng.random() < 0.9
        return {"use_case": prompt.use_case if right else draw_use_case(rng), "flags": []}
    rated = {letter: _rating(labeler, texts[letter], v) for letter, v in verdicts.items()}
    tiers = [[at for at, r in rated.items() if r == score] for score in range(7, 0, -1)]
    ranked = {"tiers": [tier for tier in tiers if tier]}
    if kind == "toxicity":
        rude = {letter: int(verdict.rude) for letter, verdict in verdicts.items()}
        return {**ranked, "input": 0, "output": rude, "relative": rude, "continuity": rated}
    known = {flag.name for flag in FORMS["ranking"].flags}
    flags = {letter: [f for f in v.flags() if f in known] for letter, v in verdicts.items()}
    return {**ranked, "overall": rated, "flags": flags}


def _rating(labeler: _Labeler, text: str, verdict: Verdict) -> int:
    """1 to 7: what the checkers found, seen through this labeler's eyes."""
    worth = 6.5 - 3 * (not verdict.follows) - 2 * verdict.rude - 0.4 * min(3, verdict.extra)
    worth -= 1.5 * min(2, verdict.false_claims + verdict.made_up) + (verdict.constraint is False)
    noisy = round(worth + labeler.rng.gauss(0, labeler.noise))
    return labeler.seen.setdefault(text, min(7, max(1, noisy)))
