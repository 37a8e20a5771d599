"""Hints in error messages."""

from __future__ import annotations

from instil.errors import nearest


def test_a_misspelt_name_gets_its_nearest_relative():
    assert nearest("kl_ceof", ["kl_coef", "clip", "seed"]) == '; did you mean "kl_coef"?'


def test_a_strange_name_gets_the_list_in_order():
    assert nearest("zebra", ["clip", "beta"]) == "; known: beta, clip"
    assert nearest("zebra", iter(["clip"])) == "; known: clip"
