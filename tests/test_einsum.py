"""einsum and matmul beside NumPy's, with the gradients of every form of equation."""

import numpy as np
import pytest

from minivit import Tensor, gradcheck, ops
from minivit.errors import ShapeError

SIZES = dict(zip("abcdefhijkmnqy", (2, 3, 4, 5, 1, 2, 2, 3, 4, 2, 1, 3, 4, 2), strict=True))

EQUATIONS = [
    "qhd,khd->qhk",
    "qhk,khd->qhd",
    "nhn,nhd->nhd",
    "nhn,nhd",
    "ij,jk->ik",
    "ij,jk",
    "ji,jk->ki",
    "ij,ij->",
    "ij,ij->ij",
    "ij,ji->ij",
    "i,j->ji",
    "i,j",
    ",->",
    ",ij->ji",
    "abc,cd->abd",
    "abi,j->j",
    "abi,abj->ij",
    "abcd,cd->ab",
    "bahd,bcde->bahe",
    "aabb,bi->ai",
    "iij,jj->j",
    "ii,ii->i",
    "ii,jj->",
    "ii,jj",
    "ij->ji",
    "ij",
    "ba",
    "ijk->kij",
    "ijk->ik",
    "ijk->",
    "i->i",
    "->",
    "ii->i",
    "ii->",
    "ii",
    "iij->j",
    "iij->ij",
    "iji->j",
    "iii->i",
    " i j , j k -> i k ",
    "AiB,iC->CAB",
    "mfe,fe->me",
]


def drawn(equation, rng, sizes=SIZES):
    inputs = equation.replace(" ", "").split("->")[0].split(",")
    return [rng.standard_normal([sizes.get(c.lower(), 2) for c in letters]) for letters in inputs]


def check(equation, operands):
    """The value is numpy.einsum's, and backward the finite difference's."""
    value = ops.einsum(equation, *(Tensor(x) for x in operands))
    expected = np.einsum(equation, *operands)
    assert value.shape == np.shape(expected)
    np.testing.assert_allclose(value.data, expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda *tensors: ops.einsum(equation, *tensors), *operands, rtol=1e-6)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_equations(equation, rng):
    check(equation, drawn(equation, rng))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...qd,...kd->...qk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...qd,...kd->...qk", [(3, 4, 5), (2, 1, 6, 5)]),  # the axes without a name broadcast
        ("...qd,...kd->...qk", [(4, 5), (6, 5)]),  # and there may be none
        ("...ij,jk->...ik", [(2, 3, 4, 5), (5, 2)]),
        ("...ij,jk", [(2, 3, 4, 5), (5, 2)]),
        ("i...,i...->...", [(3, 2, 1), (3, 4)]),
        ("i...->...i", [(3, 2, 4)]),
        ("i...i->i...", [(3, 2, 3)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("...", [(2, 3)]),
        ("...,...", [(2, 3), (3,)]),
        ("a...b,cb->...", [(2, 3, 4), (5, 4)]),
    ],
)
def test_axes_without_a_name(equation, shapes, rng):
    check(equation, [rng.standard_normal(shape) for shape in shapes])


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 1), (5, 4)]),
        ("ij,jk->ik", [(3, 5), (1, 4)]),
        ("ij,jk->ijk", [(3, 1), (5, 4)]),
        ("ij,ij->", [(1, 5), (3, 1)]),
        ("ij,ij->ji", [(1, 5), (3, 1)]),
        ("ij,ij->ij", [(1, 1), (1, 1)]),
        ("iij,ij->j", [(1, 1, 4), (3, 1)]),
        ("iij,ij->i", [(3, 3, 1), (1, 4)]),
        ("bi,bj->ij", [(1, 3), (2, 4)]),
    ],
)
def test_an_axis_of_size_1_is_stretched(equation, shapes, rng):
    check(equation, [rng.standard_normal(shape) for shape in shapes])


def test_the_same_tensor_twice(rng):
    x = rng.standard_normal((3, 4))
    assert gradcheck(lambda x: ops.einsum("ij,kj->ik", x, x), x, rtol=1e-6)
    assert gradcheck(lambda x: ops.einsum("ij,ij->", x, x), x, rtol=1e-6)


def test_empty_axes():
    assert ops.einsum("ij,jk->ik", np.ones((2, 0)), np.ones((0, 3))).data.tolist() == [[0] * 3] * 2
    assert ops.einsum("ij,jk->ik", np.ones((0, 2)), np.ones((2, 3))).shape == (0, 3)


def test_the_notebooks_equation_reads_only_the_diagonal(rng):
    scores, v = rng.standard_normal((4, 2, 4)), rng.standard_normal((4, 2, 3))
    diagonal = np.stack([scores[n, :, n, None] * v[n] for n in range(4)])
    np.testing.assert_allclose(ops.einsum("nhn,nhd->nhd", scores, v).data, diagonal, rtol=1e-14)


ONE, TWO, CUBE = np.ones(3), np.ones((2, 3)), np.ones((2, 3, 4))


@pytest.mark.parametrize(
    ("equation", "operands", "message"),
    [
        ("ij,jk->ik", [TWO], r'einsum "ij,jk->ik": 2 operands are named and 1 came \(operands: \(2, 3\)\)'),
        ("ij->ij", [TWO, TWO], r"1 operands are named and 2 came"),
        ("...i...->i", [TWO], "stands twice in one place"),
        ("i,i,i->i", [ONE, ONE, ONE], "3 operands(?s:.*)of three, take two first"),
        ("i1->i", [TWO], "axes are named by single letters a-z and A-Z"),
        ("ij->i.j", [TWO], "axes are named by single letters"),
        ("ij->i->j", [TWO], "axes are named by single letters"),
        ("ijk->i", [TWO], r"each operand needs one letter for each of its axes \(operands: \(2, 3\)\)"),
        ("i->i", [TWO], "each operand needs one letter"),
        ("...ijk->i", [TWO], "each operand needs one letter"),
        ("ij,jk->ik", [TWO, TWO], 'axis "j" has size 3 in one place and 2 in another'),
        ("ii->i", [np.ones((1, 3))], 'axis "i" has size 1 in one place and 3 in another'),
        ("iij,jk->k", [np.ones((3, 1, 2)), TWO], 'axis "i" has size 3 in one place and 1 in another'),
        ("...i,...i->...", [CUBE, np.ones((5, 4))], "has size 3 in one place and 5 in another"),
        ("ij->ii", [TWO], 'the output "ii" names an axis twice, or one that no operand has'),
        ("ij->ik", [TWO], 'the output "ik" names an axis twice, or one that no operand has'),
        (TWO, [TWO], "the equation comes first, a string"),
    ],
    ids=str,
)
def test_what_is_wrong_with_an_equation(equation, operands, message):
    with pytest.raises(ShapeError, match=message):
        ops.einsum(equation, *operands)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((4,), (2, 4, 5)),
        ((2, 3, 4), (4,)),
        ((1, 1), (1, 1)),
    ],
)
def test_matmul(shapes, rng, assert_same):
    x, y = (rng.standard_normal(shape) for shape in shapes)
    for product in (Tensor(x) @ Tensor(y), Tensor(x) @ y, x @ Tensor(y)):
        np.testing.assert_array_equal(product.data, x @ y)

    def by_einsum(x, y):
        left, right = ("j" if x.ndim == 1 else "...ij"), ("j" if y.ndim == 1 else "...jk")
        return ops.einsum(f"{left},{right}->...{left.strip('.j')}{right.strip('.j')}", x, y)

    assert_same(ops.matmul, by_einsum, x, y)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((3,), (2, 3)), ((2, 3, 4), (3, 4, 5)), ((), (3, 2))])
def test_matrices_that_do_not_fit(shapes):
    with pytest.raises(ShapeError, match=r"^matmul: .*(@ .* do not fit|not be broadcast).*\n  rule: "):
        Tensor(np.ones(shapes[0])) @ Tensor(np.ones(shapes[1]))


@pytest.mark.parametrize(
    "shapes", [((3, 0), (0, 4)), ((3, 2), (2, 0)), ((0, 2), (2, 3)), ((2, 3, 0), (0, 4)), ((0,), (0,))]
)
def test_products_of_nothing(shapes):
    x, y = (Tensor(np.ones(shape), requires_grad=True) for shape in shapes)
    (x @ y).sum().backward()
    assert (x.grad.shape, y.grad.shape) == shapes


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("c,cc", ((1,), (3, 3))),
        ("cc,c", ((3, 3), (1,))),
        ("c,cc->c", ((1,), (3, 3))),
        ("cc,cc->c", ((1, 1), (3, 3))),
        ("cc,c->c", ((1, 1), (3,))),
        ("iij,ji->j", ((2, 2, 3), (3, 1))),
        ("bcc,bc->b", ((4, 3, 3), (4, 1))),
        ("ccc,dc->d", ((2, 2, 2), (5, 1))),
        ("...cc,...c->...", ((2, 3, 3), (2, 1))),
    ],
)
def test_a_size_1_beside_a_diagonal_is_stretched(equation, shapes, rng):
    x, y = (rng.standard_normal(shape) for shape in shapes)
    np.testing.assert_allclose(ops.einsum(equation, x, y).data, np.einsum(equation, x, y), rtol=1e-13)
    assert gradcheck(lambda x, y: ops.einsum(equation, x, y), x, y, rtol=1e-6)


def test_a_number_times_a_trace_by_hand():
    x, y = Tensor(np.array([2.0]), requires_grad=True), Tensor(np.arange(9.0).reshape(3, 3), requires_grad=True)
    z = ops.einsum("c,cc", x, y)
    z.backward()
    assert z.item() == 2 * (0 + 4 + 8) and x.grad == [12]
    np.testing.assert_array_equal(y.grad, 2 * np.eye(3))


@pytest.mark.parametrize("shapes", [((1,), (3, 1)), ((3,), (1, 3)), ((1,), (2, 3)), ((2,), (3, 3))])
def test_a_diagonal_has_two_axes_of_one_size(shapes):
    with pytest.raises(ShapeError, match=r'axis "c" has size \d in one place and \d in another'):
        ops.einsum("c,cc", *map(np.ones, shapes))
