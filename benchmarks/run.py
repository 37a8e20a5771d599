"""The workloads of bench/workloads.py on instil, and on a peer in alternation with it.

    python -m benchmarks.run sft --model M --samples 256 --json results.jsonl
    python -m benchmarks.run sft --samples 256 --peer peers/bin/python --peer-variant pad micro4
    python -m benchmarks.run rm --k 9 --prompts 8 --peer peers/bin/python
    python -m benchmarks.run dpo --samples 128 --peer peers/bin/python
    python -m benchmarks.run generate --eos geometric --peer peers/bin/python
    python -m benchmarks.run ppo --eos none --epochs 1 --peer-ppo peers_ppo/bin/python
    python -m benchmarks.run limits
    python -m benchmarks.run table results.jsonl

Each side runs in a process of its own, so that peak memory is its own too, and prints one line of
JSON. With a peer the sides take turns (ours, peer, ours, peer, ...) for `--rounds` rounds, because
the speed of a shared machine drifts; then comes a summary: how many times as fast (medians over
rounds of the normalised seconds per sample), each side's share of the limit (limits.py), memory.

The peer is peer_trl.py, beside workloads.py, in the Python that is named: one with the newest TRL,
and for PPO, which TRL dropped in 1.13, one with trl==1.12.0 (the README there says how to install
both). Other settings of our side have their defaults unless given: --set micro_batch_tokens=512.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.table import markdown, summarise

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT.parent / "shared" / "bench"
PEER_FLAGS = {
    "sft": ("samples", "batch"),
    "rm": ("prompts", "k"),
    "dpo": ("samples", "batch"),
    "generate": ("prompts", "max_new", "eos"),
    "ppo": ("episodes", "response", "epochs", "eos"),
}
"""What both sides are told, under the same names."""
VARIANT_FLAG = {"sft": "--variant", "generate": "--engine"}


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; both processes of a benchmark read the same one."""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = top.add_subparsers(dest="task", required=True, metavar="TASK")
    every = _shared_flags()

    task = tasks.add_parser("sft", parents=[every], help="supervised fine-tuning")
    task.add_argument("--samples", type=int, default=512, help="demonstrations per window")
    task.add_argument("--batch", type=int, default=32, help="demonstrations per optimizer step")
    task.add_argument("--peer-variant", nargs="+", default=["pad", "packing_rows"])
    task = tasks.add_parser("rm", parents=[every], help="reward model")
    task.add_argument("--k", type=int, default=4, help="responses of a ranking: 4 or 9")
    task.add_argument("--prompts", type=int, default=32, help="rankings per window")
    task = tasks.add_parser("dpo", parents=[every], help="direct preference optimization")
    task.add_argument("--samples", type=int, default=512, help="pairs per window")
    task.add_argument("--batch", type=int, default=16, help="pairs per optimizer step")
    task = tasks.add_parser("generate", parents=[every], help="sampling")
    task.add_argument("--eos", choices=("none", "geometric"), default="none")
    task.add_argument("--prompts", type=int, default=64, help="prompts per window")
    task.add_argument("--max-new", type=int, default=64, help="longest response")
    task.add_argument(
        "--peer-variant", nargs="+", help="static, continuous; the faster if left out"
    )
    task = tasks.add_parser("ppo", parents=[every], help="one PPO step")
    task.add_argument("--eos", choices=("none", "geometric"), default="none")
    task.add_argument("--episodes", type=int, default=128, help="prompts per window")
    task.add_argument("--response", type=int, default=48, help="longest response")
    task.add_argument("--epochs", type=int, default=1, help="passes over a rollout")
    tasks.add_parser("limits", parents=[every], help="rates of products and copies")
    task = tasks.add_parser("table", help="results as a Markdown table")
    task.add_argument("results", type=Path, help="file written by --json")

    args = top.parse_args(argv)
    if args.task == "generate" and not args.peer_variant:
        args.peer_variant = ["static" if args.eos == "none" else "continuous"]
    if args.task != "table":
        if args.task == "ppo":
            args.peer = args.peer_ppo
        args.repeats = args.repeats or (1 if args.peer else 3)
    return args


def _shared_flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(add_help=False)
    flags.add_argument("--model", choices=("S", "M", "G"), default="M")
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of our side")
    flags.add_argument("--threads", type=int, default=2, help="of our side; the peer has 2")
    flags.add_argument("--repeats", type=int, help="windows a process: 3, with a peer 1")
    flags.add_argument("--rounds", type=int, default=5, help="turns of each side, with a peer")
    flags.add_argument("--budget", type=float, default=500, help="seconds a process measures")
    flags.add_argument("--wait", type=float, default=20, help="seconds to wait for a quiet machine")
    flags.add_argument("--max-foreign", type=float, default=0.08, help="cores that others may use")
    flags.add_argument("--workloads", type=Path, default=BENCH, help="folder of workloads.py")
    flags.add_argument("--peer", metavar="PYTHON", help="with the newest TRL")
    flags.add_argument("--peer-ppo", metavar="PYTHON", help="with trl==1.12.0")
    flags.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    flags.add_argument("--json", type=Path, metavar="FILE", help="also append the lines here")
    flags.add_argument("--profile", metavar="FILE", help="torch.profiler's table; times are void")
    flags.add_argument("--profile-shapes", action="store_true", help="a row per input shape")
    return flags


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def workloads(folder: Path) -> ModuleType:
    """The module `workloads` of a folder, which is not part of this repository."""
    if not (folder / "workloads.py").exists():
        sys.exit(
            f"benchmarks: {folder / 'workloads.py'}: no such file; name the folder that holds the "
            "definition of the workloads with --workloads"
        )
    sys.path.insert(0, str(folder))
    import workloads

    return workloads


def main(argv: list[str]) -> None:
    """Run what the command line asks for."""
    args = parse(argv)
    if args.task == "table":
        print(markdown(_read(args.results)))
        return
    workloads(args.workloads)  # before anything starts
    ours = [sys.executable, "-m", "benchmarks.ours", *argv]
    if not args.peer or args.task == "limits":
        _show(args, _measured(ours, "ours", args.device))
        return
    lines, name = [], f"{time.time():.0f}"
    for number in range(args.rounds):
        sides = [("instil", ours), *(("peer", peer) for peer in _peers(args))]
        for side, command in sides:
            device = args.device if side == "instil" else "cpu"
            line = _measured(command, side, device) | {"side": side, "round": f"{name}/{number}"}
            lines.append(line)
            _show(args, line)
    for line in summarise(lines):
        _show(args, line)


def _peers(args: argparse.Namespace) -> list[list[str]]:
    """The commands of the peer, one for each of its variants."""
    script = args.workloads / "peer_trl.py"
    command = [args.peer, str(script), args.task, "--model", args.model]
    for name in ("repeats", "budget", "wait", "max_foreign", *PEER_FLAGS[args.task]):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    flag = VARIANT_FLAG.get(args.task)
    return [[*command, flag, name] for name in args.peer_variant] if flag else [command]


def _measured(command: list[str], side: str, device: str) -> dict[str, Any]:
    """The line of JSON that a process prints last."""
    environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode or not done.stdout.strip():
        sys.exit(f"benchmarks: the {side} process ended with code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _show(args: argparse.Namespace, line: dict[str, Any]) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    if args.json:
        with args.json.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        sys.exit(f"benchmarks: {path}: no such file; `--json {path}` writes one")
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


if __name__ == "__main__":
    main(sys.argv[1:])
