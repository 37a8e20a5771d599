"""The first sentence of every story in a text file, as prompts.

python examples/story_prompts.py tinystories.txt.gz beginnings.jsonl
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from instil.convert import read_texts


def first_sentence(story: str) -> str:
    """Up to the first full stop, question or exclamation mark; the quotation mark after it too."""
    found = re.match(r'.*?[.!?]"?(?=\s|$)', story.strip(), re.DOTALL)
    return found[0] if found else ""


def main(source: Path, target: Path) -> None:
    """Write one prompt a line."""
    beginnings = [first_sentence(story) for story in read_texts(source)]
    lines = [json.dumps({"prompt": text}) + "\n" for text in beginnings if text]
    target.write_text("".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
