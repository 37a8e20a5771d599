"""The sums of a forecast, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from instil.train.forecast import MARGIN, Forecast, Setting, advice, room, table
from instil.train.memory import MemoryConfig
from instil.train.ppo_config import Config

MIB = 2**20
ONE = Forecast(
    device="cpu",
    room=2000 * MIB,
    base=300 * MIB,
    held={
        "weights": 100 * MIB,
        "weights of the reference": 60 * MIB,
        "optimizer states": 200 * MIB,
    },
    phases={
        "training": {"gradients": 100 * MIB, "activations": 240 * MIB},
        "sampling": {"key-value cache": 180 * MIB},
    },
    kept=40 * MIB,
)
OWN = Setting(MemoryConfig(), tokens=2**14, layers=4, width=64, spared=["weights of the reference"])


def test_the_total_has_the_largest_phase_only():
    # 360 held, 340 in training, 40 kept: 740, 15 % on top, 300 before there are tensors
    assert MARGIN == 0.15
    assert ONE.tensors == 740 * MIB
    assert ONE.total == pytest.approx((740 + 111 + 300) * MIB, abs=1)
    sampling = replace(ONE, phases={**ONE.phases, "sampling": {"key-value cache": 500 * MIB}})
    assert sampling.tensors == (740 + 160) * MIB


def test_processes_share_what_is_held_and_gather_one_model():
    # held 360 / 4 = 90, the larger model whole 100, training 100 / 4 + 240, kept 40
    four = ONE.over(4)
    assert four.tensors == (90 + 100 + 25 + 240 + 40) * MIB
    assert ONE.over(1) is ONE


def test_the_table_adds_up_for_a_reader():
    lines = table(ONE).splitlines()
    assert lines[0] == "memory of the process on cpu: fits"
    assert "1,151 MiB" in lines[-2] and "2,000 MiB" in lines[-1]
    assert any("training: activations" in line and line.endswith("240 MiB") for line in lines)
    short = table(replace(ONE, room=1150 * MIB).over(2))
    assert short.splitlines()[0] == "memory of each of 2 processes on cpu: fits"
    assert table(replace(ONE, room=1150 * MIB)).startswith("memory of the process on cpu: does not")


def test_advice_names_the_largest_saving_first():
    lines = advice(ONE, 1, OWN).splitlines()[1:]
    saved = {line[:58].strip(): int(line.split()[-2].replace(",", "")) for line in lines}
    # each with 15 % on top
    # an adapter: states 200, reference 60, gradients 100 -> 360
    assert saved["--lora-rank 16"] == 414
    # inputs of layers 2^14 x 64 x 4 bytes x 4 layers = 16, one layer 240 / 4 = 60: training takes
    # 176 then, less than sampling's 180 -> 160 less
    assert saved["--activation-checkpointing"] == 184
    # half of the activations -> 120 less
    assert saved["--micro-batch-tokens 8192"] == 138
    # two processes: held 180 and 100 gathered, gradients 50 -> 130 less
    assert saved["torchrun --nproc-per-node 2, on as many devices"] in (149, 150)
    assert list(saved.values()) == sorted(saved.values(), reverse=True)


def test_advice_leaves_out_what_is_done_already_or_saves_nothing(tmp_path):
    config = Config(
        model=tmp_path,
        rm="x",
        prompts=(tmp_path,),
        out=tmp_path,
        lora_rank=8,
        activation_checkpointing=True,
    )
    own = replace(OWN, config=config)
    assert "--lora-rank" not in advice(ONE, 1, own)
    assert "--activation-checkpointing" not in advice(ONE, 1, own)
    assert "--decode-batch-size" not in advice(ONE, 1, own)  # sampling is not the largest phase
    large = replace(ONE, phases={"training": {}, "sampling": {"key-value cache": 500 * MIB}})
    assert "--decode-batch-size 64" in advice(large, 1, own).splitlines()[1]


def test_ranks_of_one_machine_share_its_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = room(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert room(torch.device("cpu")) == pytest.approx(alone / 4, abs=1)
