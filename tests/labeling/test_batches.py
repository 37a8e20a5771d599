from __future__ import annotations

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from instil.errors import InstilError
from instil.jsonl import write_records
from instil.labeling import audit, batches, planning, schema
from instil.labeling.batches import Plan, Seats
from instil.records import Demonstration, Prompt, Response

RANKING = Plan(name="round 1", kind="ranking")


@pytest.fixture
def files(tmp_path):
    """Six prompts of split train with 4 to 9 responses, the odd ones by another policy."""
    prompts = [Prompt(id=f"p{i}", text=f"Say {i}.", split="train", meta={"b": i}) for i in range(6)]
    write_records(tmp_path / "prompts.jsonl", prompts)
    for policy in (0, 1):
        responses = [
            Response(id=f"r{i}-{n}", prompt_id=f"p{i}", text=f"{i}, {n}.", policy=f"m{policy}")
            for i in range(6)
            for n in range(policy, 4 + i, 2)
        ]
        write_records(tmp_path / f"m{policy}.jsonl", responses)
    return tmp_path / "prompts.jsonl", [tmp_path / "m0.jsonl", tmp_path / "m1.jsonl"]


def count(db, table):
    with db.read() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def everything(db):
    return {table.name: count(db, table) for table in schema.metadata.sorted_tables}


def test_a_batch_is_tasks_seats_and_what_they_show(store, files):
    plan = Plan(name="round 1", kind="ranking", quota_training=2, priority=3)
    counts = batches.create(store.db, store["lead"], plan, *files)
    assert (counts.tasks, counts.seats, counts.left_out, counts.few) == (6, 12, {}, 0)
    with store.db.read() as connection:
        (batch,) = connection.execute(sa.select(schema.batch)).all()
        seats = connection.execute(sa.select(schema.seat)).all()
        shown = connection.execute(
            sa.select(
                schema.task.c.prompt_id, schema.response.c.prompt_id, schema.response.c.policy
            )
            .select_from(schema.task_response)
            .join(schema.task, schema.task.c.id == schema.task_response.c.task_id)
            .join(schema.response, schema.response.c.id == schema.task_response.c.response_id)
        ).all()
        prompt = connection.execute(sa.select(schema.prompt).order_by("id").limit(1)).one()
        (event,) = audit.newest(connection)
    assert (batch.id, batch.name, batch.state, batch.created_by) == (
        counts.batch_id,
        "round 1",
        "open",
        "l-lead",
    )
    assert {(s.pool, s.reason, s.state, s.priority) for s in seats} == {
        ("training", "quota", "free", 3)
    }
    assert len(shown) == 4 + 5 + 6 + 7 + 8 + 9
    assert all(asked == answered for asked, answered, _ in shown)
    assert {policy for *_, policy in shown} == {"m0", "m1"}
    assert (prompt.id, prompt.text, prompt.meta) == ("p0", "Say 0.", '{"b":0}')
    assert (event.actor_id, event.action, event.object_id) == (
        "l-lead",
        "batch.create",
        counts.batch_id,
    )


def test_the_same_batch_is_made_once(store, files):
    first = batches.create(store.db, store["lead"], RANKING, *files)
    before = everything(store.db)
    with pytest.raises(InstilError, match=f"batch 'round 1' .{first.batch_id}. has these very"):
        batches.create(store.db, store["lead"], Plan(name="again", kind="ranking"), *files)
    assert everything(store.db) == before


def test_of_batches_made_at_the_same_time_one_is_made(store, files):
    made, refused = [], []

    def make():
        try:
            made.append(batches.create(store.db, store["lead"], RANKING, *files))
        except InstilError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and all("has these very tasks already" in text for text in refused)
    assert len(refused) == 3 and count(store.db, schema.task) == 6


@pytest.mark.parametrize("bad", ["text", "policy", "sampling"])
def test_what_the_database_has_is_not_changed_by_a_batch(store, files, bad):
    batches.create(store.db, store["lead"], RANKING, *files)
    before = everything(store.db)
    new = {"text": "other", "policy": "other", "sampling": {"seed": 1}}
    response = {"id": "r0-0", "prompt_id": "p0", "text": "0, 0.", "policy": "m0"} | {bad: new[bad]}
    lines = [line for line in files[1][0].read_text().splitlines() if '"r0-0"' not in line]
    write_records(files[1][0], [Response(**response)])
    with files[1][0].open("a") as file:
        file.write("\n".join(lines))
    plan = Plan(name="2", kind="ranking", quota_training=2)
    with pytest.raises(InstilError, match=f"response r0-0: the database has it with another {bad}"):
        batches.create(store.db, store["lead"], plan, *files)
    assert everything(store.db) == before


def test_a_bad_line_leaves_nothing(store, files):
    before = everything(store.db)
    with files[1][1].open("a") as file:
        file.write('{"schema": "instil.response/1", "id": 3}')
    with pytest.raises(InstilError, match=re.escape(f"{files[1][1]}:")):
        batches.create(store.db, store["lead"], RANKING, *files)
    assert everything(store.db) == before


def test_prompts_of_one_batch_serve_another(store, files):
    batches.create(store.db, store["lead"], RANKING, *files)
    plan = Plan(name="d", kind="demonstration")
    assert batches.create(store.db, store["lead"], plan, files[0]).tasks == 6
    assert count(store.db, schema.prompt) == 6 and count(store.db, schema.task) == 12


def test_prompts_to_be_written_are_tasks_without_a_prompt(store):
    plan = Plan(name="write", kind="prompt", tasks=5)
    assert batches.create(store.db, store["lead"], plan, None).seats == 5
    with pytest.raises(InstilError, match="has these very tasks"):
        batches.create(store.db, store["lead"], plan, None)
    again = Plan(name="write more", kind="prompt", tasks=5)
    assert batches.create(store.db, store["lead"], again, None).tasks == 5


@pytest.mark.parametrize("purpose", ["gold", "screening"])
def test_gold_and_screening_have_no_seats_of_their_own(store, files, purpose):
    counts = batches.create(
        store.db, store["lead"], Plan(name="key", kind="ranking", purpose=purpose), *files
    )
    assert (counts.tasks, counts.seats) == (6, 0)


def test_an_evaluation_has_seats_of_both_pools(store, files):
    text = files[0].read_text().replace('"train"', '"test"')
    files[0].write_text(text)
    plan = Plan(name="final", kind="ranking", purpose="evaluation", quota_held_out=2, baseline="m0")
    counts = batches.create(store.db, store["lead"], plan, *files)
    (progress,) = batches.progress(store.db)
    assert counts.seats == 18 and progress.baseline == "m0"
    assert progress.pools == {"held-out": Seats(free=12), "training": Seats(free=6)}


def test_nobody_is_shown_an_own_text(store, files, tmp_path):
    made = [
        Demonstration(prompt_id="p0", labeler_id="l-ann", text="By Ann."),
        Demonstration(prompt_id="p0", labeler_id="l-gone", text="By nobody here."),
    ]
    write_records(tmp_path / "d.jsonl", made)
    batches.create(store.db, None, RANKING, files[0], [*files[1], tmp_path / "d.jsonl"])
    with store.db.read() as connection:
        found = connection.execute(
            sa.select(schema.response.c.text, schema.response.c.author_id).where(
                schema.response.c.policy == "demonstration"
            )
        ).all()
    assert set(found) == {("By Ann.", "l-ann"), ("By nobody here.", None)}


def test_an_export_with_demonstrations_is_taken_again(store, files, tmp_path):
    made = [Demonstration(prompt_id="p0", labeler_id="l-ann", text="By Ann.")]
    write_records(tmp_path / "d.jsonl", made)
    batches.create(store.db, None, RANKING, files[0], [*files[1], tmp_path / "d.jsonl"])
    ((exported, _),) = planning.responses_in(tmp_path / "d.jsonl")
    write_records(tmp_path / "responses.jsonl", [exported])
    plan = Plan(name="again", kind="ranking", quota_training=2)
    batches.create(store.db, None, plan, files[0], [*files[1], tmp_path / "responses.jsonl"])
    with store.db.read() as connection:
        rows = sa.select(schema.response.c.author_id).where(schema.response.c.id == exported.id)
        assert connection.execute(rows).scalars().all() == ["l-ann"]


def test_batches_of_the_same_prompts_in_another_order_do_not_lock_each_other(
    store, tmp_path, monkeypatch
):
    prompts = [Prompt(id=f"p{i}", text=f"Say {i}.") for i in range(2)]
    write_records(tmp_path / "0.jsonl", prompts)
    write_records(tmp_path / "1.jsonl", prompts[::-1])
    both, insert = threading.Barrier(2), batches._insert

    def slow(connection, table, rows):
        insert(connection, table, rows)
        with contextlib.suppress(threading.BrokenBarrierError):  # the other one waits elsewhere
            both.wait(0.3)

    monkeypatch.setattr(batches, "CHUNK", 1)
    monkeypatch.setattr(batches, "_insert", slow)

    def make(number):
        plan = Plan(name="d", kind="demonstration", quota_training=1 + number)
        return batches.create(store.db, None, plan, tmp_path / f"{number}.jsonl").tasks

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(make, range(2))) == [2, 2]


def test_few_responses_and_texts_that_name_their_author_are_counted(store, tmp_path):
    write_records(tmp_path / "p.jsonl", [Prompt(id="p", text="?")])
    texts = ["As ChatGPT I cannot say.", "I am Claude, made by Anthropic.", "Yes."]
    responses = [Response(id=f"r{i}", prompt_id="p", text=t) for i, t in enumerate(texts)]
    write_records(tmp_path / "r.jsonl", responses)
    counts = batches.create(store.db, None, RANKING, tmp_path / "p.jsonl", [tmp_path / "r.jsonl"])
    assert (counts.few, counts.named_authors, counts.naming) == (1, 2, ("r0", "r1"))
    (progress,) = batches.progress(store.db, counts.batch_id)
    assert progress.counts == counts and progress.plan == RANKING


def test_progress_follows_the_work(store, clock):
    tasks = store.batch("ranking", tasks=3, training=2)
    store.batch("annotation")
    seat, task = schema.seat, schema.task
    with store.db.write() as connection:
        ids = connection.execute(
            sa.select(seat.c.id).where(seat.c.kind == "ranking").order_by(seat.c.id)
        ).scalars()
        done, held, over, *_ = ids
        for number, (seat_id, state) in enumerate(
            {done: "done", held: "held", over: "held"}.items()
        ):
            until = clock() + 1000 * (1 if seat_id == held else -1)
            connection.execute(
                seat.update()
                .where(seat.c.id == seat_id)
                .values(
                    state=state,
                    labeler_id="l-ann" if number != 1 else "l-bob",
                    token=f"t{number}",
                    expires_at=until,
                )
            )
        connection.execute(task.update().where(task.c.id == tasks[2]).values(state="retired"))
        connection.execute(
            schema.message.insert(),
            [
                {
                    "task_id": tasks[0],
                    "labeler_id": "l-ann",
                    "author_id": "l-ann",
                    "flag": flag,
                    "text": "?",
                    "created_at": clock(),
                }
                for flag in (True, True, False)
            ],
        )
    found = {progress.kind: progress for progress in batches.progress(store.db)}
    # of six seats one is done, one held, one held for too long, and two are of a retired task
    assert found["ranking"].pools == {"training": Seats(free=2, held=1, done=1)}
    assert found["ranking"].tasks == 3 and found["ranking"].flagged == 1
    assert found["annotation"].pools == {"training": Seats(free=1)}
    assert batches.progress(store.db, "no such batch") == []


def test_a_lead_pauses_and_closes(store):
    store.batch("ranking")
    (progress,) = batches.progress(store.db)
    batches.set_state(store.db, store["lead"], progress.batch_id, "paused")
    assert batches.progress(store.db)[0].state == "paused"
    with pytest.raises(InstilError, match="state 'gone' is one of open, paused, closed"):
        batches.set_state(store.db, store["lead"], progress.batch_id, "gone")
    with pytest.raises(InstilError, match="batch b-x: is not in this database"):
        batches.set_state(store.db, store["lead"], "b-x", "open")
    with store.db.read() as connection:
        assert [event.action for event in audit.newest(connection)] == ["batch.state"]
