"""slots.py: what is written into a slot is what its sequence reads, wherever it moves."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from instil.lm.slots import CHUNK, Slots

CPU = torch.device("cpu")
HEADS, SIZE = 2, 4  # of keys and values


def numbered(count: int, capacity: int, lengths: list[int]) -> Slots:
    """Slots of which cell (slot, place) holds 100 * slot + place, as key, and its negative."""
    slots = Slots(count, capacity)
    slots.lengths = list(lengths)
    for layer in (0, 1):
        keys, values = slots.cache(layer, torch.zeros(1, HEADS, 1, SIZE))
        number = 100.0 * torch.arange(count)[:, None] + torch.arange(capacity) + 1000 * layer
        keys.copy_(number[:, None, :, None].expand_as(keys))
        values.copy_(-keys)
    return slots


def rows(slots: Slots, layer: int) -> list[tuple[list[float], list[float]]]:
    """The first number of each key and value that a sequence at work has."""
    keys, values = slots.cache(layer, torch.zeros(1, HEADS, 1, SIZE))
    return [
        (keys[slot, 0, :n, 0].tolist(), values[slot, -1, :n, -1].tolist())
        for slot, n in enumerate(slots.lengths)
    ]


def test_the_last_sequence_moves_to_where_one_ended_by_hand():
    slots = numbered(5, 9, [3, 1, 2, 4])
    assert slots.free == 1
    # 1 and 2 end: 3, the last, goes to slot 2, and then on to slot 1
    assert slots.release([1, 2]) == [0, 3]
    assert slots.lengths == [3, 4] and slots.free == 3
    assert rows(slots, 1) == [
        ([1000, 1001, 1002], [-1000, -1001, -1002]),
        ([1300, 1301, 1302, 1303], [-1300, -1301, -1302, -1303]),
    ]


def test_steps_copy_nothing_to_the_device_until_sequences_come_or_go(monkeypatch):
    slots = numbered(4, 9, [3, 1, 7])
    copied, tensor = [], torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *a, **k: copied.append(a) or tensor(*a, **k))
    found = [slots.step(torch.zeros(3, dtype=torch.long)).positions.tolist() for _ in range(3)]
    # the third has ended: its last place is written again
    assert found == [[3, 1, 7], [4, 2, 8], [5, 3, 8]]
    assert len(copied) == 1
    slots.release([0])
    assert slots.step(torch.zeros(2, dtype=torch.long)).positions.tolist() == [8, 4]
    assert len(copied) == 2


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=12))
def test_what_is_left_after_a_release_is_what_did_not_end(sequences):
    lengths = [length for length, _ in sequences]
    done = [slot for slot, (_, ended) in enumerate(sequences) if ended]
    slots = numbered(12, 6, lengths)
    before = [rows(slots, layer) for layer in (0, 1)]
    had = slots.release(done)
    assert sorted(had) == sorted(set(range(len(lengths))) - set(done))
    assert slots.lengths == [lengths[slot] for slot in had]
    assert slots.free == 12 - len(had)
    for layer in (0, 1):
        assert rows(slots, layer) == [before[layer][slot] for slot in had]


def test_equal_prompts_are_read_once_and_written_into_every_slot():
    slots = Slots(6, 8)
    slots.lengths = [5, 2]  # at work already
    layout, last = slots.prefill([[7, 8], [9, 10, 11], [7, 8], [12]], CPU)
    assert layout.tokens.tolist() == [7, 8, 9, 10, 11, 12]
    assert layout.positions.tolist() == [0, 1, 0, 1, 2, 0]
    assert last.tolist() == [1, 4, 1, 5]
    assert slots.lengths == [5, 2, 2, 3, 2, 1] and slots.free == 0
    key = layout.tokens.float()[None, None, :, None].expand(1, HEADS, -1, SIZE)
    layout.attend(0, key, key, -key, 1.0)
    assert rows(slots, 0)[2:] == [
        ([7, 8], [-7, -8]),
        ([9, 10, 11], [-9, -10, -11]),
        ([7, 8], [-7, -8]),
        ([12], [-12]),
    ]


@pytest.mark.parametrize("heads", [HEADS, 3 * HEADS])  # as many as keys have, and more
def test_each_sequence_reads_its_own_tokens_and_no_others(heads):
    noise = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=noise)

    count = CHUNK + 5  # more than are read together
    lengths = torch.randint(1, 20, (count,), generator=noise).tolist()
    slots = Slots(count, 24)
    slots.lengths = list(lengths)
    keys, values = slots.cache(0, torch.zeros(1, HEADS, 1, SIZE))
    keys.copy_(random(*keys.shape))
    values.copy_(random(*values.shape))
    for _ in range(2):
        step = slots.step(torch.arange(count))
        assert step.positions.tolist() == lengths
        query, key, value = (random(1, n, count, SIZE) for n in (heads, HEADS, HEADS))
        found = step.attend(0, query, key, value, 0.3)
        assert found.shape == query.shape
        for slot, length in enumerate(lengths):
            assert torch.equal(keys[slot, :, length], key[0, :, slot])
            assert torch.equal(values[slot, :, length], value[0, :, slot])
            alone = scaled_dot_product_attention(
                query[:, :, slot : slot + 1],
                keys[None, slot, :, : length + 1],
                values[None, slot, :, : length + 1],
                scale=0.3,
                enable_gqa=True,
            )
            assert torch.allclose(found[:, :, slot], alone[:, :, 0], atol=1e-6)
        lengths = [length + 1 for length in lengths]
        assert slots.lengths == lengths


def test_a_sequence_that_goes_on_after_its_end_stays_in_its_slot():
    slots = numbered(3, 4, [3, 1])
    for positions in ([3, 1], [3, 2], [3, 3]):
        step = slots.step(torch.tensor([5, 6]))
        assert step.positions.tolist() == positions
        key = torch.ones(1, HEADS, 2, SIZE)
        assert step.attend(0, key, key, key, 1.0).isfinite().all()
    assert slots.lengths == [4, 4]
    assert rows(slots, 0)[0][0] == [0, 1, 2, 1]  # only its last cell was written again


def test_memory_is_taken_once_for_a_layer_and_holds_no_nan():
    like = torch.zeros(1, HEADS, 1, SIZE)
    for _ in range(4):  # what was freed just now is given again
        torch.full((3, HEADS, 500, SIZE), torch.nan)
        keys, values = (slots := Slots(3, 500)).cache(0, like)
        assert keys.shape == values.shape == (3, HEADS, 500, SIZE)
        assert keys.isfinite().all() and values.isfinite().all()
        assert slots.cache(0, like)[0] is keys
        assert slots.cache(1, like)[0] is not keys
        del keys, values, slots


def test_prompts_of_a_pass_lie_side_by_side():
    prompts = [[3, 4, 5], [6], [7, 8]]
    layout, last = Slots(3, 5).prefill(prompts, CPU)
    starts = list(accumulate(map(len, prompts), initial=0))
    assert layout.tokens.tolist() == [token for prompt in prompts for token in prompt]
    assert last.tolist() == [end - 1 for end in starts[1:]]
    assert layout.packed.lengths == (3, 1, 2) and layout.packed.parents == (-1, -1, -1)
