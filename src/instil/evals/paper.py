"""Did it work? Everything that the paper asks of a model, of several models side by side.

    instil eval --model base=runs/base --model sft=runs/sft --model ppo-ptx=runs/ppo-ptx \\
                --data data/evaluation --out runs/eval

Each model answers each task of the suite; answers are kept, so a second call asks only what is
missing, and a model can be added later. Then the answers are graded, and `out` gets

    answers/MODEL/TASK.SETTING.jsonl    what was said
    results.json                        every figure, with its interval, and what was not run
    table.md  report.html               the same to read, the alignment tax marked

The first model is the one that others are compared with, item by item. A model is a run, a Hugging
Face directory, or the URL of an OpenAI-compatible server: NAME=http://127.0.0.1:8000/v1#MODEL.
Which file is looked for, and where it comes from, is in docs/evals.md; a task whose file is not
there is listed as not run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from instil.compare import holm, p_value, paired_difference
from instil.errors import InstilError, nearest
from instil.evals.answers import ask
from instil.evals.endpoint import Endpoint
from instil.evals.llm_judge import by, compare_models
from instil.evals.local import Local
from instil.evals.source import Folder, Hub
from instil.evals.task import Answer, Answerer, CannotAnswer, Missing, Options, Source, Task
from instil.evals.tasks import (
    closed_domain,
    crows_pairs,
    drop,
    hellaswag,
    instructions,
    quac,
    real_toxicity,
    rte,
    squad,
    sst,
    summaries,
    translation,
    truthfulqa,
    truthfulqa_mc,
    winogender,
    wsc,
)
from instil.lm.machine import Precision, settle
from instil.lm.sample import policy_name
from instil.lm.trust import check_model
from instil.progress import Progress
from instil.report import suite as page
from instil.runs import Run, model_dir, say, write_json
from instil.stats import Estimate, mean_estimate, within

SUITES: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "instructions": instructions,
        "truthfulqa": truthfulqa,
        "truthfulqa_mc": truthfulqa_mc,
        "real_toxicity": real_toxicity,
        "winogender": winogender,
        "crows_pairs": crows_pairs,
        "closed_domain": closed_domain,
        "squad": squad,
        "drop": drop,
        "quac": quac,
        "hellaswag": hellaswag,
        "sst": sst,
        "rte": rte,
        "wsc": wsc,
        "translation": translation,
        "summaries": summaries,
    }
}
"""Suite -> name of a task -> the file of `tasks/` that makes it, in the order of the table."""


TOPS: Mapping[str, float] = {"share": 1.0, "points": 100.0}
"""Unit -> the most that a value can be; the least is 0."""
JUDGED = "instructions"
"""The task whose responses a language model compares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Ask everything that the paper asks of one or more models."""

    model: tuple[str, ...]
    """NAME=PATH or NAME=URL#MODEL for each model, the one to compare with first; a path alone is
    called after its run."""
    data: Path
    """Folder of the data files, in their published formats."""
    out: Path = Path("runs/eval")
    """Directory of the answers of all calls, and of the figures and the table of the last."""
    suite: Literal["paper"] = "paper"
    """Which tasks."""
    task: tuple[str, ...] = ()
    """Only these tasks of the suite."""
    limit: int = 0
    """Items of each task, spread evenly over its data; 0 asks all."""
    hub: bool = False
    """Fetch what is not in `data` from the Hugging Face hub by name; needs a network and the extra
    `datasets`."""
    truth_judge: Path | None = None
    """Model that says whether an answer is true, made by `instil judge`."""
    info_judge: Path | None = None
    """Model that says whether an answer is informative."""
    toxicity: str = "lexicon"
    """What scores toxicity: "lexicon", a directory of a text classifier, or module:function."""
    judge: str = ""
    """URL#MODEL of an OpenAI-compatible server that compares answers with the first model's."""
    prompts: tuple[Path, ...] = ()
    """Users' prompts, record files, for instruction following."""
    batch_size: int = 64
    """Sequences that are decoded side by side."""
    precision: Precision = "auto"
    """Of matrix products: auto, fp32 or bf16."""
    seed: int = 0
    threads: int = 0
    """Torch threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise InstilError(f"limit {self.limit} is negative; 0 asks all items")
        if self.batch_size < 1:
            raise InstilError(f"batch_size {self.batch_size}: decode at least one at a time")


@dataclass(frozen=True, slots=True)
class Held:
    """What of the settings a directory is bound to; the rest may change from call to call."""

    suite: str


@dataclass(frozen=True, slots=True)
class Graded:
    """The answers of one model to one task, in figures."""

    rows: list[dict[str, Any]]
    values: dict[str, list[float]]
    """Measure -> one value an item, nan where it does not count."""


def run(config: Config) -> None:
    """Ask, grade, write."""
    suite = SUITES[config.suite]
    for name in config.task:
        if name not in suite:
            raise InstilError(f"task {name!r}: not in the suite{nearest(name, suite)}")
    models = [_named(text) for text in config.model]
    if not models or len({name for name, _ in models}) < len(models):
        raise InstilError(f"--model {' '.join(config.model)}: give models of different names")
    settle(config.threads)
    options = Options(
        limit=config.limit,
        seed=config.seed,
        truth_judge=config.truth_judge,
        info_judge=config.info_judge,
        toxicity=config.toxicity,
        judge=config.judge,
        baseline=models[0][0],
        prompts=config.prompts,
    )
    source: Source = Hub(config.data) if config.hub else Folder(config.data)
    tasks, missing = read_tasks([suite[n] for n in config.task or suite], source, options)
    if missing and (config.task or not tasks):
        raise InstilError("; ".join(f"{m['task']}: {m['why']}" for m in missing))
    judge = None
    if config.judge:
        judge = by(Endpoint.open("judge", config.judge), config.out / "judged", config.seed)
    for _, where in models:
        if not _is_url(where):
            check_model(model_dir(Path(where)))
    with Run.open(config.out, "eval", Held(config.suite), reopen=True) as held:
        answers = {}
        for name, where in models:
            answers[name], cannot = _asked(name, where, tasks, config, held)
            missing += cannot
        results = graded(tasks, answers)
        found: dict[str, Any] = {
            "models": [{"name": name, "where": where} for name, where in models],
            "settings": asdict(config) | {"model": list(config.model)},
            "results": results["rows"],
            "differences": results["differences"],
            "missing": missing,
        }
        _write(config.out, found)
        if judge:
            for task in [task for task in tasks if task.name == JUDGED]:
                found["results"] += compare_models(task, of(task, answers), models[0][0], judge)
            _write(config.out, found)
        held.finish()
    for row in missing:
        say(f"not run: {row['task']}: {row['why']}")
    say(f"{config.out}/table.md, report.html, results.json")


def _write(out: Path, found: dict[str, Any]) -> None:
    write_json(out / "results.json", page.plain(found))
    page.write(out)


def read_tasks(
    modules: Sequence[Any], source: Source, options: Options
) -> tuple[list[Task], list[dict[str, str]]]:
    """The tasks of these files of `tasks/`, and those whose data are not there, with the reason."""
    tasks: list[Task] = []
    missing = []
    for module in modules:
        try:
            tasks += module.tasks(source, options)
        except Missing as error:
            missing.append({"task": module.__name__.rpartition(".")[2], "why": str(error)})
    return tasks, missing


def graded(
    tasks: Sequence[Task], answers: Mapping[str, Mapping[tuple[str, str], list[Answer]]]
) -> dict[str, list[dict[str, Any]]]:
    """Figures of every model, and differences of each to the first, on the main measure.

    answers  model -> (task, setting) -> one answer an item

    A model's differences on the public tasks are several comparisons at once, so their p-values are
    adjusted (Holm 1979) before a fall is called an alignment tax.
    """
    baseline, *others = answers
    rows: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    tax: dict[str, list[tuple[dict[str, Any], Estimate]]] = {name: [] for name in others}
    for task in tasks:
        found = {name: grade(task, said, name) for name, said in of(task, answers).items()}
        rows += [row for one in found.values() for row in one.rows]
        for name in [name for name in others if {name, baseline} <= found.keys()]:
            if gap := _difference(task, found[name], found[baseline]):
                row = {
                    "task": task.name,
                    "setting": task.setting,
                    "measure": task.main,
                    "unit": task.unit_of(task.main),
                    "better": task.better,
                    "tax": task.tax,
                    "model": name,
                    "baseline": baseline,
                    "p": p_value(gap),
                    **asdict(gap),
                }
                differences.append(row)
                if task.tax:
                    tax[name].append((row, gap))
    for of_model in tax.values():
        adjusted = holm([p_value(gap) for _, gap in of_model])
        for (row, _), p in zip(of_model, adjusted, strict=True):
            row["p_adjusted"] = p
    return {"rows": rows, "differences": differences}


def of(
    task: Task, answers: Mapping[str, Mapping[tuple[str, str], list[Answer]]]
) -> dict[str, list[Answer]]:
    """Model -> its answers to one task, of the models that could answer it."""
    key = (task.name, task.setting)
    return {name: found[key] for name, found in answers.items() if key in found}


def grade(task: Task, answers: Sequence[Answer], model: str) -> Graded:
    """The figures of one model on one task: every measure over all items, and over each group."""
    items = task.items
    measures = task.grade(items, answers)
    sources = [item.source or item.id for item in items]
    names = list(dict.fromkeys(name for found in measures for name in found))
    values = {n: [float(found.get(n, math.nan)) for found in measures] for n in names}
    parts = {"": list(range(len(items)))}
    for number, item in enumerate(items):
        if item.group:
            parts.setdefault(item.group, []).append(number)
    about = {
        "task": task.name,
        "setting": task.setting,
        "model": model,
        "better": task.better,
        "tax": task.tax,
        "dropped": sum(a.dropped > 0 for a in answers) / len(answers),
        "bare": sum(0 < a.dropped == len(i.shots) for a, i in zip(answers, items, strict=True))
        / len(answers),
        "cut": sum(a.cut > 0 for a in answers) / len(answers),
        "note": task.note,
    }
    rows = []
    for group, numbers in parts.items():
        for name in names:
            kept = [i for i in numbers if not math.isnan(values[name][i])]
            if kept:
                found = mean_estimate([values[name][i] for i in kept], [sources[i] for i in kept])
                if top := TOPS.get(task.unit_of(name)):
                    found = within(found, 0.0, top)
                rows.append(_row(about, task, name, group, found))
    for name, found in (task.total(items, answers) if task.total else {}).items():
        rows.append(_row(about, task, name, "", found))
    return Graded(rows, values)


def _row(
    about: Mapping[str, Any], task: Task, measure: str, group: str, found: Estimate
) -> dict[str, Any]:
    return {
        **about,
        "measure": measure,
        "group": group,
        "main": measure == task.main and not group,
        "unit": task.unit_of(measure),
        **asdict(found),
    }


def _difference(task: Task, ours: Graded, theirs: Graded) -> Estimate | None:
    """Ours less theirs on the main measure, item by item."""
    if task.main in ours.values and task.main in theirs.values:
        pairs = [
            (a, b, item.source or item.id)
            for a, b, item in zip(
                ours.values[task.main], theirs.values[task.main], task.items, strict=True
            )
            if not (math.isnan(a) or math.isnan(b))
        ]
        if not pairs:
            return None
        a, b, sources = zip(*pairs, strict=True)
        return paired_difference(a, b, sources)
    one, other = ([r for r in g.rows if r["main"]] for g in (ours, theirs))
    if not one or not other:
        return None
    # of figures that are no means, as if the items were others: the interval is on the wide side
    error = math.hypot(one[0]["stderr"], other[0]["stderr"])
    mean = one[0]["mean"] - other[0]["mean"]
    count = {"n": one[0]["n"], "clusters": one[0]["clusters"]}
    return Estimate(mean, error, mean - 1.96 * error, mean + 1.96 * error, **count)


def _is_url(where: str) -> bool:
    return where.startswith(("http://", "https://"))


def _named(text: str) -> tuple[str, str]:
    name, equals, where = text.partition("=")
    if equals and name and "/" not in name:
        return name, where
    if _is_url(text):
        return text.partition("#")[2] or text, text
    return policy_name(Path(text)), text


def _asked(
    name: str, where: str, tasks: Sequence[Task], config: Config, held: Run
) -> tuple[dict[tuple[str, str], list[Answer]], list[dict[str, str]]]:
    """The answers of one model to all tasks, and the tasks that it cannot answer."""
    model: Answerer
    if _is_url(where):
        model = Endpoint.open(name, where)
    else:
        model = Local.open(name, Path(where), config.batch_size, config.precision)
    done, found, cannot = 0, {}, []
    with Progress(name, sum(len(task.items) for task in tasks), ()) as progress:

        def said(count: int) -> None:
            nonlocal done
            done += count
            progress.update(done, {})
            if held.stop_requested:
                raise KeyboardInterrupt

        for task in tasks:
            try:
                answers = ask(model, task, config.out / "answers", config.seed, said)
                found[task.name, task.setting] = answers
            except CannotAnswer as error:
                cannot.append({"task": f"{task.name} ({task.setting}), {name}", "why": str(error)})
    if not found:
        raise InstilError(f"{name}: answers nothing: {cannot[0]['why']}")
    return found, cannot
