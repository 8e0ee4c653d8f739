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
        # your code: begin
        dhidden = dy @ weight  # (B, E)
        dpooled = dhidden * (1 - hidden**2)  # before tanh
        dx = np.zeros_like(x)
        dx[:, 0] = dpooled @ pooler_weight
        dpooler_weight, dpooler_bias = dpooled.T @ cls, dpooled.sum(0)
        dweight, dbias = dy.T @ hidden, dy.sum(0)
        # your code: end
        return dx, dpooler_weight, dpooler_bias, dweight, dbias

    return y, backward


# ---- how it is graded (not part of the stub)

from minivit import gradcheck  # noqa: E402
from minivit.errors import MinivitError  # noqa: E402

RIGHT = """
dhidden = dy @ weight
dpooled = dhidden * (1 - hidden**2)
dx = np.zeros_like(x)
dx[:, 0] = dpooled @ pooler_weight
dpooler_weight, dpooler_bias = dpooled.T @ cls, dpooled.sum(0)
dweight, dbias = dy.T @ hidden, dy.sum(0)
"""
WRONG = {
    "tanh is forgotten": RIGHT.replace("dhidden * (1 - hidden**2)", "dhidden"),
    "the slope of tanh at its output": RIGHT.replace("1 - hidden**2", "1 - np.tanh(hidden) ** 2"),
    "every token was read": RIGHT.replace("dx[:, 0] = dpooled", "dx[:] = dpooled[:, None]"),
    "only CLS": RIGHT.replace("dx = np.zeros_like(x)\ndx[:, 0]", "dx"),
    "the mean over the batch": RIGHT.replace("dpooled.sum(0)", "dpooled.mean(0)"),
}


def check(work):
    """Grade a learner's module."""
    rng = np.random.default_rng(7)
    shapes = (2, 3, 5), (4, 5), (4,), (6, 4), (6,)  # B = 2, T = 3, D = 5, E = 4, K = 6
    x, pooler_weight, pooler_bias, weight, bias = inputs = [rng.standard_normal(shape) for shape in shapes]
    expected = [weight @ np.tanh(pooler_weight @ tokens[0] + pooler_bias) + bias for tokens in x]
    if not np.allclose(work.mlp_head(*inputs), expected):
        hint = "mlp_head and its @differentiable were right in the stub."
        raise MinivitError("mlp_head", "the value is not linear(tanh(linear(CLS))).", hint=hint)
    gradcheck(work.mlp_head, *inputs, rng=rng)
