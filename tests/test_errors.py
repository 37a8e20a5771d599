"""Hints in error messages, and what messages repeat of a file."""

from __future__ import annotations

from instil.errors import nearest, one_line


def test_a_misspelt_name_gets_its_nearest_relative():
    assert nearest("kl_ceof", ["kl_coef", "clip", "seed"]) == '; did you mean "kl_coef"?'


def test_a_strange_name_gets_the_list_in_order():
    assert nearest("zebra", ["clip", "beta"]) == "; known: beta, clip"
    assert nearest("zebra", iter(["clip"])) == "; known: clip"


def test_what_a_file_says_stays_in_its_line():
    assert one_line("a\nb\x1b[2J\u202ec\ud800") == "a\\nb\\x1b[2J\\u202ec\\ud800"
    assert one_line("é " * 9, 10) == "é é é é é…"
    assert one_line("\n" * 20, 10) == "\\n\\n\\n\\n\\…"
    assert one_line(5, 1) == "5"
