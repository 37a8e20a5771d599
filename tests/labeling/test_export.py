from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
import tracemalloc
from random import Random

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instil import config, records
from instil.errors import InstilError
from instil.jsonl import read_records
from instil.labeling import assign, audit, export, labels, past, removal, schema
from instil.labeling.database import Database

KINDS = {
    "prompts": records.Prompt,
    "responses": records.Response,
    "demonstrations": records.Demonstration,
    "rankings": records.Ranking,
    "ratings": records.Rating,
    "annotations": records.Annotation,
    "toxicity": records.ToxicityRating,
    "toxicity_rankings": records.Ranking,
    "labelers": records.Labeler,
}


WORK = ("prompt", "annotation", "demonstration", "ranking", "toxicity")


def answer(kind, cards, rng=None):
    """A complete answer; with `rng` a random one."""
    rng = rng or Random(0)
    letters = [card.letter for card in cards]
    rng.shuffle(letters)
    tiers = [[letter] for letter in letters]
    if rng.random() < 0.3:
        tiers = [tiers[0] + tiers.pop(), *tiers[1:]] if len(tiers) > 1 else tiers
    rated = {letter: rng.randint(1, 7) for letter in letters}
    if kind == "ranking":
        return {"tiers": tiers, "overall": rated, "flags": {letters[0]: ["hallucination"]}}
    if kind == "toxicity":
        same = dict.fromkeys(letters, 1)
        return {"tiers": tiers, "input": 0, "output": same, "relative": same, "continuity": rated}
    return {
        "annotation": {"use_case": "chat", "flags": ["opinion"]},
        "demonstration": {"text": f"An answer {rng.random()}."},
        "prompt": {"style": "plain", "text": f"Say {rng.random()}."},
    }[kind]


def label(store, name, kind, given=None, rng=None):
    """The named person does the next task of this kind; the assignment, None if there is none."""
    held = assign.claim(store.db, store[name], kind)
    if held is not None:
        cards = assign.work(store.db, held).cards
        submit(store, name, held, given or answer(kind, cards, rng))
    return held


def submit(store, name, held, given, base=0):
    store.clock.pass_(seconds=1)
    said = json.dumps(given).encode()
    labels.submit(store.db, store[name], held.id, f"{held.id} {base}", base, said, 1000)


def files_of(out, folder="."):
    return {
        name: read_records(out / folder / f"{name}.jsonl", kind) for name, kind in KINDS.items()
    }


def test_what_training_labelers_did_is_there_as_records(store, tmp_path):
    for kind in WORK:
        store.batch(kind)
        label(store, "ann", kind)
    export.export(store.db, tmp_path / "out")
    found = files_of(tmp_path / "out")
    assert {name: len(some) for name, some in found.items()} == {
        "prompts": 5,  # one written, four asked
        "responses": 8,
        "demonstrations": 1,
        "rankings": 1,
        "ratings": 4,
        "annotations": 1,
        "toxicity": 4,
        "toxicity_rankings": 1,
        "labelers": 1,
    }
    assert found["labelers"] == [records.Labeler(id="l-ann", group="training")]
    assert {r.policy for r in found["responses"]} == {"m0", "m1", "m2", "m3"}
    (ranking,) = found["rankings"]
    (prompt,) = (p for p in found["prompts"] if p.id == ranking.prompt_id)
    assert prompt.split == "train" and prompt.text.startswith("What is")
    assert set(ranking.response_ids()) <= {r.id for r in found["responses"]}
    every = read_records(tmp_path / "out" / "labels.jsonl", records.Label)
    assert {(one.kind, one.status, one.revision) for one in every} == {
        (kind, "accepted", 1) for kind in WORK
    }


def test_a_prompt_that_a_labeler_wrote_has_the_split_that_it_got_since(small, tmp_path):
    small.batch("prompt")
    label(small, "ann", "prompt")
    with small.db.read() as connection:
        (wrote,) = past.stored(connection)
    (task,) = small.batch("ranking")
    prompt = wrote.payload["prompts"][0]["id"]
    with small.db.write() as connection:
        row = connection.execute(sa.select(schema.prompt)).mappings().one()
        connection.execute(schema.prompt.insert().values({**row, "id": prompt, "split": "valid"}))
        connection.execute(
            schema.task.update().where(schema.task.c.id == task).values(prompt_id=prompt)
        )
    label(small, "bob", "ranking")
    export.export(small.db, tmp_path / "out")
    assert [(p.id, p.split) for p in files_of(tmp_path / "out")["prompts"]] == [(prompt, "valid")]


def test_rankings_are_each_persons_own_and_identical_texts_are_tied(small, tmp_path):
    small.batch("ranking", training=2, texts=["same", "other", "same", "third"])
    for name in ("ann", "bob"):
        label(small, name, "ranking")
    export.export(small.db, tmp_path / "out")
    rankings = files_of(tmp_path / "out")["rankings"]
    assert {ranking.labeler_id for ranking in rankings} == {"l-ann", "l-bob"}
    for ranking in rankings:
        (tier,) = (tier for tier in ranking.tiers if "r0-0-0" in tier)
        assert "r0-0-2" in tier


def test_the_last_revision_counts_and_every_one_is_kept(small, tmp_path):
    small.batch("ranking", training=1)
    held = assign.claim(small.db, small["ann"], "ranking")
    cards = assign.work(small.db, held).cards
    best = {card.letter: card.response_ids[0] for card in cards}
    for base, first in enumerate("ABC"):
        tiers = [[first], [letter for letter in best if letter != first]]
        submit(small, "ann", held, {"tiers": tiers, "overall": dict.fromkeys(best, 4)}, base)
    export.export(small.db, tmp_path / "out")
    (ranking,) = files_of(tmp_path / "out")["rankings"]
    assert ranking.tiers[0] == (best["C"],)
    every = read_records(tmp_path / "out" / "labels.jsonl", records.Label)
    assert [one.revision for one in every] == [1, 2, 3]
    assert every[0].order == tuple(best.values())


def test_what_is_skipped_late_or_not_rankable_is_no_ranking(small, clock, tmp_path):
    small.batch("ranking", tasks=2, training=1)
    given = {"not_rankable": True, "why": "all wrong", "overall": {"A": 1}}
    late = assign.claim(small.db, small["bob"], "ranking")
    clock.pass_(hours=5)
    label(small, "cid", "ranking")  # the seat that bob held for too long
    submit(small, "bob", late, answer("ranking", assign.work(small.db, late).cards))
    label(small, "ann", "ranking", given)
    small.batch("ranking")
    skipped = assign.claim(small.db, small["ann"], "ranking")
    clock.pass_(seconds=1)
    labels.skip(small.db, small["ann"], skipped.id, "k", "unclear")
    export.export(small.db, tmp_path / "out")
    found = files_of(tmp_path / "out")
    assert [ranking.labeler_id for ranking in found["rankings"]] == ["l-cid"]
    assert {rating.labeler_id for rating in found["ratings"]} == {"l-ann", "l-cid"}
    every = read_records(tmp_path / "out" / "labels.jsonl", records.Label)
    assert [one.status for one in every] == ["accepted", "surplus", "accepted", "skipped"]


def test_evaluations_lie_apart_with_the_labelers_of_both_pools(store, tmp_path):
    store.batch("ranking", "evaluation", training=1, held_out=1)
    for name in ("ann", "hal"):
        label(store, name, "ranking")
    export.export(store.db, tmp_path / "out")
    assert not any(files_of(tmp_path / "out").values())
    found = files_of(tmp_path / "out", "evaluation")
    assert {one.id: one.group for one in found["labelers"]} == {
        "l-ann": "training",
        "l-hal": "held-out",
    }
    assert len(found["rankings"]) == 2 and [p.split for p in found["prompts"]] == ["test"]


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 30))
def test_no_held_out_row_is_ever_in_a_file_for_training(
    seed, steps, small, sqlite_template, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(sqlite_template, folder / "labels.db")
    store = type(small)(Database(folder / "labels.db", small.clock), small.clock)
    for account in small.accounts.values():
        store.person(account.name, account.role, account.pool)
    rng = Random(seed)
    of_held_out = 0
    for _ in range(steps):
        if rng.random() < 0.4:
            purpose = rng.choice(["training", "evaluation", "screening", "gold"])
            held_out = 0 if purpose == "training" else 2
            store.batch(rng.choice(WORK[1:]), purpose, tasks=2, training=2, held_out=held_out)
        name, kind = rng.choice(list(store.accounts)), rng.choice(WORK)
        if store[name].role != "viewer" and label(store, name, kind, rng=rng):
            of_held_out += name in ("hal", "han")
    export.export(store.db, folder / "out")
    store.db.close()
    every = read_records(folder / "out" / "labels.jsonl", records.Label)
    assert sum(one.labeler_id in ("l-hal", "l-han") for one in every) == of_held_out
    training = b"".join((folder / "out" / f"{name}.jsonl").read_bytes() for name in KINDS)
    assert b"l-hal" not in training and b"l-han" not in training
    for one in every:
        if one.purpose != "training":
            assert f'"{one.prompt_id}"'.encode() not in training


def test_the_database_refuses_a_held_out_label_for_training(store):
    (task,) = store.batch("ranking")
    row = {"task_id": task, "kind": "ranking", "purpose": "training", "reason": "quota"}
    with pytest.raises(sa.exc.IntegrityError), store.db.write() as connection:
        connection.execute(schema.seat.insert().values(pool="held-out", **row))


def test_the_manifest_has_checksums_and_says_where_in_the_log_it_stands(store, tmp_path):
    store.batch("ranking", training=2)
    label(store, "ann", "ranking")
    with store.db.read() as connection:
        head = audit.head(connection)
    export.export(store.db, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "MANIFEST.json").read_text())
    assert manifest["audit"] == head and manifest["database_schema"] == schema.HEAD
    (guideline,) = manifest["guidelines"]
    assert (guideline["kind"], guideline["purpose"], guideline["version"]) == (
        "ranking",
        "training",
        1,
    )
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert there == {*manifest["files"], "MANIFEST.json"}
    for name, file in manifest["files"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert file == {
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "records": data.count(b"\n"),
        }


def test_two_exports_of_one_state_are_the_same_bytes(store, tmp_path):
    store.batch("ranking", tasks=3)
    for _ in range(3):
        label(store, "ann", "ranking")
    first, second = (export.export(store.db, tmp_path / name) for name in ("a", "b"))
    assert first.files == second.files and first.id != second.id


def test_the_database_remembers_what_went_where(store, tmp_path):
    store.batch("ranking")
    store.batch("prompt")
    label(store, "ann", "ranking")
    label(store, "ann", "prompt")
    manifest = export.export(store.db, tmp_path / "out")
    prompts = {prompt.id for prompt in files_of(tmp_path / "out")["prompts"]}
    with store.db.read() as connection:
        (made,) = connection.execute(sa.select(schema.export)).all()
        files = connection.execute(sa.select(schema.export_file)).all()
        ids = connection.execute(sa.select(schema.export_prompt.c.prompt_id)).scalars()
        assert set(ids) == prompts and len(prompts) == 2
        assert audit.newest(connection)[0].action == "export"
    assert (made.id, made.path) == (manifest.id, str(tmp_path / "out"))
    assert {file.name: file.sha256 for file in files} == {
        name: file.sha256 for name, file in manifest.files.items()
    }


def test_what_comes_while_it_is_written_is_not_in_it(store, tmp_path, monkeypatch):
    store.batch("ranking", tasks=4, training=2)
    label(store, "ann", "ranking")
    write = export._write_purpose

    def and_labels_come(*args):
        write(*args)
        label(store, "bob", "ranking")
        label(store, "ann", "ranking")

    monkeypatch.setattr(export, "_write_purpose", and_labels_come)
    export.export(store.db, tmp_path / "out")
    every = read_records(tmp_path / "out" / "labels.jsonl", records.Label)
    assert [one.labeler_id for one in every] == ["l-ann"]
    with store.db.read() as connection:
        assert len(list(past.stored(connection))) == 5


def test_all_files_are_of_one_moment_however_many_label(store, tmp_path):
    store.batch("ranking", tasks=25, training=3)
    done = threading.Event()

    def work(name):
        while label(store, name, "ranking") and not done.is_set():
            pass

    threads = [threading.Thread(target=work, args=[name]) for name in ("ann", "bob", "cid")]
    for thread in threads:
        thread.start()
    for number in range(4):
        out = tmp_path / f"out{number}"
        manifest = export.export(store.db, out)
        found, every = files_of(out), read_records(out / "labels.jsonl", records.Label)
        ranked = {(ranking.prompt_id, ranking.labeler_id) for ranking in found["rankings"]}
        assert ranked == {(one.prompt_id, one.labeler_id) for one in every}
        assert len(found["ratings"]) == 4 * len(every)
        assert {p.id for p in found["prompts"]} == {one.prompt_id for one in every}
        # each label is an event of the log, and nothing else is while only labelers work
        events = int(manifest.audit.partition(":")[0])
        assert events == len(every) + number
    done.set()
    for thread in threads:
        thread.join()


def test_a_user_who_is_removed_meanwhile_is_in_no_export(small, tmp_path, monkeypatch):
    small.batch("ranking", tasks=2)
    for _ in range(2):
        label(small, "ann", "ranking")
    write = export._write_purpose

    def and_a_user_goes(*args):
        write(*args)
        removal.remove(small.db, "", removal.lineage(small.db, ["u0"]))

    monkeypatch.setattr(export, "_write_purpose", and_a_user_goes)
    monkeypatch.setattr(removal, "_wipe", lambda db: None)  # it would wait for the export
    with pytest.raises(InstilError, match="a user's data were removed meanwhile; export again"):
        export.export(small.db, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    monkeypatch.undo()
    export.export(small.db, tmp_path / "out")
    assert {prompt.user_id for prompt in files_of(tmp_path / "out")["prompts"]} == {"u1"}


def test_what_exists_is_never_overwritten(small, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InstilError, match="out: exists; name a directory that does not"):
        export.export(small.db, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_export_that_fails_leaves_nothing(small, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.os, "fsync", full)
    with pytest.raises(InstilError, match="out: cannot be written: No space left on device"):
        export.export(small.db, tmp_path / "out")
    monkeypatch.undo()
    assert not list(tmp_path.glob("out*"))
    with small.db.read() as connection:
        assert not connection.execute(sa.select(schema.export)).all()
    (tmp_path / "file").write_text("")
    with pytest.raises(InstilError, match="cannot be made"):
        export.export(small.db, tmp_path / "file" / "out")


def test_what_a_killed_export_left_is_cleared_away(small, tmp_path):
    (tmp_path / "out.partial" / "evaluation").mkdir(parents=True)
    (tmp_path / "out.partial" / "stray.jsonl").write_text("torn")
    export.export(small.db, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()
    assert not (tmp_path / "out" / "stray.jsonl").exists()


def test_two_exports_to_one_place_do_not_mix(small, tmp_path):
    (tmp_path / "out.partial").mkdir()
    other = os.open(tmp_path / "out.partial", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(InstilError, match="another export is writing it"):
        export.export(small.db, tmp_path / "out")
    os.close(other)
    export.export(small.db, tmp_path / "out")


@pytest.mark.slow
def test_long_texts_are_not_held_in_memory(small, tmp_path):
    texts = [f"{number} " + "word " * 20_000 for number in range(4)]  # 0.4 MB a task
    small.batch("ranking", tasks=100, texts=texts)
    for _ in range(100):
        label(small, "ann", "ranking")
    tracemalloc.start()
    manifest = export.export(small.db, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert manifest.files["responses.jsonl"].bytes > 40e6
    assert peak < 20e6


def test_the_command_says_what_it_wrote(small, tmp_path, capsys):
    small.batch("ranking")
    label(small, "ann", "ranking")
    words = ["--db", str(small.db.url.database), "--out", str(tmp_path / "out")]
    export.run(config.from_command_line("export", export.Config, words))
    assert f"{tmp_path}/out/rankings.jsonl: 1 lines" in capsys.readouterr().out
    with pytest.raises(InstilError, match="no such file"):
        export.run(export.Config(db=str(tmp_path / "no.db"), out=tmp_path / "other"))
    assert not (tmp_path / "no.db").exists()
