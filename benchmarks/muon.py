"""How long a step of Muon takes on a CPU, ours and torch's, for a Llama's matrices.

    python -m benchmarks.muon --width 128 --layers 4

In alternation; the first round warms up and does not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import nn

from instil.lm.models import new_policy
from instil.train.fit import hidden_matrices
from instil.train.muon import Muon


def main(argv: Sequence[str] | None = None) -> None:
    """Print the median seconds of each, in alternation, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.muon", description=__doc__)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    shape = {"width": args.width, "layers": args.layers, "heads": 2, "context": 64}
    model = new_policy("llama", vocab_size=64, seed=0, pad_id=0, eos_id=1, **shape)
    matrices = hidden_matrices(model)
    found: dict[str, list[float]] = {"ours": [], "torch": []}
    for number in range(args.rounds + 1):
        for name, seconds in found.items():
            copies = [nn.Parameter(p.detach().clone()) for p in matrices]
            for p in copies:
                p.grad = torch.randn_like(p)
            optimizer = (
                Muon(copies, lr=1e-3, weight_decay=0.1)
                if name == "ours"
                else torch.optim.Muon(copies, lr=1e-3, adjust_lr_fn="match_rms_adamw")
            )
            started = time.perf_counter()
            optimizer.step()
            if number:
                seconds.append(time.perf_counter() - started)
    ours, theirs = median(found["ours"]), median(found["torch"])
    print(
        f"{len(matrices)} matrices: ours {ours:.4f} s, torch {theirs:.4f} s, {theirs / ours:.1f}x"
    )


if __name__ == "__main__":
    main()
