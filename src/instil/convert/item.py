"""What every format is read into and written from: one prompt and what was answered to it.

Readers take a row as a mapping; what they cannot read is an `InstilError` that starts with the name
of the field. Writers take an `Item`; what their format has no place for is `CannotHold`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from instil.errors import InstilError

Row = Mapping[str, Any]
Kind = Literal["prompt", "demonstration", "response", "ranking"]


class CannotHold(Exception):
    """A format has no place for an item; the message says for what of it, in one or two words."""


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and the answers that one person compared, or one answer, or none."""

    prompt: str
    answers: tuple[str, ...] = ()
    """Best first."""
    use_case: str = ""
    ranks: tuple[int, ...] = ()
    """Of each answer, 1 for the best, equal where tied; empty is 1, 2, 3 and so on."""
    policies: tuple[str, ...] = ()
    """Which model wrote each answer; empty where people did or nobody knows."""
    labeler: str = ""
    """Who wrote the demonstration or made the ranking."""
    user_id: str = ""
    """Who wrote the prompt."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = field(default=(), compare=False)
    """What stood beside it and has no place here; counted and told by the command."""

    @property
    def kind(self) -> Kind:
        """What records it becomes: a lone answer is a model's if it has a policy, even \"\"."""
        if len(self.answers) > 1:
            return "ranking"
        if self.answers:
            return "response" if self.policies else "demonstration"
        return "prompt"

    def places(self) -> tuple[int, ...]:
        """The rank of each answer."""
        return self.ranks or tuple(range(1, len(self.answers) + 1))

    def authors(self) -> tuple[str, ...]:
        """The policy of each answer, \"\" where it is not known."""
        return self.policies or ("",) * len(self.answers)

    def pairs(self) -> Iterator[Item]:
        """Every pair of a ranking as an item of its own, the better answer first."""
        places, authors = self.places(), self.authors()
        for j in range(1, len(self.answers)):
            for i in range(j):
                authored = (authors[i], authors[j])
                yield replace(
                    self,
                    answers=(self.answers[i], self.answers[j]),
                    ranks=(1, 1) if places[i] == places[j] else (),
                    policies=authored if any(authored) else (),
                )


def ranked(
    prompt: str, judged: Iterable[tuple[float, str, str]], lost: tuple[str, ...] = (), **others: Any
) -> Item:
    """The item of (place, answer, policy), the lowest place best, equal places tied.

    An answer that occurs twice is one answer, in its best place; `lost` tells of the other.
    """
    best: dict[str, tuple[float, str]] = {}
    for place, answer, policy in sorted(judged, key=lambda one: one[0]):
        if answer in best:
            lost += ("answer equal to another",)
        else:
            best[answer] = (place, policy)
    order = {place: rank for rank, place in enumerate(sorted({p for p, _ in best.values()}), 1)}
    ranks = tuple(order[place] for place, _ in best.values())
    policies = tuple(policy for _, policy in best.values())
    return Item(
        prompt,
        tuple(best),
        ranks=ranks if len(order) < len(best) else (),
        policies=policies if any(policies) or len(best) == 1 else (),
        lost=lost,
        **others,
    )


def compared(prompt: str, chosen: str, rejected: str, **others: Any) -> Item:
    """The item of a chosen and a rejected answer."""
    chosen, rejected = chosen.strip(), rejected.strip()
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise InstilError(f"{name}: the answer is empty")
    if chosen == rejected:
        raise InstilError("rejected: is the same as chosen; leave the row out")
    return Item(prompt, (chosen, rejected), **others)


def text_of(row: Row, name: str, where: str = "") -> str:
    """A field that must be a text and not blank; `where` is the way to the row in its line."""
    value = row.get(name)
    if value is None:
        raise InstilError(f"{where}{name}: missing")
    if not isinstance(value, str):
        raise InstilError(f"{where}{name}: got {value!r:.40}, expected text")
    if not value.strip():
        raise InstilError(f"{where}{name}: is empty")
    return value


def optional_text(row: Row, name: str, where: str = "") -> str:
    """A field that may be missing, null or blank, and else must be a text."""
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InstilError(f"{where}{name}: got {value!r:.40}, expected text")
    return value


def rows_of(row: Row, name: str, where: str = "") -> list[Row]:
    """A field that must be a list of objects; missing and null are the empty list."""
    value = row.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InstilError(f"{where}{name}: got {value!r:.40}, expected a list of objects")
    for number, one in enumerate(value):
        if not isinstance(one, dict):
            raise InstilError(f"{where}{name}[{number}]: got {one!r:.40}, expected an object")
    return value


def number_of(row: Row, name: str, where: str = "") -> float:
    """A field that must be a number, also one written as text (in a CSV file)."""
    value = row.get(name)
    if value is None or value == "":
        raise InstilError(f"{where}{name}: missing")
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise InstilError(f"{where}{name}: got {value!r:.40}, expected a number")
    return number


def unread(row: Row, known: Iterable[str], where: str = "") -> tuple[str, ...]:
    """The fields that hold something and are not `known`."""
    empty: tuple[Any, ...] = (None, "", [], {})
    return tuple(f"{where}{name}" for name in row if name not in known and row[name] not in empty)
