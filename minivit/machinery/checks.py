"""What the models refuse, each with its reason. A class names a guard in one line; what is refused stands here.

A guard that returns something returns what it was given, in the form in which the class goes on with it.
Letters as in vit.py.
"""

import numpy as np

from ..errors import MinivitError, ShapeError, check_whole


def whole_numbers(where, **sizes):
    """Refuse a size that is no whole number from 1 on."""
    for name, size in sizes.items():
        check_whole(where, name, size)


def is_tensor(x):
    """Whether x is a Tensor, which lives above this room."""
    return hasattr(x, "requires_grad")


# ---- vit.py


def config(where, config, kind):
    """Refuse a config that is a dict or the name of a size."""
    if not isinstance(config, kind):
        raise MinivitError(
            where,
            f"config is a {type(config).__name__}.",
            rule="it is a ViTConfig.",
            hint="ViTConfig(hidden_size=64, ...), ViTConfig.tiny(), or ViTConfig.from_dict(fields).",
        )


def pixel_values(pixels, layer, any_size):
    """An array or Tensor (B, C, H, W) that the PatchEmbeddings `layer` can take; an array in the dtype of the weights.

    any_size: H and W may be other than the image_size.
    """
    where, dtype = type(layer).__name__, layer.projection.weight.dtype
    if pixels.ndim != 4 or not len(pixels):
        raise ShapeError(
            where,
            f"pixel_values have shape {pixels.shape}.",
            rule="pixel_values are (B, C, H, W): a batch of one image or more, channels first.",
            hint="images.pixel_values(photo)[None] makes a batch of one photo.",
        )
    _, C, height, width = pixels.shape
    if C != layer.num_channels:
        raise ShapeError(
            where,
            f"pixel_values {pixels.shape} have {C} channels, the model {layer.num_channels}.",
            rule="pixel_values are (B, C, H, W), channels first.",
            hint="x.transpose(0, 3, 1, 2) brings the channels of (B, H, W, C) to the front."
            if width == layer.num_channels
            else f"a model for such pictures has ViTConfig(num_channels={C}, ...).",
        )
    if not any_size and (height, width) != layer.image_size:
        raise ShapeError(
            where,
            f"Input image size ({height}*{width}) doesn't match model ({layer.image_size[0]}*{layer.image_size[1]}).",
            rule="each position embedding belongs to one patch of the configured image_size.",
            hint="resize with images.pixel_values(photo, size=...), or pass interpolate_pos_encoding=True.",
        )
    if pixels.dtype.kind != "f" or (is_tensor(pixels) and pixels.dtype != dtype):
        raise ShapeError(
            where,
            f"pixel_values are {pixels.dtype}, the weights {dtype}.",
            rule="pixel_values are floating-point numbers, about -1 to 1; a Tensor has the dtype of the weights.",
            hint="images.pixel_values(photo) scales a photo; model.to(np.float64) converts the weights.",
        )
    if is_tensor(pixels):
        return pixels
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which finite_pixels refuses
        return pixels.astype(dtype, copy=False)


def finite_pixels(where, pixels, tokens):
    """Refuse NaN and infinity among the pixels. tokens: (B, D, ...), what a linear map made of them.

    A pixel that is not finite makes all D numbers of its token so. One of them is looked at, one number a patch, and
    the pixels themselves only where that one is not finite.
    """
    if not np.isfinite(np.asarray(tokens)[:, 0]).all() and not np.isfinite(np.asarray(pixels)).all():
        raise ShapeError(where, "pixel_values hold NaN or infinity.", hint="look at the photo and its scaling.")


def bool_masked_pos(mask, shape, has_mask_token):
    """The mask as an array of True and False, one for each patch: shape is (B, N)."""
    mask = np.asarray(mask)
    if not has_mask_token or mask.shape != shape or mask.dtype != bool:
        raise ShapeError(
            "ViTEmbeddings",
            f"bool_masked_pos is {mask.dtype} {mask.shape}.",
            rule=f"True or False for each patch, (B, N) = {shape}, and a model with a mask token.",
            hint="ViTForMaskedImageModeling has one.",
        )
    return mask


def hidden_states(tokens):
    """Refuse tokens of one image without its batch."""
    if tokens.ndim != 3:
        raise ShapeError(
            "ViTSelfAttention",
            f"hidden_states have the shape {tokens.shape}.",
            rule="(B, T, D), the tokens of B images.",
            hint="one image is a batch of one: hidden_states[None].",
        )


def head_mask(mask, heads, dtype):
    """Refuse a mask (a Tensor) that is not (h,) or (L, h). heads: how many each layer has; dtype: of the weights."""
    L, shape = len(heads), mask.shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] != L) or any(shape[-1] != h for h in heads):
        raise ShapeError(
            "ViTModel",
            f"head_mask has shape {shape}.",
            rule=f"(h,) or (L, h), for L = {L} layers with h = {', '.join(map(str, sorted(set(heads))))} heads.",
        )
    if mask.requires_grad and mask.dtype != dtype:
        raise ShapeError("ViTModel", f"head_mask is {mask.dtype}.", rule=f"it has the weights' {dtype}.")


def heads(heads, count):
    """The set of these heads, of a layer that had `count` of them when it was made."""
    unknown = [head for head in heads if head not in range(count)] if np.iterable(heads) else [heads]
    if unknown:
        raise MinivitError(
            "prune_heads",
            f"there is no head {unknown[0]!r}." if np.iterable(heads) else f"heads={heads!r} is not a list.",
            rule=f"a list of heads, which are numbered 0 to {count - 1}.",
        )
    return {int(head) for head in heads}


def heads_to_prune(heads_to_prune, counts):
    """Refuse what is not {layer: [heads]}. counts: how many heads each layer had when it was made."""
    if not isinstance(heads_to_prune, dict):
        raise MinivitError("prune_heads", f"{heads_to_prune!r}.", rule="{layer: [heads]}, as {0: [1, 2]}.")
    for number in heads_to_prune:
        if number not in range(len(counts)):
            raise MinivitError(
                "prune_heads", f"there is no layer {number!r}.", rule=f"layers are numbered 0 to {len(counts) - 1}."
            )
        heads(heads_to_prune[number], counts[number])


def painted(image, patch_size, stride):
    """Refuse to compare where not every pixel (H, W) is painted: patches are the squares that a token is decoded to."""
    if patch_size != (stride, stride):
        side = patch_size[0] if patch_size[0] == patch_size[1] else patch_size
        raise ShapeError(
            "ViTForMaskedImageModeling",
            f"patch_size={side} and encoder_stride={stride}.",
            rule="with bool_masked_pos they are equal, so that the pixels are as many as came in.",
            hint=f"ViTConfig(..., encoder_stride={patch_size[0]}).",
        )
    if image[0] % stride or image[1] % stride:
        raise ShapeError(
            "ViTForMaskedImageModeling",
            f"an image of {image[0]} x {image[1]} pixels.",
            rule=f"with bool_masked_pos every pixel is in a patch: both sides are multiples of {stride}.",
            hint="resize or crop the image.",
        )


# ---- notebook.py


def image(image, kernel_size):
    """One image (C, W, H), an array or a Tensor, that the kernel fits into; NaN and infinity are refused."""
    data = image.data if is_tensor(image) else image
    if data.ndim != 3 or (len(data) > 4 and data.shape[2] in (1, 3, 4)):
        raise ShapeError(
            "PatchEmbeddings",
            f"the image has shape {data.shape}.",
            rule="one image (C, W, H): no batch, channels first.",
            hint="photo.transpose(2, 1, 0) turns (H, W, C) into (C, W, H); batch[0] is one image of a batch.",
        )
    if not 1 <= kernel_size <= min(data.shape[1:]):
        raise ShapeError(
            "PatchEmbeddings",
            f"kernel_size={kernel_size} on an image of {data.shape[1]} x {data.shape[2]} pixels (W x H).",
            rule="the kernel is at least 1 pixel and fits into the image.",
        )
    if not np.isfinite(data).all():
        raise ShapeError("PatchEmbeddings", "the image holds NaN or infinity.", hint="look at the photo.")
    return image


def tokens(where, x, width):
    """Refuse tokens that are not (T, width)."""
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] != width:
        raise ShapeError(
            where,
            f"the tokens are of type {type(x).__name__}." if shape is None else f"the tokens have shape {shape}.",
            rule=f"(tokens, {width}): one image, no batch.",
            hint=f"Embedding(image, out_channels={width}, kernel_size=3)() gives such tokens; mind the last brackets.",
        )


def input_dim(input_dim, heads):
    """Refuse a width that the heads do not share evenly."""
    if heads < 1 or input_dim % heads:
        raise ShapeError(
            "MultiheadSelfAttention",
            f"input_dim={input_dim} cannot be split over heads={heads}.",
            rule="input_dim % heads == 0" + (f", but {input_dim} % {heads} = {input_dim % heads}" if heads else ""),
            hint=f"heads may be {', '.join(str(n) for n in range(1, input_dim + 1) if input_dim % n == 0)}.",
        )


def value_einsum(value_einsum, shape, expected):
    """Refuse an equation that makes, on a trial, a context of another shape than expected, (q, h, d)."""
    if shape != expected:
        raise ShapeError(
            "MultiheadSelfAttention",
            f'value_einsum="{value_einsum}" does not give the context (q, h, d).',
            rule="it takes scores (q, h, k) and values (k, h, d), in this order.",
            hint='use "qhk,khd->qhd", or "nhn,nhd->nhd" for the numbers of the notebook.',
        )
