"""Judges of a world of four words: what is "right" is true, what is "wrong" is not."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import decoders, normalizers
from transformers import AutoModelForCausalLM

from instil import cli
from instil.errors import InstilError
from instil.evals import judge
from instil.evals.judge import Config, Judge, Verdict, find_judge, measure, read_verdicts
from instil.jsonl import read_records
from instil.lm.models import new_policy, save_policy
from instil.lm.text import Codec, train_tokenizer
from instil.records import Demonstration, Prompt
from instil.runs import read_info


def lines(asks="True", n=60):
    """Two answers to each of n questions, as the published files have them."""
    for number in range(n):
        for answer, said in (("right", "yes"), ("wrong", "no")):
            prompt = f"Q: What is {number}?\nA: {answer}\n{asks}:"
            yield {"prompt": prompt, "completion": f" {said}"}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model that knows nothing, with a tokenizer that does not split the words that matter."""
    path = tmp_path_factory.mktemp("base")
    texts = [row["prompt"] + row["completion"] for row in lines()]
    codec = Codec(train_tokenizer(texts * 20, 320))
    model = new_policy("llama", codec.vocab_size, 32, 2, 2, 64, 0, codec.pad_id, codec.eos_id)
    save_policy(model, codec, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return written(tmp_path_factory.mktemp("data") / "truth.jsonl", lines())


@pytest.fixture
def make(base, data, tmp_path):
    def make(**changes):
        settings = {"model": base, "data": data, "out": tmp_path / "judge", "threads": 1}
        learning = {"epochs": 20, "batch_size": 8, "lr": 5e-3, "held_out": 0.2}
        return Config(**{**settings, **learning, **changes})

    return make


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "judge"
    words = ["judge", "--data", data, "--model", base, "--out", out, "--threads", 1]
    words += ["--epochs", 20, "--batch-size", 8, "--lr", 5e-3, "--held-out", 0.2]
    assert cli.main([str(word) for word in words]) == 0
    return out


def test_a_judge_learns_what_is_true_of_questions_that_it_has_not_seen(trained):
    info = read_info(trained)
    assert info["status"] == "finished" and info["command"] == "judge"
    found = info["held_out"]
    assert found["accuracy"]["mean"] == 1 and found["auc"]["mean"] == 1
    assert found["majority"]["mean"] == 0.5 and found["gain"]["mean"] == 0.5
    assert found["accuracy"]["n"] == 2 * found["accuracy"]["clusters"] > 8
    assert info["params"] > 0 and info["flops"] > 0
    chances = Judge.load(trained, "True")(["What is 1?", "What is 77?"] * 2, ["right", "wrong"] * 2)
    assert chances[0] > 0.9 and chances[1] < 0.1
    assert chances[2:] == pytest.approx(chances[:2], abs=1e-5)


def test_a_judge_is_a_plain_model_that_goes_on_with_yes_or_no(trained):
    plain = AutoModelForCausalLM.from_pretrained(trained / "final")
    codec = Codec.load(trained / "final")
    assert codec.template == "{prompt}"
    ids = codec.encode_prompt("Q: What is 3?\nA: right\nTrue:")
    found = plain.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8)
    assert codec.decode(found[0, len(ids) :].tolist()) == "yes"


def test_no_question_is_both_learned_and_measured(trained, data):
    prompts = read_records(trained / "data" / "prompts.jsonl", Prompt)
    said = read_records(trained / "data" / "demonstrations.jsonl", Demonstration)
    assert len(prompts) == len(said) == 120
    by_question: dict = {}
    for prompt in prompts:
        by_question.setdefault(prompt.text.split("\n")[0], set()).add(prompt.split)
    assert all(len(splits) == 1 for splits in by_question.values())
    assert set.union(*by_question.values()) == {"train", "valid", "test"}
    assert {one.text.strip() for one in said} == {"yes", "no"}


def test_a_finished_judge_is_never_overwritten(trained, make):
    with pytest.raises(InstilError, match="finished and never overwritten"):
        judge.run(make(out=trained))


@pytest.mark.parametrize("step", ["write_json", "measure"])
def test_a_judge_that_was_killed_after_training_is_not_trained_again(make, monkeypatch, step):
    def killed(*args, **more):
        raise KeyboardInterrupt

    config = make(epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(judge, step, killed)
        with pytest.raises(KeyboardInterrupt):
            judge.run(config)
    weights = next(config.out.glob("**/final/model.safetensors")).stat().st_mtime_ns
    assert read_info(config.out)["status"] == "running"
    monkeypatch.setattr(judge.sft, "run", lambda config: pytest.fail("trained again"))
    judge.run(config)
    assert read_info(config.out)["status"] == "finished"
    assert (config.out / "final" / "model.safetensors").stat().st_mtime_ns == weights


@pytest.mark.slow
def test_a_dry_run_writes_nothing(make, capsys):
    config = make(dry_run=True)
    judge.run(config)
    assert not config.out.exists()
    assert "optimizer states" in capsys.readouterr().out


def test_a_judge_is_not_taken_for_the_other_one(trained, base, tmp_path):
    with pytest.raises(InstilError, match='was trained to answer "True:", not "Helpful:"'):
        find_judge(trained, "Helpful")
    assert find_judge(trained, "True") == trained / "final"
    assert find_judge(base, "Helpful") == base  # somebody else's judge says nothing of itself
    with pytest.raises(InstilError, match="no such directory"):
        find_judge(tmp_path / "nowhere", "True")


def test_a_judge_reads_the_end_of_what_is_too_long(trained, capsys):
    chances = Judge.load(trained, "True")(["What is 1?"], ["wrong " * 100 + "right"])
    assert 0 <= chances[0] <= 1
    assert "1 of 1 answers are longer than the judge's context" in capsys.readouterr().err


def test_yes_follows_the_colon_after_one_blank_whatever_the_tokenizer_adds(base, shared):
    trained = Codec.load(base)
    assert judge._words(trained) == ("yes", "no")  # it puts a blank in front, too
    without = trained.tokenizer.backend_tokenizer
    without.normalizer, without.decoder = normalizers.Sequence([]), decoders.ByteLevel()
    assert judge._words(trained) == (" yes", " no")
    stories = Codec.load(shared / "data" / "models" / "stories260k", "{prompt}")
    assert judge._words(stories) == ("yes", "no")  # SentencePiece puts a blank in front
    parts = stories.encode_prompt("True:") + stories.encode_response("yes")[:-1]
    assert stories.encode_prompt("True: yes") == parts


def test_how_well_a_judge_agrees():
    said = [("a", True), ("a", True), ("a", False), ("b", True), ("b", False)]
    verdicts = [Verdict(question, "", "True", yes) for question, yes in said]
    found = measure(verdicts, [0.9, 0.4, 0.4, 0.6, 0.7], majority=True)
    # it is right of the 1st, 3rd and 4th; always to say yes is right of three, too
    assert found["accuracy"].mean == pytest.approx(0.6)
    assert (found["accuracy"].n, found["accuracy"].clusters) == (5, 2)
    assert found["majority"].mean == pytest.approx(0.6)
    assert found["gain"].mean == pytest.approx(0)
    # of the yes 2/3 are right, of the no 1/2
    assert found["balanced_accuracy"].mean == pytest.approx((2 / 3 + 1 / 2) / 2)
    # 0.9 beats 0.4 and 0.7, 0.4 ties with one and loses to the other, 0.6 beats one of two
    assert found["auc"].mean == pytest.approx((2 + 0.5 + 1) / 6)
    assert found["auc"].low <= found["auc"].mean <= found["auc"].high


def test_one_half_is_no():
    verdicts = [Verdict(question, "", "True", question == "a") for question in "abc"]
    found = measure(verdicts, [0.5] * 3, majority=True)
    assert found["accuracy"].mean == pytest.approx(2 / 3)
    assert found["balanced_accuracy"].mean == 0.5 and found["auc"].mean == 0.5


def test_what_is_all_yes_has_no_auc():
    found = measure([Verdict(q, "", "True", True) for q in "ab"], [0.6, 0.7], True)
    assert found["accuracy"].mean == 1
    assert str(found["auc"].mean) == str(found["balanced_accuracy"].mean) == "nan"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "Q: a\nA: b\nFalse:", "completion": " yes"}, "2: prompt 'Q: a"),
        ({"prompt": "Q: a\nA: b\nTrue:", "completion": " maybe"}, "2: .*completion ' maybe'"),
        ({"prompt": "Q: a\nA: b\nHelpful:", "completion": " no"}, '2: asks "Helpful:", .*"True:"'),
        ({"prompt": "Q: a\nA: b\nTrue:"}, "2: no field 'completion'"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, why):
    good = {"prompt": "Q: a\nA: b\nc\nTrue:", "completion": " yes"}
    path = written(tmp_path / "rows.jsonl", [good, row])
    with pytest.raises(InstilError, match=rf"rows\.jsonl:{why}"):
        read_verdicts(path)


def test_an_answer_may_have_lines(tmp_path):
    path = written(
        tmp_path / "rows.jsonl", [{"prompt": "Q: a\nA: b\nc\nTrue:", "completion": "no"}]
    )
    assert read_verdicts(path) == [Verdict("a", "b\nc", "True", False)]


def test_settings_and_files_that_cannot_work(make, tmp_path):
    with pytest.raises(InstilError, match=r"held_out 0\.5 is a share"):
        make(held_out=0.5)
    with pytest.raises(InstilError, match="no rows"):
        judge.run(make(data=written(tmp_path / "empty.jsonl", [])))
    few = written(tmp_path / "few.jsonl", list(lines(n=1)))
    with pytest.raises(InstilError, match="no question is held out"):
        judge.run(make(data=few, held_out=0.01))


@pytest.mark.parametrize(
    ("name", "asks", "yes"), [("truth", "True", 9484), ("info", "Helpful", 18076)]
)
def test_the_published_labels(shared, make, name, asks, yes):
    path = shared / "data" / "evaluation" / f"truthfulqa_judge_{name}.jsonl.gz"
    verdicts = read_verdicts(path)
    assert len(verdicts) == 22_434 and len({v.question for v in verdicts}) == 817
    assert sum(v.yes for v in verdicts) == yes and {v.asks for v in verdicts} == {asks}
    config = make(held_out=0.1)
    test = [v for v in verdicts if judge._split(config, v.question) == "test"]
    assert len(test) == 2103 and len({v.question for v in test}) == 78
