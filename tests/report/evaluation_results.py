"""A made-up results.json of `instil eval` for tests: four models, every kind of row.

found()                    what `instil.evals.paper` writes
write(folder)              folder/results.json
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

MODELS = ("base", "sft", "ppo", "ppo-ptx")
PROMPTS = ("qa", "instruction", "qa+instruction")
STYLES = ("basic", "respectful", "biased")
Means = tuple[float, ...]

TRUTH = {
    "qa": (0.251, 0.271, 0.752, 0.689),
    "instruction": (0.242, 0.206, 0.588, 0.315),
    "qa+instruction": (0.226, 0.257, 0.382, 0.494),
}
TOXICITY = {
    "basic": (0.231, 0.211, 0.228, 0.234),
    "respectful": (0.233, 0.199, 0.205, 0.196),
    "biased": (0.285, 0.256, 0.427, 0.400),
}
WINOGENDER = {
    "basic": (0.735, 0.503, 0.618, 0.737),
    "respectful": (0.796, 0.479, 0.527, 0.696),
    "biased": (0.783, 0.540, 0.564, 0.690),
}
CROWS = {
    "basic": (0.410, 0.241, 0.326, 0.413),
    "respectful": (0.362, 0.204, 0.270, 0.243),
    "biased": (0.353, 0.187, 0.223, 0.205),
}
ACCURACY = {
    "hellaswag": ((0.781, 0.753, 0.743, 0.807), (0.791, 0.741, 0.759, 0.820), 10042),
    "sst": ((0.898, 0.907, 0.920, 0.900), (0.944, 0.936, 0.944, 0.938), 872),
    "rte": ((0.563, 0.570, 0.704, 0.668), (0.614, 0.700, 0.711, 0.765), 277),
    "wsc": ((0.740, 0.654, 0.683, 0.731), (0.798, 0.779, 0.654, 0.788), 104),
}
POINTS = {
    "squad_v1": ((71.2, 66.9, 58.8, 69.4), (78.1, 75.0, 63.7, 77.6), "f1", 1190),
    "squad_v2": ((64.3, 57.7, 43.7, 59.9), (69.8, 65.9, 52.0, 69.9), "f1", 11873),
    "drop": ((27.5, 15.8, 13.1, 15.2), (35.3, 35.9, 27.8, 33.3), "f1", 9536),
    "quac": ((42.6, 45.2, 34.5, 41.6), (45.4, 48.8, 36.0, 47.0), "f1", 7306),
    "translation": ((38.9, 36.9, 24.2, 34.3), (39.9, 35.1, 26.6, 36.8), "bleu", 1500),
    "cnn_dm": ((19.6, 22.5, 22.7, 22.0), (20.4, 22.9, 22.6, 22.3), "rouge_l", 2354),
}


def found() -> dict[str, Any]:
    """Everything, as JSON has it."""
    rows: list[dict[str, Any]] = []
    length = (88.0, 41.0, 63.0, 60.0)
    rows += figures(
        "instructions", "alpaca_eval", "words", length, 252, unit="score", main=True, spread=40
    )
    rows += figures("instructions", "alpaca_eval", "empty", (0.02, 0.01, 0.0, 0.0), 252)
    for measure, means in (
        ("win_rate", (0.61, 0.80, 0.845)),
        ("win_rate_length_controlled", (0.63, 0.78, 0.82)),
        ("first_preferred", (0.55, 0.53, 0.51)),
    ):
        rows += figures(
            "instructions",
            "alpaca_eval",
            measure,
            means,
            252,
            models=MODELS[1:],
            better="higher",
            baseline="base",
        )
    for prompt in PROMPTS:
        about = {"better": "higher", "note": "said by trained judges"}
        rows += figures(
            "truthfulqa", prompt, "true_informative", TRUTH[prompt], 817, main=True, **about
        )
        true = tuple(mean + 0.06 for mean in TRUTH[prompt])
        rows += figures("truthfulqa", prompt, "true", true, 817, **about)
        rows += figures(
            "truthfulqa",
            prompt,
            "true_informative",
            TRUTH[prompt],
            437,
            group="adversarial",
            **about,
        )
        mc = (0.41, 0.43, 0.51, 0.49)
        about = {"better": "higher", "dropped": (0.0, 0.0, 0.12, 0.031)}
        rows += figures("truthfulqa_mc", prompt, "mc2", mc, 817, main=True, **about)
        rows += figures("truthfulqa_mc", prompt, "mc1", tuple(m - 0.16 for m in mc), 817, **about)
    for style in STYLES:
        note = {"note": "toxicity by the lexicon: not comparable with the paper's scores"}
        about = {"better": "lower", **note}
        toxic = tuple(max(0.0, mean - 0.12) for mean in TOXICITY[style])
        rows += figures(
            "real_toxicity",
            style,
            "toxicity",
            TOXICITY[style],
            2000,
            unit="score",
            main=True,
            spread=0.25,
            **about,
        )
        rows += figures("real_toxicity", style, "toxic", toxic, 2000, **about)
    for style in STYLES:
        about = {"unit": "bits", "spread": 0.3}
        rows += figures(
            "winogender", style, "entropy", WINOGENDER[style], 240, clusters=60, main=True, **about
        )
        rows += figures("winogender", style, "male", (0.71, 0.74, 0.73, 0.7), 240, clusters=60)
        rows += figures("crows_pairs", style, "entropy", CROWS[style], 1508, main=True, **about)
        rows += figures("crows_pairs", style, "stereotype", (0.66, 0.65, 0.67, 0.66), 1508)
        for group, n in (("race-color", 516), ("gender", 262), ("religion", 105)):
            rows += figures("crows_pairs", style, "entropy", CROWS[style], n, group=group, **about)
    made_up = {"better": "lower", "note": "numbers and names that the prompt has not"}
    rows += figures(
        "closed_domain",
        "zero-shot",
        "hallucination",
        (0.41, 0.28, 0.2, 0.21),
        480,
        clusters=240,
        main=True,
        **made_up,
    )
    public: dict[str, Any] = {"better": "higher", "tax": True, "main": True}
    for task, (zero, few, n) in ACCURACY.items():
        rows += figures(task, "zero-shot", "accuracy", zero, n, **public)
        rows += figures(task, "few-shot", "accuracy", few, n, **public)
    for task, (zero, few, measure, n) in POINTS.items():
        cut = {"cut": (0.004, 0.004, 0.004, 0.004)} if task == "cnn_dm" else {}
        many = {**public, **cut, "unit": "points", "spread": 30.0, "clusters": n // 5}
        rows += figures(task, "zero-shot", measure, zero, n, **many)
        rows += figures(task, "few-shot", measure, few, n, **many)
        if measure == "f1":
            exact = tuple(mean - 9 for mean in few)
            rows += figures(task, "few-shot", "exact", exact, n, **{**many, "main": False})
    return {
        "models": [{"name": name, "where": f"runs/{name}"} for name in MODELS],
        "settings": {
            "suite": "paper",
            "limit": 0,
            "seed": 0,
            "toxicity": "lexicon",
            "data": "data/evaluation",
        },
        "results": rows,
        "differences": differences(rows),
        "missing": [{"task": "tldr", "why": "tldr_test.jsonl (or .gz), see docs/evals.md"}],
    }


def figures(
    task: str,
    setting: str,
    measure: str,
    means: Means,
    n: int,
    *,
    models: tuple[str, ...] = MODELS,
    unit: str = "share",
    spread: float = 0.5,
    clusters: int = 0,
    **about: Any,
) -> list[dict[str, Any]]:
    """A row for each model; `spread` is the standard deviation of an item."""
    rows = []
    for place, (model, mean) in enumerate(zip(models, means, strict=True)):
        error = spread / math.sqrt(clusters or n)
        row = {
            "task": task,
            "setting": setting,
            "model": model,
            "better": "neither",
            "tax": False,
            "dropped": 0.0,
            "cut": 0.0,
            "note": "",
            "measure": measure,
            "group": "",
            "main": False,
            "unit": unit,
            **bounds(mean, error, n, clusters or n),
        }
        rows.append(row | {k: v[place] if isinstance(v, tuple) else v for k, v in about.items()})
    return rows


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the main measures, as if half of the spread were shared by the two models."""
    base = {(r["task"], r["setting"]): r for r in rows if r["main"] and r["model"] == MODELS[0]}
    out = []
    for row in rows:
        if not row["main"] or row["model"] == MODELS[0]:
            continue
        first = base[row["task"], row["setting"]]
        numbers = bounds(row["mean"] - first["mean"], row["stderr"], row["n"], row["clusters"])
        one = {
            name: row[name]
            for name in ("task", "setting", "measure", "model", "unit", "tax", "better")
        }
        one |= {"baseline": MODELS[0], **numbers}
        if row["tax"]:
            z = abs(numbers["mean"]) / numbers["stderr"] / math.sqrt(2)
            one["p_adjusted"] = min(1.0, 20 * math.erfc(z))
        out.append(one)
    return out


def bounds(mean: float, error: float, n: int, clusters: int) -> dict[str, Any]:
    """An estimate."""
    low, high = mean - 1.96 * error, mean + 1.96 * error
    return {"mean": mean, "stderr": error, "low": low, "high": high, "n": n, "clusters": clusters}


def write(folder: Path, value: Any = None) -> Path:
    """folder/results.json; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found() if value is None else value, indent=2)
    (folder / "results.json").write_text(text, encoding="utf-8")
    return folder
