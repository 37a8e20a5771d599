"""The built-in decoder keeps the contract of all samplers; test_vllm.py says it of vLLM."""

from __future__ import annotations

import pytest
from sampler_contract import SamplerContract

from instil.lm.sampling import Decoder


class TestDecoder(SamplerContract):
    @pytest.fixture
    def make_sampler(self):
        return lambda policy, codec, cut=False: Decoder(policy, codec, batch_size=5)
