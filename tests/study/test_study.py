"""The study from end to end: what it and its stories write, and that a kill changes nothing."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path

import pytest

from instil.config import find
from instil.jsonl import iter_objects, read_records
from instil.records import Labeler, Ranking
from instil.study import conclude, gather
from instil.study.findings import judge
from instil.study.plan import read_plan
from instil.study.story import POLICIES

pytestmark = pytest.mark.slow


def fingerprint(out: Path) -> dict[str, str]:
    """SHA-256 of all measurements and final weights."""
    files = [*out.rglob("evals/*.jsonl"), *out.rglob("final/*.safetensors"), out / "findings.md"]
    files += [out / "results.jsonl", *out.glob("compare-*/results.jsonl")]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_finding_is_measured_at_the_sizes_that_it_is_made_at(study):
    plan = read_plan(find("study-fast"))
    outcomes = judge(gather(study, plan), plan.sizes)
    assert outcomes and all(outcome.reason != "not measured" for outcome in outcomes)
    sizes = {outcome.finding.id: tuple(outcome.by_size) for outcome in outcomes}
    assert sizes["tax"] == ("small", "large")
    assert sizes["rm-folds"] == sizes["kl-none"] == sizes["small-over-large"] == ("small",)
    assert sizes["prompted-over-base"] == ("small", "large")


def test_the_files_of_a_study_are_there_and_say_how_large_each_size_is(study):
    rows = [row for _, row in iter_objects(study / "results.jsonl")]
    params = {row["size"]: row["params"] for row in rows}
    stages = [row for _, row in iter_objects(study / "large-0" / "stages.jsonl")]
    assert params["large"] == next(r["params"] for r in stages if r["stage"] == "pretrain")
    assert params["small"] < params["large"]
    keys = [(r["size"], r["seed"], r["eval"], r["policy"], r["setting"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert json.loads((study / "run.json").read_text())["status"] == "finished"
    assert "| Finding | Paper |" in (study / "findings.md").read_text()
    assert (study / "study.html").read_text().count("<svg") > 8


def test_all_sizes_share_the_reward_model_and_their_data(study):
    large = json.loads((study / "large-0" / "ppo" / "run.json").read_text())["config"]
    assert large["rm"] == str(study / "small-0" / "rm")
    assert not (study / "large-0" / "rm").exists()
    for name in ("prompts", "demonstrations", "text"):
        ours, theirs = (study / f"{size}-0/data/{name}.jsonl" for size in ("small", "large"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_findings_are_made_again_from_the_files_alone(study):
    before = (study / "findings.md").read_bytes(), (study / "study.html").read_bytes()
    conclude(study, read_plan(find("study-fast")))
    assert ((study / "findings.md").read_bytes(), (study / "study.html").read_bytes()) == before


def test_each_labeler_is_left_out_of_one_reward_model(study):
    folds = sorted((study / "small-0" / "folds").glob("labelers-*.jsonl"))
    left_out = [
        {one.id for one in read_records(path, Labeler) if one.group == "held-out"} for path in folds
    ]
    assert len(folds) == 2
    assert not left_out[0] & left_out[1]
    everybody = {one.id for one in read_records(folds[0], Labeler)}
    assert left_out[0] | left_out[1] == everybody
    rankings = read_records(study / "small-0" / "folds" / "rankings.jsonl", Ranking)
    assert {one.labeler_id for one in rankings} <= everybody


def test_a_scan_changes_one_setting(study):
    def config(name: str) -> dict:
        return json.loads((study / "small-0" / name / "run.json").read_text())["config"]

    def changed(name: str, table: str) -> dict:
        ours, theirs = config(f"scans/{name}"), config(table)
        return {k: ours[k] for k in ours if ours[k] != theirs[k] and k != "out"}

    assert changed("kl-none", "ppo") == {"kl_coef": 0.0}
    assert changed("kl-x100", "ppo") == {"kl_coef": pytest.approx(6.0)}
    assert changed("ptx-tenth", "ppo-ptx") == {"ptx_coef": pytest.approx(0.1)}
    assert changed("mix-0", "ppo") == {"model": str(study / "small-0" / "scans" / "mix-0-init")}
    assert changed("mix-50-init", "ppo-init") == {"pretraining_mix": 0.5}


def test_every_policy_answers_every_prompt(study):
    for size in ("small", "large"):
        evals = study / f"{size}-0" / "evals"
        counts = {
            name: len(list(iter_objects(evals / f"{name}-responses.jsonl"))) for name in POLICIES
        }
        assert len(set(counts.values())) == 1
        assert min(counts.values()) > 0


def test_killed_in_between_it_ends_as_one_that_was_not(study, start_study, finish_study, tmp_path):
    out = tmp_path / "study"
    process = start_study(out)
    limit = time.monotonic() + 120
    while not (out / "small-0" / "ppo" / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # its jobs see that they are alone, and end
    finish_study(out)
    assert fingerprint(out) == fingerprint(study)
