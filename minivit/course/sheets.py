"""The answer keys of the pencil sheets in tutorials/sheets/: a sheet, its blanks filled with what minivit computes.

`python -m minivit.course.sheets` writes each NAME_key.md beside its NAME.md. Each function here gives the answers of
the sheet of its name, in the sheet's order; what is given stands on the sheet, rounded, and here.
"""

import math
import re

import numpy as np

from .. import ops, vit
from ..autograd import Tensor
from ..machinery.files import travelling

BLANK = re.compile(r"(?<!_)_{6,20}(?!_)")
NOTE = "Computed by minivit: `python -m minivit.course.sheets` writes it. Numbers are rounded to 3 decimals."
WORDS = {
    "attention": """\
7: softmax does not change when all scores of a query grow alike, so a row of ds sums to 0. The rows of dkey together
are each query times the sum of its row of ds, divided by the root of d: times 0. 8: it is the same 0.1, exactly, for y
is a linear map of the values.""",
    "image": """\
2: patches 1 and 2. Feature 0 measures brightness, feature 1 right against left; what differs from top to bottom gets
lost. Only the positions tell their tokens apart then. 4: CLS is no patch, so its (1, 1) reaches neither bias nor
weight.""",
    "layer_norm": """\
6: nothing happens to y, either time. The first sum says that adding the same to all changes nothing, the second that
stretching does not. 7: by the sum, which is not 0: it claims that y grows when all of x grows alike.""",
    "softmax": """\
5: nothing, softmax sees differences only; so the row sums to 0. 6: exp of 0 or less cannot overflow, and p is the same.
7: that of the label, for p - t is below 0 there only.""",
}


def attention():
    """Two tokens, one head, d = 2."""
    root, log2, log3 = math.sqrt(2), math.log(2), math.log(3)
    q, k, v = map(_learned, ([[root, 0], [0, root]], [[0, log3], [log2, 0]], [[3, 0], [0, 6]]))  # (T, d)

    def forward(v):
        s = ops.einsum("qd,kd->qk", q, k) / root  # (q, k)
        p = ops.softmax(s)
        y = p @ v  # (T, d)
        return s, p, y, y[0, 0] - y[0, 1] + y[1, 1]

    s, p, y, loss = (x.retain_grad() or x for x in forward(v))
    loss.backward()
    exp, sums = np.exp(s.data), (p.grad * p.data).sum(-1, keepdims=True)
    more = forward(np.add(v.data, [[0.3, 0], [0, 0]]))[-1].data
    return [
        s.data,
        np.concatenate([exp, exp.sum(-1, keepdims=True), p.data], axis=1),
        [*y.data.ravel(), loss.data],
        np.concatenate([y.grad, v.grad], axis=1),
        np.concatenate([p.grad, sums, s.grad], axis=1),
        np.concatenate([q.grad, k.grad], axis=1),
        [s.grad[0].sum(), *k.grad.sum(0)],
        [more, more - loss.data],
    ]


def softmax():
    """Two examples, three classes: softmax, cross-entropy, and the gradient by both ways."""
    logits = _learned(np.log([[2, 3, 5], [1, 1, 2]]))  # (B, K)
    labels = [0, 2]
    p = ops.softmax(logits)
    p.retain_grad()
    losses = -p[[0, 1], labels].log()  # (B,)
    losses.mean().backward()
    again = _learned(logits.data)
    ops.cross_entropy(again, labels).backward()
    exp, shifted = np.exp(logits.data), np.exp(logits.data[0] - logits.data[0].max())
    return [
        np.concatenate([exp, exp.sum(-1, keepdims=True)], axis=1),
        p.data,
        [*losses.data, losses.data.mean()],
        again.grad,
        np.concatenate([p.grad, (p.grad * p.data).sum(-1, keepdims=True)], axis=1),
        logits.grad,
        logits.grad[0].sum(),
        [*shifted, shifted.sum(), shifted[2] / shifted.sum()],
        logits.data[0] - logits.grad[0],
    ]


def layer_norm():
    """One token, D = 4; eps = 0."""
    x, weight, bias = map(_learned, ([0, 6, 6, 8], [1, 2, 1, 0.5], [1, 0, 0, 1]))  # (D,)
    n = ops.layer_norm(x, np.ones(4), np.zeros(4), eps=0)
    n.retain_grad()
    y = n * weight + bias
    y.backward(np.array([-1.0, 1, 2, 2]))
    centred, dn, dx = x.data - x.data.mean(), n.grad, x.grad
    constants = dn / centred.std()
    return [
        [x.data.mean(), centred.var(), centred.std()],
        [centred, n.data, y.data],
        [weight.grad, bias.grad, dn],
        [dn.mean(), (dn * n.data).mean()],
        dx,
        [dx.sum(), (dx * centred).sum()],
        [*constants, constants.sum()],
    ]


def image():
    """An image of 4 x 4 pixels through ViTEmbeddings: P = 2, D = 2."""
    config = vit.ViTConfig(2, 1, 1, 2, image_size=4, patch_size=2, num_channels=1)
    embeddings = vit.ViTEmbeddings(config, rng=0).eval().to(np.float64)
    cut = embeddings.patch_embeddings
    embeddings.cls_token.data[:] = [1, -1]
    embeddings.position_embeddings.data[:] = [[0.5, 0.5], [0, 0], [0, 1], [1, 0], [1, 1]]
    cut.projection.weight.data[:] = np.reshape([[0.25] * 4, [-0.5, 0.5] * 2], (2, 1, 2, 2))
    cut.projection.bias.data[:] = [-2, 1]
    pixels = _learned([[[[0, 4, 3, 3], [0, 4, 3, 3], [6, 6, 1, 3], [0, 0, 5, 7]]]])  # (B, C, H, W)
    tokens = embeddings(pixels)  # (B, T, D)
    tokens.backward(np.array([[[1.0, 1], [2, 0], [0, 0], [0, 1], [0, 0]]]))
    patches, features = _patches(pixels.data), cut(pixels).data  # (N, C P P), (B, N, D)
    return [
        np.concatenate([patches, features[0]], axis=1),
        tokens.data[0].T,
        *[np.array(str(shape)) for shape in (pixels.shape, features.shape, tokens.shape)],
        embeddings.num_parameters(),
        [embeddings.cls_token.grad[0, 0], embeddings.position_embeddings.grad[0, 3], cut.projection.bias.grad],
        cut.projection.weight.grad,
        _patches(pixels.grad)[[0, 2]],
    ]


SHEETS = {"attention": attention, "image": image, "layer_norm": layer_norm, "softmax": softmax}


def key(name):
    """The sheet of that name with its blanks filled, in bold."""
    title, text = (travelling("tutorials") / "sheets" / f"{name}.md").read_text(encoding="utf-8").split("\n", 1)
    answers = [f"**{_shown(x)}**" for part in SHEETS[name]() for x in np.ravel(part)]
    filled = BLANK.sub("{}", text).format(*answers)
    return f"{title.replace('Pencil sheet', 'Answer key')}\n\n{NOTE}\n{filled}\n## In words\n\n{WORDS[name]}\n"


def _shown(x):
    """A number in at most 3 decimals, or a text as it is."""
    return str(x) if np.asarray(x).dtype.kind == "U" else f"{round(float(x), 3) + 0:g}"  # + 0: no -0


def _learned(x):
    return Tensor(np.array(x, dtype=float), requires_grad=True)


def _patches(pixels):
    """(1, 1, 4, 4) -> (N, C P P) = (4, 4)"""
    return pixels.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)


if __name__ == "__main__":
    for sheet in SHEETS:
        path = travelling("tutorials") / "sheets" / f"{sheet}_key.md"
        path.write_text(key(sheet), encoding="utf-8", newline="\n")
        print(path)
