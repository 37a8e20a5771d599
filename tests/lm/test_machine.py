from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from instil.lm.machine import settle, tokens_per_pass

FAULTS = """
import ctypes, resource, sys
from instil.lm.machine import settle

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def faults(size=20 * 2**20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [library.malloc(size) for _ in range(4)]
    for block in blocks:
        library.memset(block, 1, size)
    for block in blocks:
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "settled":
    settle()
print([faults() for _ in range(4)][-1])
"""


def test_settling_sets_the_threads_that_are_asked_for():
    before = torch.get_num_threads()
    try:
        settle(before + 1)
        assert torch.get_num_threads() == before + 1
        settle()  # as they are
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="memory is kept as this system likes",
)
def test_memory_that_was_freed_is_kept_for_what_comes_next():
    # a page that the system gives anew is a fault when it is first written
    settled, as_usual = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True))
        for how in ("settled", "as usual")
    )
    assert settled < as_usual / 10


def model(width: int, layers: int, device: str = "meta") -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
    )
    with torch.device(device):
        return LlamaForCausalLM(config)


def test_a_pass_takes_what_is_asked_for():
    assert tokens_per_pass(model(8, 1, "cpu"), wanted=77) == 77
    assert tokens_per_pass(model(8, 1), wanted=1) == 1


def test_a_pass_of_a_larger_model_takes_fewer_tokens_but_never_few():
    sizes = [tokens_per_pass(model(*shape, "cpu")) for shape in ((8, 1), (8, 4), (64, 4), (512, 9))]
    assert sizes == sorted(sizes, reverse=True)
    # what a pass keeps grows as tokens x width x layers
    assert sizes[0] * 8 == sizes[1] * 32 == sizes[2] * 256
    assert sizes[-1] >= 512
    assert tokens_per_pass(model(512, 9)) > sizes[-1]  # another device has more units to keep busy
