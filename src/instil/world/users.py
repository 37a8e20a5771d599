"""Raw prompts of many simulated users, as an API would log them: uneven, repeated, private.

`intake` has something to do here: one over-active user, exact and near duplicates, planted personal
data, users who did not consent. All personal data are made up; numbers are valid by their checksums
so that detectors find them. Left out: time, and anything that links users to one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from types import MappingProxyType
from typing import Any

from instil.errors import InstilError
from instil.world.lexicon import WORDS, World
from instil.world.tasks import draw_use_case, make_prompt

OVERACTIVE_USER = "u0000"
OVERACTIVE_PROMPTS = 320
"""Prompts of the one over-active user; less where fewer than four times as many are asked for."""
PII_SHARE = 0.02
NEAR_DUPLICATE_SHARE = 0.04
DUPLICATE_SHARE = 0.03
NO_CONSENT_SHARE = 0.02
"""Share of the users who did not consent."""
LABELER_SHARE = 0.1
"""Share of the users who are labelers writing prompts, `source` "labeler"."""

NEAR_DUPLICATE_ENDINGS = MappingProxyType(
    {
        "train": ("Please be quick.", "I need it today."),
        "test": ("Take your time.", "It is for a friend."),
    }
)
PII_FRAMES = MappingProxyType(
    {
        "email": ("Write to me at {pii}.", "My address is {pii}."),
        "phone": ("My number is {pii}.", "You can call me under {pii}."),
        "card": ("Pay with my card {pii}.", "My card is {pii}."),
        "iban": ("My account is {pii}.", "Send the money to {pii}."),
    }
)


def raw_prompts(
    world: World, n: int, users: int, seed: int, split_of: Callable[[str], str]
) -> Iterator[dict[str, Any]]:
    """`n` dicts with the fields of intake.RawPrompt, `meta` for the checkers included.

    `split_of(user_id)` is "train", "valid" or "test"; users of the test split use only held-out
    entities and test wordings, and no other user does. Users are unevenly active.
    """
    if users < 2 or n < users:
        raise InstilError(f"{n} prompts of {users} users; give at least 2 users and a prompt each")
    rng = Random(f"users {world.seed} {seed}")
    names = [f"u{number:04d}" for number in range(users)]
    consent = {user: rng.random() >= NO_CONSENT_SHARE for user in names}
    source = {user: "labeler" if rng.random() < LABELER_SHARE else "api" for user in names}
    activity = [1 / (1 + rank) ** 0.5 for rank in range(users - 1)]
    overactive = min(OVERACTIVE_PROMPTS, n // 4)
    order = names[1:] + rng.choices(names[1:], activity, k=n - overactive - users + 1)
    order += [OVERACTIVE_USER] * overactive
    rng.shuffle(order)
    earlier: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for user in order:
        split = split_of(user)
        prompt = _next_prompt(world, split, earlier.setdefault(user, []), rng)
        earlier[user].append(prompt)
        text, use_case, meta = prompt
        if rng.random() < PII_SHARE:
            kind, pii = draw_pii(rng)
            text, meta = (
                f"{text} {rng.choice(PII_FRAMES[kind]).format(pii=pii)}",
                {**meta, "pii": kind},
            )
        yield {
            "text": text,
            "user_id": user,
            "use_case": use_case,
            "source": source[user],
            "consent": consent[user],
            "meta": meta,
        }


def _next_prompt(
    world: World, split: str, earlier: list[tuple[str, str, dict[str, Any]]], rng: Random
) -> tuple[str, str, dict[str, Any]]:
    """A new prompt, or one that the user sent before, at times with another ending."""
    chance = rng.random()
    if earlier and chance < DUPLICATE_SHARE:
        return rng.choice(earlier)
    if earlier and chance < DUPLICATE_SHARE + NEAR_DUPLICATE_SHARE:
        text, use_case, meta = rng.choice(earlier)
        endings = NEAR_DUPLICATE_ENDINGS["test" if split == "test" else "train"]
        return f"{text} {rng.choice(endings)}", use_case, meta
    use_case = draw_use_case(rng)
    text, meta = make_prompt(world, use_case, split, rng)
    return text, use_case, meta


def draw_pii(rng: Random) -> tuple[str, str]:
    """A kind of personal data ("email", "phone", "card", "iban") and a made-up example."""
    kind = rng.choice(("email", "phone", "card", "iban"))
    return kind, _PII[kind](rng)


def _digits(rng: Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _email(rng: Random) -> str:
    name, host = rng.choice(WORDS["person"]).lower(), rng.choice(WORDS["town"]).lower()
    return f"{name}{_digits(rng, 2)}@{host}.example.{rng.choice(('org', 'com', 'net'))}"


def _phone(rng: Random) -> str:
    """A number in one of several national forms."""
    form = rng.choice(
        (
            "+49 30 2345{}",
            "(202) 555-01{}",
            "+44 20 7946 09{}",
            "+33 1 70 18 {} 22",
            "+1 415 555 01{}",
        )
    )
    return form.format(_digits(rng, 4 if form.startswith("+49") else 2))


def _card(rng: Random) -> str:
    """A card number of 16 digits, valid by the Luhn check."""
    body = "4" + _digits(rng, 14)
    doubled = (int(d) * (2 - place % 2) for place, d in enumerate(body))
    total = sum(d - 9 if d > 9 else d for d in doubled)
    number = body + str(-total % 10)
    return " ".join(number[place : place + 4] for place in range(0, 16, 4))


def _iban(rng: Random) -> str:
    """A German or Austrian account number with right check digits (ISO 7064, mod 97-10)."""
    country, length = rng.choice((("DE", 18), ("AT", 16)))
    body = _digits(rng, length)
    letters = "".join(str(ord(c) - 55) for c in country)
    check = 98 - int(body + letters + "00") % 97
    return f"{country}{check:02d}{body}"


_PII: dict[str, Callable[[Random], str]] = {
    "email": _email,
    "phone": _phone,
    "card": _card,
    "iban": _iban,
}
