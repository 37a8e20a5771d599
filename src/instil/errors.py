"""The one exception for mistakes that the reader can mend.

An `InstilError` says what was given and where, what is accepted, and what to do next. The command
line prints it without a traceback. Everything else that is raised is our bug and stays loud.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InstilError(Exception):
    """A mistake that the reader can mend; the message says how."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: `; did you mean "kl_coef"?`, or the names that are known."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(known)}"
