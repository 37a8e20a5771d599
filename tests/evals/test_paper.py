"""evals/paper.py: `instil eval` from its command line, and the figures of small answers by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from instil.cli import main
from instil.errors import InstilError
from instil.evals import paper
from instil.evals.paper import SUITES, Config, grade, graded, read_tasks
from instil.evals.source import Folder
from instil.evals.task import Answer, Item, Options, Task, each
from instil.evals.tasks import truthfulqa_mc
from instil.lm.models import new_policy, save_policy
from instil.lm.text import Codec, train_tokenizer
from instil.stats import Estimate

QUESTIONS = [
    {"question": f"Q{n}?", "mc1_targets": {"yes": 1, "no": 0}, "mc2_targets": {"yes": 1, "no": 0}}
    for n in range(6)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    codec = Codec(train_tokenizer(["yes no Q? A: Q1 " * 4], 270))
    for seed, name in enumerate(("base", "ppo")):
        model = new_policy("llama", codec.vocab_size, 16, 1, 2, 512, seed, codec.pad_id, 0)
        save_policy(model, codec, folder / name)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in QUESTIONS)
    (folder / "truthfulqa_v1_mc.jsonl").write_text(lines)
    return folder


def command(models: Path, data: Path, out: Path, *more: str) -> list[str]:
    both = [f"--model=base={models / 'base'}", f"--model=ppo={models / 'ppo'}"]
    return ["eval", *both, "--data", str(data), "--out", str(out), *more]


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_from_the_command_line_to_the_table(models: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(models, data, out)) == 0
    found = results(out)
    assert [m["name"] for m in found["models"]] == ["base", "ppo"]
    rows = {(r["task"], r["measure"], r["model"]) for r in found["results"]}
    assert {("truthfulqa_mc", "mc1", "base"), ("truthfulqa_mc", "mc2", "ppo")} <= rows
    # what has no data is said, with the file that was looked for
    missing = {m["task"]: m["why"] for m in found["missing"]}
    assert set(missing) == set(SUITES["paper"]) - {"truthfulqa_mc"}
    assert "dev-v1.1.json" in missing["squad"]
    assert all(d["baseline"] == "base" and d["model"] == "ppo" for d in found["differences"])
    assert "PPO" in (out / "table.md").read_text()
    assert "</html>" in (out / "report.html").read_text()


def test_a_second_call_asks_nothing(
    models: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main(command(models, data, out)) == 0
    first = (out / "results.json").read_bytes()

    def choose(*anything: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(paper.Local, "choose", choose)
    assert main(command(models, data, out)) == 0
    assert (out / "results.json").read_bytes() == first


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--task", "squard"], 'did you mean "squad"'),
        (["--task", "squad"], "dev-v1.1.json"),
        (["--data", "/nowhere/at/all"], "is not a folder"),
        (["--model", "ppo=elsewhere"], "different names"),
        (["--model", "sft=elsewhere"], "elsewhere: no such directory"),
        (["--judge", "ftp://127.0.0.1/v1"], "is not the URL of an endpoint"),
        (["--limit", "-1"], "limit -1 is negative"),
        (["--batch-size", "0"], "batch_size 0"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    models: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    said: str,
) -> None:
    assert main(command(models, data, tmp_path / "out", *more)) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("instil eval: ")
    assert not (tmp_path / "out").exists()  # and before anything was asked


def test_a_changed_column_is_named(models: Path, data: Path, tmp_path: Path) -> None:
    path = data / "truthfulqa_v1_mc.jsonl"
    path.write_text(path.read_text().replace("mc2_targets", "targets"))
    with pytest.raises(InstilError, match=rf"{path}:1: no field 'mc2_targets'"):
        read_tasks([truthfulqa_mc], Folder(data), Options())


def test_a_model_without_a_tokenizer_is_named(
    models: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from instil.lm.models import load_policy

    load_policy(models / "base").save_pretrained(str(tmp_path / "bare"))
    call = ["eval", f"--model={tmp_path / 'bare'}", "--data", str(data)]
    assert main([*call, "--out", str(tmp_path / "out")]) == 1
    assert str(tmp_path / "bare") in capsys.readouterr().err


def right(item: Item, answer: Answer) -> dict[str, float]:
    found = {"right": float(answer.text == "yes")}
    if answer.text != "unsure":
        found["sure"] = 1.0
    return found


def a_task(**settings: Any) -> Task:
    # two passages of two questions each
    items = [Item(id=f"i{n}", text="q", source=f"p{n // 2}", group="ab"[n % 2]) for n in range(4)]
    plain = {"name": "t", "setting": "s", "items": items, "main": "right", "max_tokens": 3}
    return Task(**{"grade": each(right)} | plain | settings)


def said(*texts: str) -> list[Answer]:
    return [Answer(text=text, dropped=int(text == "no")) for text in texts]


def test_figures_are_means_clustered_by_source() -> None:
    found = grade(a_task(), said("yes", "yes", "no", "unsure"), "m").rows
    rows = {(r["measure"], r["group"]): r for r in found}
    every = rows["right", ""]
    # the residuals of the two passages add up to +1 and -1: sqrt(2 / 1 * 2) / 4 = 0.5
    assert (every["mean"], every["n"], every["clusters"]) == (0.5, 4, 2)
    assert every["stderr"] == pytest.approx(math.sqrt(2 / 1 * 2) / 4)
    assert (every["low"], every["high"]) == (0, 1)  # of a share
    assert (rows["sure", ""]["n"], rows["sure", ""]["mean"]) == (3, 1)  # one does not count
    assert rows["right", "b"]["mean"] == 0.5
    assert every["main"] and not rows["right", "b"]["main"] and not rows["sure", ""]["main"]
    assert every["dropped"] == 0.25


def test_no_mistake_in_a_few_items_is_not_certainty() -> None:
    rows = grade(a_task(), said(*["yes"] * 4), "m").rows
    (every,) = [r for r in rows if (r["measure"], r["group"]) == ("right", "")]
    # two passages, all right: a share p with p^2 = 0.025 is as low as that leaves
    assert (every["low"], every["high"]) == (pytest.approx(math.sqrt(0.025)), 1)
    rows = grade(a_task(unit="points"), said(*["no"] * 4), "m").rows
    (every,) = [r for r in rows if (r["measure"], r["group"]) == ("right", "")]
    assert (every["low"], every["high"]) == (0, pytest.approx(100 * (1 - math.sqrt(0.025))))
    rows = grade(a_task(unit="bits"), said(*["no"] * 4), "m").rows  # of no known range
    assert [r["high"] for r in rows if r["measure"] == "right"] == [0, 0, 0]


def test_differences_are_paired_and_adjusted() -> None:
    task = a_task(tax=True)
    other = a_task(tax=True, setting="few-shot")
    answers = {
        "base": {
            ("t", "s"): said("yes", "yes", "yes", "no"),
            ("t", "few-shot"): said(*["yes"] * 4),
        },
        "ppo": {("t", "s"): said("yes", "no", "no", "no"), ("t", "few-shot"): said(*["yes"] * 4)},
    }
    first, second = graded([task, other], answers)["differences"]
    # item by item 0, -1, -1, 0: both passages at -0.5
    assert (first["mean"], first["model"], first["baseline"]) == (-0.5, "ppo", "base")
    assert first["p_adjusted"] >= 0.5  # two clusters say little: 2^(1-2), twice
    assert (second["mean"], second["p_adjusted"]) == (0, 1)


def test_a_total_stands_beside_the_means() -> None:
    def total(items: Any, answers: Any) -> dict[str, Estimate]:
        return {"bleu": Estimate(20.0, 1.0, 18.0, 22.0, 4, 4)}

    task = a_task(total=total, main="bleu", unit="points")
    other = {"base": said(*["yes"] * 4), "ppo": said(*["no"] * 4)}
    found = graded([task], {name: {("t", "s"): a} for name, a in other.items()})
    assert [r["mean"] for r in found["rows"] if r["main"]] == [20.0, 20.0]
    assert found["differences"][0]["stderr"] == pytest.approx(math.sqrt(2))


def test_a_task_that_a_model_cannot_answer_is_left_out_of_its_column() -> None:
    task, other = a_task(tax=True), a_task(tax=True, setting="few-shot")
    answers = {
        "base": {("t", "s"): said(*["yes"] * 4), ("t", "few-shot"): said(*["yes"] * 4)},
        "ppo": {("t", "s"): said(*["no"] * 4)},
    }
    found = graded([task, other], answers)
    assert {(r["model"], r["setting"]) for r in found["rows"]} == {
        ("base", "s"),
        ("base", "few-shot"),
        ("ppo", "s"),
    }
    assert [d["setting"] for d in found["differences"]] == ["s"]


@pytest.mark.slow
def test_a_model_with_a_short_context_answers_what_fits(
    models: Path, data: Path, tmp_path: Path
) -> None:
    lines = "".join(
        json.dumps({"id": f"p{n}", "text": "Q?", "schema": "instil.prompt/1", "split": "test"})
        + "\n"
        for n in range(2)
    )
    (data / "prompts.jsonl").write_text(lines)
    codec = Codec(train_tokenizer(["yes no Q? A: Q1 " * 4], 270))
    short = new_policy("llama", codec.vocab_size, 16, 1, 2, 128, 0, codec.pad_id, 0)
    save_policy(short, codec, tmp_path / "short")
    out = tmp_path / "out"
    more = [f"--model=short={tmp_path / 'short'}", "--prompts", str(data / "prompts.jsonl")]
    assert main(command(models, data, out, *more)) == 0
    found = results(out)
    why = {m["task"]: m["why"] for m in found["missing"]}
    assert "context of 128 tokens has no room" in why["instructions (prompts), short"]
    asked = {r["model"] for r in found["results"] if r["task"] == "instructions"}
    assert asked == {"base", "ppo"}


def test_models_are_called_after_their_runs(tmp_path: Path) -> None:
    assert paper._named("sft=runs/a=b") == ("sft", "runs/a=b")
    assert paper._named("runs/sft/final") == ("sft", "runs/sft/final")
    assert paper._named("/models/llama=8b")[0] == "llama=8b"
    assert paper._named("http://127.0.0.1:1/v1#gpt") == ("gpt", "http://127.0.0.1:1/v1#gpt")


def test_the_suite_is_files_of_tasks() -> None:
    folder = Path(paper.__file__).parent / "tasks"
    assert {p.stem for p in folder.glob("*.py")} - {"__init__"} == set(SUITES["paper"])
    assert Config.__doc__
