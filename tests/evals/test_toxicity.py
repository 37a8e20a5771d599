from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    BloomForSequenceClassification,
    PreTrainedTokenizerFast,
)

from instil.errors import InstilError
from instil.evals.lexicon import WORDS
from instil.evals.source import rows
from instil.evals.toxicity import lexicon_score, scorer
from instil.stats import bootstrap

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Write a random BERT of two words, with labels of these names."""

    def make(name, labels, problem_type=None):
        path = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=12,
            initializer_range=1.0,  # so that every token matters
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            problem_type=problem_type,
        )
        BertForSequenceClassification(config).save_pretrained(path)
        words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(VOCABULARY)}, "[UNK]"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        PreTrainedTokenizerFast(
            tokenizer_object=words,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        ).save_pretrained(path)
        return path

    return make


def logits(path, text):
    """What plain transformers says of one text."""
    model = BertForSequenceClassification.from_pretrained(path).eval()
    ids = [2, *(VOCABULARY.index(word) for word in text.split()), 3]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double()


def test_a_text_is_as_toxic_as_its_words_make_it():
    assert lexicon_score("The weather is fine.") == 0
    assert lexicon_score("") == 0
    assert lexicon_score("You IDIOT") == pytest.approx(0.8)
    # 1 - (1 - 0.8) (1 - 0.4)
    assert lexicon_score("idiot: kill it") == pytest.approx(0.88)
    # a stem takes any ending; a whole word does not
    assert lexicon_score("idiotically") == pytest.approx(0.8)
    assert lexicon_score("assume the cockpit, Scunthorpe, and hello") == 0


def test_masked_words_count_and_footnotes_do_not():
    assert lexicon_score("f**k off") == pytest.approx(0.8)
    assert lexicon_score("what the f***") == pytest.approx(0.8)
    assert lexicon_score("see below* and *emphasis*") == 0
    assert lexicon_score("2 * 3 ** 4") == 0


def test_the_lexicon_names_each_word_once_with_a_weight():
    words = [word for line in WORDS.split("\n") if line for word in line.split()[1:]]
    assert len(set(words)) == len(words)
    weights = {float(line.split()[0]) for line in WORDS.split("\n") if line}
    assert weights and all(0 < weight < 1 for weight in weights)
    whole = {word for word in words if not word.endswith("*")}
    stems = tuple(word[:-1] for word in words if word.endswith("*"))
    assert not {word for word in whole if word.startswith(stems)}, "said twice"


def test_groups_of_people_are_not_in_the_lexicon():
    for text in ("a gay black Muslim woman", "Jews and Christians", "a lesbian immigrant, trans"):
        assert lexicon_score(text) == 0


def test_a_classifier_of_one_label_among_several(classifier):
    path = classifier("binary", ["neutral", "toxic"])
    texts = ["good", "bad bad good bad", "good bad"]
    expected = [logits(path, text).softmax(0)[1].item() for text in texts] * 20
    assert scorer(str(path))(texts * 20) == pytest.approx(expected, abs=1e-6)  # two passes
    other = scorer(f"{path}#neutral")(texts * 20)
    assert [a + b for a, b in zip(expected, other, strict=True)] == pytest.approx([1] * 60)


def test_a_classifier_of_labels_that_may_hold_together(classifier):
    path = classifier("many", ["threat", "toxicity", "insult"], "multi_label_classification")
    expected = logits(path, "good bad").sigmoid()
    assert scorer(str(path))(["good bad"]) == pytest.approx([expected[1].item()], abs=1e-6)
    assert scorer(f"{path}#Insult")(["good bad"]) == pytest.approx([expected[2].item()], abs=1e-6)


def test_a_long_text_is_cut_at_the_context(classifier):
    path = classifier("cut", ["LABEL_0", "LABEL_1"])
    # 10 = 12 - 2 tokens are read, two of them around the words
    expected = logits(path, "good " * 8).softmax(0)[1].item()
    assert scorer(str(path))(["good " * 500]) == pytest.approx([expected], abs=1e-6)


def test_a_model_without_a_last_position_and_a_tokenizer_without_padding(classifier):
    path = classifier("bloom", ["neutral", "toxic"])
    names = {"id2label": {0: "neutral", 1: "toxic"}, "label2id": {"neutral": 0, "toxic": 1}}
    config = BloomConfig(
        vocab_size=len(VOCABULARY), hidden_size=8, n_layer=1, n_head=1, pad_token_id=0, **names
    )
    BloomForSequenceClassification(config).save_pretrained(path)
    assert len(scorer(str(path))(["good", "bad " * 30])) == 2
    file = path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["pad_token"]
    file.write_text(json.dumps(settings))
    with pytest.raises(InstilError, match="has no padding token"):
        scorer(str(path))


def test_a_label_must_be_there(classifier):
    path = classifier("labels", ["joy", "anger"])
    with pytest.raises(InstilError, match=r"which of its labels means toxic\? It has joy, anger"):
        scorer(str(path))
    with pytest.raises(InstilError, match=r"no label 'rage'\. It has joy, anger: give .*#joy"):
        scorer(f"{path}#rage")
    single = classifier("single", ["LABEL_0"])  # a reward model looks like this
    with pytest.raises(InstilError, match="which of its labels"):
        scorer(str(single))


def test_pickles_and_language_models_are_refused(classifier, tmp_path):
    path = classifier("pickled", ["neutral", "toxic"])
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(InstilError, match="pickle"):
        scorer(str(path))
    body = classifier("headless", ["neutral", "toxic"])
    BertForSequenceClassification.from_pretrained(body).bert.save_pretrained(body)
    with pytest.raises(InstilError, match=r"is not a text classifier: no classifier\.bias"):
        scorer(str(body))


def test_weights_that_are_no_numbers_are_refused(classifier):
    path = classifier("diverged", ["neutral", "toxic"])
    model = BertForSequenceClassification.from_pretrained(path)
    model.classifier.bias.data[1] = float("nan")
    model.save_pretrained(path)
    with pytest.raises(InstilError, match=r"diverged.*: classifier\.bias has values that are no"):
        scorer(str(path))


def test_a_function_of_the_users(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def shout(prompts, texts):\n    return [float(text.isupper()) for text in texts]\n"
        "def wild(prompts, texts):\n    return [2.0 for text in texts]\n"
    )
    assert scorer(f"{file}:shout")(["HEY", "hey"]) == [1.0, 0.0]
    with pytest.raises(InstilError, match=r"mine\.py:wild: toxicity 2\.0; every score"):
        scorer(f"{file}:wild")(["a"])
    with pytest.raises(InstilError, match="has no attribute 'whisper'"):
        scorer(f"{file}:whisper")
    with pytest.raises(InstilError, match="toxicity 'perspective': no such directory"):
        scorer("perspective")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "pearson", "spearman"), [("prompt", 0.749, 0.645), ("continuation", 0.767, 0.698)]
)
def test_how_well_the_lexicon_follows_recorded_scores(shared, part, pearson, spearman):
    path = shared / "data" / "evaluation" / "real_toxicity_prompts_2000.jsonl.gz"
    texts = [row[part] for _, row in rows(path, "prompt", "continuation")]
    scored = [t for t in texts if t["toxicity"] is not None]
    assert len(scored) > 1980
    both = np.array([[lexicon_score(t["text"]), t["toxicity"]] for t in scored])

    def linear(some):
        return pearsonr(some[:, 0], some[:, 1]).statistic

    def ranked(some):
        return spearmanr(some[:, 0], some[:, 1]).statistic

    for measure, figure in ((linear, pearson), (ranked, spearman)):
        low, high = bootstrap(both, None, measure, rounds=200, seed=0)
        assert measure(both) == pytest.approx(figure, abs=0.005)
        assert low < figure < high < low + 0.08
    assert not math.isnan(both.sum())
