"""The one exception for mistakes that the reader can mend.

An `InstilError` says what was given and where, what is accepted, and what to do next. The command
line prints it without a traceback. Everything else that is raised is our bug and stays loud.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InstilError(Exception):
    """A mistake that the reader can mend; the message says how."""


def one_line(text: object, most: int = 500) -> str:
    """What a file says, as a message may repeat it: in one line, nothing in it that a terminal acts
    on, no longer than `most` characters."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: most + 1])
    return line if len(line) <= most else f"{line[: most - 1]}…"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: `; did you mean "kl_coef"?`, or the names that are known."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(known)}"
