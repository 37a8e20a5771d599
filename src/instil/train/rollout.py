"""Sampled responses and what was measured when they were sampled.

Prompts are padded left and responses right, so that responses begin in one column. Passes over a
model take pieces of sequences of like length with the padding trimmed; the result does not depend
on how they are cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from instil.advantages import explained_variance, kl_k3
from instil.lm.attention import first_equal
from instil.lm.batches import Ids, OnDevice, passes
from instil.lm.models import logprobs
from instil.lm.reward import PythonReward, RewardModel
from instil.lm.sampling import Sampler, Samples, SamplingParams, occurrences
from instil.lm.scalar import ScalarModel
from instil.train import dist


def sample(sampler: Sampler, prompts: Sequence[Ids], params: SamplingParams, seed: int) -> Samples:
    """`sampler.sample`, of which each rank does its share."""

    def some(share: Sequence[tuple[Ids, int]]) -> list[tuple[list[int], list[float], bool]]:
        found = sampler.sample([p for p, _ in share], params, seed, [i for _, i in share])
        return list(zip(found.tokens, found.logprobs, found.ended, strict=True))

    rows = dist.spread(some, list(zip(prompts, occurrences(prompts), strict=True)))
    return Samples([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def judge(
    reward: RewardModel | PythonReward, prompts: Sequence[str], responses: Sequence[str]
) -> list[float]:
    """`reward(prompts, responses)`. Of a model each rank does its share; a function of the user's
    may compare them all, and is called on rank 0."""
    if isinstance(reward, PythonReward):
        with dist.busy():
            return dist.from_first(lambda: reward(prompts, responses))
    with whole_reward(reward) as own:
        pairs = list(zip(prompts, responses, strict=True))
        return dist.spread(lambda share: own(*zip(*share, strict=True)), pairs)


@contextmanager
def whole_likelihood(reward: RewardModel) -> Iterator[RewardModel]:
    """The reward model with all weights of the language model beside it, if there is one."""
    if reward.likelihood is None:
        yield reward
        return
    with dist.whole(reward.likelihood.model) as model:
        yield replace(reward, likelihood=replace(reward.likelihood, model=model))


@contextmanager
def whole_reward(reward: RewardModel) -> Iterator[RewardModel]:
    """The reward model with all its weights."""
    with dist.whole(reward.model) as model, whole_likelihood(reward) as whole:
        yield replace(whole, model=model)


@dataclass(frozen=True, slots=True)
class Sequences(OnDevice):
    """B sequences; L prompt tokens, padded left; T response tokens, padded right."""

    tokens: Tensor  # (B, L+T)
    attention_mask: Tensor  # (B, L+T)  True on real tokens, prompt and response
    response_mask: Tensor  # (B, T)  True on sampled tokens, the end token included

    @property
    def prompt_width(self) -> int:
        """L, the columns before the responses."""
        return self.tokens.shape[1] - self.response_mask.shape[1]

    @property
    def responses(self) -> Tensor:
        """(B, L+T)  True on sampled tokens."""
        return F.pad(self.response_mask, (self.prompt_width, 0))

    def pieces(self, rows: Tensor, tokens: int) -> Iterator[tuple[Tensor, Sequences]]:
        """Some of the sequences in pieces of about `tokens` tokens, of like length, padding
        trimmed. Those of one prompt are together, and the prompt counts once."""
        width = self.prompt_width
        prompt, response = self.attention_mask[rows, :width], self.response_mask[rows]
        before, after = prompt.sum(1).tolist(), response.sum(1).tolist()
        members: list[list[int]] = []
        lengths: list[int] = []
        groups: dict[int, int] = {}
        for row, same in enumerate(first_equal(self.tokens[rows, :width], prompt)):
            group = groups.get(same, -1)
            if group < 0 or lengths[group] + after[row] > tokens:
                group = groups[same] = len(members)
                members.append([])
                lengths.append(before[row])
            members[group].append(row)
            lengths[group] += after[row]
        for piece in passes(lengths, tokens):
            chosen = rows[[row for group in piece for row in members[group]]]
            yield chosen, self._trimmed(chosen)

    def _trimmed(self, rows: Tensor) -> Sequences:
        width = self.prompt_width
        prompt = int(self.attention_mask[rows, :width].sum(1).max())
        response = int(self.response_mask[rows].sum(1).max())
        columns = slice(width - prompt, width + response)
        return Sequences(
            self.tokens[rows, columns],
            self.attention_mask[rows, columns],
            self.response_mask[rows, :response],
        )


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sequences and their measurements, (B, T) per response token, (B,) per response."""

    sequences: Sequences
    logprobs: Tensor  # (B, T)  of the sampled tokens, as the sampler had them; the trainer's where
    # the two did not agree
    ref_logprobs: Tensor  # (B, T)  the same tokens under the reference
    values: Tensor  # (B, T)  expected return before each token is chosen
    token_scores: Tensor  # (B, T)  the part of the reward that each token earns; 0 for most rewards
    scores: Tensor  # (B,)  the rest of it, the setting for cut-off responses applied
    raw_scores: Tensor  # (B,)  all of it, as the reward gave it
    ended: Tensor  # (B,)  True where the policy wrote the end token


def response_logprobs(policy: PreTrainedModel, sequences: Sequences, temperature: float) -> Tensor:
    """(B, T) logprobs of the response tokens; 0 on padding."""
    s, width = sequences, sequences.prompt_width
    found = logprobs(policy, s.tokens, s.attention_mask, s.responses, temperature, shared=width)
    return found[:, width:]


def response_logprobs_and_entropies(
    policy: PreTrainedModel, sequences: Sequences, temperature: float
) -> tuple[Tensor, Tensor]:
    """The same, and the entropies of these predictions (B, T), without gradient."""
    s, width = sequences, sequences.prompt_width
    found, entropies, _ = logprobs(
        *(policy, s.tokens, s.attention_mask, s.responses, temperature), measure=True, shared=width
    )
    return found[:, width:], entropies[:, width:]


def response_values(value: ScalarModel, sequences: Sequences) -> Tensor:
    """(B, T) values of the states in which the response tokens are chosen: one position earlier."""
    width, length = sequences.prompt_width, sequences.response_mask.shape[1]
    values = value.values(sequences.tokens, sequences.attention_mask, shared=width)
    return values[:, width - 1 : width + length - 1] * sequences.response_mask


@torch.no_grad()
def measured(
    sequences: Sequences, rows: Tensor, tokens: int, measure: Callable[[Sequences], Tensor]
) -> Tensor:
    """What `measure` says of some of the sequences (B, T), about `tokens` tokens at a time; 0 in
    the other rows. Each rank measures its share."""
    found = torch.zeros(sequences.response_mask.shape, device=sequences.tokens.device)
    for piece, some in dist.mine(list(sequences.pieces(rows, tokens))):
        found[piece, : some.response_mask.shape[1]] = measure(some)
    return dist.add_up(found)


def logprob_gaps(
    policy: PreTrainedModel,
    rollout: Rollout,
    rows: Tensor,
    temperature: float,
    tokens: int,
    keep: bool = False,
) -> dict[str, float]:
    """How far the rollout's logprobs of some rows are from the trainer's; `keep` puts the trainer's
    in their place."""
    found = measured(
        rollout.sequences, rows, tokens, lambda s: response_logprobs(policy, s, temperature)
    )[rows]
    every = (rollout.logprobs[rows] - found)[rollout.sequences.response_mask[rows]]
    if keep:
        rollout.logprobs[rows] = found
    return {
        "rollout/train_kl": every.mean().item(),
        "rollout/max_abs_dlogp": every.abs().max().item(),
        "rollout/mean_abs_dlogp": every.abs().mean().item(),
        "rollout/recomputed": float(keep),
    }


def measurements(
    rollout: Rollout,
    rewards: Tensor,
    returns: Tensor,
    responses: list[str],
    kl_coef: float,
    reward_std: float,
) -> dict[str, float]:
    """What a rollout tells, under the names that users' dashboards know."""
    mask = rollout.sequences.response_mask
    lengths = mask.sum(1).float()
    log_ratio = (rollout.logprobs - rollout.ref_logprobs) * mask
    k3 = kl_k3(rollout.logprobs, rollout.ref_logprobs) * mask
    penalty = -kl_coef * log_ratio.sum(1)
    spread = (rollout.raw_scores - rollout.raw_scores.mean()).abs()
    words = [response.split() for response in responses]
    return {
        "objective/kl": log_ratio.sum(1).mean().item(),
        "objective/kl_per_token": (log_ratio.sum() / mask.sum()).item(),
        "objective/kl_k3": k3.sum(1).mean().item(),
        "objective/scores": rollout.raw_scores.mean().item(),
        "objective/scores_std": rollout.raw_scores.std(unbiased=False).item(),
        "objective/token_scores": rollout.token_scores.sum(1).mean().item(),
        "objective/non_score_reward": penalty.mean().item(),
        "objective/rlhf_reward": rewards.sum(1).mean().item(),
        "objective/kl_coef": kl_coef,
        "objective/entropy": -(rollout.logprobs * mask).sum(1).mean().item(),
        "val/explained_var": float(explained_variance(returns, rollout.values, mask)),
        "val/num_eos_tokens": float(rollout.ended.sum()),
        "val/mean_value": (rollout.values.sum() / mask.sum()).item(),
        "completions/mean_length": lengths.mean().item(),
        "completions/min_length": lengths.min().item(),
        "completions/max_length": lengths.max().item(),
        "completions/clipped_ratio": 1 - rollout.ended.float().mean().item(),
        "watch/distinct2": distinct(words),
        "watch/same": Counter(responses).most_common(1)[0][1] / len(responses),
        "watch/repeat4": repetition(words),
        "watch/score_outliers": float((spread > 5 * reward_std).sum()),
    }


def repetition(responses: Sequence[Sequence[str]], n: int = 4) -> float:
    """Share of responses in which some n words occur twice (n = 4)."""
    repeated = 0
    for words in responses:
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        repeated += len(set(grams)) < len(grams)
    return repeated / max(1, len(responses))


def distinct(responses: Sequence[Sequence[str]], n: int = 2) -> float:
    """Different n-grams over all n-grams of the batch (n = 2); 1 is most varied."""
    grams = [tuple(t[i : i + n]) for t in responses for i in range(len(t) - n + 1)]
    return len(set(grams)) / max(1, len(grams))
