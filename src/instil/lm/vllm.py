"""vLLM as a sampler: the protocol of `sampling.Sampler` on an engine made for GPUs.

The engine runs in this process and keeps weights of its own; `update` brings it those of the
policy, without a file and without a second process. Token ids go in and come out: the tokenizer,
the template and the end tokens stay with our `Codec`. Every response has a seed of its own, so it
depends on its batch only as far as the engine's logits do.

Written against vLLM 0.32 and 0.33; docs/vllm.md says what was run, and what the engine promises.

Left out on purpose:
  several devices    the engine then has processes of its own, which weights reach by other ways
  sleep mode         the engine keeps its share of the memory while the policy trains
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedConfig, PreTrainedModel

from instil.errors import InstilError
from instil.lm.adapters import merged
from instil.lm.batches import Ids, random_bits
from instil.lm.sampling import Samples, SamplingParams, occurrences
from instil.lm.text import Codec

LogprobsMode = Literal["processed_logprobs", "raw_logprobs"]

LOWEST, HIGHEST = 0.01, 2.0
"""Temperatures that vLLM samples at; it raises lower ones and refuses higher ones."""


class VllmSampler:
    """Samples of a policy by vLLM.

    policy         gives the architecture and the first weights; it is not kept
    logprobs_mode  "processed_logprobs" is right at any temperature, and refuses top_p and top_k:
                   vLLM would give the logprobs among the tokens that they keep. "raw_logprobs" is
                   right with both, and refuses temperatures other than 1 and 0
    engine         more settings of `vllm.LLM`, such as max_model_len or enforce_eager. Ours are
                   dtype, that of the policy's weights, and gpu_memory_utilization 0.3: the rest of
                   the memory is for training

    Raises InstilError where vLLM is not installed or finds no device that it supports.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        codec: Codec,
        logprobs_mode: LogprobsMode = "processed_logprobs",
        **engine: Any,
    ) -> None:
        # Weights can be handed over as they are only within one process. And vLLM would report its
        # use over the network.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        self._vllm = import_vllm()
        self.codec = codec
        self.logprobs_mode = logprobs_mode
        self._shapes = _shapes(policy)
        settings = {"dtype": policy.dtype, "gpu_memory_utilization": 0.3, **engine}
        with TemporaryDirectory(prefix="instil-") as folder:
            _config(policy).save_pretrained(folder)
            self._engine = self._vllm.LLM(
                model=folder,
                load_format="dummy",  # the weights come with `update`
                skip_tokenizer_init=True,
                logprobs_mode=logprobs_mode,
                **settings,
            )
        self._context: int = self._engine.model_config.max_model_len
        self.update(policy)

    def update(self, policy: PreTrainedModel) -> None:
        """Take over the weights of `policy`, whose parameters have the names and shapes of the
        first one's. Call it between a change of the weights and `sample`."""
        shapes = _shapes(policy)
        if wrong := sorted(set(shapes.items()) ^ set(self._shapes.items())):
            raise InstilError(
                f"the policy is another model than the one that vLLM was started with: they differ "
                f"in {wrong[0][0]} {list(wrong[0][1])}; make a new sampler"
            )
        with merged(policy):
            weights = ((name, weight.detach()) for name, weight in _parameters(policy))
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept keys and values that the old weights computed")

    def sample(
        self,
        prompts: Sequence[Ids],
        params: SamplingParams,
        seed: int,
        indices: Sequence[int] | None = None,
    ) -> Samples:
        """See `Sampler.sample`."""
        self._check(prompts, params)
        indices = occurrences(prompts) if indices is None else indices
        requests = [self._vllm.TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        settings = [
            self._vllm.SamplingParams(
                max_tokens=params.max_tokens,
                temperature=params.temperature,
                top_p=params.top_p,
                top_k=params.top_k,
                seed=request_seed(seed, prompt, index),
                stop_token_ids=list(self.codec.eos_ids),
                ignore_eos=True,  # the codec alone says what ends a response
                logprobs=0,  # of the sampled token only
                detokenize=False,
            )
            for prompt, index in zip(prompts, indices, strict=True)
        ]
        written = [
            request.outputs[0]
            for request in self._engine.generate(requests, settings, use_tqdm=False)
        ]
        tokens = [list(response.token_ids) for response in written]
        logprobs = [
            [found[token].logprob for token, found in zip(ids, response.logprobs, strict=True)]
            for ids, response in zip(tokens, written, strict=True)
        ]
        return Samples(tokens, logprobs, [ids[-1] in self.codec.eos_ids for ids in tokens])

    def _check(self, prompts: Sequence[Ids], params: SamplingParams) -> None:
        """Raise for prompts that do not fit and where vLLM has no logprobs of what is asked."""
        temperature = params.temperature
        if temperature and not LOWEST <= temperature <= HIGHEST:
            raise InstilError(
                f"temperature {temperature}: vLLM samples at temperatures from {LOWEST} to "
                f"{HIGHEST}, and at 0 (greedy)"
            )
        cut = params.top_p < 1 or params.top_k > 0
        if temperature and cut and self.logprobs_mode == "processed_logprobs":
            raise InstilError(
                f"top_p {params.top_p}, top_k {params.top_k}: vLLM would give logprobs among the "
                "tokens kept, not of the whole distribution; leave them out, or make the sampler "
                'with logprobs_mode="raw_logprobs" and sample at temperature 1'
            )
        if temperature not in (0, 1) and self.logprobs_mode == "raw_logprobs":
            raise InstilError(
                f"temperature {temperature}: with logprobs_mode raw_logprobs vLLM gives logprobs "
                'at temperature 1; make the sampler with logprobs_mode="processed_logprobs"'
            )
        for number, prompt in enumerate(prompts, start=1):
            if not prompt:
                raise InstilError(
                    f"prompt number {number} has no tokens; give it a template or text"
                )
            if len(prompt) + params.max_tokens > self._context:
                raise InstilError(
                    f"prompt number {number} has {len(prompt)} tokens; with max_tokens "
                    f"{params.max_tokens} it does not fit the engine's context of {self._context}; "
                    "shorten the prompt or lower max_tokens"
                )


def request_seed(seed: int, prompt: Ids, index: int) -> int:
    """The seed of one response, in [0, 2**63): a function of the three alone."""
    ids = np.asarray(prompt, dtype=np.int64).tobytes()
    return int(random_bits(1, "vllm", seed, index, ids)[0]) >> 1


def import_vllm() -> Any:
    """vLLM, or an `InstilError` that says what is missing."""
    try:
        import vllm
        from vllm.platforms import current_platform
    except ImportError as error:
        raise InstilError(
            f"vLLM cannot be imported ({error}); pip install 'instil[vllm]' on a machine with a "
            "GPU that vLLM supports, or use the built-in decoder"
        ) from error
    if current_platform.is_unspecified():
        raise InstilError(
            f"vLLM {vllm.__version__} finds no device that it was built for; it wants a GPU and "
            "its driver. The built-in decoder runs everywhere"
        )
    return vllm


def _config(policy: PreTrainedModel) -> PreTrainedConfig:
    """What the engine reads of a policy, with a head of its own.

    Where head and embedding share a tensor, reloading can leave the old weights in the head: the
    engine may keep it in a second layout, which is made again only when the head's own name is
    loaded. Untied it is.
    """
    config = deepcopy(policy.config)
    config.architectures = [type(policy).__name__]
    config.tie_word_embeddings = False
    return config


def _parameters(policy: PreTrainedModel) -> list[tuple[str, Any]]:
    """Names and weights as in a checkpoint, a tied head also under its own name."""
    return list(policy.named_parameters(remove_duplicate=False))


def _shapes(policy: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    with merged(policy):
        return {name: tuple(weight.shape) for name, weight in _parameters(policy)}
