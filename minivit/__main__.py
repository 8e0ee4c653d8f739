"""The command `minivit`, also as `python -m minivit`: see cli/parser.py."""

import sys


def main(argv=None):
    """Run one command; see cli.parser.main. Returns the exit code."""
    try:
        from .cli.parser import main as run
    except KeyboardInterrupt:  # while the imports run
        return 130
    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
