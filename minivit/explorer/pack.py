"""Arrays as entries of the page's JSON, and back: base64 of their bytes, deflated where that is shorter.

An entry is {"shape", "dtype", "deflate", "data"} and, where numbers were rounded to steps, {"axis", "scale", "offset"}.
data.js reads what is written here; float16 comes as all low bytes, then all high bytes, which deflate better.
"""

import base64
import math
import zlib

import numpy as np

DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "<i1", "uint8": "<u1"}
LARGEST = 2.0**15  # what the largest number of a float16 entry is scaled to, so that small ones keep their digits


def pack(x, dtype="float32"):
    """An array as an entry. dtype: float32 and float16 round; int8 and uint8 hold whole numbers that fit.

    float16: {"scale"} is a power of two, so that neither a gradient of 1e-9 nor a norm of 1e6 leaves its range.
    """
    x = np.asarray(x)
    if dtype != "float16":
        return _entry(x.astype(DTYPES[dtype], order="C"), dtype)
    largest = float(abs(x).max(initial=0))
    scale = 2.0 ** math.ceil(math.log2(largest / LARGEST)) if largest > 0 else 1.0
    return _entry((x / scale).astype(DTYPES[dtype], order="C"), dtype) | {"scale": scale}


def pack_steps(x, axis, bits=8):
    """An array rounded to 2^bits steps from the least to the largest number along `axis`, a range for each channel.

    x is offset + scale * step; scale and offset are entries, of x's shape with 1 at `axis`. A channel is wrong by half
    a step at most, a 500th of its range for 8 bits. Fewer bits deflate to so much less.
    """
    x = np.asarray(x, np.float64)
    axis %= x.ndim
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    offset = pack_below(low)
    start = unpack(offset)
    scale = pack_below(-(high - start) / (2**bits - 1))  # rounded up: the steps reach the largest number
    scale["scale"] *= -1
    step = unpack(scale)
    steps = np.rint((x - start) / np.where(step == 0, 1, step)).clip(0, 2**bits - 1)
    return pack(steps, "uint8") | {"axis": axis, "scale": scale, "offset": offset}


def pack_below(x):
    """An array as float16 that is nowhere above it."""
    entry = pack(x, "float16")
    found = unpack(entry)
    half = (found / entry["scale"]).astype(np.float16)
    half = np.where(found > x, np.nextafter(half, np.float16(-np.inf)), half)
    return _entry(half.astype("<f2"), "float16") | {"scale": entry["scale"]}


def unpack(entry):
    """The array of an entry, in float64: what data.js makes of it."""
    data = base64.b64decode(entry["data"])
    data = zlib.decompress(data) if entry["deflate"] else data
    if entry["dtype"] == "float16":
        data = np.frombuffer(data, np.uint8).reshape(2, -1).T.tobytes()
    x = np.frombuffer(data, DTYPES[entry["dtype"]]).astype(np.float64).reshape(entry["shape"])
    scale, offset = entry.get("scale", 1.0), entry.get("offset")
    return x * scale if offset is None else x * unpack(scale) + unpack(offset)


def _entry(x, dtype):
    data = x.tobytes()
    if dtype == "float16":
        data = np.frombuffer(data, np.uint8).reshape(-1, 2).T.tobytes()
    shorter = min(zlib.compress(data, 9), _huffman(data), key=len)
    deflate = len(shorter) < len(data)
    text = base64.b64encode(shorter if deflate else data).decode("ascii")
    return {"shape": list(x.shape), "dtype": dtype, "deflate": deflate, "data": text}


def _huffman(data):
    """Deflated without a search for repetitions, of which measured numbers have none."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    return packer.compress(data) + packer.flush()
