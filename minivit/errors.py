"""Errors: where it happened, what came, what holds and what to do, in one message.

Every error that minivit raises on purpose is a MinivitError, so the command line can tell a mistake in the input
(message, exit code 2) from a fault in the program (traceback).
"""

import numbers


class MinivitError(ValueError):
    """A mistake in the input, explained.

    where: the class, function or file; what: the fault, with the numbers that came; rule: what holds, and how the
    input breaks it; hint: what to do next. What came from outside is shown as shown() shows it.
    """

    def __init__(self, where, what, rule=None, hint=None):
        lines = [f"{shown(where)}: {what}"]
        if rule:
            lines.append(f"  rule: {rule}")
        if hint:
            lines.append(f"  hint: {hint}")
        super().__init__(shown_lines("\n".join(lines)))


class ShapeError(MinivitError):
    """An array has the wrong shape, size, rank or dtype."""


class EntryError(MinivitError, KeyError, IndexError):
    """A model's output has no entry of this name or number."""

    def __str__(self):  # KeyError would print its message quoted, on one line
        return self.args[0]


class GraphError(MinivitError, RuntimeError):
    """A tensor, or the graph of ops behind it, cannot do what was asked: backward() where nothing was recorded, say."""


class RangeError(MinivitError, IndexError):
    """An index at which there is nothing."""


class UnknownNameError(MinivitError, AttributeError):
    """A name that is not here, though PyTorch or NumPy has it: the message says what is. hasattr() is False of it."""


class FileError(MinivitError, OSError):
    """A file or folder is missing, unreadable, damaged or not what its name says."""

    def __str__(self):  # OSError would print its first argument as an error number
        return str(self.args[0])


def shown(text, limit=200):
    """A name or text from outside, as one line that a terminal only shows: what is no letter, mark or space is escaped
    as in Python, and of more than `limit` characters the middle is left out.
    """
    # the three spaces are in the names that macOS gives to screenshots, and between words in French and Japanese
    text = "".join(
        c if c.isprintable() or c in "\xa0\u202f\u3000" else c.encode("unicode_escape").decode() for c in str(text)
    )
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[3 - limit + limit // 2 :]}"


def shown_lines(text):
    """A message of several lines, with names from outside in it, each line as shown() shows it."""
    return "\n".join(shown(line, 500) for line in str(text).split("\n"))


def shortened(lines, limit=10, width=200):
    """The first lines of a long list, as shown() shows them, and a last one that counts the rest."""
    first = [shown(line, width) for line in lines[:limit]]
    return [*first, f"... and {len(lines) - limit} more"] if len(lines) > limit else first


def check_names(expected, found, where, strict=True, hint=None):
    """Compare the shapes a model expects with those it is given: {name: shape} both. Returns (missing, unexpected).

    Raises one ShapeError that lists every missing, unexpected and mismatched name. A mismatched shape always raises,
    a missing or unexpected name only when strict. hint: what the caller's caller can do, where strict is not its word.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    mismatched = [
        f"{name}: expected {tuple(shape)}, found {tuple(found[name])}"
        for name, shape in expected.items()
        if name in found and tuple(shape) != tuple(found[name])
    ]
    if mismatched or (strict and (missing or unexpected)):
        kinds = {"missing": missing, "unexpected": unexpected, "mismatched": mismatched}
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items())
        lines = [f"  {kind}: {line}" for kind, names in kinds.items() for line in shortened(names)]
        raise ShapeError(
            where,
            "\n".join([f"the weights do not fit the model: {counts}.", *lines]),
            rule="the model and the weights have the same names, each with the same shape.",
            hint=hint
            or "build the model from the config that came with the weights."
            + ("" if mismatched else " strict=False loads what fits."),
        )
    return missing, unexpected


def check_whole(where, name, value, least=1, most=2**20):
    """Refuse what is no whole number from `least` to `most`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (whole and least <= value <= most):  # a damaged config must not ask for more than any memory
        raise MinivitError(where, f"{name}={value!r}.", rule=f"{name} is a whole number, {least} to {most}.")
