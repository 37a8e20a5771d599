"""The command line: one table from names to modules, nothing else.

A command is a module with a frozen `Config` dataclass and a `run(config)`. Its imports happen only
when it is chosen, so `instil --help` is instant and the commands without a model never load torch.

Exit status: 0 done, 1 a mistake that the message says how to mend, 2 a wrong command line,
130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from instil.errors import InstilError, nearest

COMMANDS = {
    "demo": ("instil.demo", "the whole of InstructGPT on the embedded world, offline"),
    "loop": ("instil.loop", "the same loop on files of your own"),
    "convert": ("instil.convert", "turn files people have into records"),
    "intake": ("instil.intake", "clean and split users' prompts"),
    "pretrain": ("instil.train.pretrain", "train a language model from scratch on text"),
    "sft": ("instil.train.sft", "train on demonstrations"),
    "sample": ("instil.lm.sample", "write responses of a model to prompts"),
    "rm": ("instil.train.rm", "train a reward model on rankings"),
    "dpo": ("instil.train.dpo", "train on rankings without a reward model (DPO)"),
    "ppo": ("instil.train.ppo", "train against a reward model (PPO, PPO-ptx)"),
    "eval": ("instil.evals.paper", "ask models everything that the paper asks"),
    "judge": ("instil.evals.judge", "train a judge of truth on human labels, for `instil eval`"),
    "study": ("instil.study", "measure the paper's findings on the embedded world"),
    "report": ("instil.report", "make one HTML page of a directory of runs"),
    "label": ("instil.labeling.serve", "serve the pages on which people label"),
    "batch": ("instil.labeling.batch", "give the labelers prompts and responses"),
    "export": ("instil.labeling.export", "write what they labeled as record files"),
    "remove": ("instil.labeling.removal", "remove one user's data and all that came of it"),
    "audit": ("instil.labeling.audit", "check that nobody changed what was recorded"),
    "env": ("instil.env", "print versions for a bug report"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "--version"):
        return _help(argv)
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        print(f"instil: no command {name!r}{nearest(name, COMMANDS)}", file=sys.stderr)
        return 2
    where = COMMANDS[name][0]
    if os.environ.get("WORLD_SIZE", "1") != "1" and not where.startswith("instil.train."):
        return _one_is_enough(name)
    try:
        from instil.config import from_command_line

        command = import_module(where)
        command.run(from_command_line(name, command.Config, rest))
    except InstilError as error:
        print(f"instil {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"instil {name}: interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0


def _one_is_enough(name: str) -> int:
    """Refuse a command that torchrun started several times: each would do all of the work, in the
    same files. Rank 0 says so; torchrun would end it before that if another rank failed."""
    if os.environ.get("RANK", "0") != "0":
        return 0
    print(f"instil {name}: runs in one process; start it without torchrun", file=sys.stderr)
    return 1


def _help(argv: list[str]) -> int:
    from instil import __version__

    if argv == ["--version"]:
        print(__version__)
        return 0
    print("usage: instil COMMAND [--config recipe.toml] [--field value ...]\n")
    print("\n".join(f"  {name:9} {what}" for name, (_, what) in COMMANDS.items()))
    print("\n`instil COMMAND --help` explains a command's fields.")
    return 0
