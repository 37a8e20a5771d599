"""Our side of a benchmark, in a process of its own: `benchmarks.run` starts it.

One line of JSON goes to standard output, with the fields of the peer's line (bench/README.md) and

    copy_gbps        rate of a copy, measured at the end of the same run
    limit_seconds    least seconds for the floor at the rates of this run (benchmarks/limits.py)
    share_of_limit   limit_seconds over seconds_norm
    product_ratio    rate of a product of instil's over that of torch's, of which the limit is made
    share_of_ours    of the limit, had it been made of instil's products
    floor_gbytes     bytes that sampling must move; bandwidth_floor_seconds at the rate of the copy

All else goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.clock import Clock, measure, summary
from benchmarks.limits import copy_gbps, limit_seconds, product_ratio, rates
from benchmarks.run import parse, workloads
from benchmarks.tasks import TASKS, Task
from instil.errors import InstilError
from instil.lm.machine import settle

STARTED = time.monotonic()
PACKAGES = ("instil", "torch", "transformers", "tokenizers", "numpy")


def main() -> None:
    """Measure what the command line asks for and print one line."""
    args = parse(sys.argv[1:])
    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print
    settle(args.threads)  # as every command of instil does
    w = workloads(args.workloads)
    shape = w.MODELS[args.model]
    fields = rates(shape, args.device, args.repeats) if args.task == "limits" else run(args, w)
    head = {"task": args.task, "side": "instil", "device": args.device}
    head["model"] = {
        "name": shape.name,
        "params": fields.pop("params", shape.body_params + shape.head_params),
        "layers": shape.layers,
        "d_model": shape.d_model,
        "vocab": shape.vocab,
    }
    tail = {
        "peak_rss_mb": peak_rss_mb(),
        "load_avg": [round(x, 2) for x in os.getloadavg()],
        "threads": args.threads,
        "profiled": bool(args.profile),
        "settings": dict(args.set),
        "versions": versions(),
    }
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}
    print(json.dumps(head | tail | rounded), file=line, flush=True)


def run(args: Namespace, w: ModuleType) -> dict[str, Any]:
    """Warm up, measure, and compare with the limit."""
    clock = Clock(args.device)
    task = TASKS[args.task](args, clock, w)
    task.warm_up()
    windows = measure(
        clock,
        profiled(task, args) if args.profile else task.window,
        repeats=1 if args.profile else args.repeats,
        max_foreign=args.max_foreign,
        patience=args.wait,
        until=STARTED + args.budget,
        report=lambda text: print(f"instil {args.task}: {text}", file=sys.stderr, flush=True),
    )
    task.check()
    found = {"params": task.params} | task.fields
    found |= summary(windows, args.max_foreign, clock.reference)
    if args.device != "cpu":
        found["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    found["peak_rss_mb"] = peak_rss_mb()  # before the copy's buffers
    ratio = product_ratio(args.device) if args.device == "cpu" else 1.0
    return found | limits(task, found, clock.reference, copy_gbps(args.device), ratio)


def limits(
    task: Task, found: dict[str, Any], gflops: float, gbps: float, ratio: float
) -> dict[str, Any]:
    """Floors, shares of the limit, and amounts per second."""
    norm, gflop = found["seconds_norm"], sum(part for part, _ in task.floors.values())
    fields = {
        "floor_gflop": gflop,
        "floor_seconds": gflop / gflops,
        "mfu": gflop / gflops / norm,
        "copy_gbps": gbps,
        "limit_seconds": limit_seconds(task.floors.values(), gflops, gbps),
    }
    fields["share_of_limit"] = fields["limit_seconds"] / norm
    fields["product_ratio"] = ratio
    fields["share_of_ours"] = limit_seconds(task.floors.values(), gflops * ratio, gbps) / norm
    if moved := sum(part for _, part in task.floors.values()):
        fields |= {"floor_gbytes": moved, "bandwidth_floor_seconds": moved / gbps}
        fields |= {f"floor_{name}_gflop": part for name, (part, _) in task.floors.items()}
    for name in ("samples", "completion_tokens", "tokens"):
        fields[f"{name}_per_s"] = round(found[name] / found["seconds"], 2)
        fields[f"{name}_per_s_norm"] = round(found[name] / norm, 2)
    return fields


def profiled(task: Task, args: Namespace) -> Callable[[], dict[str, float]]:
    """The window under torch.profiler, its table written to --profile; its times are void."""
    activities = [ProfilerActivity.CPU]
    if args.device != "cpu":
        activities.append(ProfilerActivity.CUDA)

    def window() -> dict[str, float]:
        with profile(activities=activities, record_shapes=args.profile_shapes) as found:
            phases = task.window()
        key = "self_cpu_time_total" if args.device == "cpu" else "self_device_time_total"
        table = found.key_averages(group_by_input_shape=args.profile_shapes).table(
            sort_by=key, row_limit=60, max_name_column_width=60, max_shapes_column_width=70
        )
        Path(args.profile).write_text(table)
        return phases

    return window


def peak_rss_mb() -> int:
    """Most memory that the process has held, imports and models included."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def versions() -> dict[str, str]:
    """What was measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


if __name__ == "__main__":
    try:
        main()
    except InstilError as error:
        sys.exit(f"benchmarks: {error}")
