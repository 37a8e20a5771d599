"""The sieve: what it keeps, in which order, and that nothing of it stays on the disk."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from instil.errors import InstilError
from instil.intake.sieve import Candidate, Sieve


def candidate(key: str, owner: str = "", draw: int = 0, use_case: str = "chat") -> Candidate:
    return Candidate(
        key=key,
        owner=owner.encode(),
        draw=bytes([draw]),
        traits=("train", use_case, "en", True),
        record=key.upper().encode(),
    )


def test_duplicates_are_told_and_the_first_is_kept():
    with Sieve(prefix_chars=3, prefix_share=0.5) as sieve:
        told = [sieve.add(candidate(key)) for key in ("abcd", "xyz", "abcd", "abce", "abce")]
        # a text that only shares a prefix has been seen all the same
        assert told == ["", "", "duplicate", "prefix", "duplicate"]
        assert list(sieve.records()) == [b"ABCD", b"XYZ"]


def test_the_cap_goes_by_the_draw_and_spares_prompts_of_nobody():
    rows = [("a1", "a", 3), ("n1", "", 9), ("a2", "a", 1), ("b1", "b", 9), ("a3", "a", 3)]
    with Sieve(prefix_chars=100, prefix_share=1.0) as sieve:
        for row in [*rows, ("n2", "", 9), ("n3", "", 9)]:
            sieve.add(candidate(*row))
        assert sieve.cap(2) == 1  # of the equal draws of a the first
        assert list(sieve.records()) == [b"A1", b"N1", b"A2", b"B1", b"N2", b"N3"]
        assert sieve.users() == (2, 3)


def test_traits_are_counted_over_what_is_kept():
    with Sieve(prefix_chars=100, prefix_share=1.0) as sieve:
        for number, use_case in enumerate(["chat", "chat", "rewrite"]):
            sieve.add(candidate(f"text {number}", "a", number, use_case))
        sieve.cap(2)
        assert sieve.traits() == [(("train", "chat", "en", True), 2)]


def test_a_user_stays_where_he_was_first_seen():
    with Sieve(prefix_chars=100, prefix_share=1.0) as sieve:
        assert [sieve.split_of("u", "test"), sieve.split_of("u", "train")] == ["test", "test"]
        assert sieve.split_of("v", "train") == "train"


def test_its_files_have_no_names_even_while_it_works():
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("only Linux shows which files a process holds")
    with Sieve(prefix_chars=100, prefix_share=1.0) as sieve:
        for number in range(15_000):  # 27 MB, more than stays in memory
            sieve.add(candidate(f"{number} " + "x" * 900))
        held = [os.readlink(path) for path in descriptors.iterdir() if path.is_symlink()]
        working = [name for name in held if "etilqs" in name]  # what SQLite calls them
        assert working and all(name.endswith(" (deleted)") for name in working)
        assert sum(1 for _ in sieve.records()) == 15_000


def test_a_full_disk_says_where_to_make_room():
    with pytest.raises(InstilError, match="TMPDIR"), Sieve(100, 1.0):
        raise sqlite3.OperationalError("database or disk is full")
