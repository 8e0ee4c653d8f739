"""The command `minivit`. A command is one function below, which may return an exit code, and its lines in _parser.

What a command needs is imported inside it: `minivit --help` answers at once, and matplotlib is told first whether a
window will be opened.
"""

import argparse
import os
import signal
import sys
import textwrap
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

from .. import __version__
from ..errors import FileError, MinivitError, shown, shown_lines
from ..machinery import communication
from . import surroundings


def tour(args):
    """Walk a photo through a Vision Transformer, from the pixels to the loss and back."""
    surroundings.matplotlib()
    from .. import images
    from ..course.tour import tour as walk

    walk(images.photo("cat.jpg") if args.photo is None else args.photo, args.out, args.patch, args.untrained, args.seed)


def explore(args):
    """Write a page that takes a model apart in a browser: attention, gradients, each head switched off."""
    import webbrowser

    from ..explorer.page import explore as write

    page = write(args.photos, args.model, args.out, args.force)
    size = page.stat().st_size / 1e6
    print(f"{shown(page)}: {size:.1f} MB, one file that any browser opens, without a network. There, ? lists its keys.")
    if args.open and not webbrowser.open(page.resolve().as_uri()):
        print("note: no browser can be opened here: open the file in one yourself.", file=sys.stderr)


def list_(args):
    """List the lessons: number, title, minutes to teach, seconds to run."""
    from ..course.lessons import lessons

    print("lesson  teach   run   title")
    for lesson in lessons():
        print(f"{lesson.number:6}  {lesson.minutes:2d} min  {lesson.seconds:2d} s  {lesson.title}")


def run(args):
    """Run a lesson on a photo and save its figures."""
    package = surroundings.matplotlib(windows=args.out is None)
    from ..course import lessons

    for path in lessons.run(args.number, args.photo, args.out):
        print(shown(path))
    if args.out is None and package.get_backend().lower() == "agg":  # where there is no screen
        print("note: no window can be opened here. --out DIR saves the figures.", file=sys.stderr)


def book(args):
    """Make the book, a folder that opens from a stick: every lesson run on a photo, and what a teacher needs."""
    surroundings.matplotlib()
    from ..course.book import binding

    start = time.perf_counter()
    page = binding.book(args.out, args.photo, args.wheels)
    sizes = [path.stat().st_size for path in page.parent.rglob("*") if path.is_file()]
    seconds = time.perf_counter() - start
    size = f"{len(sizes)} files, {sum(sizes) / 1e6:.0f} MB"
    print(f"{shown(page)}: {size}, made in {seconds:.0f} s. Any browser opens it.")


def exercise(args):
    """Write the exercise of a lesson as a file to complete."""
    from ..course import exercises

    print(shown(exercises.write_stub(args.number, args.out)))


def check(args):
    """Grade a completed exercise, whose code is run; exit code 1 if it is not right yet. Or grade a folder of many."""
    from ..course import classroom, exercises

    if Path(args.what).is_dir():
        classroom.grade_class(args.what, args.csv, args.seconds or classroom.SECONDS)
        return 0
    if args.csv is not None:
        raise MinivitError("check", "--csv is given, and no folder.", hint="minivit check FOLDER --csv grades.csv")
    by_number = args.what.isdecimal() and not Path(args.what).exists()
    path = exercises.find(args.what) if by_number else args.what
    number, _ = exercises.opened(path)
    try:
        print(exercises.grade(path, args.seconds))
        exercises.passed(number)
    except FileError:
        raise
    except MinivitError as error:
        print(error)
        more = exercises.stronger_hint(number) if args.hint else f"minivit check {shown(args.what)} --hint"
        print(textwrap.fill(f"stronger hint: {more}", 100, initial_indent="  ", subsequent_indent="    "))
        return 1


def solution(args):
    """Print the solution of an exercise, once yours is right."""
    from ..course import exercises

    print(exercises.solution(args.number, args.teacher), end="")


def doctor(args):
    """Say what is installed and how fast, and what to do about what is wrong; exit code 1 if that is needed."""
    from .doctor import doctor as examine

    return 0 if examine() else 1


def gradcheck(args):
    """Compare every op's backward with finite differences; exit code 1 if one differs."""
    from ..course.cases import table

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


def show(args):
    """Show an op, a layer or a class: its source, formula, shapes, gradient check and lesson."""
    from ..course import show as course

    if not args.name:
        return course.names()
    return 0 if course.page(" ".join(args.name), args.color) else 1


def train(args):
    """Train a Vision Transformer from scratch on digits, MNIST, CIFAR-10 or a folder of photos."""
    from . import commands

    sizes = _given(args, commands.MODEL_FIELDS)
    if args.size:
        sizes = commands.named_size(args.size) | sizes
    commands.train(args.data, args.out, model=sizes, masked=args.masked, **_training(args))


def finetune(args):
    """Go on from a trained model on other data: new classes, another image size."""
    from . import commands

    commands.finetune(
        args.source, args.data, args.out, freeze=args.freeze, image_size=args.image_size, **_training(args)
    )


def evaluate(args):
    """Measure a model on the test part of a data set: accuracy, a table by class, a confusion picture."""
    from . import commands

    commands.evaluate(args.source, args.data, args.out, strict=args.strict, force=args.force)


def predict(args):
    """Say what a model sees in photos: the most likely classes, with their probabilities."""
    from . import commands

    commands.predict(args.source, args.photos, top=args.top, invert=args.invert)


def export(args):
    """Write a model as a Hugging Face folder, which transformers loads."""
    from . import commands

    commands.export(args.source, args.out, force=args.force)


def import_(args):
    """Bring a model from a Hugging Face folder or the hub into a folder that the other commands take."""
    from . import commands

    commands.import_(args.source, args.out, force=args.force)


def _given(args, names):
    """The options among `names` that were given."""
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def _training(args):
    """The options that train and finetune share."""
    options = _given(args, ("epochs", "batch_size", "lr", "seed"))
    return options | {"fast": args.fast, "resume": args.resume, "strict": args.strict, "force": args.force}


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        super().error(shown(message, 500))


def _parser():
    parser = _Parser(
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
            run.__name__.rstrip("_"), help=run.__doc__, description=run.__doc__, epilog=f"example: minivit {example}"
        )
        made.set_defaults(run=run)
        return made

    made = command(tour, "tour images/cat.jpg --out figures --patch 4,9")
    made.add_argument("photo", metavar="PHOTO", nargs="?", help="a picture file; without it, the cat in the package")
    made.add_argument(
        "--out", metavar="DIR", type=_name, default="tour", help="folder for the figures (default: %(default)s)"
    )
    made.add_argument("--patch", metavar="ROW,COLUMN", type=_patch, help="the patch whose view is drawn, from 0")
    made.add_argument("--untrained", action="store_true", help="with random weights: the same before any learning")
    made.add_argument("--seed", metavar="N", type=_seed, default=0, help="of random weights (default: %(default)s)")

    made = command(explore, "explore images/cat.jpg --open")
    made.add_argument("photos", metavar="PHOTO", nargs="*", help="picture files; without any, the three in the package")
    help_ = "folder of a model, or dinov2-small or digits in the package (default: %(default)s)"
    made.add_argument("--model", metavar="DIR", type=_name, default="dinov2-small", help=help_)
    made.add_argument(
        "--out", metavar="FILE", type=_name, default="explore.html", help="the page (default: %(default)s)"
    )
    made.add_argument("--open", action="store_true", help="open the page in the browser")
    made.add_argument("--force", action="store_true", help="replace a file that explore did not write")

    command(list_, "list")

    made = command(run, "run 05 images/cat.jpg --out figures")
    made.add_argument("number", metavar="NN", help="number of the lesson")
    made.add_argument("photo", metavar="PHOTO", nargs="?", help="a picture file; without it, the cat in the package")
    made.add_argument("--out", metavar="DIR", type=_name, help="folder for the figures; without it, they are shown")

    made = command(book, "book --out book")
    made.add_argument("photo", metavar="PHOTO", nargs="?", help="a picture file; without it, the cat in the package")
    made.add_argument(
        "--out", metavar="DIR", type=_name, default="book", help="folder for the book (default: %(default)s)"
    )
    help_ = "pack minivit and what it needs, for rooms without network: windows, macos, linux, or a tag and a Python "
    help_ += "such as win_amd64:3.12 (this command needs a network then)"
    made.add_argument("--wheels", metavar="PLATFORM", nargs="+", default=(), help=help_)

    made = command(exercise, "exercise 08 --out homework")
    made.add_argument("number", metavar="NN", help="number of the lesson")
    made.add_argument("--out", metavar="DIR", type=_name, default=".", help="folder for the file (default: this one)")

    made = command(check, "check 08")
    made.epilog += "; of a class: minivit check FOLDER --csv grades.csv"
    help_ = "an exercise's number (the file is looked for in this folder and in those in it), its file, or a folder of "
    help_ += "many, of anna/exercise_05.py or anna_exercise_05.py"
    made.add_argument("what", metavar="NN|FILE|FOLDER", help=help_)
    made.add_argument("--hint", action="store_true", help="say more of what is to be done")
    made.add_argument("--csv", metavar="FILE", type=_name, help="write a folder's table: name, exercise, passed, ...")
    help_ = "run each file in a process of its own, for N seconds and, but for Windows, in 1 GB of memory "
    help_ += "(a folder's are run so in any case, for 10 seconds); it keeps mistakes away, and is no prison for malice"
    made.add_argument("--seconds", metavar="N", type=_whole, help=help_)

    made = command(solution, "solution 08")
    made.add_argument("number", metavar="NN", help="number of the lesson")
    made.add_argument("--teacher", action="store_true", help="before a check has passed")

    command(doctor, "doctor")
    command(gradcheck, "gradcheck")

    made = command(show, "show layer_norm")
    made.add_argument("name", metavar="NAME", nargs="*", help="such as ViTLayer; without it, the names are listed")
    help_ = "colours for `| less -R` too, or none; else where the output is a terminal that shows them"
    made.add_argument("--color", action=argparse.BooleanOptionalAction, help=help_)

    data = {"metavar": "DATA", "help": "digits, mnist:FOLDER, cifar10:FOLDER, or a folder of photos"}
    source = {"metavar": "DIR", "help": "folder of a model that train, finetune or import made; digits: in the package"}

    made = command(train, "train digits --out runs/digits")
    made.add_argument("data", **data)
    _add_training(made)
    made.add_argument("--masked", action="store_true", help="pretrain without labels, by painting hidden patches")
    made.add_argument("--size", choices=("tiny", "small", "base"), help="the sizes of ViT-Tiny, Small or Base")
    for name in ("hidden-size", "num-hidden-layers", "num-attention-heads", "intermediate-size", "patch-size"):
        made.add_argument(f"--{name}", metavar="N", type=_whole, help="as in ViTConfig")
    made.add_argument("--image-size", metavar="N", type=_pixels, help="pixels a side that the pictures are resized to")

    made = command(finetune, "finetune runs/base photos --out runs/photos")
    made.add_argument("source", **source)
    made.add_argument("data", **data)
    _add_training(made)
    made.add_argument(
        "--freeze",
        action=argparse.BooleanOptionalAction,
        help="look at each picture once, and compute a linear head (the default for dinov2-small)",
    )
    made.add_argument("--image-size", metavar="N", type=_pixels, help="pixels a side; positions are interpolated")

    made = command(evaluate, "evaluate runs/digits digits")
    made.add_argument("source", **source)
    made.add_argument("data", **data)
    made.add_argument(
        "--out", metavar="DIR", type=_name, help="folder for the confusion picture (default: the model's)"
    )
    made.add_argument("--strict", action="store_true", help="refuse a folder with photos that cannot be read")
    _add_processes(made)
    _add_force(made)

    made = command(predict, "predict runs/photos images/cat.jpg images/coffee.jpg")
    made.add_argument("source", **source)
    made.add_argument("photos", metavar="PHOTO", nargs="+", help="picture files")
    made.add_argument("--top", metavar="N", type=_whole, default=3, help="how many classes (default: %(default)s)")
    made.add_argument("--invert", action="store_true", help="for dark ink on white paper that fills the photo")

    made = command(export, "export runs/digits hf_digits")
    made.add_argument("source", **source)
    made.add_argument("out", metavar="OUT", type=_name, help="folder to write")
    _add_force(made)

    made = command(import_, "import google/vit-base-patch16-224 runs/base")
    made.add_argument("source", metavar="HF_FOLDER_OR_NAME", help="a Hugging Face folder, or a name on the hub")
    made.add_argument("out", metavar="DIR", type=_name, help="folder to write")
    _add_force(made)
    return parser


def _add_training(made):
    """The options that train and finetune share."""
    help_ = "folder for the model, its history and curves"
    made.add_argument("--out", metavar="DIR", required=True, type=_name, help=help_)
    made.add_argument("--epochs", metavar="N", type=_whole, help="passes over the data")
    made.add_argument("--batch-size", metavar="N", type=_whole, help="pictures a step")
    made.add_argument("--lr", metavar="X", type=float, help="learning rate at its highest")
    made.add_argument("--seed", metavar="N", type=_seed, default=0, help="of all that is drawn (default: %(default)s)")
    made.add_argument("--fast", action="store_true", help="a sixth of the epochs, to see it work")
    made.add_argument("--resume", action="store_true", help="go on with the training that is in --out, by its seed")
    made.add_argument("--strict", action="store_true", help="refuse a folder with photos that cannot be read")
    _add_processes(made)
    _add_force(made)


def _add_processes(made):
    help_ = "share the work out to N processes on this machine (with the extra mpi; default: one)"
    made.add_argument("--processes", metavar="N", type=_processes, default=1, help=help_)


def _add_force(made):
    help_ = "write into a folder with files that minivit did not write; a model that is there is kept even so"
    made.add_argument("--force", action="store_true", help=help_)


def _name(text):
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name")
    return text


def _patch(text):
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a row and a column, as 4,9 is")
    return tuple(int(part) for part in parts)


def _whole(text, least=1, most=2**20):
    # int() takes no 5,000 digits, and nobody would read them
    if not (text.isdecimal() and len(text) <= 20 and least <= int(text) <= most):
        came = text if len(text) <= 40 else f"{text[:40]}..."
        raise argparse.ArgumentTypeError(f"{came!r} is not a whole number, {least} or more, up to {most}")
    return int(text)


def _pixels(text):
    return _whole(text, most=2**12)


def _processes(text):
    return _whole(text, most=2**10)


def _seed(text):
    return _whole(text, least=0, most=2**64 - 1)


def main(argv=None):
    """Run one command. Returns the exit code, which does not depend on whether its output could be written.

    0; 1 for a wrong gradient or exercise, and for a fault in the program; 2 for a mistake in the input, or what the
    system refuses; 130 after Ctrl-C, 128 + its number after another signal that a training answered by saving. Every
    fault is explained on stderr. Of several processes the first one speaks.
    """
    with ExitStack() as stack:
        stack.enter_context(surroundings.output())
        parser = _parser()
        try:
            processes = communication.world()
            if not processes.is_first:
                stack.enter_context(surroundings.silence())
            args = parser.parse_args(argv)
            if "run" in args:
                return _run(args, processes, sys.argv[1:] if argv is None else argv)
            parser.print_help()
            return 2
        except KeyboardInterrupt as stopped:
            print(shown_lines(stopped), file=sys.stderr, end="\n" if str(stopped) else "")
            return 128 + getattr(stopped, "number", signal.SIGINT)
        except Exception as error:
            if isinstance(error.__cause__, KeyboardInterrupt):  # in an import, see minivit/__init__.py
                return 128 + signal.SIGINT
            if sys.flags.dev_mode:
                raise
            message, code = _explained(error)
            print(message, file=sys.stderr)
            return code


def _run(args, processes, argv):
    """The exit code of a command, which all processes do together if it has --processes; else the first does it."""
    if "processes" not in args:
        return (args.run(args) or 0) if processes.is_first else 0
    if args.processes > 1 and processes.size == 1:
        if args.processes > (cores := os.cpu_count() or 1):
            print(f"note: {args.processes} processes on {cores} cores wait for one another.", flush=True)
        return communication.start(args.processes, argv)
    with processes.together():
        args.run(args)
        processes.agree()
    return 0


def _explained(error):
    """(message, exit code) of whatever a command raised."""
    if isinstance(error, MinivitError):
        return str(error), 2
    if isinstance(error, OSError):
        return shown(error, 500), 2
    if isinstance(error, MemoryError):
        hint = "give a smaller --batch-size, fewer or smaller pictures, or a smaller model; or close other programs."
        return f"there is not enough memory: {shown(error) or 'for Python itself.'}\n  hint: {hint}", 2
    if isinstance(error, RecursionError):
        return f"something is nested too deeply: {shown(error)}", 2
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {shown(error, 400)} ({Path(last.filename).name}, line {last.lineno})"
    hint = "python -X dev -m minivit and the same words show where; please report that."
    return f"a fault in the program, or in what it is installed with: {what}\n  hint: {hint}", 1
