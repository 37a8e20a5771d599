import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instil.errors import InstilError
from instil.lm.batches import (
    batch_indices,
    document_rows,
    epoch_order,
    passes,
    position_ids,
    prompt_batch,
    random_bits,
    ranking_batch,
    rollout_batch,
    stream_batch,
    text_batch,
)

PAD = 9


def test_a_text_batch_counts_the_response_only():
    batch = text_batch([([1, 2], [3, 4]), ([5], [6])], PAD)
    assert batch.tokens.tolist() == [[1, 2, 3, 4], [5, 6, PAD, PAD]]
    assert batch.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert batch.loss_mask.tolist() == [[False, False, True, True], [False, True, False, False]]


def test_the_first_token_never_counts():
    # nothing stands before it, so it is never predicted, even without a prompt
    assert text_batch([([], [3, 4])], PAD).loss_mask.tolist() == [[False, True]]


def test_padding_that_looks_like_a_token_is_still_padding():
    batch = text_batch([([PAD, 2], [PAD]), ([5], [PAD])], PAD)
    assert batch.mask.tolist() == [[True] * 3, [True, True, False]]
    assert batch.loss_mask.tolist() == [[False, False, True], [False, True, False]]


def test_document_rows_cut_the_stream():
    # stream 1 2 3 4 5 6 7: two rows of 3, the 7 is left out
    rows = document_rows([[1, 2], [3, 4, 5, 6], [7]], 3)
    assert rows.tolist() == [[1, 2, 3], [4, 5, 6]]
    batch = stream_batch(rows)
    assert batch.mask.all()
    assert batch.loss_mask.tolist() == [[False, True, True]] * 2
    with pytest.raises(InstilError, match="2 tokens in 1 documents do not fill one row of 3"):
        document_rows([[1, 2]], 3)


def test_prompts_end_together():
    batch = prompt_batch([[1, 2, 3], [4]], PAD)
    assert batch.tokens.tolist() == [[1, 2, 3], [PAD, PAD, 4]]
    assert batch.mask.tolist() == [[True] * 3, [False, False, True]]
    assert position_ids(batch.mask).tolist() == [[0, 1, 2], [0, 0, 0]]


def test_a_ranking_is_its_prompt_once_and_its_responses_after_it():
    batch = ranking_batch([([1, 9], [[2], [3, 4], [5]], [2, 1, 2]), ([6], [[7], [8]], [1, 2])])
    packed = batch.packed
    assert packed.tokens.tolist() == [1, 9, 2, 3, 4, 5, 6, 7, 8]
    assert packed.positions.tolist() == [0, 1, 2, 2, 3, 2, 0, 1, 1]
    assert packed.lengths == (2, 1, 2, 1, 1, 1, 1)
    assert packed.parents == (-1, 0, 0, 0, -1, 4, 4)
    assert batch.ranks.tolist() == [[2, 1, 2], [1, 2, 0]]
    assert batch.last.tolist() == [[2, 4, 5], [7, 8, 0]]
    tokens, mask = batch.apart()
    rows = [row[there].tolist() for row, there in zip(tokens, mask, strict=True)]
    assert rows == [[1, 9, 2], [1, 9, 3, 4], [1, 9, 5], [6, 7], [6, 8], [1]]
    assert batch.offsets.tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="needs one rank"):
        ranking_batch([([1], [[2], [3]], [1])])


def test_what_a_score_is_beside_the_models_number_is_padded_like_the_ranks():
    ranked = [([1], [[2], [3]], [1, 2]), ([1], [[2], [3], [4]], [1, 2, 2])]
    batch = ranking_batch(ranked, [[0.5, -1.0], [1.0, 2.0, 3.0]])
    assert batch.offsets.tolist() == [[0.5, -1.0, 0.0], [1.0, 2.0, 3.0]]
    for wrong in ([[0.5, -1.0]], [[0.5], [1.0, 2.0, 3.0]]):
        with pytest.raises(ValueError, match="one offset, or none"):
            ranking_batch(ranked, wrong)


def test_rollouts_meet_at_one_column():
    tokens, mask, response_mask = rollout_batch([[1, 2], [3]], [[4], [5, 6, 7]], PAD)
    assert tokens.tolist() == [[1, 2, 4, PAD, PAD], [PAD, 3, 5, 6, 7]]
    assert mask.int().tolist() == [[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]
    assert response_mask.int().tolist() == [[1, 0, 0], [1, 1, 1]]
    assert position_ids(mask).tolist() == [[0, 1, 2, 2, 2], [0, 0, 1, 2, 3]]


def test_a_batch_moves_as_one():
    text = text_batch([([1], [2])], PAD).to("meta")
    ranking = ranking_batch([([1], [[2], [3]], [1, 2])]).to("meta")
    tensors = [text.tokens, text.mask, text.loss_mask, ranking.last, ranking.ranks]
    tensors += [ranking.packed.tokens, ranking.packed.positions]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_an_epoch_visits_everything_once_and_the_next_in_another_order():
    # 10 examples in batches of 3: three batches an epoch, one example rests
    first = [batch_indices(10, 3, seed=5, step=step) for step in range(3)]
    second = [batch_indices(10, 3, seed=5, step=step) for step in range(3, 6)]
    for epoch in (first, second):
        visited = [index for batch in epoch for index in batch]
        assert len(set(visited)) == 9 and set(visited) <= set(range(10))
    assert first != second
    assert first[1] == epoch_order(10, 5, 0)[3:6].tolist()
    assert batch_indices(10, 3, seed=6, step=0) != first[0]
    with pytest.raises(InstilError, match="2 examples do not fill one batch of 3"):
        batch_indices(2, 3, seed=0, step=0)


def test_the_order_is_pinned():
    # taken from the first version: a change would alter every run that is resumed
    assert epoch_order(8, seed=1, epoch=0).tolist() == [7, 2, 6, 4, 3, 5, 0, 1]
    assert random_bits(1, "pinned", 1).tolist() == [10212929093193482003]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_passes_take_every_example_once_like_lengths_together(lengths, tokens):
    found = passes(lengths, tokens)
    order = [number for group in found for number in group]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[number] for number in order] == sorted(lengths)
    assert len(found) <= math.ceil(sum(lengths) / tokens)
    for group in found:  # no more than was asked for, and half an example on either side
        assert sum(lengths[number] for number in group) <= tokens + max(lengths)


def test_passes_are_equally_long_by_hand():
    # 12 tokens in passes of at most about 5: three of about 4, which are 1 + 2, 2 + 3 and 4
    assert passes([2, 1, 4, 3, 2], 5) == [[1, 0], [4, 3], [2]]
    assert passes([], 5) == []


def test_random_bits_belong_to_their_key():
    assert (random_bits(3, "a", 1) == random_bits(9, "a", 1)[:3]).all()
    keys = [("a", 1), ("a", 2), ("b", 1), ("a", 1, 0), ("a1",)]
    assert len({int(random_bits(1, *key)[0]) for key in keys}) == len(keys)
    assert abs(random_bits(10_000, "mean").astype(np.float64).mean() / 2**64 - 0.5) < 0.01


def test_empty_batches_have_no_rows():
    assert prompt_batch([], PAD).tokens.shape[0] == 0
    assert prompt_batch([], PAD).mask.dtype == torch.bool
