"""The loop on files of one's own: what is refused at once, and two loops from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from transformers import AutoModelForCausalLM

from instil import loop
from instil.cli import main
from instil.errors import InstilError
from instil.jsonl import read_records
from instil.lm.models import new_policy, save_policy
from instil.lm.text import Codec, train_tokenizer
from instil.records import Prompt, Ranking

COLORS = ("red", "blue", "green", "pink")
REWARDS = Path(__file__).parents[1] / "examples" / "rewards.py"
RECIPE = """
[loop]
max_tokens = 8
max_prompt_tokens = 32
eval_prompts = 6
valid = 0.2

[pretrain]
vocab_size = 290
width = 16
layers = 1
heads = 2
context = 64
row_length = 16
batch_size = 8
epochs = 0.5
lr = 1e-2
warmup = 2

[sft]
epochs = 1
batch_size = 8
lr = 1e-3

[rm]
epochs = 1
batch_size = 8
lr = 1e-3

[ppo]
steps = 2
batch_size = 8
minibatch_size = 4
lr = 1e-3
value_lr = 1e-3
truncated = "score"
sample_every = 1
"""


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A recipe, and one tiny file of each kind."""
    pick = Random(0).choice
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Which color? It is {pick(COLORS)}." for _ in range(120)))
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    asked = [f"Which color is thing {i}?" for i in range(40)]
    instructions = [
        {"instruction": prompt, "output": f"It is {pick(COLORS)}."} for prompt in asked[:30]
    ]
    compared = [
        {"prompt": prompt, "chosen": "It is red.", "rejected": "I will not say."}
        for prompt in asked
    ]
    return {
        "text": text,
        "recipe": recipe,
        "demonstrations": write_rows(tmp_path / "instructions.jsonl", instructions),
        "comparisons": write_rows(tmp_path / "comparisons.jsonl", compared[:30]),
        "held_out": write_rows(tmp_path / "held-out.jsonl", compared[25:]),
        "prompts": write_rows(tmp_path / "prompts.jsonl", [{"prompt": p} for p in asked]),
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny local model, not trained at all."""
    codec = Codec(train_tokenizer(["Which color? It is red."], 270))
    ids = {"pad_id": codec.pad_id, "eos_id": codec.eos_id}
    shape = {"vocab_size": codec.vocab_size, "width": 16, "layers": 1, "heads": 2, "context": 64}
    save_policy(new_policy("llama", **shape, **ids, seed=0), codec, tmp_path / "model")
    return tmp_path / "model"


def config(files: dict[str, Path], out: Path, *names: str, **more: object) -> loop.Config:
    given = {name: (files[name],) for name in names}
    return loop.Config(out=out, recipe=str(files["recipe"]), **given, **more)


def test_without_comparisons_there_must_be_a_reward(files, tmp_path):
    with pytest.raises(InstilError, match=r"give --comparisons .* or --reward module:function"):
        config(files, tmp_path / "out", "text", "prompts")


def test_without_text_there_must_be_a_model(files, tmp_path):
    with pytest.raises(InstilError, match=r"give --model, .* or --text"):
        config(files, tmp_path / "out", "comparisons")


def test_a_reward_alone_needs_prompts(files, tmp_path):
    with pytest.raises(InstilError, match="give --prompts"):
        config(files, tmp_path / "out", "text", reward=f"{REWARDS}:speech")


def test_a_mistake_in_the_flags_is_one_line(files, tmp_path, capsys):
    words = ["--recipe", str(files["recipe"]), "--text", str(files["text"])]
    assert main(["loop", "--out", str(tmp_path / "out"), *words]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("instil loop: give --comparisons")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("field", ["text", "demonstrations", "comparisons", "held_out", "prompts"])
def test_a_missing_file_is_named_before_anything_is_done(field, files, tmp_path):
    missing = {**files, field: tmp_path / "nowhere.jsonl"}
    with pytest.raises(InstilError) as caught:
        loop.run(config(missing, tmp_path / "out", "text", "comparisons", "held_out", field))
    flag = field.replace("_", "-")
    assert str(caught.value) == f"--{flag} {tmp_path / 'nowhere.jsonl'}: no such file"
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_named_before_anything_is_done(files, tmp_path):
    with pytest.raises(InstilError, match=r"--model .*nowhere: no such directory"):
        loop.run(config(files, tmp_path / "out", "comparisons", model=tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("reward", "problem"),
    [
        ("no_such_module:speech", "No module named 'no_such_module'"),
        (f"{REWARDS}:speach", "has no attribute 'speach'"),
        (f"{REWARDS.parent / 'nowhere.py'}:speech", "No module named 'nowhere'"),
        (f"{REWARDS}:re", "module is not a function"),
    ],
)
def test_a_wrong_function_is_found_before_anything_is_done(reward, problem, files, tmp_path):
    with pytest.raises(InstilError) as caught:
        loop.run(config(files, tmp_path / "out", "text", "prompts", reward=reward))
    assert str(caught.value).startswith(f"reward {reward}: ")
    assert problem in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_not_there_is_named(files, tmp_path):
    with pytest.raises(InstilError, match=r"storys: no such file, .* did you mean"):
        loop.run(
            config({**files, "recipe": Path("storys")}, tmp_path / "out", "text", "comparisons")
        )


def test_a_bad_row_stops_with_its_place(files, tmp_path):
    files["comparisons"].write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n')
    with pytest.raises(InstilError, match=r"comparisons\.jsonl:1: rejected: is the same as chosen"):
        loop.run(config(files, tmp_path / "out", "text", "comparisons"))


def convert_all(settings: loop.Config) -> loop.Steps:
    """The first steps of a loop, those that convert."""
    steps = loop.Steps(settings)
    for name, step in steps.all():
        if not name.startswith("convert"):
            return steps
        step()
    raise AssertionError


def test_nothing_to_compare_on_is_said_before_training(files, tmp_path):
    write_rows(files["prompts"], [{"prompt": "Only one?"}])
    settings = config(files, tmp_path / "out", "text", "prompts", reward=f"{REWARDS}:speech")
    with pytest.raises(InstilError, match="no prompt is left to compare on; give --held-out"):
        convert_all(settings)


@pytest.mark.parametrize(
    "names",
    [
        ("comparisons",),
        ("comparisons", "held_out"),
        ("comparisons", "prompts"),
        ("demonstrations", "comparisons"),
        ("demonstrations", "comparisons", "held_out", "prompts"),
    ],
)
def test_what_is_compared_on_is_in_no_training_file(names, files, tmp_path):
    steps = convert_all(config(files, tmp_path / "out", "text", *names))
    kept = steps.kept()
    assert kept
    for name in {"demonstrations", "comparisons", "prompts"} & set(names):
        trained = {p.text for p in steps.asked(name) if p.split == "train"}
        assert trained
        assert not trained & {prompt.text for prompt in kept}


def test_a_prompt_too_long_to_compare_on_is_left_out(files, tmp_path):
    steps = convert_all(config(files, tmp_path / "out", "text", "comparisons"))
    codec = Codec(train_tokenizer(["x"], 258))  # every byte is a token: 25 or 26 and the template
    with pytest.raises(InstilError, match="over max_prompt_tokens 4"):
        _with(steps, max_prompt_tokens=4).unseen(codec)
    assert len(_with(steps, max_prompt_tokens=40, eval_prompts=2).unseen(codec)) == 2


def _with(steps: loop.Steps, **size: int) -> loop.Steps:
    steps.size = loop.Size(max_tokens=8, **size)
    return steps


@pytest.mark.slow
def test_a_loop_from_scratch(files, tmp_path):
    out = tmp_path / "out"
    settings = config(
        files, out, "text", "demonstrations", "comparisons", "held_out", seed=1, threads=1
    )
    loop.run(settings)
    stages = [json.loads(line)["stage"] for line in (out / "stages.jsonl").open()]
    assert stages == [
        *("convert demonstrations", "convert comparisons", "convert held-out"),
        *("pretrain", "sft", "rm", "ppo", "compare"),
    ]
    assert (out / "report.html").exists()
    for name in ("base", "sft", "ppo"):
        AutoModelForCausalLM.from_pretrained(out / name / "final")
    # what is held out is measured, and what is also held out (things 25 to 29) does not train
    accuracy = json.loads((out / "rm" / "accuracy.json").read_text())["accuracy"]
    assert {row["split"]: row["rankings"] for row in accuracy} == {"test": 20}
    rows = [json.loads(line) for line in (out / "evals" / "results.jsonl").open()]
    assert [(row["policy"], row["eval"]) for row in rows] == [
        (policy, measure) for policy in ("sft", "ppo") for measure in ("rm_score", "length", "kl")
    ]
    assert {row["n"] for row in rows} == {6}
    assert next(row["mean"] for row in rows if row["eval"] == "kl") == 0  # SFT to itself
    assert next(row["mean"] for row in rows[::-1] if row["eval"] == "kl") != 0
    held_out = {p.text for p in read_records(out / "data/held-out/prompts.jsonl", Prompt)}
    samples = [json.loads(line) for line in (out / "evals" / "samples.jsonl").open()]
    assert {sample["prompt"] for sample in samples} <= held_out
    assert set(samples[0]["responses"]) == {"sft", "ppo"}

    before = (out / "stages.jsonl").read_bytes()
    loop.run(settings)  # again: nothing is left to do
    assert (out / "stages.jsonl").read_bytes() == before
    assert len(read_records(out / "data/comparisons/rankings.jsonl", Ranking)) == 30


@pytest.mark.slow
def test_a_loop_from_a_model_with_a_reward_of_ones_own(files, model, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--recipe", str(files["recipe"]), "--model", str(model), "--threads", "1"]
    words += ["--prompts", str(files["prompts"]), "--reward", f"{REWARDS}:speech"]
    assert main(["loop", "--out", str(out), *words]) == 0, capsys.readouterr().err
    stages = [json.loads(line)["stage"] for line in (out / "stages.jsonl").open()]
    assert stages == ["convert prompts", "ppo", "compare"]
    assert not (out / "rm").exists()
    rows = [json.loads(line) for line in (out / "evals" / "results.jsonl").open()]
    scores = [row for row in rows if row["eval"] == "rm_score"]
    assert [row["policy"] for row in scores] == ["base", "ppo"]
    assert all(0 <= row["mean"] <= 1 for row in scores)
    AutoModelForCausalLM.from_pretrained(out / "ppo" / "final")


@pytest.mark.slow
def test_a_loop_from_a_model_and_comparisons_alone(files, model, tmp_path):
    out = tmp_path / "out"
    loop.run(config(files, out, "comparisons", model=model, threads=1))
    stages = [json.loads(line)["stage"] for line in (out / "stages.jsonl").open()]
    assert stages == ["convert comparisons", "rm", "ppo", "compare"]
    splits = [p.split for p in read_records(out / "data/comparisons/prompts.jsonl", Prompt)]
    assert set(splits) == {"train", "valid"}
