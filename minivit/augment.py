"""Augmentation: a batch of pictures, each changed in its own way, all at once.

B batch, C channels, H W pixels. Every random_* takes a batch (B, C, H, W) of floats and an np.random.Generator, and
returns a new batch of the same shape and dtype; a strength of 0 changes nothing. What comes in from outside a picture
is `fill`, one value for all: -1 is black in pixel_values. ShapeError for another rank or dtype or a wrong strength.
"""

import numpy as np

from .errors import MinivitError, ShapeError


def random_flip(x, rng):
    """Mirror each picture, left to right, with probability 1/2."""
    _check("random_flip", x, rng)
    flipped = rng.random((len(x), 1, 1, 1)) < 0.5  # (B, 1, 1, 1)
    return np.where(flipped, x[..., ::-1], x)


def random_crop(x, padding, rng, fill=-1.0):
    """Pad each picture by `padding` pixels on every side and cut one of the old size out of it.

    This is a shift by whole pixels, up to `padding` down or up and as much across; nothing is blurred.
    """
    _check("random_crop", x, rng, padding=padding)
    if padding != int(padding):
        raise ShapeError(
            "random_crop",
            f"padding={padding}.",
            rule="whole pixels",
            hint="random_affine(shift=...) shifts by parts of a pixel.",
        )
    B, _, H, W = x.shape
    padding = int(padding)
    wide = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (H, W), axis=(2, 3))  # (B, C, 2p + 1, 2p + 1, H, W)
    down, right = rng.integers(0, 2 * padding + 1, B), rng.integers(0, 2 * padding + 1, B)
    return windows[np.arange(B), :, down, right]  # (B, C, H, W)


def random_affine(x, rng, *, degrees=0.0, shift=0.0, scale=0.0, shear=0.0, fill=-1.0):
    """Rotate, scale, slant and shift each picture by random amounts, in one resampling (see affine).

    degrees, shear: angles up to so much either way. shift: up to so many pixels down or up, and across. scale: up to
    1 + scale times larger or smaller, equally often. All uniform, the scale in its logarithm.
    """
    strengths = {"degrees": degrees, "shift": shift, "scale": scale, "shear": shear}
    _check("random_affine", x, rng, **strengths)
    B = len(x)
    return affine(
        x,
        degrees=rng.uniform(-degrees, degrees, B),
        shift=rng.uniform(-shift, shift, (B, 2)),
        scale=np.exp(rng.uniform(-1, 1, B) * np.log1p(scale)),
        shear=rng.uniform(-shear, shear, B),
        fill=fill,
    )


def affine(x, *, degrees=0.0, shift=(0.0, 0.0), scale=1.0, shear=0.0, fill=-1.0):
    """Slant, then rotate and scale about the centre, then shift: bilinear, each output pixel from four of x.

    degrees: counter-clockwise; shift: (down, right) in pixels; scale: > 1 is larger; shear: degrees by which upright
    lines lean to the right. Each for all pictures, or one a picture: (B,), and (B, 2) for shift.
    """
    _check_batch("affine", x)
    B, C, H, W = x.shape
    angle, (down, right) = np.radians(degrees), np.broadcast_to(shift, (B, 2)).T
    each = (np.cos(angle) / scale, np.sin(angle) / scale, np.tan(np.radians(shear)), down, right)
    cos, sin, slant, down, right = (np.broadcast_to(value, B).astype(x.dtype).reshape(B, 1, 1) for value in each)

    # Backwards: where in x does each pixel of the result come from? Counted from the centre.
    i = np.arange(H, dtype=x.dtype).reshape(H, 1) - (H - 1) / 2 - down  # (B, H, 1)
    j = np.arange(W, dtype=x.dtype) - (W - 1) / 2 - right  # (B, 1, W)
    row = cos * i + sin * j  # (B, H, W)
    column = cos * j - sin * i + slant * row  # (B, H, W)

    # A frame of `fill`, one pixel before and two after, so that all four neighbours exist and outside is constant.
    # The channels come first, so that all of them share one index.
    wide = np.full((C, B, H + 3, W + 3), fill, x.dtype)
    wide[..., 1:-2, 1:-2] = x.swapaxes(0, 1)
    wide = wide.reshape(C, -1)  # (C, B * (H + 3) * (W + 3))
    row = np.clip(row + (H + 1) / 2, 0, H + 1)
    column = np.clip(column + (W + 1) / 2, 0, W + 1)
    top, left = row.astype(np.intp), column.astype(np.intp)  # rounded down: nothing is below 0
    at = (np.arange(B).reshape(B, 1, 1) * (H + 3) + top) * (W + 3) + left  # (B, H, W), the upper left neighbour
    row -= top
    column -= left

    def between(at):
        value = wide.take(at, axis=1)  # (C, B, H, W)
        return value + (wide.take(at + 1, axis=1) - value) * column

    upper = between(at)
    return (upper + (between(at + W + 3) - upper) * row).swapaxes(0, 1)  # (B, C, H, W)


def _check_batch(where, x):
    if x.ndim != 4 or x.dtype.kind != "f":
        raise ShapeError(
            where,
            f"x has the shape {x.shape} and the dtype {x.dtype}.",
            rule="(B, C, H, W), floats",
            hint="one picture: x[None]. uint8 pictures: Dataset.batch makes them floats in -1..1.",
        )


def _check(where, x, rng, **strengths):
    _check_batch(where, x)
    if not isinstance(rng, np.random.Generator):
        raise MinivitError(
            where,
            f"rng is a {type(rng).__name__}.",
            rule="an np.random.Generator",
            hint="np.random.default_rng(0), made once: a seed would draw the same each time.",
        )
    for name, value in strengths.items():
        if not 0 <= value < np.inf:
            raise ShapeError(where, f"{name}={value}.", rule=f"0 <= {name}, finite")
