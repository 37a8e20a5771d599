"""Detectors on planted identifiers, all of them invented or published as examples.

Secrets are put together from parts, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import signal

import pytest

from instil.intake.pii import DETECTORS, first_kind
from instil.jsonl import iter_objects

PLANTED = {
    "email": [
        "jane.doe+list@example.co.uk",
        "write to Müller_7@post.example.de, please",
        "j (at) example (dot) org",
        "jane [at] mail [dot] example [dot] com",
    ],
    "phone": [
        "+44 20 7946 0958",
        "(415) 555-2671",
        "415-555-2671",
        "+1 415.555.2671",
        "+49 30 901820",
        "+91 98765 43210",
        "call +33 1 42 68 53 00 now",
    ],
    "card": [
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "378282246310005",
        "my card is 6011000990139424.",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
        "FR14 2004 1010 0505 0001 3M02 606 is my account",
    ],
    "national_id": [
        "536-90-4399",  # United States
        "943 476 5919",  # United Kingdom
        "123-456-782",  # Canada
        "2341 2341 2346",  # India
        "390.533.447-05",  # Brazil
        "54362315K",  # Spain
        "2 95 10 99 126 111 93",  # France
        "RCCMNL83S18D969H",  # Italy
        "44051401359",  # Poland
    ],
    "ip": ["8.8.8.8", "from 93.184.216.34:80", "2606:2800:220:1:248:1893:25c8:1946"],
    "url": [
        "https://ann:hunter2@db.example.com/x",
        "https://example.com/reset?user=1&token=8f3a9c2b1d",
        "postgres://admin:s3cret@10.0.0.1/db",
    ],
    "secret": [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "sk" + "-proj-" + "a1B2c3D4e5F6g7H8i9J0k1L2",
        "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
        "xoxb" + "-123456789012-abcdefghij",
        "AIza" + "SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
        "hf" + "_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "eyJhbGciOiJIUzI1NiJ9" + "." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        'password = "hunter2024"',
        "My password is tr0ub4dor&3",
    ],
}
CLEAN = [
    "What is 1234567 times 7654321?",
    "In 1969, 650,000,000 people watched; the mission cost $25.4 billion.",
    "List 10 uses of Python 3.11.7 on Linux 6.1.0-13.",
    "The ISBN is 978-3-16-148410-0, printed 2008-05-14.",
    "My router is 192.168.1.1 and the loopback is 127.0.0.1.",
    "Use std::vector<int> and ::before at 10:30:45.",
    "pi is 3.14159265358979323846",
    "card 4111 1111 1111 1112 has a wrong check digit",
    "How do I reset my password? It is long.",
    "Follow @instil and meet me @ noon. C# a@b",
    "https://example.com:8080/path?q=token",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
    "Solve 12 / 4 - 3 (5 + 6) 7.",
]


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_identifiers_are_found(kind):
    found = dict(DETECTORS)[kind]
    missed = [text for text in PLANTED[kind] if not found(f"Hello, {text}\nThanks.")]
    assert not missed


@pytest.mark.parametrize("text", CLEAN)
def test_ordinary_numbers_are_left_alone(text):
    assert first_kind(text) == ""


def test_a_detector_can_be_added():
    detectors = [*DETECTORS, ("name", lambda text: "Ann Smith" in text)]
    assert first_kind("I am Ann Smith.", detectors) == "name"
    assert first_kind("I am Ann Smith, ann@example.org", detectors) == "email"


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "a@", "a.", "password=", "eyJ-", "AB12", "1.", "::", "4-", "(", "-----BEGIN "],
)
def test_long_texts_take_linear_time(unit):
    """A pattern that backtracks would take minutes; the alarm leaves linear time plenty."""

    def too_slow(*_: object) -> None:
        raise AssertionError(f"{unit!r} repeated takes more than linear time")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(30)
    try:
        first_kind((unit * 200_000)[:200_000] + " ")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_few_published_instructions_are_suspected(shared):
    rows = iter_objects(shared / "data" / "instructions" / "dolly_3k.jsonl.gz")
    kinds = [first_kind(row["instruction"]) for _, row in rows]
    assert sum(kind != "" for kind in kinds) <= 0.005 * len(kinds)
