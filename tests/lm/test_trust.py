import json
import pickle

import pytest
from transformers.utils import logging as transformers_logging

from instil.errors import InstilError
from instil.lm.models import load_policy, save_policy
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return (exec, (f"open({self.canary!r}, 'w').close()",))


@pytest.fixture
def saved(make_policy, codec, tmp_path):
    path = tmp_path / "model"
    save_policy(make_policy("llama"), codec, path)
    return path


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refusal(path):
    """The one message with which every way of loading refuses `path`."""
    messages = set()
    for load in (load_policy, ScalarModel.load, lambda p: ScalarModel.from_policy(p, 0)):
        with pytest.raises(InstilError) as error:
            load(path)
        messages.add(str(error.value))
    assert len(messages) == 1 and str(path) in str(messages)
    return messages.pop()


def test_a_sound_directory_loads_quietly(saved, capfd):
    before = transformers_logging.get_verbosity()
    load_policy(saved)
    assert transformers_logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "value",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}},
        {"text_config": {"deeper": [{"auto_map": {"AutoConfig": "evil.Evil"}}]}},
        {"vision_config": {"trust_remote_code": True}},
    ],
)
def test_code_in_the_config_is_refused(saved, tmp_path, value):
    canary = tmp_path / "canary"
    (saved / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()")
    change(saved / "config.json", **value)
    assert "asks to run code" in refusal(saved)
    with pytest.raises(InstilError, match="asks to run code"):
        Codec.load(saved)
    assert not canary.exists()


def test_code_in_the_tokenizer_config_is_refused(saved):
    change(saved / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    with pytest.raises(InstilError, match=r'tokenizer_config.json: "auto_map" asks to run code'):
        Codec.load(saved)


def test_pickled_weights_are_refused_unread(saved, tmp_path):
    canary = tmp_path / "canary"
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    assert "pytorch_model.bin, a pickle file" in refusal(saved)
    assert not canary.exists()


def test_pickled_weights_beside_safetensors_are_never_read(saved, tmp_path):
    canary = tmp_path / "canary"
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    load_policy(saved)
    assert not canary.exists()


def test_missing_parts_are_named(saved, tmp_path):
    assert "no such directory" in refusal(tmp_path / "absent")
    (saved / "adapter_config.json").write_text("{}")
    assert "merge it into its base model" in refusal(saved)
    with pytest.raises(InstilError, match="merge it into its base model"):
        Codec.load(saved)  # commands open the tokenizer first
    (saved / "adapter_config.json").unlink()
    weights = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").unlink()
    assert "no weights; expected model.safetensors" in refusal(saved)
    (saved / "model.safetensors").write_bytes(weights)
    (saved / "config.json").unlink()
    assert "no config.json" in refusal(saved)


def test_damaged_files_are_refused(saved):
    weights = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InstilError, match="cannot be loaded as a language model"):
        load_policy(saved)
    # a header that claims ten gigabytes
    (saved / "model.safetensors").write_bytes((10 * 2**30).to_bytes(8, "little") + b"{")
    with pytest.raises(InstilError, match="cannot be loaded as a language model"):
        load_policy(saved)
    (saved / "config.json").write_text('{"model_type": ')
    assert "not readable as JSON" in refusal(saved)


def test_weights_that_are_missing_or_of_another_shape_are_refused(saved):
    change(saved / "config.json", num_hidden_layers=3)
    with pytest.raises(InstilError, match=r"no model\.layers\.2"):
        load_policy(saved)
    change(saved / "config.json", num_hidden_layers=2, vocab_size=301)
    with pytest.raises(InstilError, match="cannot be loaded as a language model"):
        load_policy(saved)


def test_a_reward_model_is_no_policy_and_a_policy_no_reward_model(saved, codec, tmp_path):
    with pytest.raises(InstilError, match="holds a LlamaForCausalLM, not a reward model"):
        ScalarModel.load(saved)
    ScalarModel.from_policy(saved, seed=0).save(tmp_path / "rm", codec)
    with pytest.raises(InstilError, match="LlamaForSequenceClassification, not a language model"):
        load_policy(tmp_path / "rm")
