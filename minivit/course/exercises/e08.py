"""Exercise 08: write the backward of take, which looks rows up in a table.

y = table[index]: a model looks up its embeddings this way, one row for each token.
table: (T, D) floats.  index: integers of any shape (...), from 0 to T - 1; a row may be asked for twice, or never.
y: (..., D).  dy, the gradient that arrives, has the shape of y; dtable has the shape and dtype of table.

Hint: what forward copies, backward adds up. Then mind one thing about NumPy: a[[0, 0]] += 1 adds 1 to a[0], not 2.
"""

import numpy as np

from minivit import differentiable


@differentiable
def take(table, index):
    """The rows of table (T, D) that index (...) asks for: (..., D)."""

    def backward(dy):
        # your code: begin
        dtable = np.zeros_like(table)
        np.add.at(dtable, index, dy)
        # your code: end
        return dtable, None  # None: integers have no gradient

    return table[index], backward


# ---- how it is graded (not part of the stub)

from minivit import Tensor, gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

WRONG = {
    "the last one wins": "dtable = np.zeros_like(table)\ndtable[index] = dy",
    "NumPy's += adds once": "dtable = np.zeros_like(table)\ndtable[index] += dy",
    "the mean": "dtable = np.zeros_like(table)\nnp.add.at(dtable, index, dy / index.size)",
    "the shape of y": "dtable = dy",
    "always float64": "dtable = np.zeros(table.shape)\nnp.add.at(dtable, index, dy)",
}


def check(work):
    """Grade a learner's module."""
    rng = np.random.default_rng(8)
    table = rng.standard_normal((5, 3))

    def take_each_once(table):
        return work.take(table, np.array([4, 0, 2]))

    def take_some_twice(table):
        return work.take(table, np.array([[3, 0], [1, 3], [3, 0]]))

    if not np.array_equal(take_some_twice(table), table[[[3, 0], [1, 3], [3, 0]]]):
        raise MinivitError("take", "the value is not table[index].", hint="the stub was right there.")
    gradcheck(take_each_once, table, rng=rng)
    gradcheck(take_some_twice, table, rng=rng)
    single = Tensor(table.astype(np.float32), requires_grad=True)
    take_some_twice(single).sum().backward()  # the engine refuses a gradient of another dtype
