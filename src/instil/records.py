"""The nouns that the wings hand each other, one JSON object a line on disk.

Every record is frozen and checks itself when it is made, so a record that exists is right. Each
line names its schema (`"schema": "instil.ranking/1"`), so a file of one kind is never read as
another. What may change over time lives elsewhere: `jsonl.py` reads and writes, `labeling` stores.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from instil.errors import InstilError

Split = Literal["", "train", "valid", "test"]
Group = Literal["training", "held-out", "simulated", "ai"]

USE_CASES = (
    "generation",
    "open_qa",
    "brainstorming",
    "chat",
    "rewrite",
    "summarization",
    "classification",
    "other",
    "closed_qa",
    "extract",
)
"""The ten use cases of Ouyang et al. 2022, Table 1, most frequent first."""

FLAGS = (
    "fails_task",
    "inappropriate",
    "hallucination",
    "breaks_constraint",
    "sexual",
    "violent",
    "encourages_harm",
    "denigrates",
    "harmful_advice",
    "opinion",
    "moral_judgment",
    "false",
    "rude",
    "needless_refusal",
)
"""The binary metadata of Ouyang et al. 2022, Table 3, and three that the embedded world checks."""

PROMPT_FLAGS = (
    "ambiguous",
    "sensitive",
    "identity_dependent",
    "closed_domain",
    "continuation",
    "opinion",
    "advice",
    "moral_judgment",
    "safety_constraints",
    "other_constraints",
    "unclear_intent",
)
"""What labelers say of a prompt (Ouyang et al. 2022, Table 7, and two of its instructions)."""

Kind = Literal["prompt", "annotation", "demonstration", "ranking", "toxicity"]
Purpose = Literal["training", "evaluation", "screening", "gold"]
Status = Literal["accepted", "surplus", "gold", "repeat", "screening", "key", "skipped"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all records share: immutable, keyword-only, unknown fields are errors."""


class Prompt(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.prompt/1"):
    """What a user asked. `user_id` is the key of caps and splits (a user or an organisation)."""

    id: str
    text: str
    source: str = "api"
    user_id: str = ""
    use_case: str = ""
    split: Split = ""
    meta: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.id or not self.text.strip():
            raise InstilError(f'prompt {self.id!r}: "id" and "text" must not be empty')
        if self.split not in get_args(Split):
            raise InstilError(f"prompt {self.id}: split {self.split!r} is not train, valid or test")
        if self.use_case and self.use_case not in USE_CASES:
            raise InstilError(
                f"prompt {self.id}: use_case {self.use_case!r} is not one of {', '.join(USE_CASES)}"
            )


class Response(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.response/1"):
    """What a policy answered. `policy`, the run that wrote it, is never shown to labelers."""

    id: str
    prompt_id: str
    text: str
    policy: str = ""
    sampling: dict[str, Any] = {}


class Demonstration(
    Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.demonstration/1"
):
    """A labeler's own answer to a prompt."""

    prompt_id: str
    labeler_id: str
    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InstilError(
                f"demonstration of prompt {self.prompt_id} by {self.labeler_id}: the text is "
                "empty; a labeler who cannot answer skips the prompt"
            )


class Rating(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.rating/1"):
    """One labeler's Likert score (1 worst, 7 best) and Table-3 flags for one response."""

    response_id: str
    labeler_id: str
    overall: int
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.overall <= 7:
            raise InstilError(
                f"rating of {self.response_id} by {self.labeler_id}: "
                f"overall {self.overall} is not 1 to 7"
            )
        if unknown := set(self.flags) - set(FLAGS):
            raise InstilError(
                f"rating of {self.response_id} by {self.labeler_id}: "
                f"unknown flags {sorted(unknown)}; known: {', '.join(FLAGS)}"
            )


class Ranking(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.ranking/1"):
    """One labeler's order of the responses to one prompt: groups of response ids, best first.

    Responses in one group are tied.
    """

    prompt_id: str
    labeler_id: str
    tiers: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        where = f"ranking of prompt {self.prompt_id} by {self.labeler_id}"
        ids = self.response_ids()
        if len(ids) < 2:
            raise InstilError(f"{where}: {len(ids)} responses; a ranking needs at least 2")
        if not all(self.tiers):
            raise InstilError(f"{where}: tier {self.tiers.index(()) + 1} is empty; leave it out")
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            raise InstilError(f"{where}: responses ranked twice: {', '.join(twice)}")

    def response_ids(self) -> list[str]:
        """All ranked responses, best first; the order within a tie is arbitrary."""
        return [response_id for tier in self.tiers for response_id in tier]

    def ranks(self) -> dict[str, int]:
        """Response id -> rank, 1 for the best; tied responses share a rank."""
        return {r: rank for rank, tier in enumerate(self.tiers, start=1) for r in tier}

    def pairs(self) -> list[tuple[str, str]]:
        """Every (better, worse) pair that the ranking implies; a tie implies none."""
        return [
            (better, worse)
            for place, tier in enumerate(self.tiers)
            for better in tier
            for lower in self.tiers[place + 1 :]
            for worse in lower
        ]


class Annotation(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.annotation/1"):
    """What one labeler says of a prompt: its use case and its flags of Table 7."""

    prompt_id: str
    labeler_id: str
    use_case: str
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"annotation of prompt {self.prompt_id} by {self.labeler_id}"
        if self.use_case not in USE_CASES:
            raise InstilError(
                f"{where}: use_case {self.use_case!r} is not one of {', '.join(USE_CASES)}"
            )
        if unknown := set(self.flags) - set(PROMPT_FLAGS):
            raise InstilError(
                f"{where}: unknown flags {sorted(unknown)}; known: {', '.join(PROMPT_FLAGS)}"
            )


class ToxicityRating(
    Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.toxicity/1"
):
    """One labeler's answers on how toxic a response is (Ouyang et al. 2022, appendix)."""

    response_id: str
    labeler_id: str
    input_toxicity: int
    """Of the prompt: 0 not, 1 somewhat, 2 very."""
    output_toxicity: int
    """Of the response: 0 not, 1 somewhat, 2 very."""
    relative_toxicity: int
    """Against the prompt's: -1 less, 0 alike, 1 more."""
    continuity: int
    """How natural a continuation it is: 1 worst, 7 best."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("input_toxicity", 0, 2),
            ("output_toxicity", 0, 2),
            ("relative_toxicity", -1, 1),
            ("continuity", 1, 7),
        ):
            if not low <= (value := getattr(self, name)) <= high:
                raise InstilError(
                    f"toxicity of {self.response_id} by {self.labeler_id}: "
                    f"{name} {value} is not {low} to {high}"
                )


class Label(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.label/1"):
    """One revision of one labeler's work as it was stored, and how it came about."""

    id: str
    assignment_id: str
    kind: Kind
    purpose: Purpose
    status: Status
    labeler_id: str
    pool: str
    prompt_id: str
    revision: int
    order: tuple[str, ...]
    """Response ids as they stood on the screen, the first in front."""
    guideline: str
    active_ms: int
    """Milliseconds with the page in sight and something done in the last minute."""
    elapsed_ms: int
    submitted_at: int
    """Milliseconds since 1970, UTC."""
    payload: dict[str, Any]
    """The records that came of it, or the reason of a skip."""


class Labeler(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.labeler/1"):
    """Who labels. Rankings of `held-out` labelers never enter training."""

    id: str
    name: str = ""
    group: Group = "training"


class Text(Record, frozen=True, kw_only=True, tag_field="schema", tag="instil.text/1"):
    """One document of pretraining text."""

    text: str
    source: str = ""
