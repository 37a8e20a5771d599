"""What several of the lead's pages say alike."""

from __future__ import annotations

import sqlalchemy as sa

from instil.labeling import schema
from instil.labeling.web.route import LEADS, Seen

WORK = {
    "ranking": "Ranking",
    "demonstration": "Demonstrations",
    "prompt": "Writing prompts",
    "annotation": "Annotating prompts",
    "toxicity": "Toxicity",
}
"""The kinds of work, as leads read them."""
PURPOSES = {
    "training": "Training",
    "evaluation": "Evaluation",
    "gold": "Gold: leads give the key",
    "screening": "Screening of candidates",
}


def names_of(seen: Seen, connection: sa.Connection) -> dict[str, str]:
    """Account id -> what this reader may call that person: viewers are told ids."""
    labeler = schema.labeler
    rows = connection.execute(sa.select(labeler.c.id, labeler.c.name))
    leads = seen.account.role in LEADS
    return {person: name if leads else person for person, name in rows}
