"""A file with an exercise in it, run in this process: what its op answers, and in which line it fails."""

import traceback
import types

import numpy as np

from ...autograd import Tensor
from ...errors import MinivitError


class Work:
    """The module that `source` (bytes, or text) makes. MinivitError, with file and line, for what goes wrong in it.

    name: as in "exercise 05"; path: of the file, for messages.
    """

    def __init__(self, name, source, path):
        self._name, self._path = name, path
        text = source.decode("utf-8-sig", errors="replace") if isinstance(source, bytes) else source
        self._lines = text.splitlines()
        # not imported, so that it is neither cached nor counted as minivit's own ops
        self.module = types.ModuleType(name)
        try:
            exec(compile(source, str(path), "exec", dont_inherit=True), vars(self.module))
        except SyntaxError as error:
            raise self._fault(f"this is not Python: {error.msg}", error.lineno) from error
        except (Exception, SystemExit) as error:
            raise self._explained(error, "outside of the function: ") from error

    def ask(self, op, case, dy=None):
        """What the function named `op` makes of a Case: (y, its gradients with respect to case.inputs, for this dy).

        Each gradient is an array, or None where none came; without dy there are none.
        """
        if not callable(getattr(self.module, op, None)):
            raise MinivitError(self._name, f"there is no {op!r} in {self._path}.", hint="keep the names of the stub.")
        leaves = [Tensor(x.copy(), requires_grad=True) for x in case.inputs]
        constants = [x.copy() for x in case.constants]
        try:
            y = getattr(self.module, op)(*leaves, *constants, **case.options)
            if not isinstance(y, Tensor):
                what = f"the value is a {type(y).__name__}, and no Tensor."
                raise MinivitError(op, what, hint="keep @differentiable in the line above the function.")
            if y.requires_grad and y._node.op != op:
                rule = "the backward is yours to write: arrays in, (value, backward) out, under @differentiable."
                raise MinivitError(op, f"its gradient comes from minivit's own {y._node.op}.", rule)
            value = y.data.copy()
            if dy is not None and y.requires_grad:
                y.backward(dy)
        except (Exception, SystemExit) as error:
            raise self._explained(error) from error
        after = [leaf.data for leaf in leaves] + constants + [y.data]
        before = [*case.inputs, *case.constants, value]
        if not all(np.array_equal(*pair, equal_nan=True) for pair in zip(before, after, strict=True)):
            raise MinivitError(
                op,
                "an argument or the value was changed.",
                rule="what forward saved, others may use, too.",
                hint="make a new array: y * dy, and not y *= dy.",
            )
        return value, [leaf.grad for leaf in leaves]

    def _explained(self, error, where=""):
        """The MinivitError of an exception: as it is, where the line of the file would say less."""
        inner = error.__cause__ or error  # of an op that is the learner's: where in it
        frames = traceback.extract_tb(inner.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self._path)]
        if isinstance(error, MinivitError) and (inner is error or not lines):
            return error
        hint = str(error).partition("\n  hint: ")[2] if inner is not error else ""
        return self._fault(f"{where}{type(inner).__name__}: {inner}", lines[-1] if lines else None, hint)

    def _fault(self, what, line, hint=""):
        if line is None:
            hint = "what a function returned cannot be used: compare with its docstring."
            return MinivitError(self._name, what, hint=hint)
        code = "".join(self._lines[line - 1 : line]).strip()  # a file cut short fails behind its last line
        look = f"look at: {code}" + (f"; {hint}" if hint else "")
        return MinivitError(f"{self._name}, {self._path.name}, line {line}", what, hint=look)
