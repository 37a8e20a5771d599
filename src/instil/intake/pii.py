"""Personal data and secrets in a text: which kinds does it hold?

Each detector is a name and a function from text to bool. They look for shapes, and where an
identifier has a check digit, for a right one, which keeps ordinary numbers out.

Left out on purpose: names of people and postal addresses. They need a model, and prompts are full
of invented ones; whoever must remove them appends a detector of their own to `DETECTORS`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

import phonenumbers
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.pl import pesel
from stdnum.us import ssn

Detector = Callable[[str], bool]

# No pattern starts with an unbounded run: a text of 100,000 letters must not take quadratic time.
# Before the slow ones stands a look for something that they cannot do without.
_EMAIL = re.compile(
    r"[\w.+-](?:@|\s?[(\[{]\s?at\s?[)\]}]\s?)"
    r"(?:[\w-]+(?:\.|\s?[(\[{]\s?dot\s?[)\]}]\s?))+[^\W\d_]{2,}",
    re.IGNORECASE,
)
_AT = re.compile(r"@|[(\[{]\s?at\b", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_TWO_DIGITS = re.compile(r"\d\d")
_DIGITS = re.compile(r"\d(?:[\s().\-/]{0,3}\d){6}")
_CARD = re.compile(r"(?<![\d.,-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\d-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE)
_URL = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:[^\s/@]{1,128}@"
    r"|[?&](?:access_token|api_?key|auth|password|passwd|pwd|secret|sig|signature|token)=[^\s&#]{6,}",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|sk-[A-Za-z0-9_-]{20,}"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|hf_[A-Za-z0-9]{30,}"
    r"|eyJ[A-Za-z0-9_-]{8,999}\.eyJ[A-Za-z0-9_-]{8,999}\.[A-Za-z0-9_-]{8,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_PASSWORD = re.compile(
    r"\b(?:password|passwd|pwd|passphrase|api[_ -]?key|secret[_ -]?key|access[_ -]?token)"
    r"[\"']?\s*(?:is|[:=])\s*[\"']?(?=\S{0,63}\d)[^\s\"']{6,}",
    re.IGNORECASE,
)
# (shape, check): identifiers whose check digits tell them from ordinary numbers
_NATIONAL: Sequence[tuple[re.Pattern[str], Callable[[str], bool]]] = (
    (re.compile(r"\b\d{3}-\d{2}-\d{4}\b"), ssn.is_valid),
    (re.compile(r"\b\d{3}[ -]\d{3}[ -]\d{4}\b"), nhs.is_valid),
    (re.compile(r"\b\d{3}[ -]\d{3}[ -]\d{3}\b"), sin.is_valid),
    (re.compile(r"\b\d{4}[ -]?\d{4}[ -]?\d{4}\b"), aadhaar.is_valid),
    (re.compile(r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b"), cpf.is_valid),
    (re.compile(r"\b\d{8}-?[A-Z]\b"), dni.is_valid),
    (re.compile(r"\b[XYZ]-?\d{7}-?[A-Z]\b"), nie.is_valid),
    (re.compile(r"\b[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}\b"), nir.is_valid),
    (re.compile(r"\b[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]\b"), codicefiscale.is_valid),
    (re.compile(r"\b\d{11}\b"), pesel.is_valid),
)


def has_email(text: str) -> bool:
    """An e-mail address, also as `name (at) host (dot) org`."""
    return bool(_AT.search(text) and _EMAIL.search(text))


def has_phone(text: str) -> bool:
    """A telephone number that exists: international, or in the North American form."""
    if not _DIGITS.search(text):
        return False
    return any(True for _ in phonenumbers.PhoneNumberMatcher(text, "US"))


def has_card(text: str) -> bool:
    """A payment card number: 13 to 19 digits with a right check digit."""
    if not _TWO_DIGITS.search(text):
        return False
    return any(luhn.is_valid(re.sub("[ -]", "", m[0])) for m in _CARD.finditer(text))


def has_iban(text: str) -> bool:
    """An international bank account number with right check digits."""
    if not _TWO_DIGITS.search(text):
        return False
    for match in _IBAN.finditer(text):
        words = match[0].split(" ")  # the shape may run on into the next words
        if any(iban.is_valid("".join(words[:n])) for n in range(1, len(words) + 1)):
            return True
    return False


def has_national_id(text: str) -> bool:
    """A national insurance, tax or identity number of ten countries, where its form is right."""
    if not _TWO_DIGITS.search(text):
        return False
    return any(check(match[0]) for shape, check in _NATIONAL for match in shape.finditer(text))


def has_ip(text: str) -> bool:
    """A public IP address; private ones and those of documentation name nobody."""
    if not _DIGIT.search(text):
        return False
    return any(_is_public(m[0]) for shape in (_IPV4, _IPV6) for m in shape.finditer(text))


def has_url_credentials(text: str) -> bool:
    """A link that carries a password or a token."""
    return ("://" in text or "=" in text) and _URL.search(text) is not None


def has_secret(text: str) -> bool:
    """The shape of an API key, a signed token or a private key, or a password that is spelt out."""
    spelt_out = _DIGIT.search(text) and _PASSWORD.search(text)
    return bool(_KEY.search(text) or spelt_out)


DETECTORS: Sequence[tuple[str, Detector]] = (
    ("email", has_email),
    ("url", has_url_credentials),
    ("secret", has_secret),
    ("card", has_card),
    ("iban", has_iban),
    ("national_id", has_national_id),
    ("phone", has_phone),
    ("ip", has_ip),
)


def first_kind(text: str, detectors: Sequence[tuple[str, Detector]] = DETECTORS) -> str:
    """The name of the first detector that finds something, or the empty string."""
    return next((name for name, found in detectors if found(text)), "")


def _is_public(candidate: str) -> bool:
    try:
        return ipaddress.ip_address(candidate).is_global
    except ValueError:
        return False
