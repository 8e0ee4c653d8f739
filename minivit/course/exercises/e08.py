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
        ...  # your code here
        return dtable, None  # None: integers have no gradient

    return table[index], backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "take", "table[index]"


def cases(rng):
    """What a learner's take is asked."""
    table, twice = rng.standard_normal((5, 3)), np.array([[3, 0], [1, 3], [3, 0]])
    yield Case([table], [np.array([4, 0, 2])])
    yield Case([table], [twice])
    yield Case([table.astype(np.float32)], [twice])
