"""A labeling database with one text in every field that a person or a file can fill.

Filled by SQL, past all checks: whatever may once get in, pages must show it as text. Every row is
there once for each of the texts, which have a number, `part`:

  accounts      ROLE-PART for admin, lead, viewer, labeler, candidate
  batches, tasks, guidelines   KIND-PURPOSE-PART
  assignments   KIND-PURPOSE-PART-ROLE: the admin's is begun, the lead's skipped, the others' done
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from instil.labeling import audit, schema, survey
from instil.labeling.database import Database
from instil.records import Kind

KINDS: tuple[Kind, ...] = ("ranking", "toxicity", "demonstration", "annotation", "prompt")
ROLES = ("admin", "lead", "viewer", "labeler")
LABELERS = ("admin", "lead", "labeler")


def fill(db: Database, texts: Sequence[str]) -> None:
    """Put the texts into an empty database."""
    with db.write() as connection:
        for part, text in enumerate(texts):
            _Filling(connection, part, text).fill()


@dataclass
class _Filling:
    connection: sa.Connection
    part: int
    text: str

    def insert(self, table: sa.Table, **values: Any) -> None:
        self.connection.execute(table.insert().values(**values))

    def fill(self) -> None:
        text = self.text
        for role, pool in [*((role, "training") for role in ROLES), ("candidate", "candidate")]:
            self.insert(
                schema.labeler,
                id=f"{role}-{self.part}",
                name=f"{role} {text}",
                name_key=f"{role} {text}",
                password="!",
                role="labeler" if role == "candidate" else role,
                pool=pool,
                kinds=json.dumps(KINDS),
                shortcuts=json.dumps({"compare": text, "letters": text, text: "x"}),
                comfort=json.dumps([text]),
                created_at=1,
            )
        self.insert(
            schema.survey,
            id=f"{self.part}",
            month=text,
            answers=json.dumps({q.name: [text] if q.many else text for q in survey.QUESTIONS}),
        )
        audit.append(self.connection, text, text, text, b"", 1)
        for kind in KINDS:
            self.batch(kind, "training")
        self.batch("demonstration", "screening")
        self.batch("ranking", "evaluation")

    def batch(self, kind: Kind, purpose: str) -> None:
        text, name = self.text, f"{kind}-{purpose}-{self.part}"
        self.insert(
            schema.guideline,
            id=name,
            kind=kind,
            purpose=purpose,
            version=1 + self.part,
            text=text,
            sha256="",
            created_at=1,
        )
        plan = {"name": text.replace("\0", ""), "kind": kind, "purpose": purpose, "baseline": text}
        counts = {"batch_id": name, "tasks": 1, "seats": 1, "left_out": {text: 1}}
        counts["naming"] = [f"{place} {name} {text}" for place in range(3)]
        self.insert(
            schema.batch,
            id=name,
            name=text,
            kind=kind,
            purpose=purpose,
            baseline=f"0 {text}" if kind in ("ranking", "toxicity") else "",
            plan=json.dumps(
                {
                    "plan": plan | {"tasks": int(kind == "prompt")},
                    "counts": counts | {"named_authors": 9, "few": 1},
                }
            ),
            content_hash=name,
            created_at=1,
        )
        prompt = None if kind == "prompt" else f"{name} {text}"
        if prompt:
            asked = text if self.part % 2 else f"{text}\n\nHuman: {text}\n\nAssistant:"
            self.insert(
                schema.prompt,
                id=prompt,
                text=asked,
                source=text,
                user_id=text,
                use_case=text,
                split="train",
                meta=json.dumps({text: text}),
            )
        work = {"kind": kind, "purpose": purpose}
        self.insert(schema.task, id=name, batch_id=name, prompt_id=prompt, **work)
        responses = [f"{place} {prompt}" for place in range(3)]
        if kind in ("ranking", "toxicity"):
            for place, response in enumerate(responses):
                self.insert(
                    schema.response,
                    id=response,
                    prompt_id=prompt,
                    text=f"As GPT-4, I say {place} {text}",
                    policy=f"{place} {text}",
                    sampling=json.dumps({text: text}),
                )
                self.insert(schema.task_response, task_id=name, place=place, response_id=response)
        people = ["candidate"] if purpose == "screening" else LABELERS
        for role in people:
            self.work(name, role, responses, work)
        for author in ("labeler", "lead"):
            self.insert(
                schema.message,
                task_id=name,
                labeler_id=f"labeler-{self.part}",
                author_id=f"{author}-{self.part}",
                flag=True,
                text=text,
                created_at=1,
            )

    def work(self, name: str, role: str, responses: list[str], work: dict[str, Any]) -> None:
        """What one person made of a task: a label of two revisions, or a draft, or a skip."""
        state = {"admin": "held", "lead": "done", "labeler": "done", "candidate": "done"}[role]
        labeler = f"{role}-{self.part}"
        seat = self.connection.execute(
            schema.seat.insert().values(
                task_id=name,
                pool="candidate" if role == "candidate" else "training",
                reason="screening" if role == "candidate" else "quota",
                state=state,
                labeler_id=labeler,
                token=f"{name}-{role}",
                epoch=1,
                expires_at=4_000_000_000_000,
                **work,
            )
        ).inserted_primary_key[0]
        self.insert(
            schema.assignment,
            id=f"{name}-{role}",
            seat_id=seat,
            task_id=name,
            labeler_id=labeler,
            epoch=1,
            display_order="[0,1,2]" if work["kind"] in ("ranking", "toxicity") else "[]",
            guideline_id=name,
            claimed_at=1,
        )
        if state == "held":
            self.insert(
                schema.draft,
                assignment_id=f"{name}-{role}",
                version=1,
                content=json.dumps(draft(work["kind"], self.text.replace("\0", ""))),
                saved_at=1,
            )
            return
        skipped = role == "lead"
        payload = _payload(work["kind"], self.text, responses, labeler, self.part % 2 == 0)
        for revision in (1,) if skipped else (1, 2):
            self.insert(
                schema.label,
                id=f"{name}-{role}-{revision}",
                assignment_id=f"{name}-{role}",
                seat_id=seat,
                task_id=name,
                labeler_id=labeler,
                pool="candidate" if role == "candidate" else "training",
                revision=revision,
                status="skipped" if skipped else "screening" if role == "candidate" else "accepted",
                payload=json.dumps({"skipped": "other", "note": self.text} if skipped else payload),
                idempotency_key=f"{name}-{revision}",
                payload_sha256="",
                active_ms=1,
                elapsed_ms=1,
                created_at=1,
                **work,
            )


def _payload(
    kind: Kind, text: str, responses: list[str], labeler: str, rankable: bool
) -> dict[str, Any]:
    """A stored label with `text` wherever a labeler may write."""
    prompt_id = responses[0].removeprefix("0 ")
    by = {"labeler_id": labeler}
    said = {"notes": dict.fromkeys(responses, text), "remark": text}
    ranking = {"schema": "instil.ranking/1", "prompt_id": prompt_id, **by}
    ranking["tiers"] = [[response] for response in responses]  # type: ignore[assignment]
    match kind:
        case "ranking":
            rating = {"schema": "instil.rating/1", "overall": 4, "flags": ["hallucination"], **by}
            ratings = [{**rating, "response_id": response} for response in responses]
            why = {"not_rankable": not rankable, "why": "" if rankable else text}
            return {"ranking": ranking if rankable else None, "ratings": ratings, **said, **why}
        case "toxicity":
            numbers = {
                **{"input_toxicity": 1, "output_toxicity": 1},
                **{"relative_toxicity": 0, "continuity": 4},
            }
            rating = {"schema": "instil.toxicity/1", **numbers, **by}
            rated = [{**rating, "response_id": response} for response in responses]
            return {"ranking": ranking, "toxicity": rated, **said}
        case "demonstration":
            made = {"schema": "instil.demonstration/1", "prompt_id": prompt_id, "text": text}
            return {"demonstration": made | by}
        case "annotation":
            made = {"schema": "instil.annotation/1", "prompt_id": prompt_id, "use_case": "chat"}
            return {"annotation": made | by}
        case "prompt":
            prompts = [
                {"schema": "instil.prompt/1", "id": f"{number}", "text": text}
                for number in range(2)
            ]
            pairs = [[text, text], [text, text]]
            return {
                "style": "few-shot",
                "prompts": prompts,
                "instruction": text,
                "examples": pairs,
            }


def draft(kind: Kind, text: str) -> dict[str, Any]:
    """What a page may have kept before."""
    if kind in ("ranking", "toxicity"):
        names = ["overall"] if kind == "ranking" else ["output", "relative", "continuity"]
        state: dict[str, Any] = {
            **{"focus": "A", "question": 0, "scores": {name: {} for name in names}, "prompt": {}},
            **{"flags": {}, "tiers": [["A"]], "pinned": ["A"], "notes": {"A": text}},
            **{"remark": text, "notRankable": kind == "ranking", "why": text},
        }
    else:
        state = {
            **{"style": "few-shot", "text": text, "instruction": text, "use_case": text},
            **{"examples": [[text, text], [text, text]], "flags": [text]},
        }
    return {"state": state, "active_ms": 1}
