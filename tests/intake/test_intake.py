"""Intake: every rule on prompts whose fate is known, the splits, the files it writes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil import jsonl
from instil.errors import InstilError
from instil.intake import Config, RawPrompt, clean, pseudonym, read_raw, run, split_of_user
from instil.records import Prompt


def config(folder: Path = Path(), **given: object) -> Config:
    usual = {"raw": folder / "raw.jsonl", "out": folder / "out", "missing_consent": "keep"}
    return Config(**{**usual, **given})


def in_train(_: str) -> str:
    return "train"


def asked(n: int, user_id: str) -> list[RawPrompt]:
    return [RawPrompt(text=f"{user_id} asks number {i}", user_id=user_id) for i in range(n)]


def test_every_rule_counts_what_it_drops():
    long = "Summarise the following review of a restaurant in one sentence. " * 2
    raw = [
        RawPrompt(text="What is a prime number?", user_id="a", use_case="open_qa"),
        RawPrompt(text="Keep this to yourself", user_id="a", consent=False),
        RawPrompt(text=" \n ", user_id="a"),
        RawPrompt(text="what IS  a prime number?\n", user_id="b"),
        RawPrompt(text="Mail ann@example.org for me", user_id="b"),
        RawPrompt(text=long + "The soup was cold.", user_id="b"),
        RawPrompt(text=long + "The wine was warm.", user_id="c"),
        RawPrompt(text="x" * 501, user_id="c"),
        RawPrompt(text="hm", user_id="c"),
    ]
    prompts, report = clean(raw, config(min_chars=3, max_chars=500), in_train)
    assert [p.text for p in prompts] == [raw[0].text, raw[5].text]
    assert report.dropped == {
        "duplicate": 1,
        "empty": 1,
        "no consent": 1,
        "pii:email": 1,
        "prefix": 1,
        "too long": 1,
        "too short": 1,
    }
    assert (report.read, report.kept, report.users) == (9, 2, 2)
    assert report.splits == {"train": 2}
    assert report.use_cases == {"open_qa": 1, "unknown": 1}
    assert report.languages == {"en": 2}
    assert report.ascii_share == 1.0


@pytest.mark.parametrize(
    ("pii", "kept"), [("drop-train", ["test"]), ("drop-all", []), ("keep", ["test", "train"])]
)
def test_personal_data_leave_the_training_split(pii, kept):
    raw = [RawPrompt(text=f"I am {u}@example.org", user_id=u) for u in ("test", "train")]
    prompts, _ = clean(raw, config(pii=pii), lambda user_id: user_id)
    assert [p.split for p in prompts] == kept


def test_a_user_gives_at_most_200_and_always_the_same():
    raw = asked(350, "greedy") + asked(3, "modest") + [RawPrompt(text="nobody's")] * 1
    prompts, report = clean(raw, config(hide_users=False))
    assert report.dropped == {"cap": 150}
    assert sum(p.user_id == "greedy" for p in prompts) == 200
    backwards, _ = clean(raw[::-1], config(hide_users=False))
    assert {p.id for p in prompts} == {p.id for p in backwards}
    # chance decides which: not simply the first 200
    kept = {int(p.text.split()[-1]) for p in prompts if p.user_id == "greedy"}
    assert 60 < sum(n >= 200 for n in kept) < 115  # 200 * 150 / 350 = 86 expected
    other, _ = clean(raw, config(hide_users=False, seed=1))
    assert {p.id for p in prompts} != {p.id for p in other}


def test_cleaning_clean_prompts_changes_nothing():
    raw = asked(250, "a") + asked(250, "b") + asked(20, "c")
    raw += [RawPrompt(text="long " * 40 + f"variant {i}", user_id=f"u{i}") for i in range(9)]
    settings = config(hide_users=False)
    prompts, _ = clean(raw, settings)
    again = [RawPrompt(text=p.text, user_id=p.user_id) for p in prompts]
    twice, report = clean(again, settings)
    assert twice == prompts
    assert report.dropped == {}


TEXTS = st.text("ab @.é1", max_size=8)
RAW = st.builds(
    RawPrompt,
    text=TEXTS,
    user_id=st.sampled_from(["", "u", "v", "w", "x"]),
    organisation_id=st.sampled_from(["", "", "o", "p"]),
    consent=st.sampled_from([True, True, False]),
)


@given(st.lists(RAW, max_size=30), st.lists(RAW, max_size=10))
def test_nothing_is_lost_nobody_crosses_and_appending_moves_nobody(before, after):
    settings = config(prefix_chars=3, prefix_share=0.7, cap=4)
    prompts, report = clean(before, settings)
    more, _ = clean(before + after, settings)
    assert report.read == report.kept + sum(report.dropped.values())
    splits = defaultdict(set)
    for prompt in prompts + more:
        splits[prompt.user_id or prompt.id].add(prompt.split)
        splits[prompt.meta.get("user_id", prompt.user_id) or prompt.id].add(prompt.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len({p.id for p in more}) == len(more)


def test_appended_prompts_displace_none():
    raw = asked(50, "a") + asked(50, "b")
    prompts, _ = clean(raw, config())
    more, _ = clean(raw + asked(60, "a") + asked(10, "c"), config())
    assert more[: len(prompts)] == prompts


def test_splits_have_their_shares_and_a_key():
    # 10,000 users: 0.2 is 2,000 with a standard deviation of 40
    splits = [split_of_user(f"user {i}", 0, 0.1, 0.2) for i in range(10_000)]
    assert abs(splits.count("test") - 2000) < 160
    assert abs(splits.count("valid") - 1000) < 120
    assert splits != [split_of_user(f"user {i}", 1, 0.1, 0.2) for i in range(10_000)]
    # a larger share for validation takes users from training only
    wider = [split_of_user(f"user {i}", 0, 0.3, 0.2) for i in range(10_000)]
    assert all(w == s or (s, w) == ("train", "valid") for s, w in zip(splits, wider, strict=True))


def test_users_are_pseudonyms_in_what_is_written():
    prompts, _ = clean([RawPrompt(text="Hi there", user_id="ann@example.org")], config())
    assert prompts[0].user_id.startswith("u-")
    assert "ann" not in repr(prompts)


def test_a_pseudonym_finds_the_prompts_of_a_user_or_organisation():
    raw = [
        RawPrompt(text="One", user_id="7"),
        RawPrompt(text="Two", user_id="7", organisation_id="9"),
        RawPrompt(text="Three", user_id="9"),
    ]
    prompts, _ = clean(raw, config(seed=5), in_train)
    ann, nine = pseudonym("7", 5), pseudonym("9", 5, "organisation")
    assert [p.user_id for p in prompts] == [ann, nine, pseudonym("9", 5)]
    assert [p.meta for p in prompts] == [{}, {"user_id": ann}, {}]
    assert len({ann, nine, pseudonym("9", 5), pseudonym("7", 6)}) == 4
    assert pseudonym("", 5) == ""


def test_an_organisation_has_one_cap_and_one_split():
    raw = [RawPrompt(text=f"Number {i}", user_id=f"u{i}", organisation_id="o") for i in range(9)]
    raw += [RawPrompt(text=f"Other {i}", user_id="o") for i in range(3)]
    prompts, report = clean(raw, config(cap=4, hide_users=False))
    assert report.dropped == {"cap": 5}
    assert (report.users, report.unsigned) == (2, 0)
    assert len({p.split for p in prompts if p.text.startswith("Number")}) == 1


def test_a_user_of_two_organisations_stays_in_the_split_of_the_first():
    raw = [
        RawPrompt(text="One", user_id="ann", organisation_id="test"),
        RawPrompt(text="Two", user_id="ann", organisation_id="train"),
        RawPrompt(text="Three", user_id="bob", organisation_id="train"),
        RawPrompt(text="Four", user_id="ann"),
        RawPrompt(text="Five", user_id="train", organisation_id="train"),
    ]
    split = {"ann": "valid"}
    prompts, report = clean(raw, config(), lambda owner: split.get(owner, owner))
    assert [(p.text, p.split) for p in prompts] == [
        ("One", "test"),
        ("Three", "train"),
        ("Five", "train"),
    ]
    assert report.dropped == {"user in another split": 2}


def test_other_languages_can_be_dropped():
    raw = [RawPrompt(text="Напиши короткое стихотворение"), RawPrompt(text="Write a poem to me")]
    prompts, report = clean(raw, config(english_only=True))
    assert [p.text for p in prompts] == ["Write a poem to me"]
    assert report.dropped == {"language": 1}


def test_a_log_becomes_prompts_and_a_report(tmp_path):
    rows = [
        {"message": "What is a prime?", "org": 7, "task": "open_qa", "agreed": "yes", "more": [1]},
        {"message": "Write a haiku about rain.", "org": "8", "task": None, "agreed": False},
        {"message": "Name three rivers.", "org": None, "source": "labeler", "meta": {"k": 1}},
    ]
    (tmp_path / "raw.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = config(
        tmp_path,
        text_field="message",
        user_field="org",
        use_case_field="task",
        consent_field="agreed",
        source="log",
    )
    run(settings)
    prompts = jsonl.read_records(tmp_path / "out" / "prompts.jsonl", Prompt)
    assert [(p.text, p.source, p.use_case, p.meta) for p in prompts] == [
        ("What is a prime?", "log", "open_qa", {}),
        ("Name three rivers.", "labeler", "", {"k": 1}),
    ]
    report = json.loads((tmp_path / "out" / "intake.json").read_text())
    assert report["dropped"] == {"no consent": 1}
    assert report["languages"] == {"en": 1, "unknown": 1}
    assert report["use_cases"] == {"open_qa": 1, "unknown": 1}
    assert report["unsigned"] == 1


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_log_gives_the_same_bytes_and_is_not_read_twice(tmp_path, capsys):
    jsonl.write_records(tmp_path / "raw.jsonl", asked(300, "a") + asked(20, "b"))
    run(config(tmp_path))
    once = written(tmp_path / "out")
    assert once.keys() == {"prompts.jsonl", "intake.json"}
    run(config(tmp_path, out=tmp_path / "again"))
    assert written(tmp_path / "again") == once
    out = capsys.readouterr().out
    assert "kept 220" in out and "languages: " in out and "use cases: unknown 100.0%" in out

    touched = (tmp_path / "out" / "prompts.jsonl").stat().st_mtime_ns
    run(config(tmp_path))
    assert "nothing to do" in capsys.readouterr().out
    assert (tmp_path / "out" / "prompts.jsonl").stat().st_mtime_ns == touched


@pytest.mark.parametrize("change", ["log", "settings", "prompts", "summary", "killed between"])
def test_what_is_not_the_result_of_this_log_is_made_again(tmp_path, change):
    log, out = tmp_path / "raw.jsonl", tmp_path / "out"
    jsonl.write_records(log, asked(5, "a"))
    run(config(tmp_path))
    given = {}
    if change == "log":
        jsonl.write_records(log, asked(6, "a"))
    elif change == "settings":
        given = {"seed": 1}
    elif change == "prompts":
        (out / "prompts.jsonl").write_bytes((out / "prompts.jsonl").read_bytes()[:-20])
    elif change == "summary":
        (out / "intake.json").unlink()
    else:  # the first of two files was put in place
        jsonl.write_records(log, asked(6, "a"))
        run(config(tmp_path, out=tmp_path / "new"))
        (tmp_path / "new" / "prompts.jsonl").replace(out / "prompts.jsonl")
    run(config(tmp_path, **given))
    run(config(tmp_path, out=tmp_path / "fresh", **given))
    assert written(out) == written(tmp_path / "fresh")


@pytest.mark.parametrize("content", ["", "\n \n", "[]"])
def test_an_empty_log_replaces_nothing(tmp_path, content):
    jsonl.write_records(tmp_path / "raw.jsonl", asked(2, "a"))
    run(config(tmp_path))
    before = written(tmp_path / "out")
    (tmp_path / "raw.jsonl").write_text(content)
    with pytest.raises(InstilError, match=r"raw.jsonl: has no prompts"):
        run(config(tmp_path))
    assert written(tmp_path / "out") == before


def test_settings_cannot_be_guessed_from_what_is_written(tmp_path):
    # the seed is the key of the pseudonyms
    jsonl.write_records(tmp_path / "raw.jsonl", asked(2, "a"))
    run(config(tmp_path, seed=987654321))
    assert all(b"987654321" not in content for content in written(tmp_path / "out").values())


@pytest.mark.parametrize(
    "wrong", [{"valid": 0.7, "test": 0.4}, {"prefix_share": 1.5}, {"cap": -1}, {"min_chars": 10**6}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InstilError, match=str(next(iter(wrong.values())))):
        config(**wrong)


def test_real_instructions_pass(shared):
    path = shared / "data" / "instructions" / "alpaca_9k.jsonl.gz"
    settings = config(raw=path, text_field="instruction")
    prompts, report = clean(read_raw(settings), settings)
    assert report.read == 9229
    assert report.kept == len(prompts) > 9000
    assert report.languages["en"] > 0.9 * report.kept
    assert sum(n for reason, n in report.dropped.items() if reason.startswith("pii")) < 20
