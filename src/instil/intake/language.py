"""A guess in which language a text is, from its letters and its small words.

Good enough for the mix of a log. English is what matters (Ouyang et al. 2022 report a share of
about 96 %); other languages in Latin letters are told by a dozen words each, those in other
letters by the script, and what is left is `other`. Not good enough for single short texts, nor for
languages that are close to one another, such as Danish and Norwegian.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from types import MappingProxyType

ENGLISH_OR_UNTOLD = ("en", "unknown")
"""What is not evidence of another language than English."""

# Frequent English words that are not also frequent words of other languages in Latin script.
SMALL_WORDS = frozenset(
    (
        *("the", "of", "and", "to", "is", "that", "it", "for", "you", "with", "this", "be", "are"),
        *("have", "not", "what", "how", "from", "or", "as", "at", "by", "your", "my", "which"),
        *("they", "would", "there", "their", "we", "can", "if", "do", "does", "will", "about"),
        *("when", "who", "write", "please", "should", "why", "give", "following", "explain", "i"),
    )
)
OTHER_SMALL_WORDS = MappingProxyType(
    {
        language: frozenset(words.split())
        for language, words in {
            "cs": "a v na je se že to s z do pro jak si o jsou být který nebo ve",
            "de": "der die das und ist nicht ein eine mit für auf wie zu den von ich im über",
            "es": "el la los las una un para por que con como y es del mi sobre en de",
            "fr": "le la les des et est une un pour dans que qui sur avec vous je du de au",
            "id": "yang dan di untuk dengan ini itu dari adalah tidak saya pada dalam apa",
            "it": "il lo la gli che di una un per con non è sono come del della e sul i",
            "nl": "de het een van en is voor met niet op dat hoe te ik zijn over",
            "pl": "i w nie na jest się że do jak o z co to dla są czy",
            "pt": "o a os as uma um para com não que como do da em é sobre de e",
            "sv": "och att det är en ett på som för med inte av om jag den",
            "tr": "ve bir bu için ile ne nasıl çok olarak daha ben bana hakkında",
            "vi": "và là của có một cho không được trong những tôi về các với",
        }.items()
    }
)
SCRIPTS = MappingProxyType(
    {
        "HIRAGANA": "ja",
        "KATAKANA": "ja",
        "HANGUL": "ko",
        "CJK": "zh",
        "GREEK": "el",
        "HEBREW": "he",
        "THAI": "th",
        "CYRILLIC": "cyrillic",
        "ARABIC": "arabic",
        "DEVANAGARI": "devanagari",
    }
)
"""First word of the Unicode names of letters -> the language, or the script of several."""

_WORD = re.compile(r"[^\W\d_]+")
_QUOTES_AND_DASHES = dict.fromkeys(range(0x2010, 0x2028), "-")


def language(text: str) -> str:
    """A code of ISO 639, the name of a script, `other`, or `unknown` where words are too few."""
    words = _WORD.findall(text[:4000].lower())
    joined = "".join(words)
    letters = len(joined)
    ascii_letters = letters if joined.isascii() else sum(len(w) for w in words if w.isascii())
    if letters >= 4 and ascii_letters < 0.5 * letters:
        return _of_script(joined) or _of_words(words)
    if len(words) < 3:
        return "unknown"
    small = sum(map(SMALL_WORDS.__contains__, words)) / len(words)
    if small >= 0.1 or (len(words) < 8 and small > 0):
        return "en"
    if len(words) < 8 and ascii_letters == letters:
        return "unknown"
    return _of_words(words)


def is_ascii(text: str) -> bool:
    """Only ASCII, typographic quotes and dashes aside."""
    return text.isascii() or text.translate(_QUOTES_AND_DASHES).isascii()


def _of_script(letters: str) -> str:
    """The language that most letters beyond ASCII are of, or the empty string for Latin ones."""
    scripts = Counter(
        unicodedata.name(letter, "?").split()[0] for letter in letters if not letter.isascii()
    )
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * scripts.total():
        return "ja"  # written with more Chinese characters than kana
    script, _ = scripts.most_common(1)[0]
    return "" if script == "LATIN" else SCRIPTS.get(script, "other")


def _of_words(words: list[str]) -> str:
    """The language with most of the words, if it has a tenth of them."""
    small = {name: sum(map(some.__contains__, words)) for name, some in OTHER_SMALL_WORDS.items()}
    likeliest = max(small, key=small.__getitem__)
    return likeliest if small[likeliest] >= 0.1 * len(words) else "other"
