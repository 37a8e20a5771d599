import pytest

from instil.errors import InstilError
from instil.jsonl import read_records, write_records
from instil.lm.models import save_policy
from instil.lm.sample import Config, policy_name, run
from instil.records import Prompt, Response


@pytest.fixture
def files(make_policy, codec, tmp_path):
    save_policy(make_policy("llama"), codec, tmp_path / "runs" / "sft" / "final")
    prompts = [
        Prompt(id=f"p{i}", text=f"Count boat {i}.", split="train" if i < 3 else "test")
        for i in range(4)
    ]
    write_records(tmp_path / "prompts.jsonl", prompts)
    return tmp_path


def sample(files, out="responses.jsonl", **more):
    settings = {"n": 3, "max_tokens": 8, **more}
    model = files / "runs" / "sft" / "final"
    run(Config(model=model, prompts=files / "prompts.jsonl", out=files / out, **settings))
    return read_records(files / out, Response)


def test_every_prompt_gets_n_different_responses(files, codec):
    responses = sample(files, split="train")
    assert [r.prompt_id for r in responses] == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3
    assert len({r.id for r in responses}) == 9
    assert len({r.text for r in responses}) == 9
    assert [r.sampling["index"] for r in responses] == [0, 1, 2] * 3
    first = responses[0]
    assert first.policy == "sft" and "sft" not in first.id
    assert {k: first.sampling[k] for k in ("temperature", "top_p", "max_tokens", "seed")} == {
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 8,
        "seed": 0,
    }


def test_the_same_command_writes_the_same_file(files):
    sample(files, "a.jsonl", batch_size=128)
    sample(files, "b.jsonl", batch_size=2)
    sample(files, "c.jsonl", seed=1)
    sample(files, "d.jsonl", limit=2)
    a, b, c, d = ((files / f"{name}.jsonl").read_text() for name in "abcd")
    assert a == b and a != c and a.startswith(d) and d.count("\n") == 6


def test_greedy_gives_one_response(files):
    assert len(sample(files, n=1, temperature=0.0)) == 4
    with pytest.raises(InstilError, match="temperature 0 gives the same response 3 times"):
        sample(files, temperature=0.0)


def test_no_prompts_is_a_mistake(files):
    with pytest.raises(InstilError, match="no prompts of split 'valid'"):
        sample(files, split="valid")
    assert not (files / "responses.jsonl").exists()


def test_the_policy_is_named_after_its_run(tmp_path):
    assert policy_name(tmp_path / "sft" / "final") == "sft"
    assert policy_name(tmp_path / "gpt2") == "gpt2"
