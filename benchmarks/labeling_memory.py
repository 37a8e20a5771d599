"""How much memory the labeling server takes once its leads have opened every page of figures.

    python -m benchmarks.labeling_memory                             # 5,000 labels of 7 outputs
    python -m benchmarks.labeling_memory --labels 16000 --outputs 4

Half of the labels rank responses for training, two labelers a prompt; half compare four policies,
one training and one held-out labeler a prompt. Prints what the server holds at its start, after
each page, and the most that it ever held.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from pathlib import Path

from benchmarks.labeling import PASSWORD, Client, serving
from instil.jsonl import write_records
from instil.labeling import assign, batches, labels, people
from instil.labeling.accounts import Account, Pool
from instil.labeling.database import Database
from instil.labeling.people import Session
from instil.labeling.planning import Plan
from instil.records import USE_CASES, Prompt, Purpose, Response

WORDS = 60
LABELERS: dict[Pool, int] = {"training": 8, "held-out": 4}
PURPOSES: tuple[Purpose, ...] = ("training", "evaluation")
FLAGS = ("fails_task", "hallucination")


def main() -> None:
    """Fill a store, serve it, open every page of figures three times."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--labels", type=int, default=5000)
    flags.add_argument("--outputs", type=int, default=7, help="responses to each prompt")
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.db"
        session, pages = fill(path, args.labels, args.outputs)
        with serving(path) as (url, pid):
            print(f"{resident(pid, 'VmRSS'):4} MiB at the start")
            client = Client(url, session)
            for turn in range(3):
                for page in pages:
                    started = time.perf_counter()
                    response, _ = client.ask("GET", page)
                    assert response.status == 200, (page, response.status)
                    took = time.perf_counter() - started
                    if turn == 0:
                        print(f"{resident(pid, 'VmRSS'):4} MiB after {page}, {took:.1f} s")
            print(f"{resident(pid, 'VmHWM'):4} MiB at most, each page opened three times")


def resident(pid: int, name: str) -> int:
    """A line of /proc/PID/status, in MiB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) // 1024


def fill(path: Path, count: int, outputs: int) -> tuple[Session, list[str]]:
    """A store with `count` labels; the session of its administrator, and the pages of figures."""
    database = Database(path)
    database.migrate()
    token = people.set_up_link(database)
    assert token is not None
    admin = people.accept(database, token, "admin", PASSWORD)
    labelers = {
        pool: [person(database, admin, pool, number) for number in range(many)]
        for pool, many in LABELERS.items()
    }
    rng = random.Random(0)
    words = ["".join(rng.choices("aeiounrst", k=rng.randint(2, 9))) for _ in range(4000)]
    asked, answers = path.with_name("prompts.jsonl"), path.with_name("responses.jsonl")
    for purpose in PURPOSES:
        ids = [f"{purpose}-{number}" for number in range(count // 4)]
        write_records(
            asked,
            (
                Prompt(
                    id=i,
                    text=f"Question {i}?",
                    user_id=i,
                    use_case=rng.choice(USE_CASES),
                    split="train" if purpose == "training" else "test",
                )
                for i in ids
            ),
        )
        write_records(
            answers,
            (
                Response(
                    id=f"r-{i}-{place}",
                    prompt_id=i,
                    text=" ".join(rng.choices(words, k=WORDS)),
                    policy=f"policy {place % 4}",
                )
                for i in ids
                for place in range(outputs)
            ),
        )
        plan = Plan(
            name=purpose,
            kind="ranking",
            purpose=purpose,
            quota_training=2 if purpose == "training" else 1,
            quota_held_out=int(purpose == "evaluation"),
            baseline="policy 0" if purpose == "evaluation" else "",
        )
        batches.create(database, admin, plan, asked, [answers])
        people_of = [*labelers["training"], *(labelers["held-out"] * (purpose == "evaluation"))]
        while people_of:
            people_of = [one for one in people_of if work(database, one, rng)]
    with database.read() as connection:
        made = connection.exec_driver_sql("SELECT id FROM batch").scalars().all()
        print(connection.exec_driver_sql("SELECT count(*) FROM label").scalar_one(), "labels")
    session = people.begin(database, admin.id)
    database.close()
    pages = [f"/lead/evaluations/{batch}" for batch in made]
    pages += ["/lead/quality", *(f"/lead/quality?purpose={p}" for p in ("training", "evaluation"))]
    return session, [*pages, "/lead/screening", "/lead/labelers"]


def person(database: Database, admin: Account, pool: Pool, number: int) -> Account:
    token = people.invite(database, admin, "labeler", pool, ["ranking"])
    return people.accept(database, token, f"{pool} {number}", PASSWORD)


def work(database: Database, account: Account, rng: random.Random) -> bool:
    """One label; False if there is nothing left to do."""
    held = assign.claim(database, account, "ranking")
    if held is None:
        return False
    letters = [card.letter for card in assign.work(database, held).cards]
    overall = {letter: rng.randint(1, 7) for letter in letters}
    tiers = [[at for at in letters if overall[at] == score] for score in range(7, 0, -1)]
    flags = {at: [f for f in FLAGS if rng.random() < 0.2] for at in letters}
    answer = {"tiers": [t for t in tiers if t], "overall": overall, "flags": flags}
    labels.submit(database, account, held.id, held.id, 0, json.dumps(answer).encode(), 60_000)
    return True


if __name__ == "__main__":
    main()
