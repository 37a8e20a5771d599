from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from instil import config
from instil.errors import InstilError
from instil.intake import pseudonym
from instil.jsonl import read_records, write_records
from instil.labeling import (
    assign,
    audit,
    batches,
    export,
    guidelines,
    labels,
    past,
    removal,
    schema,
)
from instil.labeling.batches import Plan
from instil.labeling.database import Database
from instil.records import Prompt, Response
from instil.runs import Run

SECRET = "The anchor word is marmalade-4711."


@pytest.fixture
def world(store, tmp_path):
    """Two users' prompts, ranked and demonstrated by two labelers, with all that comes of it."""
    prompts = [
        Prompt(id="p-acme", text=SECRET, user_id="acme", split="train"),
        Prompt(id="p-other", text="What is a river?", user_id="other", split="train"),
    ]
    write_records(tmp_path / "prompts.jsonl", prompts)
    responses = [
        Response(id=f"r-{p.id}-{n}", prompt_id=p.id, text=f"{p.text} {n}", policy=f"m{n}")
        for p in prompts
        for n in range(4)
    ]
    write_records(tmp_path / "responses.jsonl", responses)
    plan = Plan(name="r", kind="ranking", quota_training=2)
    asked = tmp_path / "prompts.jsonl"
    batches.create(store.db, store["lead"], plan, asked, [tmp_path / "responses.jsonl"])
    batches.create(store.db, store["lead"], Plan(name="d", kind="demonstration"), asked)
    for name in ("ann", "bob"):
        while held := assign.claim(store.db, store[name], "ranking"):
            labels.save_draft(store.db, store[name], held.id, 0, b'{"tiers": []}')
            labels.submit(store.db, store[name], held.id, held.id, 0, ranked(), 1000)
    while held := assign.claim(store.db, store["ann"], "demonstration"):
        work = assign.work(store.db, held)
        guidelines.ask(store.db, store["ann"], held.task_id, f"Is it about {work.prompt}")
        answer = json.dumps({"text": f"My answer: {work.prompt}"}).encode()
        kept = labels.submit(store.db, store["ann"], held.id, held.id, 0, answer, 1000)
        with store.db.write() as connection:
            connection.execute(
                schema.score.insert().values(
                    label_id=kept.label_id, lead_id="l-lead", value=6, created_at=1
                )
            )
        content = json.dumps({"text": work.prompt}).encode()
        labels.save_draft(store.db, store["ann"], held.id, 0, content)
    return store


def ranked():
    rated = {"A": 7, "B": 5, "C": 3, "D": 1}
    return json.dumps({"tiers": [["A"], ["B"], ["C"], ["D"]], "overall": rated}).encode()


def dump(db):
    """Every row of every table, as text."""
    with db.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table))))
            for table in schema.metadata.sorted_tables
        }


def test_all_that_hangs_on_a_users_prompts_is_found_and_removed(world):
    before = dump(world.db)
    found = removal.lineage(world.db, ["acme"])
    assert found.prompt_ids == ("p-acme",)
    assert found.rows == {
        "score": 1,
        "draft": 1,
        "label": 3,
        "message": 1,
        "assignment": 3,
        "seat": 3,
        "task_response": 4,
        "task": 2,
        "response": 4,
        "prompt": 1,
    }
    assert dump(world.db) == before  # to look changes nothing
    removal.remove(world.db, "l-admin", found)
    after = dump(world.db)
    for table, rows in found.rows.items():
        assert len(before[table]) - len(after[table]) == rows
        assert set(after[table]) <= set(before[table])
    untouched = set(before) - set(found.rows) - {"audit", "setting"}
    assert all(after[table] == before[table] for table in untouched)
    assert "marmalade" not in str(after)
    assert not any(removal.lineage(world.db, ["acme"]).rows.values())


def test_the_log_keeps_ids_and_stays_whole(world):
    removal.remove(world.db, "l-admin", removal.lineage(world.db, ["acme"]))
    with world.db.read() as connection:
        event = audit.newest(connection)[0]
        assert (event.actor_id, event.action, event.object_id) == (
            "l-admin",
            "remove.prompt",
            "p-acme",
        )
        assert audit.first_bad(connection) is None


def test_work_goes_on_afterwards(world):
    held = assign.find(world.db, world["ann"], next(iter(ids(world, "p-acme"))))
    removal.remove(world.db, "", removal.lineage(world.db, ["acme"]))
    with pytest.raises(assign.NotFound):
        labels.submit(world.db, world["ann"], held.id, "again", 1, ranked(), 1)
    (other,) = {prompt for prompt in ("p-acme", "p-other") if ids(world, prompt)}
    assert other == "p-other"


def ids(store, prompt_id):
    """Assignments of a prompt."""
    with store.db.read() as connection:
        found = sa.select(schema.assignment.c.id).join(schema.task)
        return list(connection.execute(found.where(schema.task.c.prompt_id == prompt_id)).scalars())


def test_no_byte_of_it_is_left_in_the_file(small, tmp_path, clock):
    path = Path(small.db.url.database)
    prompts = [Prompt(id=f"p{i}", text=f"{SECRET} {i}", user_id="acme") for i in range(50)]
    prompts.append(Prompt(id="q", text="What is a river?", user_id="other"))
    write_records(tmp_path / "prompts.jsonl", prompts)
    plan = Plan(name="d", kind="demonstration")
    batches.create(small.db, None, plan, tmp_path / "prompts.jsonl")
    for _ in range(10):
        held = assign.claim(small.db, small["ann"], "demonstration")
        labels.save_draft(small.db, small["ann"], held.id, 0, json.dumps(SECRET).encode())
        answer = json.dumps({"text": SECRET * 300}).encode()  # over several pages
        labels.submit(small.db, small["ann"], held.id, held.id, 0, answer, 1)
    other = Database(path)  # a server that goes on serving
    with other.read() as connection:
        connection.execute(sa.select(schema.prompt)).all()

    def bytes_on_disk():
        return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))

    assert b"marmalade" in bytes_on_disk()
    removal.remove(small.db, "", removal.lineage(small.db, ["acme"]))
    left = bytes_on_disk()
    assert b"marmalade" not in left and b"What is a river?" in left
    other.close()


def test_bytes_that_cannot_be_wiped_yet_are_said(small, tmp_path):
    sa.event.listen(
        small.db.engine, "connect", lambda made, _: made.execute("PRAGMA busy_timeout=50")
    )
    small.db.close()
    small.batch("demonstration")
    reader = Database(small.db.url.database)
    with reader.read() as connection:
        connection.execute(sa.select(schema.prompt)).all()
        with pytest.raises(InstilError, match="the rows are gone, but"):
            removal.remove(small.db, "", removal.lineage(small.db, ["u0"]))
    reader.close()
    assert not removal.lineage(small.db, ["u0"]).prompt_ids


def test_a_file_that_cannot_be_rewritten_is_said(small, monkeypatch):
    small.batch("demonstration")
    found = removal.lineage(small.db, ["u0"])
    wipe = removal._wipe

    def busy(db):
        with Database(db.url.database).write():  # another process
            wipe(db)

    monkeypatch.setattr(removal, "_wipe", busy)
    with small.db.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with pytest.raises(InstilError, match=r"the rows are gone.*\(database is locked\)"):
        removal.remove(small.db, "", found)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a command of training is given."""

    out: Path
    data: tuple[Path, ...] = ()
    model: Path | None = None
    rm: str = ""


def train(out, **more):
    with Run.open(out, "sft", Settings(out=out, **more)) as run:
        run.log(1, {"loss": 1.0})
        run.finish()


def test_exports_files_and_runs_that_it_went_into_are_named(world, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    export.export(world.db, tmp_path / "out")
    export.export(world.db, tmp_path / "lost")
    files = {name: tmp_path / "out" / f"{name}.jsonl" for name in ("prompts", "rankings")}
    mine = [prompt for prompt in read_records(files["prompts"], Prompt) if prompt.id == "p-other"]
    write_records(tmp_path / "theirs.jsonl", mine)
    write_records(tmp_path / "copy.jsonl", [Prompt(id="new", text=SECRET)])
    (tmp_path / "gone.jsonl").write_text("{}\n")
    runs = Path("runs")
    train(runs / "sft", data=(tmp_path / "copy.jsonl",))
    train(runs / "rm", data=(tmp_path / "lost" / "rankings.jsonl",))
    train(runs / "ppo", model=runs / "clean", rm=str(runs / "rm" / "final"))
    train(runs / "again" / "deep", model=runs / "ppo")
    clean = tmp_path / "theirs.jsonl", tmp_path / "gone.jsonl", tmp_path / "out" / "toxicity.jsonl"
    train(runs / "clean", data=clean)
    (tmp_path / "gone.jsonl").unlink()
    for path in sorted((tmp_path / "lost").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "lost").rmdir()
    monkeypatch.chdir(tmp_path)
    found = removal.lineage(world.db, ["acme"], [Path("work")])
    assert [(e.path.name, e.there) for e in found.exports] == [("lost", False), ("out", True)]
    here = (tmp_path / "work" / "runs").resolve()
    why = {str(trained.path.relative_to(here)): trained.why for trained in found.runs}
    assert set(why) == {"sft", "rm", "ppo", "again/deep"}
    assert why["rm"] == (f"{tmp_path}/lost/rankings.jsonl is a file of an export",)
    assert why["ppo"] == (f"started from {here / 'rm'}",)
    assert why["again/deep"] == (f"started from {here / 'ppo'}",)
    assert found.files == (tmp_path / "copy.jsonl",)
    assert found.unknown == (tmp_path / "gone.jsonl",)


def test_an_export_without_the_user_is_not_named(world, tmp_path):
    removal.remove(world.db, "", removal.lineage(world.db, ["acme"]))
    export.export(world.db, tmp_path / "clean")
    assert b"marmalade" not in b"".join(
        path.read_bytes() for path in (tmp_path / "clean").rglob("*.*")
    )
    assert removal.lineage(world.db, ["acme"]).exports == ()
    with pytest.raises(InstilError, match=r"no run.json in it or under it"):
        removal.lineage(world.db, ["other"], [tmp_path / "clean"])


def test_the_user_is_found_behind_the_name_that_intake_gave(small, tmp_path, capsys):
    user, company = pseudonym("Ann", 3), pseudonym("Acme", 3, "organisation")
    prompts = [
        Prompt(id="of-user", text="1", user_id=user),
        Prompt(id="of-user-in-company", text="2", user_id=company, meta={"user_id": user}),
        Prompt(id="of-company", text="3", user_id=company, meta={"user_id": "u-1"}),
        Prompt(id="says-so", text=f'"user_id":"{user}"', meta={"note": f'"user_id":"{user}"'}),
        Prompt(id="other-case", text="4", meta={"user_id": user.upper()}),
    ]
    write_records(tmp_path / "p.jsonl", prompts)
    batches.create(small.db, None, Plan(name="d", kind="demonstration"), tmp_path / "p.jsonl")

    def remove(*more):
        words = ["--db", str(small.db.url.database), "--intake-seed", "3", *more]
        words += ["--without-runs"] * ("--yes" in more)
        removal.run(config.from_command_line("remove", removal.Config, words))
        return capsys.readouterr().out

    def left():
        with small.db.read() as connection:
            return set(connection.execute(sa.select(schema.prompt.c.id)).scalars())

    assert "user Ann: 2 prompts" in remove("--user", "Ann") and len(left()) == 5
    assert "nothing was changed; add --yes" in remove("--user", "Ann")
    assert "removed" in remove("--user", "Ann", "--yes")
    assert left() == {"of-company", "says-so", "other-case"}
    remove("--user", "Acme", "--yes")
    assert left() == {"says-so", "other-case"}
    assert "no prompts in this database" in remove("--user", "Ann", "--yes")


def test_runs_are_named_while_there_are_rows_to_tell_them_by(small, tmp_path, capsys):
    small.batch("demonstration")
    asked = removal.Config(db=str(small.db.url.database), user="u0", yes=True)
    with pytest.raises(InstilError, match="name the folders of all runs with --runs"):
        removal.run(asked)
    assert removal.lineage(small.db, ["u0"]).prompt_ids
    train(tmp_path / "runs" / "sft")
    removal.run(dataclasses.replace(asked, runs=(tmp_path / "runs",)))
    assert "removed" in capsys.readouterr().out
    assert not removal.lineage(small.db, ["u0"]).prompt_ids


@pytest.mark.parametrize("what", ["question", "batch"])
def test_what_comes_at_the_same_moment_waits_for_the_removal(store, tmp_path, monkeypatch, what):
    (task,) = store.batch("demonstration")
    known = Prompt(
        id="p0-0", text="What is 0 and 0?", user_id="u0", use_case="open_qa", split="train"
    )
    write_records(tmp_path / "p.jsonl", [known])
    found = removal.lineage(store.db, ["u0"])
    rows, begun = removal._rows, []

    def come():
        if what == "question":
            return guidelines.ask(store.db, store["ann"], task, "What is this?")
        plan = Plan(name="d", kind="demonstration")
        return batches.create(store.db, None, plan, tmp_path / "p.jsonl").tasks

    def in_between(user_ids):
        for table, some in rows(user_ids):
            yield table, some
            if table is {"question": schema.message, "batch": schema.task}[what]:
                begun.append(threads.submit(come))
                wait(begun, timeout=0.3)

    monkeypatch.setattr(removal, "_rows", in_between)
    with ThreadPoolExecutor(1) as threads:
        removal.remove(store.db, "", found)
    if what == "question":
        with pytest.raises(InstilError, match="this task was taken out of the database"):
            begun[0].result()
    else:
        assert begun[0].result() == 1  # as if it had been made later


def test_what_a_labeler_wrote_as_prompts_is_the_labelers_own(store, tmp_path):
    store.batch("prompt", training=2)
    for name in ("ann", "bob"):
        held = assign.claim(store.db, store[name], "prompt")
        answer = json.dumps({"style": "plain", "text": f"{name}: {SECRET}"}).encode()
        labels.submit(store.db, store[name], held.id, held.id, 0, answer, 1)
    export.export(store.db, tmp_path / "out")
    found = removal.lineage(store.db, ["l-ann"])
    assert len(found.prompt_ids) == 1 and len(found.exports) == 1
    assert {t: n for t, n in found.rows.items() if n} == {"label": 1, "assignment": 1}
    removal.remove(store.db, "", found)
    with store.db.read() as connection:
        assert [one.labeler_id for one in past.stored(connection)] == ["l-bob"]
    assert assign.claim(store.db, store["cid"], "prompt") is not None  # one is wanted again
