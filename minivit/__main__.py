"""The command `minivit`, also as `python -m minivit`: see cli/parser.py."""

import sys

from .cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
