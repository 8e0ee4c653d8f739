"""Errors: where it happened, what came, what holds and what to do, in one message.

Every error that minivit raises on purpose is a MinivitError, so the command line can tell a mistake in the input
(message, exit code 2) from a fault in the program (traceback).
"""

import numbers


class MinivitError(ValueError):
    """A mistake in the input, explained.

    where: the class, function or file; what: the fault, with the numbers that came; rule: what holds, and how the
    input breaks it; hint: what to do next.
    """

    def __init__(self, where, what, rule=None, hint=None):
        lines = [f"{where}: {what}"]
        if rule:
            lines.append(f"  rule: {rule}")
        if hint:
            lines.append(f"  hint: {hint}")
        super().__init__("\n".join(lines))


class ShapeError(MinivitError):
    """An array has the wrong shape, size, rank or dtype."""


class GraphError(MinivitError, RuntimeError):
    """A tensor, or the graph of ops behind it, cannot do what was asked: backward() where nothing was recorded, say."""


class RangeError(MinivitError, IndexError):
    """An index at which there is nothing."""


class FileError(MinivitError, OSError):
    """A file or folder is missing, unreadable, damaged or not what its name says."""

    def __str__(self):  # OSError would print its first argument as an error number
        return str(self.args[0])


def shortened(lines, limit=10):
    """The first lines of a long list, and a last one that counts the rest."""
    # a name out of a file may hold anything, even what a terminal takes for a command
    shown = ["".join(c if c.isprintable() else "?" for c in line)[:200] for line in lines[:limit]]
    return [*shown, f"... and {len(lines) - limit} more"] if len(lines) > limit else shown


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
