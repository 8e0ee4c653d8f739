"""The command `minivit`. A command is one function below and its lines in _parser.

What a command needs is imported inside it: `minivit --help` answers at once, and matplotlib is told first that no
window will be opened.
"""

import argparse
import errno
import os
import sys

from . import __version__
from .errors import MinivitError


def tour(args):
    """Walk a photo through a Vision Transformer, from the pixels to the loss and back."""
    import matplotlib

    matplotlib.use("Agg")
    from . import images
    from .tour import tour as walk

    walk(args.photo or images.photo("cat.jpg"), args.out, args.seed)
    return 0


def gradcheck(args):
    """Compare every op's backward with finite differences; exit code 1 if one differs."""
    from .ops.cases import table

    allowed = 1e-6
    rows = [(op, argument, f"{error:.1e}", error <= allowed) for op, argument, error in table(rng=0)]
    titles = ("op", "argument", "worst relative error")
    widths = [max(map(len, column)) for column in zip(titles, *(row[:3] for row in rows), strict=True)]
    for *cells, good in ((*titles, True), *rows):
        line = [cells[0].ljust(widths[0]), cells[1].ljust(widths[1]), cells[2].rjust(widths[2])]
        print("  ".join(line) + ("" if good else "  too large"))
    wrong = sum(not good for *_, good in rows)
    print(f"\n{len(rows)} gradients compared with finite differences, {wrong} above the allowed {allowed:.0e}.")
    return 1 if wrong else 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="minivit",
        description="The Vision Transformer from pixels to gradients.",
        epilog="examples:",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minivit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(run, example):
        """A sub-command named as its function, explained by its docstring and one example."""
        parser.epilog += f"\n  minivit {example}"
        made = commands.add_parser(
            run.__name__, help=run.__doc__, description=run.__doc__, epilog=f"example: minivit {example}"
        )
        made.set_defaults(run=run)
        return made

    made = command(tour, "tour cat.jpg --out figures --seed 7")
    made.add_argument("photo", metavar="PHOTO", nargs="?", help="a picture file; without it, the cat in the package")
    made.add_argument("--out", metavar="DIR", default="tour", help="folder for the figures (default: %(default)s)")
    made.add_argument("--seed", metavar="N", type=_seed, default=0, help="of the random weights (default: %(default)s)")

    command(gradcheck, "gradcheck")
    return parser


def _seed(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def main(argv=None):
    """Run one command. Returns the exit code: 0, or 2 for a mistake in the input, which is explained on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a letter of a file's name shows its number
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    try:
        try:
            args = parser.parse_args(argv)
            if "run" in args:
                return args.run(args)
            parser.print_help()
            return 2
        finally:
            print(end="", flush=True)  # not sys.stdout.flush(): there may be no stdout
    except (MinivitError, OSError) as error:
        if _is_closed_pipe(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it exits
            return 141
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _is_closed_pipe(error):
    """Whether the reader of our output has gone, as in `minivit tour | head -1`; Windows calls it an invalid file."""
    return isinstance(error, BrokenPipeError) or (
        os.name == "nt" and isinstance(error, OSError) and error.errno == errno.EINVAL and error.filename is None
    )


if __name__ == "__main__":
    sys.exit(main())
