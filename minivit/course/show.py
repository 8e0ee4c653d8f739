"""One op, layer or class for a projector: its source, its formula, and what is true of it when it is run now.

Nothing of it is kept: sources and docstrings are read, examples run and gradients checked when they are asked for.
"""

import ast
import difflib
import importlib
import inspect
import re
import shutil
import sys
import textwrap
import tokenize
from pathlib import Path
from typing import NamedTuple

from .. import autograd, nn, notebook, ops, optim, vit
from ..errors import MinivitError
from ..machinery import vocabulary
from .cases import CASES
from .examples import ALLOWED, EXAMPLES, Run
from .lessons import lessons
from .source import BOLD, lines, painted, shows_colours, tokens

# title of a group -> the modules that its names come from
GROUPS = {
    "ops": (ops,),
    "layers": (nn,),
    "the model": (vit,),
    "the notebook": (notebook,),
    "the tape": (autograd, sys.modules["minivit.gradcheck"]),  # minivit.gradcheck is the function
    "optimisers": (optim,),
}
FURTHER = ("augment", "config", "datasets", "errors", "images", "lens", "training")  # found, but not listed

# lesson -> what it derives
LESSONS = {
    "02": "linear Linear conv2d Conv2d PatchEmbeddings",
    "03": "concatenate expand ViTEmbeddings",
    "04": "Embedding sine_cosine_positions",
    "04b": "interpolate_positions",
    "05": "softmax einsum attention scaled_dot_product_attention",
    "05b": "ViTSelfAttention ViTSelfOutput ViTAttention",
    "06": "layer_norm LayerNorm gelu GELU ViTIntermediate ViTOutput ViTLayer",
    "07": "tanh ViTConfig ViTEncoder ViTPooler ViTModel ViTForImageClassification",
    "08": "Tensor backward differentiable unbroadcast add multiply matmul transpose exp log sum mean",
    "08b": "gradcheck",
    "09": "cross_entropy AdamW",
    "12": "MultiheadSelfAttention EncoderBlock Vit",
    "13": "principal_components similarity",
    "13b": "knock_out",
}
ELSEWHERE = vocabulary.MODELS | vocabulary.OPTIMISERS | vocabulary.MODULES | vocabulary.METHODS
ELSEWHERE |= vocabulary.FUNCTIONS | vocabulary.LAYERS  # name in PyTorch or NumPy -> how the same is written here
ASIDE = ("minivit.errors", "minivit.machinery.checks", "minivit.machinery.random")  # nothing to ask for next
INDENT = 11  # columns of the labels before what is said


class Entry(NamedTuple):
    """Something to show: its path in minivit, such as "vit.ViTLayer" or "autograd.Tensor.backward", and the object."""

    path: str
    object: object

    @property
    def name(self):
        """What it is called in a list: its path without the module."""
        return self.path.partition(".")[2]


def catalogue():
    """{title of a group: its Entries}: what is listed."""
    groups = {title: [entry for module in modules for entry in _public(module)] for title, modules in GROUPS.items()}
    for title in ("layers", "the notebook"):
        groups[title] = [entry for entry in groups[title] if inspect.isclass(entry.object)]
    groups["ops"].sort()
    groups["the tape"].append(Entry("autograd.Tensor.backward", autograd.Tensor.backward))
    return groups


def find(name):
    """The Entries that a name may mean, the likeliest first. MinivitError, with the nearest names, if there is none.

    name: "softmax", "ops.softmax", "Tensor.backward". Case, "_", "-" and spaces count only where two names need them.
    Of a name that only PyTorch or NumPy has, the hint says how the same is written here.
    """
    way = None
    for alike in (str.strip, _plain):
        for entries in () if way else _places():
            wanted = "." + alike(name.strip().removeprefix("minivit."))
            found = [entry for entry in entries if any(f".{alike(key)}".endswith(wanted) for key in _keys(entry))]
            if found:
                found += [entry for entry in entries if f".{_plain(entry.path)}".endswith(f".{_plain(found[0].name)}")]
                # of a method that several classes have, the path in the class that defines it comes first
                found.sort(key=lambda entry: "." in entry.name and not entry.path.endswith(entry.object.__qualname__))
                first = {}
                for entry in found:
                    first.setdefault(id(entry.object), _op(entry))
                return list(first.values())
        way = ELSEWHERE.get(name.strip().rpartition(".")[2])
    last = _plain(name).rpartition(".")[2]
    listed, _, house, _ = _places()
    names = [entry.path.rpartition(".")[2] for entry in (*listed, *house)]
    known = {_plain(name): name for name in reversed(names) if name[0] != "_"}
    near = [plain for plain in known if last and last in plain] + difflib.get_close_matches(last, known, n=5)
    near = dict.fromkeys(known[plain] for plain in near[:5])
    raise MinivitError(
        "show",
        f"there is no {name!a}.",
        rule="an op, a layer, a class or a method of minivit; minivit show lists them.",
        hint=f"{way}." if way else f"did you mean {', '.join(near)}?" if near else None,
    )


def _places():
    """Where a name is looked for, one list of Entries after the other."""
    listed = [entry for entries in catalogue().values() for entry in entries]
    yield listed
    yield _methods(listed)
    house = _house()
    yield house
    yield _methods(house)


def _plain(name):
    """A name without what a person may leave out or add."""
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _short(module):
    return module.__name__.removeprefix("minivit.")


def _public(module):
    """What a module offers, in its order: the names in its __all__, or what it defines itself."""
    offered = getattr(module, "__all__", None)
    entries = _entries(module, lambda name, x: name in offered if offered else x.__module__ == module.__name__)
    return [entry for entry in entries if entry.name[0] != "_"]


def _entries(module, wanted):
    """The functions and classes in a module of which wanted(name, object) is true."""
    found = [(name, x) for name, x in vars(module).items() if inspect.isclass(x) or inspect.isfunction(x)]
    return [Entry(f"{_short(module)}.{name}", x) for name, x in found if wanted(name, x)]


def _house():
    """Every function and class of minivit where it is defined, private ones too."""
    for name in FURTHER:
        importlib.import_module(f"minivit.{name}")
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("minivit.")]
    return [entry for m in modules for entry in _entries(m, lambda _, x, home=m.__name__: x.__module__ == home)]


def _methods(entries):
    """The methods and properties of those entries that are classes, also those from other classes of minivit."""
    found = []
    for path, cls in entries:
        for name in dir(cls) if inspect.isclass(cls) else ():
            method = inspect.getattr_static(cls, name)
            method = getattr(method, "fget", None) or getattr(method, "__func__", method)
            home = method.__module__ if inspect.isfunction(method) else ""
            if home.startswith("minivit.") and home != vocabulary.__name__:  # there, Tensor's have a message only
                found.append(Entry(f"{path}.{name}", method))
    return found


def _keys(entry):
    """The ways to say where it is: its path, and with the file that it stands in ("ops.softmax.softmax")."""
    module, name = (getattr(entry.object, what, "") for what in ("__module__", "__qualname__"))
    return entry.path, f"{module.removeprefix('minivit.')}.{name}"


def _op(entry):
    """The op in the place of the Tensor's method that calls it."""
    name, tensors = getattr(entry.object, "__name__", ""), entry.path.startswith(("autograd.Tensor.", "nn.Parameter."))
    method = tensors and entry.object.__module__.startswith("minivit.ops")
    return Entry(f"ops.{name}", getattr(ops, name)) if method and name in CASES else entry


# ---- what is printed


def names():
    """Print every name that is listed, by groups."""
    print("minivit show NAME prints the source, formula, shapes, gradient check and lesson of one of these:\n")
    for title, entries in catalogue().items():
        print(_said(title, " ".join(entry.name for entry in entries), _width(), INDENT + 3))
    print("\nMethods and the rest of minivit go by their names, too: minivit show ViTAttention.prune_heads")


def page(name, colour=None):
    """Print all about the thing of this name. Returns False if a gradient of it was wrong.

    colour: True or False; None for colours where the output is a terminal that shows them.
    """
    width, colour = _width(), shows_colours() if colour is None else colour
    groups, name = catalogue().values(), re.sub(r"(\.py|/)$", "", name.strip())  # files as README's map has them
    for entries in groups:  # a module, as far as nothing is spelled so: one line for each of its names
        if name.lower() == entries[0].path.partition(".")[0] and name not in [x.name for each in groups for x in each]:
            return _contents(entries, width)
    if name in FURTHER:
        return _contents(_public(importlib.import_module(f"minivit.{name}")), width)
    entry, *others = find(name)
    code, first = inspect.getsourcelines(entry.object)
    source = textwrap.dedent("".join(code)).rstrip()
    file = Path(inspect.getsourcefile(inspect.unwrap(entry.object))).relative_to(Path(__file__).parents[2])
    print(f"{painted(entry.path, BOLD, colour)}   {file.as_posix()}, line {first}\n")
    print(*lines(source, width, colour), sep="\n", end="\n\n", flush=True)

    def say(label, text):
        if text:
            said = _said(label, text, width)
            print(painted(label, BOLD, colour) + said[len(label) :], flush=True)

    formula, backward = _formulas(entry.object)
    say("formula" if backward or " = " in formula else "what", formula)
    say("backward", backward)
    good, path = True, entry.path.removesuffix(".forward")
    if path in EXAMPLES or path in {f"ops.{op}" for op in CASES}:
        run = Run(path)
        say("example", run.note)
        say("shapes", run.shapes(_returned(entry.object if run.op else run.fn)))
        error, how = run.check()
        good = error <= ALLOWED
        say("gradient", f"relative error {error:.1e}{'' if good else ', TOO LARGE'} (allowed {ALLOWED:.0e}); {how}")
    say("lesson", _lesson(entry.path))
    say("uses", " ".join(_uses(entry, source)))
    paths = [other.path for other in others]
    say("also", f"minivit show {', '.join(paths[:4])}{', ...' if paths[4:] else ''}" if paths else "")
    return good


def _contents(entries, width):
    indent = max(len(entry.name) for entry in entries) + 2
    for entry in entries:
        formula = textwrap.shorten(_formulas(entry.object)[0], width - indent, placeholder=" ...")
        print(entry.name.ljust(indent) + formula)
    return True


def _width():
    """How many columns to print in: those of the terminal, as far as minivit's lines go."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)


def _said(label, text, width, indent=INDENT):
    return textwrap.fill(text, width, initial_indent=label.ljust(indent), subsequent_indent=" " * indent)


def _formulas(thing):
    """(what its docstring says first, what it says of the backward), each in one line."""
    first, _, backward = (inspect.getdoc(thing) or "").partition("Backward")
    backward = re.split(r"\n\n|\nSource: ", backward)[0].lstrip(":, ")
    return " ".join(first.split("\n\n")[0].split()), " ".join(backward.split())


def _lesson(path):
    """The lesson that derives it, or the class that it belongs to."""
    numbers = {name: number for number, several in LESSONS.items() for name in several.split()}
    number = next((numbers[name] for name in reversed(path.split(".")) if name in numbers), None)
    titles = {lesson.number: lesson.title for lesson in lessons()}
    return f"{number.lstrip('0')}. {titles[number]} (minivit run {number})" if number else "none derives it"


def _uses(entry, source):
    """The functions and classes of minivit whose names stand in its source, but for errors, checks and decorators.

    Each by a name that finds it here: as much of its path as is needed.
    """
    known, found = vars(sys.modules[entry.object.__module__]), []
    words = ["", *(token.string for token in tokens(source) if token.type in (tokenize.NAME, tokenize.OP)), ""]
    for at, word in enumerate(words):
        value = known.get(word) if words[at - 1] not in (".", "@", "def", "class") else None
        if inspect.ismodule(value) and words[at + 1] == ".":
            word = f"{word}.{words[at + 2]}"
            value = getattr(value, words[at + 2], None)
        module = value.__module__ if inspect.isclass(value) or inspect.isfunction(value) else ""
        aside = module in ASIDE or word.lstrip("_").startswith("check")
        if module.startswith("minivit.") and not aside and value is not entry.object:
            found.append(value)
    return [_name(value) for value in dict.fromkeys(found)]


def _name(thing):
    """The shortest end of the path of a function or class by which find() gives it."""
    parts = f"{_short(sys.modules[thing.__module__])}.{thing.__name__}".split(".")
    ends = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
    return next((end for end in ends if inspect.unwrap(find(end)[0].object) is inspect.unwrap(thing)), ends[-1])


def _returned(fn):
    """The names of what fn returns: what its backward takes the gradient of, or those in its last return."""
    source = textwrap.dedent(inspect.getsource(getattr(fn, "forward", fn)))
    gradient = re.search(r"def backward\(d(\w+)", source)
    if gradient:
        return [gradient[1]]
    returns = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Return)]
    value = max(returns, key=lambda node: node.lineno).value
    value = value.body if isinstance(value, ast.IfExp) else value
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    parts = [part.value if isinstance(part, ast.Starred) else part for part in parts]
    parts = [part.body if isinstance(part, ast.IfExp) else part for part in parts]
    return [part.id if isinstance(part, ast.Name) else "output" for part in parts]
