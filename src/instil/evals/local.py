"""A model directory that answers items: it writes greedily, or says how likely each choice is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedModel

from instil import __version__
from instil.evals.task import Answer, CannotAnswer, Item
from instil.lm.batches import passes, rollout_batch
from instil.lm.machine import Precision, computes_in_bf16, tokens_per_pass
from instil.lm.models import load_policy
from instil.lm.sampling import Decoder, SamplingParams
from instil.lm.text import Codec
from instil.runs import model_dir
from instil.train.rollout import Sequences, response_logprobs

Parts = list[tuple[list[int], list[int]]]
"""(prompt, choice) in token ids, for each choice of an item."""

TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"
"""A warning of transformers."""


class Local:
    """A causal language model on this machine; see `task.Answerer`.

    Text is encoded as lm-evaluation-harness does it: prompt and choice as one text, of which the
    prompt alone says how many tokens are its own; with a begin token if the tokenizer adds one.
    A prompt that does not fit the context loses its first shots, then its first tokens.
    """

    def __init__(
        self, name: str, model: PreTrainedModel, codec: Codec, key: str = "", batch_size: int = 64
    ) -> None:
        self.name, self.key = name, key
        self.model, self.codec, self.batch_size = model, codec, batch_size
        # a prompt that is too long is made to fit, and the answer says so
        codec.tokenizer.deprecation_warnings[TOO_LONG] = True
        self.context: int = getattr(model.config, "max_position_embeddings", None) or 2**30

    @classmethod
    def open(
        cls, name: str, path: Path, batch_size: int = 64, precision: Precision = "auto"
    ) -> Local:
        """A saved model: a run that is finished, or a Hugging Face directory."""
        folder = model_dir(path)
        codec, model = Codec.load(folder), load_policy(folder, precision=precision)
        return cls(
            name,
            model,
            codec,
            digest(folder, "bf16" if computes_in_bf16(model) else "fp32"),
            batch_size,
        )

    def write(
        self,
        items: Sequence[Item],
        *,
        max_tokens: int,
        first_line: bool,
        temperature: float,
        chat: bool,
        seed: int,
    ) -> list[Answer]:
        """One text for each item; see `task.Answerer`."""
        if max_tokens >= self.context:
            raise CannotAnswer(
                f"{self.name}: its context of {self.context} tokens has no room for a prompt and "
                f"an answer of {max_tokens} tokens"
            )
        room = self.context - max_tokens
        prompts = [self._asked(item, room) if chat else self._plain(item, room) for item in items]
        decoder = Decoder(self.model, self._one_line if first_line else self.codec, self.batch_size)
        params = SamplingParams(max_tokens=max_tokens, temperature=temperature)
        samples = decoder.sample([ids for ids, _ in prompts], params, seed)
        texts = [self.codec.decode(tokens, strip=False) for tokens in samples.tokens]
        if first_line:
            texts = [text.split("\n")[0] for text in texts]
        return [
            replace(answer, text=text.strip())
            for (_, answer), text in zip(prompts, texts, strict=True)
        ]

    @torch.no_grad()
    def choose(self, items: Sequence[Item]) -> list[Answer]:
        """The logprobs of each item's choices; see `task.Answerer`."""
        found = [self._choices(item) for item in items]
        answers = [answer for _, answer in found]
        lengths = [len(parts[0][0]) + sum(len(own) for _, own in parts) for parts, _ in found]
        for group in passes(lengths, tokens_per_pass(self.model)):
            pairs = [pair for number in group for pair in found[number][0]]
            batch = rollout_batch(
                [prompt for prompt, _ in pairs], [own for _, own in pairs], self.codec.pad_id
            )
            sequences = Sequences(*batch).to(self.model.device)
            sums = response_logprobs(self.model, sequences, 1.0).double().sum(dim=1).tolist()
            for number in group:
                many = len(found[number][0])
                answers[number] = replace(answers[number], logprobs=tuple(sums[:many]))
                sums = sums[many:]
        return answers

    @cached_property
    def _one_line(self) -> Codec:
        """The codec with every token that holds a line break as an end: nobody reads on."""
        tokenizer = self.codec.tokenizer
        breaks = [i for i in range(self.codec.vocab_size) if "\n" in tokenizer.decode([i])]
        stopping = copy(self.codec)
        stopping.eos_ids = tuple(dict.fromkeys((*self.codec.eos_ids, *breaks)))
        return stopping

    def _encode(self, text: str) -> list[int]:
        """The tokens of the beginning of a document."""
        if text:
            return self.codec.encode_document(text)[:-1]
        begin = self.codec.tokenizer.bos_token_id
        return [self.codec.eos_id if begin is None else begin]

    def _plain(self, item: Item, room: int) -> tuple[list[int], Answer]:
        """The tokens of a prompt as plain text, at most `room`, and what had to go."""
        for dropped in range(len(item.shots) + 1):
            ids = self._encode(item.prompt(dropped))
            if len(ids) <= room:
                return ids, Answer(dropped=dropped)
        return ids[-room:], Answer(dropped=len(item.shots), cut=len(ids) - room)

    def _asked(self, item: Item, room: int) -> tuple[list[int], Answer]:
        """The same through the prompt template, which is never cut."""
        text, cut = item.prompt(), 0
        while len(ids := self.codec.encode_prompt(text)) > room:
            if not text:
                raise CannotAnswer(f"{self.name}: its prompt template alone has {len(ids)} tokens")
            text = text[-(-len(text) * (len(ids) - room) // len(ids)) :]  # about as many characters
            cut += len(ids) - room
        return ids, Answer(cut=cut)

    def _choices(self, item: Item) -> tuple[Parts, Answer]:
        """The tokens of an item's choices after its prompt."""
        for dropped in range(len(item.shots) + 1):
            prompt = item.prompt(dropped)
            head = (
                prompt.rstrip()
            )  # a blank at the end belongs to the choice, as it would in a text
            before = self._encode(head)
            parts = []
            for choice in item.choices:
                text = prompt[len(head) :] + choice
                if head:
                    own = self._encode(head + text)[len(before) :]
                else:
                    own = self.codec.encode_document(text)[:-1]
                    own = own[1:] if own[0] == before[0] else own
                parts.append((before, own))
            longest = max(len(own) for _, own in parts)
            if len(before) + longest <= self.context:
                break
        if not all(own for _, own in parts) or longest >= self.context:
            raise CannotAnswer(
                f"{self.name}: a choice of item {item.id} has no token of its own, or more than "
                f"the context of {self.context}"
            )
        cut = max(0, len(before) + longest - self.context)
        answer = Answer(tokens=tuple(len(own) for _, own in parts), dropped=dropped, cut=cut)
        return [(ids[cut:], own) for ids, own in parts], answer


def digest(folder: Path, *settings: str) -> str:
    """Of the files of a model directory, of the version and of settings: what answers depend on."""
    found = hashlib.sha256(repr((__version__, settings)).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".txt", ".model", ".jinja"):
            found.update(path.name.encode())
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
