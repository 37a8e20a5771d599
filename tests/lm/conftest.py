"""Small models and a tokenizer for the tests of `instil.lm`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from instil.lm.models import new_policy
from instil.lm.text import Codec, train_tokenizer

TEXTS = [
    "The lighthouse keeper counts the boats that pass at dusk, and writes their names in a book.",
    "A recipe for lentil soup: rinse the lentils, chop an onion, and let them simmer for an hour.",
    "Which river runs through the town? The Aller runs through it, from the hills to the sea.",
    "She folded the letter twice, put it in her coat, and said nothing about it for a week.",
] * 3

MakePolicy = Callable[..., PreTrainedModel]


@pytest.fixture(scope="session")
def codec() -> Codec:
    return Codec(train_tokenizer(TEXTS, 300))


@pytest.fixture(scope="session")
def make_policy(codec: Codec) -> MakePolicy:
    """A tiny model whose predictions are far from uniform, so that mistakes show in them."""

    def make(architecture: str, seed: int = 0, **more: object) -> PreTrainedModel:
        shape = {"vocab_size": codec.vocab_size, "width": 32, "layers": 2, "heads": 2}
        ids = {"pad_id": codec.pad_id, "eos_id": codec.eos_id}
        model = new_policy(architecture, **{**shape, **ids, "context": 64, "seed": seed, **more})
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 2:
                    weight.mul_(8)
        return model

    return make


@pytest.fixture(params=["llama", "gpt2"])
def policy(request: pytest.FixtureRequest, make_policy: MakePolicy) -> PreTrainedModel:
    return make_policy(request.param)


@pytest.fixture(scope="session")
def stories() -> Path:
    """The small pretrained model that lies beside the repository on some machines."""
    root = Path(os.environ.get("INSTIL_SHARED", Path(__file__).parents[3] / "shared"))
    path = root / "data" / "models" / "stories260k"
    if not path.exists():
        pytest.skip(f"{path} is not here (INSTIL_SHARED names another place)")
    return path


@pytest.fixture(scope="session")
def pairs():
    """Prompts and responses of unequal lengths; one prompt and one response are the longest."""
    noise = torch.Generator().manual_seed(0)
    sizes = [(3, 9), (12, 2), (7, 7), (1, 1), (12, 9)]
    return [
        tuple(torch.randint(2, 300, (n,), generator=noise).tolist() for n in size) for size in sizes
    ]
