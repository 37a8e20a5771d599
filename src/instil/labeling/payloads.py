"""What is stored of a label, the records that it gives, and the way back to a labeler's screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from instil.labeling.blind import Card
from instil.records import (
    Annotation,
    Demonstration,
    Kind,
    Prompt,
    Ranking,
    Rating,
    Record,
    ToxicityRating,
)


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class RankingPayload(_Strict, frozen=True, kw_only=True):
    """Ratings and ranking of one prompt's responses."""

    ranking: Ranking | None
    """None if the responses were called not rankable; `why` then says why."""
    ratings: tuple[Rating, ...]
    notes: dict[str, str] = {}
    """By response id."""
    remark: str = ""
    not_rankable: bool = False
    why: str = ""


class ToxicityPayload(_Strict, frozen=True, kw_only=True):
    """How toxic and natural one prompt's responses are; the ranking prefers the less toxic."""

    ranking: Ranking
    toxicity: tuple[ToxicityRating, ...]
    notes: dict[str, str] = {}
    remark: str = ""


class AnnotationPayload(_Strict, frozen=True, kw_only=True):
    """What a prompt is."""

    annotation: Annotation


class DemonstrationPayload(_Strict, frozen=True, kw_only=True):
    """An answer to a prompt."""

    demonstration: Demonstration


class PromptPayload(_Strict, frozen=True, kw_only=True):
    """Prompts that a labeler wrote; one, or as many as a few-shot prompt has examples."""

    style: str
    prompts: tuple[Prompt, ...]
    demonstrations: tuple[Demonstration, ...] = ()
    instruction: str = ""
    examples: tuple[tuple[str, str], ...] = ()


class Skip(_Strict, frozen=True, kw_only=True):
    """Why there is no label."""

    skipped: str
    note: str = ""


Payload = (
    RankingPayload | ToxicityPayload | AnnotationPayload | DemonstrationPayload | PromptPayload
)

_PAYLOADS: Mapping[Kind, Any] = {
    "prompt": PromptPayload,
    "annotation": AnnotationPayload,
    "demonstration": DemonstrationPayload,
    "ranking": RankingPayload,
    "toxicity": ToxicityPayload,
}


def load(kind: Kind, payload: str | bytes) -> Payload:
    """A stored payload; those of skipped labels are `Skip` and not read here."""
    return cast(Payload, msgspec.json.decode(payload, type=_PAYLOADS[kind]))


def records_of(payload: Payload) -> list[Record]:
    """The records that a label gives, ready for export.

    A ranking gives its Ranking, if it was rankable, and a Rating of each rated response; toxicity
    a Ranking (the less toxic is better) and ToxicityRatings. A few-shot prompt of K pairs gives K
    Prompts, each asking one of the queries with the other K - 1 pairs before it, and K
    Demonstrations, the answers [Ouyang et al. 2022, appendix A.1].
    """
    match payload:
        case RankingPayload():
            return [*([payload.ranking] if payload.ranking else []), *payload.ratings]
        case ToxicityPayload():
            return [payload.ranking, *payload.toxicity]
        case AnnotationPayload():
            return [payload.annotation]
        case DemonstrationPayload():
            return [payload.demonstration]
        case PromptPayload():
            return [*payload.prompts, *payload.demonstrations]


def letters_of(payload: Payload, cards: Sequence[Card]) -> dict[str, Any]:
    """The answer from which `parse` would make this payload, for reopening it."""
    letter = {response_id: card.letter for card in cards for response_id in card.response_ids}
    match payload:
        case RankingPayload():
            return {
                "tiers": _tiers_in_letters(payload.ranking, letter),
                "overall": {letter[r.response_id]: r.overall for r in payload.ratings},
                "flags": {letter[r.response_id]: list(r.flags) for r in payload.ratings if r.flags},
                "notes": {letter[r]: note for r, note in payload.notes.items()},
                "remark": payload.remark,
                "not_rankable": payload.not_rankable,
                "why": payload.why,
            }
        case ToxicityPayload():
            given = {letter[t.response_id]: t for t in payload.toxicity}
            return {
                "tiers": _tiers_in_letters(payload.ranking, letter),
                "input": payload.toxicity[0].input_toxicity,
                "output": {at: t.output_toxicity for at, t in given.items()},
                "relative": {at: t.relative_toxicity for at, t in given.items()},
                "continuity": {at: t.continuity for at, t in given.items()},
                "notes": {letter[r]: note for r, note in payload.notes.items()},
                "remark": payload.remark,
            }
        case AnnotationPayload():
            return {
                "use_case": payload.annotation.use_case,
                "flags": list(payload.annotation.flags),
            }
        case DemonstrationPayload():
            return {"text": payload.demonstration.text}
        case PromptPayload():
            few = payload.style == "few-shot"
            return {
                "style": payload.style,
                "text": "" if few else payload.prompts[0].text,
                "instruction": payload.instruction,
                "examples": [list(pair) for pair in payload.examples],
                "use_case": payload.prompts[0].use_case,
            }


def _tiers_in_letters(ranking: Ranking | None, letter: Mapping[str, str]) -> list[list[str]]:
    tiers = ranking.tiers if ranking else ()
    return [list(dict.fromkeys(letter[r] for r in tier)) for tier in tiers]
