from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from instil.errors import InstilError
from instil.lm.models import new_policy
from instil.runs import Run
from instil.train import fit as fit_module
from instil.train.fit import (
    FitConfig,
    Method,
    adam,
    cosine,
    due,
    fit,
    optimizers,
    publish,
    steps_in,
    write_folder,
)


@dataclass(frozen=True)
class Points:
    """One forward pass: x (n, 2) and what the line should give there (n,)."""

    x: torch.Tensor
    y: torch.Tensor

    @property
    def weight(self) -> int:
        return len(self.x)


X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0], [0.5, 0.5], [-1.0, 2.0]])
Y = X @ torch.tensor([2.0, -1.0]) + 0.5


def line(cfg: FitConfig, model: nn.Module, **more: object) -> Method[Points]:
    size = cfg.micro_batch_tokens or len(X)  # a point is a token

    def loss(batch: Points, weight: int):
        error = (model(batch.x).squeeze(1) - batch.y) ** 2
        worst = error.detach().max().item()
        return error.sum() / weight, {"max_error": worst, "min_y": batch.y.min().item()}

    return Method(
        name="line",
        steps=6,
        batches=lambda step: [
            Points(X[at : at + size], Y[at : at + size]) for at in range(0, 6, size)
        ],
        loss=loss,
        tokens=lambda batch: len(batch.x),
        **more,
    )


def run_line(out: Path, micro: int = 0, **more: object):
    cfg = FitConfig(out=out, lr=0.1, epochs=1, micro_batch_tokens=micro, grad_clip=0.0)
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    with Run.open(out, "line", cfg) as run:
        results = fit(run, model, cfg, line(cfg, model, **more))
    return model, results


def test_cosine_goldens():
    # no warm-up, 10 steps, from 1 to 0.1: at half way 0.1 + 0.9 * 0.5 (1 + cos(pi / 2)) = 0.55
    assert cosine(0, 10, 1.0, 0, 0.1) == 1.0
    assert cosine(5, 10, 1.0, 0, 0.1) == pytest.approx(0.55, abs=1e-12)
    # the last step, number 9: 0.1 + 0.45 (1 + cos(0.9 pi)) = 0.1 + 0.45 * 0.0489435 = 0.1220246
    assert cosine(9, 10, 1.0, 0, 0.1) == pytest.approx(0.1220246, abs=1e-7)
    assert cosine(10, 10, 1.0, 0, 0.1) == pytest.approx(0.1, abs=1e-12)
    # warm-up over 4 steps: 1/4, 2/4, 3/4, 4/4 of the peak, then the cosine begins at the peak
    assert [cosine(i, 10, 2.0, 4, 0.1) for i in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    # 3 of 6 steps after warm-up: half way again
    assert cosine(7, 10, 2.0, 4, 0.1) == pytest.approx(1.1, abs=1e-12)


def test_steps_in():
    assert steps_in(100, 32, 2, "rows") == 6  # 3 whole batches in an epoch
    assert steps_in(100, 32, 0.5, "rows") == 2
    assert steps_in(32, 32, 0.1, "rows") == 1
    with pytest.raises(InstilError, match="31 rows are fewer than one batch of 32"):
        steps_in(31, 32, 2, "rows")


def test_a_checkpoint_is_due_every_so_often_and_at_the_end():
    assert [step for step in range(1, 8) if due(step, 3, 7)] == [3, 6, 7]


def test_weight_decay_is_on_matrices_only():
    matrices, vectors = adam(nn.Linear(2, 1).parameters(), 0.1, (0.9, 0.95), decay=0.3).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert [p.ndim for p in matrices["params"]] == [2]
    assert matrices["betas"] == (0.9, 0.95)


def test_muon_takes_the_matrices_between_embedding_and_head(tmp_path):
    model = new_policy(
        "llama", vocab_size=50, width=8, layers=1, heads=2, context=16, seed=0, pad_id=0, eos_id=1
    )
    cfg = FitConfig(out=tmp_path, lr=0.1, optimizer="muon", weight_decay=0.3)
    chosen = optimizers(model, cfg)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {
        which: {names[id(p)] for group in one.param_groups for p in group["params"]}
        for which, one in chosen.items()
    }
    assert {name.split(".")[-2] for name in groups["muon"]} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert groups["optimizer"] == set(names.values()) - groups["muon"]
    assert list(optimizers(model, replace(cfg, optimizer="adamw"))) == ["optimizer"]
    # one step of 0.1 and no decay: all directions alike, as large as a step of AdamW's
    chosen = optimizers(model, replace(cfg, weight_decay=0.0))
    weight = model.model.layers[0].self_attn.q_proj.weight
    before = weight.detach().clone()
    weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    chosen["muon"].step()
    sizes = torch.linalg.svdvals(before - weight.detach()) / (0.1 * 0.2 * math.sqrt(8))
    assert sizes.min() > 0.6 and sizes.max() < 1.3


def test_the_size_of_a_micro_batch_changes_nothing(tmp_path, helpers):
    whole, results = run_line(tmp_path / "whole")
    parts, same = run_line(tmp_path / "parts", micro=4)  # 4 and 2 points: means would differ
    assert torch.allclose(whole.weight, parts.weight, rtol=0, atol=1e-6)
    for one, other in zip(
        helpers.metrics(tmp_path / "whole"), helpers.metrics(tmp_path / "parts"), strict=True
    ):
        assert one == pytest.approx(other, rel=1e-5)
    assert results == same
    assert results == {"tokens": 36, "params": 3, "flops": 6 * 3 * 36}


def test_smallest_and_largest_of_the_micro_batches_are_not_summed(tmp_path, helpers):
    run_line(tmp_path / "parts", micro=2)
    assert {row["min_y"] for row in helpers.metrics(tmp_path / "parts")} == {Y.min().item()}


@pytest.mark.parametrize(
    ("select", "best"),
    # values after steps 2, 4, 6 are 3, nan, 1 of "eval/a": the largest is at 2, the smallest at 6
    [("eval/a", 2), ("-eval/a", 6)],
)
def test_the_best_weights_are_kept_and_nan_is_never_best(tmp_path, select, best):
    values = {2: 3.0, 4: math.nan, 6: 1.0}
    seen = {}
    cfg = FitConfig(out=tmp_path / "run", lr=0.1)
    model = nn.Linear(2, 1)

    def evaluate(step: int) -> dict[str, float]:
        assert not model.training
        seen[step] = model.weight.detach().clone()
        return {"eval/a": values[step]}

    method = line(cfg, model, evaluate=evaluate, eval_every=2, select=select)
    with Run.open(cfg.out, "line", cfg) as run:
        results = fit(run, model, cfg, method)
    assert results["selected_step"] == best
    assert results["selected_value"] == values[best]
    assert torch.equal(model.weight, seen[best])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_never_reaches_the_weights(tmp_path, bad):
    cfg = FitConfig(out=tmp_path / "run", lr=0.1)
    model = nn.Linear(2, 1)
    method = line(cfg, model)
    before: list[torch.Tensor] = []

    def batches(step: int) -> list[Points]:
        before[:] = [p.detach().clone() for p in model.parameters()]
        return [Points(X, Y * bad)] if step == 2 else [Points(X, Y)]

    with (
        Run.open(cfg.out, "line", cfg) as run,
        pytest.raises(InstilError, match=r"step 2: loss (nan|inf).*never reached the weights"),
    ):
        fit(run, model, cfg, replace(method, batches=batches))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_impossible_settings_are_refused(tmp_path):
    for wrong in (
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": -1.0},
        {"checkpoint_every": 0},
        {"final_lr": 2.0},
        {"micro_batch_tokens": -1},
        {"warmup": -1},
        {"lr": math.nan},
    ):
        with pytest.raises(InstilError, match=next(iter(wrong))):
            FitConfig(out=tmp_path, **wrong)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("full")])
def test_final_is_whole_or_absent(tmp_path, error):
    cfg = FitConfig(out=tmp_path / "run")

    def save(path: Path) -> None:
        (path / "half").write_text("half")
        raise error

    with Run.open(cfg.out, "line", cfg) as run:
        (cfg.out / "metrics.jsonl").write_text("")
        with pytest.raises(InstilError, match="make room and start the same command again"):
            publish(run, torch.nn.Linear(1, 1), save)
    assert sorted(p.name for p in cfg.out.iterdir()) == ["metrics.jsonl", "run.json", "run.lock"]
    with Run.open(cfg.out, "line", cfg) as run:
        save = lambda path: (path / "whole").write_text("whole")  # noqa: E731
        publish(run, torch.nn.Linear(1, 1), save, loss=1.0)
    assert [p.name for p in (cfg.out / "final").iterdir()] == ["whole"]
    with pytest.raises(InstilError, match="finished"), Run.open(cfg.out, "line", cfg):
        pass


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    sync = fit_module.checkpoint.sync
    monkeypatch.setattr(fit_module.checkpoint, "sync", lambda p: (order.append("sync"), sync(p)))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda p, to: (order.append("rename"), rename(p, to)))
    write_folder(tmp_path / "value", lambda path: (path / "x").write_text("x"))
    assert order == ["sync", "rename"]
