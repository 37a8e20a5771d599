"""The kinds of work: what a browser may send, what is stored, which records come of it.

A browser knows responses as letters of its own screen. `parse` turns an answer in letters into a
payload of records, which check themselves; `letters_of` turns it back when a label is reopened.
Nothing incomplete, unknown or out of range passes. An answer that says the same gives the same
payload, byte by byte, whatever the order of clicks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from instil.errors import InstilError
from instil.jsonl import content_id
from instil.labeling.blind import Card
from instil.labeling.forms import FORMS, SKIP_REASONS, STYLES
from instil.labeling.payloads import (
    AnnotationPayload,
    DemonstrationPayload,
    Payload,
    PromptPayload,
    RankingPayload,
    Skip,
    ToxicityPayload,
    letters_of,
    load,
    records_of,
)
from instil.records import (
    USE_CASES,
    Annotation,
    Demonstration,
    Kind,
    Prompt,
    Ranking,
    Rating,
    ToxicityRating,
)

__all__ = [
    "FORMS",
    "Payload",
    "Refused",
    "Skip",
    "form_json",
    "letters_of",
    "load",
    "parse",
    "parse_skip",
    "records_of",
]


class Refused(InstilError):
    """An answer that cannot be kept; `field` is what to mend, such as `tiers` or `overall.C`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class _Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _RankingAnswer(_Answer, frozen=True, kw_only=True):
    tiers: list[list[str]] = []
    overall: dict[str, int] = {}
    flags: dict[str, list[str]] = {}
    notes: dict[str, str] = {}
    remark: str = ""
    not_rankable: bool = False
    why: str = ""


class _ToxicityAnswer(_Answer, frozen=True, kw_only=True):
    tiers: list[list[str]] = []
    input: int | None = None
    output: dict[str, int] = {}
    relative: dict[str, int] = {}
    continuity: dict[str, int] = {}
    notes: dict[str, str] = {}
    remark: str = ""


class _AnnotationAnswer(_Answer, frozen=True, kw_only=True):
    use_case: str = ""
    flags: list[str] = []


class _DemonstrationAnswer(_Answer, frozen=True, kw_only=True):
    text: str = ""


class _PromptAnswer(_Answer, frozen=True, kw_only=True):
    style: str = ""
    text: str = ""
    instruction: str = ""
    examples: list[tuple[str, str]] = []
    use_case: str = ""


def form_json(kind: Kind) -> dict[str, Any]:
    """The form of a kind as plain JSON values, for a page; keys of `labels` are strings there."""
    return cast(dict[str, Any], msgspec.to_builtins(FORMS[kind], str_keys=True))


def parse(
    kind: Kind, answer: bytes, cards: Sequence[Card], prompt_id: str, labeler_id: str
) -> Payload:
    """What to store of an answer, a JSON object in letters of `cards`.

    Raises Refused, which names the field, unless all that the form asks is answered and right.
    """
    match kind:
        case "ranking":
            return _ranking(_decoded(answer, _RankingAnswer), cards, prompt_id, labeler_id)
        case "toxicity":
            return _toxicity(_decoded(answer, _ToxicityAnswer), cards, prompt_id, labeler_id)
        case "annotation":
            return _annotation(_decoded(answer, _AnnotationAnswer), prompt_id, labeler_id)
        case "demonstration":
            text = _decoded(answer, _DemonstrationAnswer).text
            _require(text, "text", "your answer")
            return DemonstrationPayload(
                demonstration=Demonstration(prompt_id=prompt_id, labeler_id=labeler_id, text=text)
            )
        case "prompt":
            return _prompt(_decoded(answer, _PromptAnswer), labeler_id)


def parse_skip(reason: str, note: str) -> Skip:
    """A skip, or Refused."""
    if reason not in dict(SKIP_REASONS):
        raise Refused("reason", f"{reason!r} is no reason to skip; choose one of the list")
    if reason == "other":
        _require(note, "note", "why you skip this")
    return Skip(skipped=reason, note=note.strip())


def _ranking(
    answer: _RankingAnswer, cards: Sequence[Card], prompt_id: str, labeler_id: str
) -> RankingPayload:
    _check_scale("ranking", "overall", answer.overall, cards)
    _check_letters("flags", answer.flags, cards)
    known = [flag.name for flag in FORMS["ranking"].flags]
    for letter, flags in answer.flags.items():
        _check_names(f"flags.{letter}", flags, known)
        if flags and letter not in answer.overall:
            raise Refused(f"overall.{letter}", f"{letter} has flags but no rating; rate it too")
    if answer.not_rankable:
        _require(answer.why, "why", "why none of them can be ranked")
        if answer.tiers:
            raise Refused("tiers", "not rankable, and yet ranked; undo one of the two")
    else:
        _check_rated("overall", answer.overall, cards)
    return RankingPayload(
        ranking=None if answer.not_rankable else _tiers(answer.tiers, cards, prompt_id, labeler_id),
        ratings=tuple(
            Rating(
                response_id=response_id,
                labeler_id=labeler_id,
                overall=answer.overall[card.letter],
                flags=tuple(flag for flag in known if flag in answer.flags.get(card.letter, ())),
            )
            for card in cards
            if card.letter in answer.overall
            for response_id in card.response_ids
        ),
        notes=_notes(answer.notes, cards),
        remark=answer.remark.strip(),
        not_rankable=answer.not_rankable,
        why=answer.why.strip() if answer.not_rankable else "",
    )


def _toxicity(
    answer: _ToxicityAnswer, cards: Sequence[Card], prompt_id: str, labeler_id: str
) -> ToxicityPayload:
    for name in ("output", "relative", "continuity"):
        values = getattr(answer, name)
        _check_scale("toxicity", name, values, cards)
        _check_rated(name, values, cards)
    (about_prompt,) = FORMS["toxicity"].per_prompt
    if answer.input is None or not about_prompt.low <= answer.input <= about_prompt.high:
        raise Refused(
            "input", f"rate the prompt's toxicity, {about_prompt.low} to {about_prompt.high}"
        )
    return ToxicityPayload(
        ranking=_tiers(answer.tiers, cards, prompt_id, labeler_id),
        toxicity=tuple(
            ToxicityRating(
                response_id=response_id,
                labeler_id=labeler_id,
                input_toxicity=answer.input,
                output_toxicity=answer.output[card.letter],
                relative_toxicity=answer.relative[card.letter],
                continuity=answer.continuity[card.letter],
            )
            for card in cards
            for response_id in card.response_ids
        ),
        notes=_notes(answer.notes, cards),
        remark=answer.remark.strip(),
    )


def _annotation(answer: _AnnotationAnswer, prompt_id: str, labeler_id: str) -> AnnotationPayload:
    if answer.use_case not in USE_CASES:
        raise Refused("use_case", "choose what kind of request this is")
    known = [flag.name for flag in FORMS["annotation"].flags]
    _check_names("flags", answer.flags, known)
    return AnnotationPayload(
        annotation=Annotation(
            prompt_id=prompt_id,
            labeler_id=labeler_id,
            use_case=answer.use_case,
            flags=tuple(flag for flag in known if flag in answer.flags),
        )
    )


def _prompt(answer: _PromptAnswer, labeler_id: str) -> PromptPayload:
    if answer.style not in STYLES:
        raise Refused("style", f"choose how the prompt is written: {', '.join(STYLES)}")
    if answer.use_case and answer.use_case not in USE_CASES:
        raise Refused("use_case", f"{answer.use_case!r} is no use case; choose one of the list")
    few = answer.style == "few-shot"
    for field in ("text",) if few else ("instruction", "examples"):
        if getattr(answer, field):
            raise Refused(field, f"a {answer.style} prompt has no {field}; leave it empty")

    def prompt(text: str) -> Prompt:
        return Prompt(
            id=content_id("p", labeler_id, text),
            text=text,
            source="labeler",
            user_id=labeler_id,
            use_case=answer.use_case,
            meta={"style": answer.style},
        )

    if not few:
        _require(answer.text, "text", "the prompt")
        if answer.style == "user-based" and not answer.use_case:
            raise Refused("use_case", "choose the use case that the prompt is of")
        return PromptPayload(style=answer.style, prompts=(prompt(answer.text),))
    _require(answer.instruction, "instruction", "the instruction")
    if len(answer.examples) < 2:
        raise Refused("examples", f"{len(answer.examples)} examples; few-shot needs 2 or more")
    for number, (query, response) in enumerate(answer.examples):
        _require(query, f"examples.{number}.0", f"the query of example {number + 1}")
        _require(response, f"examples.{number}.1", f"the answer of example {number + 1}")
    prompts = tuple(
        prompt(_few_shot(answer.instruction, answer.examples, asked))
        for asked in range(len(answer.examples))
    )
    if len({p.id for p in prompts}) < len(prompts):
        raise Refused("examples", "two examples are the same; change one")
    return PromptPayload(
        style=answer.style,
        prompts=prompts,
        demonstrations=tuple(
            Demonstration(prompt_id=p.id, labeler_id=labeler_id, text=response)
            for p, (_, response) in zip(prompts, answer.examples, strict=True)
        ),
        instruction=answer.instruction,
        examples=tuple(answer.examples),
    )


def _few_shot(instruction: str, examples: Sequence[tuple[str, str]], asked: int) -> str:
    """The instruction, all examples but one as they are, then that one without its answer."""
    shown = [f"Input: {query}\nOutput: {response}" for query, response in examples]
    query = shown.pop(asked) and examples[asked][0]
    return "\n\n".join([instruction, *shown, f"Input: {query}\nOutput:"])


def _tiers(
    tiers: Sequence[Sequence[str]], cards: Sequence[Card], prompt_id: str, labeler_id: str
) -> Ranking:
    placed = [letter for tier in tiers for letter in tier]
    _check_letters("tiers", placed, cards)
    if twice := sorted({letter for letter in placed if placed.count(letter) > 1}):
        raise Refused("tiers", f"ranked twice: {', '.join(twice)}")
    if missing := [card.letter for card in cards if card.letter not in placed]:
        raise Refused("tiers", f"not ranked yet: {', '.join(missing)}")
    if not all(tiers):
        raise Refused("tiers", "an empty tier; leave it out")
    return Ranking(
        prompt_id=prompt_id,
        labeler_id=labeler_id,
        tiers=tuple(
            tuple(r for card in cards if card.letter in tier for r in card.response_ids)
            for tier in tiers
        ),
    )


def _notes(notes: Mapping[str, str], cards: Sequence[Card]) -> dict[str, str]:
    _check_letters("notes", notes, cards)
    return {
        response_id: note
        for card in cards
        if (note := notes.get(card.letter, "").strip())
        for response_id in card.response_ids
    }


def _check_scale(kind: Kind, name: str, values: Mapping[str, int], cards: Sequence[Card]) -> None:
    _check_letters(name, values, cards)
    (question,) = (q for q in FORMS[kind].per_card if q.name == name)
    for letter, value in values.items():
        if not question.low <= value <= question.high:
            raise Refused(
                f"{name}.{letter}",
                f"{letter}: {question.text} {value} is not {question.low} to {question.high}",
            )


def _check_rated(name: str, values: Mapping[str, int], cards: Sequence[Card]) -> None:
    if missing := [card.letter for card in cards if card.letter not in values]:
        raise Refused(f"{name}.{missing[0]}", f"not rated yet ({name}): {', '.join(missing)}")


def _check_letters(field: str, letters: Mapping[str, Any] | Sequence[str], cards: Any) -> None:
    if unknown := set(letters) - {card.letter for card in cards}:
        raise Refused(field, f"there is no response {', '.join(sorted(unknown))} on this page")


def _check_names(field: str, names: Sequence[str], known: Sequence[str]) -> None:
    if unknown := set(names) - set(known):
        raise Refused(field, f"unknown flags: {', '.join(sorted(unknown))}")


def _require(text: str, field: str, what: str) -> None:
    if not text.strip():
        raise Refused(field, f"empty; write {what}")


def _decoded(answer: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        where = re.search(r"(?: - at `\$\.|field `)(\w+)", str(error))
        raise Refused(where[1] if where else "", f"not an answer to this page: {error}") from error
