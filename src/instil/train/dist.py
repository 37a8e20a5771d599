"""Several processes (ranks), started by torchrun: weights in shards, sums over all of them.

    torchrun --nproc-per-node 8 -m instil sft ...      # the same run as without, on 8 devices

Without torchrun there is one process and no group, and what stands here hands back what it is
given. No other file knows torch.distributed.

How a step is divided. Every rank knows the whole batch, since the order of examples is a function
of (seed, step), cuts it into the same passes and takes every n-th of them. Losses are divided by
counts of the whole batch, so gradients only have to be added. Whatever is measured is put together
on every rank, and decisions are made from it: all ranks make the same ones.

Two ways to use a model. In `forward` its weights are in shards (FSDP2), gathered layer by layer,
and all ranks make equally many passes. In `whole` every rank has a plain model with all weights for
a while, and may do with it what the others do not: sampling, scoring, evaluation, export.

Left out on purpose:
  tensor and pipeline parallelism    docs/distributed.md says from which size on they are needed
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from instil.config import to_dict
from instil.errors import InstilError
from instil.lm.models import head_is_plain
from instil.runs import Run, say, versions, write_json
from instil.train.watch import GRACE, HUNG, Watch, deaf

Item = TypeVar("Item")
Found = TypeVar("Found")
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Group:
    """This process among the others."""

    rank: int
    ranks: int
    device: torch.device
    mesh: Any
    watch: Watch


_group: Group | None = None


def ranks() -> int:
    """How many processes train together."""
    return _group.ranks if _group else 1


def rank() -> int:
    """The number of this process, from 0."""
    return _group.rank if _group else 0


def first() -> bool:
    """Whether this is rank 0, the only one that writes files."""
    return rank() == 0


@contextmanager
def open_run(command: str, config: Any) -> Iterator[Run]:
    """`Run.open` for all ranks: rank 0 holds the run, the others write nothing and say nothing.

    Under torchrun (or in a process group that exists already) the ranks find each other here. When
    one of them fails, one message says which and in which step, and all end.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    with nullcontext() if alone else _joined(config):
        if first():
            threads = torch.get_num_threads()
            with Run.open(config.out, command, config, threads=threads) as run:
                _note_ranks(run)
                yield run
        else:
            with (
                Path(os.devnull).open("w") as nowhere,
                redirect_stderr(nowhere),
                _Follower.beside(config.out) as run,
            ):
                yield run


def _note_ranks(run: Run) -> None:
    before = run.info.get("processes", ranks())
    if before != ranks():
        say(
            f"{run.path}: started with {before} processes, goes on with {ranks()}: "
            "the result will not be equal to the bit"
        )
    elif ranks() > 1:
        run.info["processes"] = before
        write_json(run.path / "run.json", run.info)


class _Follower(Run):
    """A run as the other ranks hold it."""

    @classmethod
    @contextmanager
    def beside(cls, out: Path) -> Iterator[Run]:
        run = cls(out, {}, None)
        with run._signals():
            yield run

    def log(self, step: int, metrics: Mapping[str, Any]) -> None: ...
    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None: ...
    def rewind(self, step: int) -> None: ...
    def finish(self, **results: Any) -> None: ...
    def stopped(self, reason: str) -> None: ...


@contextmanager
def _joined(config: Any) -> Iterator[None]:
    """Find the other ranks, and part from them at the end, whatever it is."""
    global _group
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else None
    if device:
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    if ours:
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        longest = timedelta(seconds=HUNG + 300)  # the watch is faster, and says who
        dist.init_process_group(backend, timeout=longest, device_id=device)
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False)
    number, count = dist.get_rank(), dist.get_world_size()
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives a fall
    watch = Watch(dist.PrefixStore(f"instil/{attempt}", store), number, count)
    mesh = dist.init_device_mesh("cuda" if cuda else "cpu", (count,))
    _group = Group(number, count, device or torch.device("cpu"), mesh, watch)
    with deaf():
        try:
            _check_equal(config)
            watch.start()
            yield
        except BaseException as error:
            _part(error, watch)
        finally:
            _group = None
        watch.stop()
    if ours:
        dist.destroy_process_group()


def _part(error: BaseException, watch: Watch) -> NoReturn:
    """Raise what this rank has to say about the end of the run; only one rank says something."""
    if isinstance(error, KeyboardInterrupt):  # all have agreed to it
        watch.stop()
        raise error if watch.rank == 0 else SystemExit(0)
    failed = isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)
    if failed:  # the fault is another rank's
        watch.lost()
    if not watch.claim():
        time.sleep(GRACE)  # torchrun ends all ranks as soon as one has ended
        raise SystemExit(1)
    where = f"rank {watch.rank} of {watch.ranks}, {watch.where()}"
    if isinstance(error, InstilError):
        raise InstilError(f"{where}: {error}") from error
    error.add_note(where)
    raise error


def _check_equal(config: Any) -> None:
    """Ranks that work on different things would wait for each other for ever."""
    own, *others = gathered(to_dict(config) | versions())
    for number, other in enumerate(others, start=1):
        if differ := [name for name in own if own[name] != other[name]]:
            name = differ[0]
            raise InstilError(
                f"{name} is {own[name]!r} on rank 0 and {other[name]!r} on rank {number}; start "
                "all ranks with the same command and the same packages"
            )


def at(step: int) -> None:
    """Note which step begins, for messages."""
    if _group:
        _group.watch.step = step


def busy() -> Any:
    """A context for what takes long, on one rank alone or in one call."""
    return _group.watch.busy() if _group else nullcontext()


def _meet() -> None:
    """Every function that waits for the other ranks begins with this."""
    if _group:
        _group.watch.pulse += 1


def per_pass(total: int, most: int) -> int:
    """How much of `total` one pass takes: `most`, or with several ranks less, so that all of them
    have equally much to do."""
    if ranks() == 1:
        return most
    passes = -(-total // (most * ranks())) * ranks()
    return -(-total // passes)


def mine(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's share: every n-th."""
    return items[rank() :: ranks()]


def evenly(items: Sequence[Item]) -> list[tuple[Item, float]]:
    """This rank's share of the passes of one step, each with its weight: 1, or 0 for one that is
    made only because the others make as many."""
    chosen = [(item, 1.0) for item in mine(items)]
    missing = -(-len(items) // ranks()) - len(chosen)
    return chosen + [(items[0], 0.0)] * missing


def spread(work: Callable[[Sequence[Item]], Sequence[Found]], items: Sequence[Item]) -> list[Found]:
    """`work(items)`, one result per item, of which each rank does its share."""
    if ranks() == 1:
        return list(work(items))
    share = mine(items)
    parts = gathered(list(work(share)) if share else [])
    return [parts[i % ranks()][i // ranks()] for i in range(len(items))]


def gathered(value: Found) -> list[Found]:
    """What every rank has in place of `value`, in their order."""
    if ranks() == 1:
        return [value]
    _meet()
    found: list[Any] = [None] * ranks()
    dist.all_gather_object(found, value)
    return found


def from_first(make: Callable[[], Found]) -> Found:
    """What `make` returns on rank 0, the only one that calls it."""
    if ranks() == 1:
        return make()
    _meet()
    box = [make() if first() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def anywhere(flag: bool) -> bool:
    """Whether it is True on some rank."""
    return any(gathered(flag))


def add_up(tensor: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    if ranks() > 1:
        _meet()
        dist.all_reduce(tensor)
    return tensor


def totals(*numbers: float) -> list[float]:
    """The sum of each over all ranks."""
    return [sum(column) for column in zip(*gathered(numbers), strict=True)]


def shard(model: nn.Module) -> None:
    """Keep a part of every weight on this rank, in place; one decoder layer is gathered at a time,
    and what is not in a layer (embeddings, last norm, head) for a whole pass."""
    if not _group:
        return
    if isinstance(model, PreTrainedModel) and model.get_output_embeddings() is not None:
        head_is_plain(model)  # makes passes of its own
    empty = {id(p): nn.Parameter(p.new_empty(0), p.requires_grad) for p in model.parameters()}
    plain = copy.deepcopy(model, dict(empty)).to(_group.device)
    layers = next((m for m in model.modules() if isinstance(m, nn.ModuleList)), nn.ModuleList())
    for layer in layers:
        fully_shard(layer, mesh=_group.mesh)
    fully_shard(model, mesh=_group.mesh, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # losses are divided by global counts already
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
    model.__dict__["plain"] = plain
    model.__dict__["in_forward"] = lambda function, *args: _own(function(*args))
    register_fsdp_forward_method(model, "in_forward")


def _own(found: Any) -> Any:
    """The same without views: FSDP hangs its work on what a pass returns, and views lose it."""
    if isinstance(found, tuple):
        return tuple(map(_own, found))
    return found.clone() if isinstance(found, Tensor) and found._is_view() else found


def forward(model: nn.Module, function: Callable[..., Found], *args: Any) -> Found:
    """`function(*args)`, in which `model` makes one pass: the weights are there meanwhile."""
    if not isinstance(model, FSDPModule):
        return function(*args)
    _meet()
    found: Found = model.in_forward(function, *args)  # type: ignore[operator]
    return found


@contextmanager
def whole(model: Model) -> Iterator[Model]:
    """A plain model with all the weights that `model` has now, on every rank."""
    if not isinstance(model, FSDPModule):
        yield model
        return
    plain: Model = model.__dict__["plain"]
    for name, parameter in model.named_parameters():
        plain.get_parameter(name).data = full(parameter.detach())
    try:
        yield plain.train(model.training)
    finally:
        for parameter in plain.parameters():
            parameter.data = parameter.new_empty(0)


def full(tensor: Tensor) -> Tensor:
    """All of a tensor that may be in shards; every rank has to ask."""
    if not isinstance(tensor, DTensor):
        return tensor
    _meet()
    return tensor.full_tensor()


def on_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on rank 0, to be written; nothing on the others."""
    if ranks() == 1:
        return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    kept = {}
    for name, tensor in tensors.items():
        found = full(tensor.detach())
        if first():
            kept[name] = found.cpu().contiguous()
    return kept


@torch.no_grad()
def fill(own: Tensor, saved: Tensor | None) -> None:
    """Copy into a tensor that may be in shards; only rank 0 needs to have what was saved."""
    if not isinstance(own, DTensor) or isinstance(saved, DTensor):
        own.copy_(saved)  # type: ignore[arg-type]
        return
    _meet()
    if saved is None:
        saved = torch.empty(own.shape, dtype=own.dtype)
    own.copy_(distribute_tensor(saved.to(own.device), own.device_mesh, own.placements))


def place(saved: Tensor | None, like: Tensor) -> Tensor:
    """What was saved, in shards where `like` is; only rank 0 needs to have it."""
    if not isinstance(like, DTensor):
        return saved.to(like.device)  # type: ignore[union-attr]
    small = from_first(lambda: None if saved is None or saved.shape == like.shape else saved)
    if small is not None:  # a count of steps
        return small.to(like.device)
    own = torch.zeros_like(like)
    fill(own, saved)
    return own


def norm(tensors: Iterable[Tensor]) -> float:
    """The length of tensors, or of their shards on all ranks, taken as one vector."""
    # row by row: in fp32 on a CPU a norm of millions of numbers is wrong in the fourth digit
    rows = (torch.linalg.vector_norm(_local(tensor), dim=-1) for tensor in tensors)
    squares = [lengths.double().square().sum() for lengths in rows]
    return math.sqrt(totals(float(sum(squares)))[0])


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale the gradients down to a norm of `limit`; returns what it was."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = norm(gradients)
    if length > limit:
        for gradient in gradients:
            _local(gradient).mul_(limit / length)
    return length


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
