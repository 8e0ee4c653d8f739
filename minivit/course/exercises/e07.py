"""Exercise 07: write the backward of mlp_head, the "MLP head" that a Vision Transformer wears while pretraining.

The final token CLS goes through a linear layer and tanh (the pooler), then through a linear layer to the scores:
hidden = tanh(x[:, 0] @ pooler_weight^T + pooler_bias),  y = hidden @ weight^T + bias.
x: (B, T, D), the tokens behind the final norm; CLS is token 0.  pooler_weight: (E, D) and pooler_bias: (E,).
weight: (K, E) and bias: (K,).  y: (B, K) logits.  dy, the gradient that arrives, has the shape of y.

Hint: walk forward's lines upwards. The slope of tanh is 1 - tanh^2, and hidden is that tanh. dx has the shape of x:
what is the gradient of a token that the head never read?
"""

import numpy as np

from minivit import differentiable


@differentiable
def mlp_head(x, pooler_weight, pooler_bias, weight, bias):
    """CLS through linear, tanh, linear: (B, T, D) -> (B, K)."""
    cls = x[:, 0]  # (B, D)
    hidden = np.tanh(cls @ pooler_weight.T + pooler_bias)  # (B, E)
    y = hidden @ weight.T + bias  # (B, K)

    def backward(dy):
        ...  # your code here
        return dx, dpooler_weight, dpooler_bias, dweight, dbias

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit.course.exercises.judge import Case

OP, VALUE = "mlp_head", "linear(tanh(linear(CLS)))"


def cases(rng):
    """What a learner's mlp_head is asked."""
    shapes = (2, 3, 5), (4, 5), (4,), (6, 4), (6,)  # B = 2, T = 3, D = 5, E = 4, K = 6
    yield Case([rng.standard_normal(shape) for shape in shapes])
