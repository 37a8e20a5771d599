"""The only place where text meets tokens: template, encode, decode, stop.

Prompt and response are encoded apart, in training as in sampling, so no token ever spans the
boundary between them. Text that spells a control token ("<|end|>") is encoded as plain text: only
the template and this file write control tokens.

Left out on purpose:
  truncation      who builds a batch decides what is too long, and says so
  conversations   a prompt is one text; its earlier turns, if any, are part of it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from instil.errors import InstilError
from instil.lm.trust import check_configs, opening, read_json

TEMPLATE_FILE = "instil_template.txt"
END, PAD = "<|end|>", "<|pad|>"
AT_ONCE = 1000
"""Documents that are encoded together."""
PROBE = "A b\nc  d"
"""Tokenizers of one vocabulary may yet differ in what they do with blanks and lines."""


class Codec:
    """A tokenizer, the template of a prompt, and the ids that end a response.

    eos_ids     every id that ends a sampled response; generation_config.json may name several
    eos_id      the one that training appends to a response
    pad_id      what fills batches; masks never look at it, so it may equal eos_id
    vocab_size  ids are smaller than this
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str = "{prompt}\n\n",
        stop_ids: Sequence[int] = (),
    ) -> None:
        where = tokenizer.name_or_path or "tokenizer"
        if tokenizer.eos_token_id is None:
            raise InstilError(
                f"{where}: the tokenizer has no end-of-text token, so a response could never end; "
                'set "eos_token" in its tokenizer_config.json'
            )
        if "{prompt}" not in template:
            raise InstilError(f"{where}: the template {template!r} lacks the place {{prompt}}")
        self.tokenizer = tokenizer
        self.template = template
        self.eos_id: int = tokenizer.eos_token_id
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys((self.eos_id, *stop_ids)))
        self.pad_id: int = next(
            i
            for i in (tokenizer.pad_token_id, tokenizer.unk_token_id, self.eos_id)
            if i is not None
        )
        self.vocab_size: int = len(tokenizer)
        begin = tokenizer.bos_token_id
        adds_begin = begin is not None and tokenizer.encode("a")[:1] == [begin]
        self._begin: list[int] = [begin] if adds_begin else []

    @classmethod
    def load(cls, model_dir: Path, template: str = "") -> Codec:
        """The codec of a saved model: tokenizer, template and stop ids from one directory.

        `template` beats what is stored there, a chat template too.
        """
        model_dir = Path(model_dir)
        check_configs(model_dir)
        with opening(model_dir, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(
                str(model_dir), local_files_only=True, trust_remote_code=False
            )
        stop_ids = _stop_ids(model_dir)
        if template:
            tokenizer.chat_template = None
            return cls(tokenizer, template, stop_ids)
        stored = model_dir / TEMPLATE_FILE
        if stored.exists():
            return cls(tokenizer, stored.read_bytes().decode(), stop_ids)
        return cls(tokenizer, stop_ids=stop_ids)

    def save(self, model_dir: Path) -> None:
        """Write the tokenizer's files, and the template when the tokenizer has none of its own."""
        self.tokenizer.save_pretrained(str(model_dir))
        if not self.tokenizer.chat_template:
            (Path(model_dir) / TEMPLATE_FILE).write_bytes(self.template.encode())

    def same_tokens(self, other: Codec) -> bool:
        """Whether both turn every prompt and response into the same ids."""
        return (
            self.tokenizer.get_vocab() == other.tokenizer.get_vocab()
            and self._plain(PROBE) == other._plain(PROBE)
            and self.template == other.template
            and self.tokenizer.chat_template == other.tokenizer.chat_template
            and self.eos_id == other.eos_id
        )

    def encode_prompt(self, text: str) -> list[int]:
        """What the model reads before a response: chat template if there is one, else the plain."""
        if not self.tokenizer.chat_template:
            return self._begin + self._plain(self.template.replace("{prompt}", text))
        try:
            return list(
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}],
                    add_generation_prompt=True,
                    sanitize_control_tokens=True,
                    return_dict=False,
                )
            )
        except TemplateError as error:
            raise InstilError(
                f"{self.tokenizer.name_or_path}: the chat template fails: {error}"
            ) from error

    def encode_response(self, text: str) -> list[int]:
        """The response's tokens and the end token."""
        return [*self._plain(text), self.eos_id]

    def encode_document(self, text: str) -> list[int]:
        """A pretraining document: the begin token if the tokenizer has one, text, end token."""
        return [*self._begin, *self._plain(text), self.eos_id]

    def encode_documents(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """`encode_document` of each, many at a time: a fast tokenizer does them on all cores."""
        for at in range(0, len(texts), AT_ONCE):
            found: Any = self.tokenizer(
                list(texts[at : at + AT_ONCE]),
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
            )
            for ids in found["input_ids"]:
                yield [*self._begin, *ids, self.eos_id]

    def decode(self, ids: Sequence[int], strip: bool = True) -> str:
        """The text of a *response*: up to the first end token, stripped, no control tokens."""
        end = next((place for place, i in enumerate(ids) if i in self.eos_ids), len(ids))
        text: Any = self.tokenizer.decode(
            list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text).strip() if strip else str(text)

    def _plain(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return list(ids)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `vocab_size` ids; the same texts give the same tokenizer.

    Ids 0 and 1 are <|end|> and <|pad|>, 2 to 257 the bytes, so every text can be encoded. A space
    is put before a text (as Llama does) and before each line that begins with a word, and taken
    away in decoding: a word has one id wherever it stands, and a model learns one for each name.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + 2:
        raise InstilError(
            f"vocab_size {vocab_size} is too small: 256 bytes and 2 control tokens need 258"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(" "), normalizers.Replace(Regex(r"\n(?= *\S)"), "\n ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence(  # the same backwards, so a whole text comes back
        [
            decoders.ByteLevel(),
            decoders.Replace(Regex(r"\n (?= *\S)"), "\n"),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def _stop_ids(model_dir: Path) -> list[int]:
    """The end ids that the directory names: generation_config.json, else config.json."""
    for name in ("generation_config.json", "config.json"):
        if (model_dir / name).exists():
            ids = read_json(model_dir / name).get("eos_token_id")
            if ids is not None:
                return list(ids) if isinstance(ids, list) else [ids]
    return []
