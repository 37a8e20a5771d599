from __future__ import annotations

import pytest

from instil.errors import InstilError
from instil.train.ppo_config import Config


def test_defaults_are_the_papers(tmp_path):
    c = Config(model=tmp_path, rm="rm", prompts=(tmp_path,), out=tmp_path)
    # appendix C.4: 256k episodes, 512 in a rollout, 8 minibatches of 64, one inner epoch
    assert (c.steps * c.batch_size, c.minibatch_size, c.epochs, c.updates) == (256_000, 64, 1, 8)
    assert (c.kl_coef, c.clip, c.discount, c.temperature, c.ema) == (0.02, 0.2, 1.0, 1.0, 0.992)
    assert (c.betas, c.value_lr, c.warmup, c.ptx_ratio) == ((0.9, 0.95), 9e-6, 10, 8)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"batch_size": 100}, "not a multiple of minibatch_size 64"),
        ({"top_p": 0.9}, "accept-biased-rollouts"),
        ({"top_k": 5}, "accept-biased-rollouts"),
        ({"temperature": 0.0}, "must be above 0"),
        ({"ptx_coef": 27.8}, "ptx_coef needs --pretraining"),
        ({"steps": 0}, "steps 0 must be at least 1"),
        ({"minibatch_size": 0}, "minibatch_size 0 must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every 0 must be at least 1"),
        ({"sample_every": 0}, "sample_every 0 must be at least 1"),
        ({"ema": 1.0}, r"ema 1.0 must be in \[0, 1\)"),
        ({"kl_coef": -0.1}, "kl_coef -0.1 must not be negative"),
        ({"micro_batch_tokens": -1}, "micro_batch_tokens -1 must not be negative"),
        ({"lr": 0.0}, "lr 0.0 must be greater than 0"),
        ({"gae_lambda": 1.1}, "gae_lambda 1.1 must be in"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, complaint, tmp_path):
    with pytest.raises(InstilError, match=complaint):
        Config(model=tmp_path, rm="rm", prompts=(tmp_path,), out=tmp_path, **wrong)


def test_cut_off_sampling_is_possible_when_its_bias_is_accepted(tmp_path):
    common = {"model": tmp_path, "rm": "rm", "prompts": (tmp_path,), "out": tmp_path}
    assert Config(**common, top_p=0.9, accept_biased_rollouts=True).top_p == 0.9
