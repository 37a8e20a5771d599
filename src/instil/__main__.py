"""`python -m instil` is `instil`."""

import sys

from instil.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
