from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from instil import cli
from instil.errors import InstilError
from instil.jsonl import write_records
from instil.lm.text import Codec
from instil.records import Labeler, Prompt, Ranking, Response
from instil.train.dpo import Config
from instil.train.rankings import (
    Item,
    items_of_step,
    pair_accuracy,
    pair_calibration,
    read_items,
    report,
)


def item(prompt_id: str, ranks: list[int], lengths: Sequence[int] = ()) -> Item:
    return Item(
        prompt_id=prompt_id,
        split="valid",
        group="training",
        labeler_id="ann",
        prompt=[1],
        responses=[[2]] * len(ranks),
        response_ids=[f"{prompt_id}-{i}" for i in range(len(ranks))],
        ranks=ranks,
        lengths=list(lengths),
    )


def test_pair_accuracy_by_hand():
    # ranks 1 2 2 with scores 3 5 1: pairs (a b) wrong, (a c) right, the tie (b c) makes none
    # ranks 2 1 with scores 4 4: equal scores count half
    found = pair_accuracy([item("p", [1, 2, 2]), item("q", [2, 1])], [[3, 5, 1], [4, 4]])
    assert found.mean == pytest.approx((0 + 1 + 0.5) / 3)
    assert (found.n, found.clusters) == (3, 2)


def test_pair_calibration_by_hand():
    # margins -2 (lost), 2 (won) and 0 (half): sigmoid 0.8808, 0.8808 and 0.5; the first two share a
    # bin with mean outcome 0.5, the third is right
    found = pair_calibration([item("p", [1, 2, 2]), item("q", [2, 1])], [[3, 5, 1], [4, 4]])
    assert found == pytest.approx(2 * (0.880797 - 0.5) / 3, abs=1e-6)


WORDS = {"a": "red", "b": "red and blue", "c": "red red red red red red red", "d": "pink"}


@pytest.fixture
def files(tmp_path):
    """Settings over records: four responses to each of three prompts, ranked as a test wants."""

    def make(*rankings: tuple[str, str, list[list[str]]]) -> SimpleNamespace:
        splits = {"p": "train", "q": "valid", "r": "test"}
        prompts = [Prompt(id=i, text=f"What color is {i} ?", split=s) for i, s in splits.items()]
        records = {
            "responses": [
                Response(id=f"{p.id}-{name}", prompt_id=p.id, text=text)
                for p in prompts
                for name, text in WORDS.items()
            ],
            "rankings": [
                Ranking(
                    prompt_id=prompt,
                    labeler_id=labeler,
                    tiers=tuple(tuple(f"{prompt}-{name}" for name in tier) for tier in tiers),
                )
                for prompt, labeler, tiers in rankings
            ],
            "labelers": [
                Labeler(id="ann", name="Ann", group="training"),
                Labeler(id="ben", name="Ben", group="held-out"),
            ],
        }
        paths = {}
        for name, rows in records.items():
            paths[name] = (tmp_path / f"{name}.jsonl",)
            write_records(paths[name][0], rows)
        config = Config(model=tmp_path, prompts=(), out=tmp_path / "out", **paths)
        return SimpleNamespace(config=config, prompts={p.id: p for p in prompts}, path=tmp_path)

    return make


@pytest.fixture(scope="module")
def codec(world):
    return Codec.load(world.sft / "final")


def test_what_is_too_long_or_all_tied_is_left_out_and_held_out_labelers_do_not_train(
    files, codec, capsys
):
    made = files(
        ("p", "ann", [["a"], ["b", "c"], ["d"]]),
        ("p", "ben", [["d"], ["a"]]),
        ("q", "ann", [["a"], ["c"]]),
        ("r", "ann", [["a", "b"]]),
    )
    prompt = codec.encode_prompt("What color is p ?")
    longest = len(prompt) + len(codec.encode_response(WORDS["c"])) - 1
    first, second = read_items(codec, made.prompts, made.config, longest)
    assert first.response_ids == ["p-a", "p-b", "p-d"]  # c is too long
    assert first.ranks == [1, 2, 3]
    assert first.prompt == prompt
    assert first.responses[0] == codec.encode_response("red")
    assert first.lengths == [3, 12, 4]
    assert first.tokens == len(prompt) + sum(map(len, first.responses))
    assert (first.trains, second.trains) == (True, False)
    assert "2 rankings say nothing" in capsys.readouterr().err  # q has one left, r is all tied


@pytest.mark.parametrize(
    ("ranking", "told"),
    [
        (("p", "ann", [["a"], ["x"]]), "prompt p by ann: response p-x is not in --responses"),
        (("p", "eve", [["a"], ["b"]]), "prompt p by eve: labeler eve is not in --labelers"),
        (("x", "ann", [["a"], ["b"]]), "prompt x by ann: no such prompt in --prompts"),
    ],
)
def test_what_a_file_lacks_is_named(ranking, told, files, codec):
    made = files(ranking)
    with pytest.raises(InstilError, match=told):
        read_items(codec, made.prompts, made.config, 99)


def test_the_passes_of_a_step_hold_its_rankings_once_and_whole(files, codec):
    made = files(*[("p", "ann", [["a"], ["b"], ["c"], ["d"]][: 2 + i % 3]) for i in range(20)])
    items = read_items(codec, made.prompts, made.config, 99)
    config = replace(made.config, batch_size=10)
    whole = items_of_step(items, config, 10_000, 0)
    parts = items_of_step(items, config, 60, 0)
    assert len(whole) == 1
    assert len(parts) > 3
    assert sorted(id(i) for part in parts for i in part) == sorted(id(i) for i in whole[0])
    longest = max(item.tokens for item in items)
    assert all(sum(item.tokens for item in part) < 60 + longest for part in parts)
    other = items_of_step(items, config, 10_000, 1)[0]
    assert {id(item) for item in whole[0] + other} == {id(item) for item in items}  # an epoch


def test_the_report_has_a_row_per_split_and_group_with_its_yardsticks(tmp_path, capsys):
    items = [
        item("p", [1, 2], lengths=[9, 5]),
        item("q", [2, 1], lengths=[9, 5]),
        replace(item("q", [2, 1], lengths=[9, 5]), labeler_id="eve"),
        replace(item("r", [1, 2], lengths=[1, 2]), group="held-out"),
    ]
    report(SimpleNamespace(path=tmp_path), "dpo", items, [[2, 1], [2, 1], [0, 1], [1, 0]])
    rows = json.loads((tmp_path / "accuracy.json").read_text())["accuracy"]
    held, ours = rows
    assert (held["split"], held["group"], held["rankings"]) == ("valid", "held-out", 1)
    assert (held["model"]["mean"], held["longer"]["mean"], held["agreement"]) == (1, 0, None)
    assert (ours["rankings"], ours["model"]["clusters"]) == (3, 2)
    assert ours["model"]["mean"] == pytest.approx(2 / 3)
    assert ours["longer"]["mean"] == pytest.approx(1 / 3)
    assert ours["agreement"]["mean"] == 1
    told = capsys.readouterr().err
    assert "dpo: valid prompts, held-out labelers: 1" in told


@pytest.mark.parametrize("command", ["rm", "dpo"])
def test_rankings_longer_than_the_model_reads_are_left_out_not_met_in_training(
    command, world, tmp_path
):
    lines = (world.root / "responses.jsonl").read_text().splitlines()
    long = json.loads(lines[0])
    long["text"] = "red " * 80
    (tmp_path / "responses.jsonl").write_text("\n".join([json.dumps(long), *lines[1:]]) + "\n")
    words = world.arguments(command, tmp_path / command)
    words[words.index("--responses") + 1] = str(tmp_path / "responses.jsonl")
    assert cli.main(words) == 0
