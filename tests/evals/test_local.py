"""evals/local.py: what a model directory writes, and how likely it finds choices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from instil.errors import InstilError
from instil.evals.local import Local, digest
from instil.evals.task import Item
from instil.lm.models import new_policy, save_policy
from instil.lm.text import Codec, train_tokenizer

TEXT = "Where does Mara live? Mara lives in Dorn.\nShe reads. "


@pytest.fixture(scope="module")
def local() -> Local:
    codec = Codec(train_tokenizer([TEXT * 3], 280))
    model = new_policy("llama", codec.vocab_size, 48, 2, 4, 64, 0, codec.pad_id, codec.eos_id)
    return Local("tiny", model, codec, batch_size=3)


def ids(local: Local, text: str) -> list[int]:
    return list(local.codec.tokenizer.encode(text, add_special_tokens=False))


def by_hand(local: Local, prompt: list[int], own: list[int]) -> float:
    """The sum of log p of `own` after `prompt`, from one plain pass."""
    with torch.no_grad():
        logits = local.model(torch.tensor([prompt + own])).logits[0].double()
    every = logits.log_softmax(-1)
    return sum(every[len(prompt) + k - 1, token].item() for k, token in enumerate(own))


def test_the_logprob_of_a_choice_is_the_sum_over_its_tokens(local: Local) -> None:
    items = [
        Item(id="a", text="Where does Mara live?", choices=(" Mara lives in Dorn.", " Dorn")),
        Item(id="b", head="She ", text="reads.", choices=(" Mara", " She reads", " in")),
    ]
    for item, answer in zip(items, local.choose(items), strict=True):
        before = ids(local, item.prompt())
        for choice, logprob, count in zip(
            item.choices, answer.logprobs, answer.tokens, strict=True
        ):
            own = ids(local, item.prompt() + choice)[len(before) :]
            assert count == len(own)
            assert logprob == pytest.approx(by_hand(local, before, own), abs=1e-4)


def test_a_blank_at_the_end_of_a_prompt_belongs_to_the_choice(local: Local) -> None:
    tidy = Item(id="a", text="Where does Mara live?", choices=(" Dorn",))
    blank = Item(id="b", text="Where does Mara live? ", choices=("Dorn",))
    one, other = local.choose([tidy, blank])
    assert one == other


def test_a_bare_sentence_is_scored_from_the_end_token(local: Local) -> None:
    (answer,) = local.choose([Item(id="a", text="", choices=("Mara reads.",))])
    own = ids(local, "Mara reads.")
    assert answer.tokens == (len(own),)
    assert answer.logprobs[0] == pytest.approx(by_hand(local, [local.codec.eos_id], own), abs=1e-4)


def test_shots_are_left_out_before_the_prompt_is_cut(local: Local) -> None:
    shots = ("Where does Mara live? Mara lives in Dorn.\n" * 2,) * 5
    item = Item(id="a", shots=shots, text="She reads.", choices=(" Mara", " Dorn"))
    (answer,) = local.choose([item])
    kept = 5 - answer.dropped
    assert answer.dropped > 0 and answer.cut == 0
    whole = [len(ids(local, item.prompt(n) + " Mara")) for n in range(6)]
    assert whole[5 - kept] <= 64 < whole[5 - kept - 1]
    long = Item(id="b", text="reads " * 80 + "Mara", choices=(" Dorn",))
    (cut,) = local.choose([long])
    before = ids(local, long.text)
    own = ids(local, long.text + " Dorn")[len(before) :]
    assert cut.cut == len(before) + len(own) - 64
    assert cut.logprobs[0] == pytest.approx(by_hand(local, before[cut.cut :], own), abs=1e-4)


def test_what_is_written_is_the_greedy_first_line(local: Local) -> None:
    items = [Item(id=str(n), text=text) for n, text in enumerate(("Mara", "She reads.", "in Do"))]
    settings = {"max_tokens": 12, "temperature": 0.0, "chat": False, "seed": 0}
    lines = local.write(items, first_line=True, **settings)
    whole = local.write(items, first_line=False, **settings)
    for item, line, text in zip(items, lines, whole, strict=True):
        tokens = torch.tensor([ids(local, item.text)])
        wanted = local.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=local.codec.eos_id,
            pad_token_id=local.codec.pad_id,
        )
        plain = local.codec.decode(wanted[0, tokens.shape[1] :].tolist(), strip=False)
        assert text.text == plain.strip()
        assert line.text == plain.split("\n")[0].strip()


def test_nothing_is_written_after_a_line_break(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = local._one_line.eos_ids
    breaks = [local.codec.tokenizer.decode([i]) for i in stops if i != local.codec.eos_id]
    assert breaks and all("\n" in text for text in breaks)
    assert local.codec.eos_ids == (local.codec.eos_id,)  # the codec itself is as it was


def test_a_user_is_answered_through_the_template(local: Local) -> None:
    item = Item(id="a", text="Where does Mara live?")
    settings = {"max_tokens": 5, "first_line": False, "temperature": 0.0, "seed": 0}
    (asked,) = local.write([item], chat=True, **settings)
    same = Item(id="b", text="Where does Mara live?\n\n")  # the template is {prompt}\n\n
    (plain,) = local.write([same], chat=False, **settings)
    assert asked.text == plain.text
    long = Item(id="c", text="Mara reads " * 60)
    (cut,) = local.write([long], chat=True, **settings)
    assert cut.cut > 0


def test_what_cannot_fit_is_an_error(local: Local) -> None:
    with pytest.raises(InstilError, match="context of 64"):
        local.write(
            [Item(id="a", text="Mara")],
            max_tokens=64,
            first_line=True,
            temperature=0.0,
            chat=False,
            seed=0,
        )
    with pytest.raises(InstilError, match="choice of item a"):
        local.choose([Item(id="a", text="Mara", choices=(" reads" * 90,))])


def test_the_key_changes_with_the_files(local: Local, tmp_path: Path) -> None:
    save_policy(local.model, local.codec, tmp_path)
    first = digest(tmp_path, "fp32")
    opened = Local.open("tiny", tmp_path)
    assert opened.key == first
    assert digest(tmp_path, "bf16") != first
    item = Item(id="a", text="Mara", choices=(" reads.",))
    assert opened.choose([item]) == local.choose([item])
    (tmp_path / "instil_template.txt").write_text("{prompt}:")
    assert digest(tmp_path, "fp32") != first


def test_a_model_without_a_tokenizer_is_named(local: Local, tmp_path: Path) -> None:
    local.model.save_pretrained(str(tmp_path))
    with pytest.raises(InstilError, match=str(tmp_path)):
        Local.open("tiny", tmp_path)
