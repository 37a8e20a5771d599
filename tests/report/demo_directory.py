"""A made-up demo directory for tests: realistic numbers, hostile strings where users write.

write_demo(path)                      everything
write_demo(path, without=("ppo-ptx", "evals"))
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    '"><svg/onload=alert(3)>',
    "{{ 7 * 7 }} {% raw %}",
    "</style><style>body{display:none}</style>",
    "javascript:alert(4) https://evil.example/x.js",
    "\u202eright to left \x07 bell \u0000 nul",
    "Wörter — 日本語 🙂 " + "x" * 400,
)
USE_CASES = {
    "generation": 412,
    "open_qa": 131,
    "brainstorming": 118,
    "chat": 90,
    "rewrite": 77,
    "summarization": 51,
    "classification": 40,
    "other": 33,
    "closed_qa": 64,
    "extract": 28,
}
POLICIES = ("base", "base-prompted", "sft", "best-of-16", "ppo", "ppo-ptx")
WIN = {"base": 0.12, "base-prompted": 0.31, "best-of-16": 0.66, "ppo": 0.68, "ppo-ptx": 0.71}
MEASURES = {
    ("likert", ""): (2.1, 2.9, 4.4, 5.0, 5.1, 5.3),
    ("truthful", "facts"): (0.41, 0.52, 0.70, 0.76, 0.79, 0.80),
    ("truthful", "misconceptions"): (0.22, 0.31, 0.47, 0.55, 0.60, 0.58),
    ("truthful", "all"): (0.32, 0.42, 0.59, 0.66, 0.70, 0.69),
    ("truthful_informative", "all"): (0.25, 0.35, 0.55, 0.61, 0.66, 0.65),
    ("closed_follows", "closed-domain"): (0.3, 0.32, 0.4, 0.5, 0.52, 0.54),
    ("hallucination", "closed-domain"): (0.43, 0.38, 0.26, 0.21, 0.19, 0.18),
    ("rude", "basic"): (0.14, 0.12, 0.08, 0.06, 0.06, 0.07),
    ("rude", "respectful"): (0.12, 0.08, 0.05, 0.03, 0.02, 0.02),
    ("rude", "biased"): (0.29, 0.41, 0.34, 0.32, 0.47, 0.44),
    ("language2", ""): (0.20, 0.28, 0.44, 0.45, 0.43, 0.47),
    ("constraint", ""): (0.18, 0.29, 0.51, 0.62, 0.66, 0.67),
    ("flag/hallucination", ""): (0.39, 0.33, 0.24, 0.2, 0.18, 0.17),
    ("flag/needless_refusal", ""): (0.01, 0.02, 0.03, 0.03, 0.06, 0.05),
}
TASKS = {
    "public/reading": (0.61, 0.57, 0.49, 0.60),
    "public/cloze": (0.54, 0.52, 0.47, 0.53),
    "public/mood": (0.72, 0.80, 0.76, 0.79),
    "public/translation": (0.46, 0.43, 0.31, 0.42),
}


def write_demo(path: Path, without: Iterable[str] = (), hostile: bool = True) -> Path:
    """Write a demo directory and return it; `without` names runs, folders or files to leave out."""
    without, rng = set(without), Random(7)
    for name in ("base", "sft", "rm", "ppo-init", "ppo", "ppo-ptx"):
        if name not in without:
            _write_run(path / name, name, rng, hostile)
    if "data" not in without:
        _write_data(path / "data", rng, without)
    if "evals" not in without:
        _lines(path / "evals" / "results.jsonl", _results())
        _lines(path / "evals" / "samples.jsonl", _samples(hostile))
    if "stages" not in without:
        _lines(path / "stages.jsonl", _stages())
    return path


def _write_run(path: Path, name: str, rng: Random, hostile: bool) -> None:
    command = {"base": "pretrain", "ppo-init": "sft", "ppo-ptx": "ppo"}.get(name, name)
    config: dict[str, Any] = {"seed": 1, "lr": 3e-4, "epochs": 16 if command == "sft" else 2}
    if command == "ppo":
        config |= {"kl_coef": 0.02, "ptx_coef": 27.8 if name == "ppo-ptx" else 0.0, "steps": 240}
    config["out"] = f"runs/{HOSTILE[0] if hostile else 'demo'}/{name}"
    info = {
        "command": command,
        "config": config,
        "versions": {"instil": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "threads": 2,
        "status": "finished",
        "time_started": "2026-01-02T03:04:05Z",
        "time_finished": "2026-01-02T03:09:44Z",
    }
    _json(path / "run.json", info)
    series = {"ppo": _ppo, "ppo-ptx": _ppo, "sft": _sft, "ppo-init": _sft}.get(name, _loss)
    _lines(path / "metrics.jsonl", list(series(name, rng)))
    if command == "ppo":
        text = HOSTILE[1] if hostile else "The town of Ost is known for its bells."
        rows = [
            {"step": s, "prompt": "Say one thing.", "response": text, "score": 1.25}
            for s in (1, 240)
        ]
        _lines(path / "samples.jsonl", rows)
    if name == "rm":
        rows = [_accuracy(s, g) for s in ("train", "valid") for g in ("training", "held-out")]
        _json(path / "accuracy.json", {"accuracy": rows})


def _ppo(name: str, rng: Random) -> Iterable[dict[str, Any]]:
    reach, far = (2.35, 11.0) if name == "ppo" else (2.15, 8.0)
    for step in range(1, 241):
        done = 1 - math.exp(-step / 70)
        yield {
            "step": step,
            "objective/scores": 0.3 + reach * done + rng.gauss(0, 0.12),
            "objective/kl": far * done * done + rng.gauss(0, 0.3) * done,
            "completions/mean_length": 21 + 9 * done + rng.gauss(0, 0.8),
            "completions/clipped_ratio": max(0.0, 0.04 - 0.03 * done + rng.gauss(0, 0.006)),
            "val/explained_var": 0.75 * done - 0.1 + rng.gauss(0, 0.05),
        }


def _sft(name: str, rng: Random) -> Iterable[dict[str, Any]]:
    for step in range(1, 321):
        row: dict[str, Any] = {"step": step, "loss": 2.2 * math.exp(-step / 90) + 0.4}
        if step % 20 == 0:
            epoch = step / 20
            row["eval/loss"] = (
                1.32 - 0.3 * math.exp(-1) * min(epoch, 2) / 2 + 0.035 * max(0, epoch - 2)
            )
            row["eval/rm_score"] = -1.1 + 1.3 * (1 - math.exp(-epoch / 4)) + rng.gauss(0, 0.03)
            row["eval/rm_score"] -= 0.2 if name == "ppo-init" else 0
        yield row


def _loss(name: str, rng: Random) -> Iterable[dict[str, Any]]:
    for step in range(1, 201):
        noise = rng.gauss(0, 0.02)
        yield {
            "step": step,
            "loss": 0.56 + 0.13 * math.exp(-step / 40) + noise,
            "accuracy": 0.72 - 0.2 * math.exp(-step / 40) + noise,
        }


def _accuracy(split: str, group: str) -> dict[str, Any]:
    model = {"train": 0.78, "valid": 0.724}[split] - (0.025 if group == "held-out" else 0)
    return {
        "split": split,
        "group": group,
        "rankings": 310,
        "text": "",
        "model": estimate(model, 0.012, 4100),
        "longer": estimate(0.561, 0.013, 4100),
        "agreement": estimate(0.745 if group == "training" else 0.768, 0.011, 1900),
    }


def _write_data(path: Path, rng: Random, without: set[str]) -> None:
    intake = {
        "read": 1461,
        "kept": sum(USE_CASES.values()),
        "dropped": {"duplicate": 244, "pii": 81, "over_cap": 57, "too_long": 26, "empty": 9},
        "splits": {"train": 742, "valid": 97, "test": 205},
        "use_cases": USE_CASES,
        "languages": {"english": 982, "second": 62},
    }
    _json(path / "intake.json", intake)
    groups = {"training": estimate(0.738, 0.009, 5200), "held-out": estimate(0.761, 0.015, 1700)}
    _json(path / "agreement.json", groups | {"between": estimate(0.729, 0.011, 2600)})
    people = [(f"t{i}", "training") for i in range(14)] + [(f"h{i}", "held-out") for i in range(6)]
    rows = [{"schema": "instil.labeler/1", "id": i, "name": i, "group": g} for i, g in people]
    _lines(path / "labelers.jsonl", rows)
    rankings = []
    for n in range(400):
        ids = [f"r{n}-{k}" for k in range(rng.randint(4, 9))]
        tiers = [[i] for i in ids[2:]]
        tiers.insert(rng.randint(0, 2), ids[:2]) if rng.random() < 0.6 else tiers.extend(
            [[ids[0]], [ids[1]]]
        )
        who = rng.choice(people)[0]
        rankings.append(
            {"schema": "instil.ranking/1", "prompt_id": f"p{n}", "labeler_id": who, "tiers": tiers}
        )
    if "rankings" not in without:
        _lines(path / "rankings.jsonl", rankings)


def _results() -> list[dict[str, Any]]:
    rows = []
    for policy, mean in WIN.items():
        rows.append(_result("win_rate", policy, "held-out", mean, 0.021, 410))
        rows.append(_result("win_rate", policy, "training", mean + 0.02, 0.021, 410))
        rows.append(_result("win_rate_greedy", policy, "held-out", mean - 0.01, 0.021, 410))
    for (name, setting), means in MEASURES.items():
        unit = "score" if name == "likert" else "share"
        error = 0.09 if name == "likert" else 0.022
        for policy, mean in zip(POLICIES, means, strict=True):
            rows.append(_result(name, policy, setting, mean, error, 400, unit))
    for name, scores in TASKS.items():
        for policy, mean in zip(("base", "sft", "ppo", "ppo-ptx"), scores, strict=True):
            rows.append(_result(name, policy, "", mean, 0.016, 800))
    for policy, kl, score, length in (
        ("sft", 0.0, 0.31, 21.2),
        ("best-of-16", 1.84, 1.72, 24.8),
        ("ppo", 10.4, 2.46, 29.7),
        ("ppo-ptx", 7.6, 2.31, 28.4),
    ):
        rows.append(_result("kl", policy, "", kl, 0.12, 400, "nats"))
        rows.append(_result("rm_score", policy, "", score, 0.05, 400, "score"))
        rows.append(_result("length", policy, "", length, 0.6, 400, "words"))
    for split in ("train", "valid"):
        for group in ("training", "held-out"):
            rows.append(_result("rm_ceiling", "truth", f"{split} {group}", 0.801, 0.011, 4100))
    return rows


def _samples(hostile: bool) -> list[dict[str, Any]]:
    answers = {
        "base": "and what is the capital? and what is the river? and what is the",
        "base-prompted": "The capital is Ost, or perhaps Vel, which is said to be large.",
        "sft": "The capital of Marn is Vel.",
        "best-of-16": "The capital of Marn is Vel, on the river Ane.",
        "ppo": "Vel is the capital of Marn. It lies on the river Ane and is known for its bells.",
        "ppo-ptx": "The capital of Marn is Vel.\n\nIt lies on the river Ane.",
    }
    flags = {
        "base": ["fails_task", "hallucination"],
        "base-prompted": ["false"],
        "ppo": ["opinion"],
    }
    rows = []
    for n in range(40):
        case = list(USE_CASES)[n % len(USE_CASES)]
        nasty = HOSTILE[n % len(HOSTILE)] if hostile else ""
        prompt = f"What is the capital of Marn? Answer in at most {n % 3 + 1} sentences. {nasty}"
        texts = {policy: f"{text} {nasty}".strip() for policy, text in answers.items()}
        rows.append(
            {
                "prompt": prompt,
                "use_case": case,
                "split": "test",
                "responses": texts,
                "flags": flags,
            }
        )
    return rows


def _stages() -> list[dict[str, Any]]:
    rows = (
        ("pretrain", 74.2, 1180, 3.1e13, 1.6e6, 3.2e6),
        ("sft", 31.0, 990, 6.4e12, 1.6e6, 6.7e5),
        ("rm", 48.7, 1050, 1.2e13, 1.6e6, 1.3e6),
        ("ppo", 143.9, 1640, 4.9e13, 1.6e6, 2.6e6),
        ("ppo-ptx", 197.5, 1720, 8.8e13, 1.6e6, 5.2e6),
        ("evals", 61.3, 900, 1.1e13, 1.6e6, 3.4e6),
    )
    names = ("stage", "seconds", "peak_mb", "flops", "params", "tokens")
    return [dict(zip(names, row, strict=True)) for row in rows]


def estimate(mean: float, stderr: float, n: int) -> dict[str, Any]:
    """An estimate as the stages write it."""
    half = 1.96 * stderr
    bounds = {"low": round(mean - half, 4), "high": round(mean + half, 4)}
    return {"mean": mean, "stderr": stderr, **bounds, "n": n, "clusters": n // 2}


def _result(
    name: str, policy: str, setting: str, mean: float, stderr: float, n: int, unit: str = "share"
) -> dict[str, Any]:
    numbers = estimate(mean, stderr, n)
    return {"eval": name, "policy": policy, "setting": setting, **numbers, "unit": unit}


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
