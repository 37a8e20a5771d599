"""The sampler on vLLM: its contract on a stand-in everywhere, and on vLLM where that is installed.

The stand-in has only what the adapter may use, checks how it is used, and computes with the model
of transformers. What vLLM really does shows where it is installed:

    pip install 'instil[vllm]' && pytest tests/lm/test_vllm.py
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from sampler_contract import FREE, SamplerContract
from transformers import AutoConfig, AutoModelForCausalLM

from instil.errors import InstilError
from instil.lm.sampling import SamplingParams
from instil.lm.text import Codec
from instil.lm.vllm import VllmSampler, import_vllm, request_seed


@dataclass(frozen=True, kw_only=True)
class StandInParams:
    """`vllm.SamplingParams`, of which the adapter must give every field."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop_token_ids: list[int]
    ignore_eos: bool
    logprobs: int
    detokenize: bool

    def __post_init__(self):
        assert type(self.seed) is int and 0 <= self.seed < 2**63, "a seed is a signed 64-bit number"
        assert all(type(token) is int for token in self.stop_token_ids)
        assert self.logprobs == 0 and self.ignore_eos and not self.detokenize
        if 0 < self.temperature < 0.01 or self.temperature > 2:
            raise ValueError("a temperature that vLLM changes or refuses")


class StandInEngine:
    """`vllm.LLM` on a model of transformers, with the ways of vLLM that could go wrong here."""

    def __init__(
        self,
        *,
        model: str,
        load_format: str,
        skip_tokenizer_init: bool,
        logprobs_mode: str,
        dtype: torch.dtype,
        gpu_memory_utilization: float,
        max_model_len: int | None = None,
    ) -> None:
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0", (
            "weights cannot reach the engine"
        )
        assert [path.name for path in Path(model).iterdir()] == ["config.json"]
        assert load_format == "dummy" and skip_tokenizer_init
        assert logprobs_mode in ("raw_logprobs", "processed_logprobs")
        assert 0 < gpu_memory_utilization < 1
        config = AutoConfig.from_pretrained(model)
        assert config.architectures and not config.tie_word_embeddings
        self.mode = logprobs_mode
        self.network = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        context = config.max_position_embeddings
        self.model_config = SimpleNamespace(max_model_len=max_model_len or context)
        self.cached = False  # keys and values of prompts that the present weights did not compute

    def collective_rpc(self, method: str, *, kwargs: dict[str, Any]) -> list[None]:
        assert method == "reload_weights" and set(kwargs) == {"weights_iterator"}
        mine = dict(self.network.named_parameters(remove_duplicate=False))
        for name, weight in kwargs["weights_iterator"]:
            assert not weight.requires_grad
            mine.pop(name).data.copy_(weight)
        assert not mine, f"weights that were not given: {sorted(mine)}"
        self.cached = True
        return [None]

    def reset_prefix_cache(self) -> bool:
        self.cached = False
        return True

    def generate(
        self, prompts: list[Any], sampling_params: list[StandInParams], *, use_tqdm: bool
    ) -> list[Any]:
        assert not self.cached, "the prefix cache holds what the old weights computed"
        assert not use_tqdm and len(prompts) == len(sampling_params)
        texts = [list(prompt["prompt_token_ids"]) for prompt in prompts]
        for text, params in zip(texts, sampling_params, strict=True):
            assert text and len(text) + params.max_tokens <= self.model_config.max_model_len
        responses = [SimpleNamespace(token_ids=[], logprobs=[]) for _ in texts]
        noise = [torch.Generator().manual_seed(params.seed) for params in sampling_params]
        going = list(range(len(texts)))
        while going:
            rows = [torch.tensor(texts[i] + responses[i].token_ids) for i in going]
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            with torch.no_grad():  # padded right: the causal mask hides what follows
                logits = self.network(input_ids=padded).logits
            for i, row, values in zip(list(going), rows, logits, strict=True):
                token, logprob = self.choose(values[len(row) - 1], sampling_params[i], noise[i])
                responses[i].token_ids.append(token)
                responses[i].logprobs.append({token: SimpleNamespace(logprob=logprob)})
                params = sampling_params[i]
                stopped = token in params.stop_token_ids
                if stopped or len(responses[i].token_ids) == params.max_tokens:
                    going.remove(i)
        return [SimpleNamespace(outputs=[response]) for response in responses]

    def choose(
        self, logits: torch.Tensor, params: StandInParams, noise: torch.Generator
    ) -> tuple[int, float]:
        """A token, and its logprob in the way that the mode says."""
        raw = logits.log_softmax(dim=-1)
        if params.temperature == 0:
            token = int(logits.argmax())
            return token, float(raw[token])
        logits = logits / params.temperature
        if params.top_k:
            logits = logits.where(logits >= logits.topk(params.top_k).values[-1], -torch.inf)
        ordered, ids = logits.softmax(dim=-1).sort(descending=True)
        dropped = ids[ordered.cumsum(dim=-1) - ordered >= params.top_p]
        logits[dropped] = -torch.inf
        waits = torch.empty_like(logits).exponential_(generator=noise)
        token = int((logits.softmax(dim=-1) / waits).argmax())
        shown = raw if self.mode == "raw_logprobs" else logits.log_softmax(dim=-1)
        return token, float(shown[token])


def tokens_prompt(*, prompt_token_ids: list[int]) -> dict[str, list[int]]:
    """`vllm.TokensPrompt`: ids of the model, as plain numbers."""
    assert all(type(token) is int for token in prompt_token_ids)
    return {"prompt_token_ids": prompt_token_ids}


@pytest.fixture
def stand_in(monkeypatch):
    """A module `vllm` and its platform, which a test may change."""
    module: Any = ModuleType("vllm")
    module.__version__ = "0"
    module.LLM, module.SamplingParams = StandInEngine, StandInParams
    module.TokensPrompt = tokens_prompt
    module.platforms = ModuleType("vllm.platforms")
    module.platforms.current_platform = SimpleNamespace(is_unspecified=lambda: False)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", module.platforms)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    return module


class OfVllm(SamplerContract):
    def update(self, sampler, policy):
        sampler.update(policy)

    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    def test_without_cuts_both_kinds_of_logprobs_are_right_or_refused(
        self, make_sampler, policy, codec, prompts, temperature
    ):
        sampler = make_sampler(policy, codec)
        for params in (SamplingParams(5, top_k=3), SamplingParams(5, top_p=0.9)):
            with pytest.raises(InstilError, match='make the sampler with logprobs_mode="raw'):
                sampler.sample(prompts, params, seed=0)
        greedy = SamplingParams(5, temperature=0.0, top_k=3)  # which top_k does not change
        assert len(sampler.sample(prompts, greedy, seed=0).tokens) == len(prompts)
        raw = make_sampler(policy, codec, cut=True)
        if temperature == 1:
            assert raw.sample(prompts, FREE, 0).tokens == sampler.sample(prompts, FREE, 0).tokens
        else:
            with pytest.raises(InstilError, match=r"temperature 0.6: with logprobs_mode raw"):
                raw.sample(prompts, SamplingParams(5, temperature=temperature), seed=0)


class TestStandIn(OfVllm):
    @pytest.fixture
    def make_sampler(self, stand_in):
        def make(policy: Any, codec: Codec, cut: bool = False) -> VllmSampler:
            mode = "raw_logprobs" if cut else "processed_logprobs"
            return VllmSampler(policy, codec, logprobs_mode=mode)

        return make


ENGINES: dict[tuple[str, str], VllmSampler] = {}
"""One engine of each kind, since it takes seconds to make; the tests bring their weights."""


@pytest.mark.slow
class TestVllm(OfVllm):
    tolerance = 1e-3 if torch.cuda.is_available() else 1e-4

    @pytest.fixture
    def make_sampler(self):
        try:
            import_vllm()
        except InstilError as missing:
            pytest.skip(str(missing))

        def make(policy: Any, codec: Codec, cut: bool = False) -> VllmSampler:
            mode = "raw_logprobs" if cut else "processed_logprobs"
            key = (policy.config.model_type, mode)
            if key not in ENGINES:
                small = {"kv_cache_memory_bytes": 1 << 26, "enforce_eager": True}
                ENGINES[key] = VllmSampler(policy, codec, mode, max_num_seqs=32, **small)
            ENGINES[key].codec = codec
            ENGINES[key].update(policy)
            return ENGINES[key]

        return make


def test_without_vllm_the_error_says_what_to_install(make_policy, codec, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InstilError, match=r"pip install 'instil\[vllm\]' on a machine with a GPU"):
        VllmSampler(make_policy("llama"), codec)


def test_without_a_device_the_error_says_so(make_policy, codec, stand_in):
    stand_in.platforms.current_platform = SimpleNamespace(is_unspecified=lambda: True)
    with pytest.raises(InstilError, match="vLLM 0 finds no device"):
        VllmSampler(make_policy("llama"), codec)


def test_settings_of_the_engine_reach_it(make_policy, codec, stand_in):
    sampler = VllmSampler(make_policy("llama"), codec, dtype=torch.bfloat16, max_model_len=20)
    assert sampler._engine.network.dtype == torch.bfloat16
    with pytest.raises(InstilError, match="does not fit the engine's context of 20"):
        sampler.sample([[5] * 9], FREE, seed=0)
    with pytest.raises(TypeError):
        VllmSampler(make_policy("llama"), codec, no_such_setting=1)


def test_temperatures_that_vllm_would_change_are_refused(make_policy, codec, stand_in):
    sampler = VllmSampler(make_policy("llama"), codec)
    for temperature in (0.005, 2.5):
        with pytest.raises(InstilError, match=f"temperature {temperature}: vLLM samples at"):
            sampler.sample([[5]], SamplingParams(5, temperature=temperature), seed=0)


def test_another_model_is_refused(make_policy, codec, stand_in):
    sampler = VllmSampler(make_policy("llama"), codec)
    for other in (
        make_policy("llama", width=16),
        make_policy("gpt2"),
        make_policy("llama", layers=1),
    ):
        with pytest.raises(InstilError, match="another model than the one that vLLM was started"):
            sampler.update(other)


def test_an_engine_that_keeps_its_cache_stops_the_run(make_policy, codec, stand_in):
    policy = make_policy("llama")
    sampler = VllmSampler(policy, codec)
    sampler._engine.reset_prefix_cache = lambda: False
    with pytest.raises(RuntimeError, match="old weights"):
        sampler.update(policy)


def test_the_policy_stays_as_it_was(make_policy, codec, stand_in):
    policy = make_policy("llama")
    policy.train()
    before = policy.config.to_dict()
    VllmSampler(policy, codec).sample([[5, 6]], FREE, seed=0)
    assert policy.training and policy.config.to_dict() == before
    assert policy.lm_head.weight is policy.model.embed_tokens.weight


def test_the_seeds_are_pinned():
    # taken from the first version: a change would alter every run that is resumed
    assert request_seed(7, [1, 2, 3], 0) == 7702709603779772612
    assert len({request_seed(7, [1, 2, 3], i) for i in range(100)}) == 100
