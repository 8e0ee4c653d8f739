"""The command `minivit`, also as `python -m minivit`: see cli/parser.py."""

import sys


def main(argv=None):
    """Run one command; see cli.parser.main. Returns the exit code."""
    try:
        from .cli.parser import main as run

        return run(argv)
    except (KeyboardInterrupt, RuntimeError) as error:  # before or after the command itself: while the imports run, say
        if KeyboardInterrupt not in (type(error), type(error.__cause__)):
            raise
        return 130


if __name__ == "__main__":
    sys.exit(main())
