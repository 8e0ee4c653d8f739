"""Augmentation: known moves come out where they should, no strength changes nothing, and the draws are as promised."""

import numpy as np
import pytest
from PIL import Image

from minivit.augment import affine, random_affine, random_crop, random_flip
from minivit.errors import MinivitError, ShapeError

RANDOM = {
    "flip": lambda x, rng: random_flip(x, rng),
    "crop": lambda x, rng: random_crop(x, 2, rng),
    "affine": lambda x, rng: random_affine(x, rng, degrees=20, shift=1.5, scale=0.2, shear=10),
}


def batch(B=5, C=3, H=7, W=6, dtype=np.float32):
    return np.random.default_rng(0).uniform(-1, 1, (B, C, H, W)).astype(dtype)


def rolled(x, down, right, fill):
    """x moved by whole pixels: np.roll, and fill where it wrapped round."""
    H, W = x.shape[-2:]
    moved = np.roll(x, (down, right), axis=(-2, -1))
    moved[..., [i for i in range(H) if not 0 <= i - down < H], :] = fill
    moved[..., [j for j in range(W) if not 0 <= j - right < W]] = fill
    return moved


def dot(row, column, side=41):
    """One white pixel on black, so many pixels down and right of the centre."""
    x = np.zeros((1, 1, side, side))
    x[0, 0, side // 2 + row, side // 2 + column] = 1
    return x


def centre(x):
    """Where the white is, from the centre: (down, right), for each picture."""
    offset = np.arange(x.shape[-1]) - x.shape[-1] // 2
    total = x.sum((1, 2, 3))
    return np.stack([(x.sum((1, 3)) * offset).sum(1), (x.sum((1, 2)) * offset).sum(1)], axis=1) / total[:, None]


# ---- what all have in common


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", RANDOM)
def test_shape_and_dtype_stay_and_the_input_is_not_changed(name, dtype):
    x = batch(dtype=dtype)
    before = x.copy()
    out = RANDOM[name](x, np.random.default_rng(1))
    assert (out.shape, out.dtype) == (x.shape, dtype)
    assert (out != x).any() and not np.shares_memory(out, x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("name", RANDOM)
def test_the_generator_decides(name):
    rng = np.random.default_rng(1)
    first, second = RANDOM[name](batch(), rng), RANDOM[name](batch(), rng)
    np.testing.assert_array_equal(first, RANDOM[name](batch(), np.random.default_rng(1)))
    assert (first != second).any()


@pytest.mark.parametrize("name", RANDOM)
def test_each_picture_is_changed_in_its_own_way_and_all_its_channels_alike(name):
    x = np.broadcast_to(batch()[:1, :1], (40, 2, 7, 6))
    out = RANDOM[name](x, np.random.default_rng(1))
    np.testing.assert_array_equal(out[:, 0], out[:, 1])
    assert len(np.unique(out[:, 0], axis=0)) >= {"flip": 2, "crop": 15, "affine": 40}[name]


@pytest.mark.parametrize("name", RANDOM)
def test_an_empty_batch_stays_empty(name):
    assert RANDOM[name](batch(B=0), np.random.default_rng(1)).shape == (0, 3, 7, 6)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("x", [batch()[0], batch()[0, 0], batch().astype(np.uint8), batch().astype(int)])
def test_another_rank_or_dtype_is_refused(name, x):
    with pytest.raises(ShapeError, match=r"\w+: x has the shape .*\n  rule: \(B, C, H, W\), floats\n  hint: "):
        RANDOM[name](x, np.random.default_rng(1))


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("rng", [0, None, np.random.RandomState(0)])
def test_a_seed_is_refused(name, rng):
    with pytest.raises(MinivitError, match=rf"random_{name}: rng is a {type(rng).__name__}.\n  rule: an np.random.Gen"):
        RANDOM[name](batch(), rng)


# ---- flip


def test_flip_mirrors_half_of_the_pictures():
    x = batch(B=400)
    out = random_flip(x, np.random.default_rng(2))
    mirrored = (out == x[..., ::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(out[~mirrored], x[~mirrored])
    assert 160 < mirrored.sum() < 240


# ---- crop


@pytest.mark.parametrize("fill", [-1.0, 0.25])
def test_crop_shifts_by_whole_pixels_and_fills(fill):
    x = batch(B=300)
    out = random_crop(x, 2, np.random.default_rng(3), fill=fill)
    seen = set()
    for before, after in zip(x, out, strict=True):
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(after, rolled(before, down, right, np.float32(fill)))
        ]
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) == 25


def test_crop_without_padding_changes_nothing():
    np.testing.assert_array_equal(random_crop(batch(), 0, np.random.default_rng(0)), batch())


@pytest.mark.parametrize("padding", [-1, 1.5, np.inf, np.nan])
def test_crop_refuses_a_padding_that_is_no_number_of_pixels(padding):
    with pytest.raises(ShapeError, match=f"random_crop: padding={padding}"):
        random_crop(batch(), padding, np.random.default_rng(0))


# ---- affine


@pytest.mark.parametrize("H, W", [(7, 6), (1, 1), (8, 8), (33, 20)])
def test_affine_of_no_strength_changes_nothing(H, W):
    x = batch(H=H, W=W)
    np.testing.assert_array_equal(affine(x), x)
    np.testing.assert_array_equal(random_affine(x, np.random.default_rng(0)), x)


@pytest.mark.parametrize("down, right", [(1, 0), (0, -2), (-3, 4), (7, 0), (0, -50)])
@pytest.mark.parametrize("fill", [-1.0, 0.25])
def test_affine_shift_by_whole_pixels_is_exact(down, right, fill):
    x = batch()
    np.testing.assert_array_equal(affine(x, shift=(down, right), fill=fill), rolled(x, down, right, np.float32(fill)))


def test_affine_shift_by_part_of_a_pixel_weighs_both_neighbours():
    x = batch()
    expected = 0.75 * x + 0.25 * rolled(x, 1, 0, -1)
    np.testing.assert_allclose(affine(x, shift=(0.25, 0)), expected, atol=1e-6)
    expected = 0.4 * x + 0.6 * rolled(x, 0, -1, -1)
    np.testing.assert_allclose(affine(x, shift=(0, -0.6)), expected, atol=1e-6)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_affine_by_right_angles_is_rot90(side, turns):
    x = batch(H=side, W=side)
    np.testing.assert_allclose(affine(x, degrees=90 * turns), np.rot90(x, turns, axes=(2, 3)), atol=1e-5)


def test_affine_by_180_degrees_turns_any_shape():
    np.testing.assert_allclose(affine(batch(), degrees=180), batch()[..., ::-1, ::-1], atol=1e-5)


def test_affine_scale_2_is_bilinear_about_the_centre():
    x = np.array([0.0, 1.0, 4.0, 9.0, 16.0]).reshape(1, 1, 1, 5)
    np.testing.assert_allclose(affine(x, scale=2)[0, 0, 0], [1, 2.5, 4, 6.5, 9])
    np.testing.assert_allclose(affine(x, scale=0.5, fill=-3)[0, 0, 0], [-3, 0, 4, 16, -3])


def test_affine_goes_shear_rotation_scale_shift():
    moved = centre(affine(dot(-4, 0), shear=45, fill=0))[0]  # up is slanted to the right
    np.testing.assert_allclose(moved, [-4, 4], atol=0.05)
    moved = centre(affine(dot(0, 5), degrees=90, fill=0))[0]  # right turns up
    np.testing.assert_allclose(moved, [-5, 0], atol=0.05)
    everything = affine(dot(-4, 0), shear=45, degrees=90, scale=2, shift=(3, -1), fill=0)
    # (-4, 0) is slanted to (-4, 4), turned to (-4, -4), scaled to (-8, -8), shifted to (-5, -9)
    np.testing.assert_allclose(centre(everything)[0], [-5, -9], atol=0.05)


def test_affine_takes_one_value_a_picture():
    x = batch(B=3)
    out = affine(x, degrees=np.array([0, 180, 0]), shift=np.array([[0, 0], [0, 0], [1, -2]]))
    expected = np.stack([x[0], x[1, :, ::-1, ::-1], rolled(x[2], 1, -2, -1)])
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_affine_equals_pillow_of_one_picture():
    """Another's bilinear resampling: the same numbers inside, where no fill comes in."""
    x = batch(B=1, C=1, H=21, W=21)
    theirs = np.asarray(Image.fromarray(x[0, 0]).rotate(30, Image.Resampling.BILINEAR))
    np.testing.assert_allclose(affine(x, degrees=30)[0, 0, 5:16, 5:16], theirs[5:16, 5:16], atol=1e-4)


def test_random_affine_draws_evenly_within_its_strengths():
    """Pictures whose values are their own coordinates: what comes out is where it came from."""
    rng, offset = np.random.default_rng(4), np.arange(9.0) - 4
    x = np.broadcast_to(np.stack(np.meshgrid(offset, offset, indexing="ij")), (2000, 2, 9, 9))

    def sources(**strength):
        out = random_affine(x, rng, **strength)  # (B, 2, 9, 9): (row, column) before, at each (row, column) after
        return out[:, :, 4, 4], out[:, :, 5, 4] - out[:, :, 4, 4], out[:, :, 4, 5] - out[:, :, 4, 4]

    origin, down, right = sources(shift=3)
    spread(origin[:, 0], 3)
    spread(origin[:, 1], 3)
    assert abs(np.corrcoef(origin.T)[0, 1]) < 0.1
    np.testing.assert_allclose(np.stack([down, right], axis=1), [np.eye(2)] * 2000, atol=1e-12)
    origin, down, right = sources(degrees=40)
    spread(np.degrees(np.arctan2(right[:, 0], right[:, 1])), 40)
    np.testing.assert_allclose(np.hypot(*right.T), 1)
    origin, down, right = sources(scale=0.5)
    spread(np.log(right[:, 1]), np.log(1.5))
    np.testing.assert_allclose(right[:, 1], down[:, 0])
    origin, down, right = sources(shear=30)
    spread(np.degrees(np.arctan(down[:, 1])), 30)
    np.testing.assert_allclose(right, [[0, 1]] * 2000, atol=1e-12)
    np.testing.assert_allclose(origin, 0, atol=1e-12)


def spread(values, limit):
    """Uniform from -limit to limit: the quarters are where they belong, and nothing is outside."""
    assert np.abs(values).max() <= limit * (1 + 1e-9)
    quarters = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quarters, limit * np.array([-1, -0.5, 0, 0.5, 1]), atol=0.1 * limit)


def test_random_affine_fills():
    x = np.full((50, 1, 6, 7), 0.5)
    out = random_affine(x, np.random.default_rng(0), shift=5, fill=2.0)
    assert (out.min(), out.max()) == (0.5, 2.0)


@pytest.mark.parametrize("name", ["degrees", "shift", "scale", "shear"])
@pytest.mark.parametrize("value", [-1, np.inf, np.nan])
def test_random_affine_refuses_a_strength_below_0(name, value):
    with pytest.raises(ShapeError, match=rf"random_affine: {name}={value}.\n  rule: 0 <= {name}"):
        random_affine(batch(), np.random.default_rng(0), **{name: value})


def test_affine_refuses_another_rank():
    with pytest.raises(ShapeError, match=r"affine: x has the shape \(3, 7, 6\)"):
        affine(batch()[0])
