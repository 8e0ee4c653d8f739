"""What a photo page shows of one photo and one model: every number on the way, its gradient, and the answers without
each head, measured by lens and packed.

Shapes as in vit.py: B batch, C channels, H W pixels, N patches, T = N + 1 tokens, CLS first, D hidden size, h heads,
d head size, L layers; K are the answers.
"""

import base64
import io
from typing import NamedTuple

import numpy as np

from .. import images, lens, ops, weights
from ..autograd import Tensor, no_grad
from ..config import ViTConfig, to_2tuple
from ..course import three
from ..errors import MinivitError
from ..vit import ViTForImageClassification, ViTModel
from .pack import pack, pack_steps

BUDGET = 4_700_000  # bytes of a photo's numbers in the page, which as a whole has 5 MB for each photo
MOST, LEAST = 256, 16  # patches
SHOWN = 640  # pixels of the longer side of the photo that is shown
QUALITY = 80  # of its JPEG
FIRST = 3  # numbers of each token that are kept at each stage
FEW = 10  # answers that are shown whatever they are; of more classes, the TOP of each photo
TOP = 5
BITS = {"hidden": 8, "query": 8, "key": 8, "twin": 4}  # of a number
# of these the page computes the values itself, from query and key
COMPUTED = ("query", "key", "scores", "probabilities")


class View(NamedTuple):
    """A photo as a model sees it: its name, its pixel_values (1, C, H, W), the grid (rows, columns) of its patches, and
    what was looked at as a data URI."""

    name: str
    pixel_values: np.ndarray
    grid: tuple
    picture: str


class Eye:
    """A model that is asked for its answer, and its untrained twin.

    names: of the K answers: the model's classes or, for a model without, the three photos of three.BOX.
    """

    def __init__(self, model, preprocessor):
        self.model, self.config = model, model.config
        self.twin = _twin(model)
        self.options = weights.picture_options(preprocessor, self.config.num_channels)
        self.patches = most_patches(self.config)
        self.classes = hasattr(model, "classifier")
        self.names = self.config.class_names if self.classes else list(three.BOX)
        self._ask = {each: self._question(each) for each in (self.model, self.twin)}

    def _question(self, model):
        """The function that makes logits (B, K) of class tokens (B, D) after the final norm."""
        P = self.config.patch_size
        if self.classes:
            return model.classifier
        # of fewer patches: a photo compared with itself has a cosine of 1, and there the gradient of a cosine is 0
        few = 2 / 3 * self.patches
        known = three.classifier(model, lambda photo: self._pixels(images.fit_patches(self._open(photo), P, few)))
        return lambda cls: three.which_of_three(cls, known)

    def answer(self, cls, model=None):
        """Class tokens (B, D), a Tensor, -> logits (B, K), a Tensor."""
        return self._ask[model or self.model](cls)

    def chances(self, logits):
        """Logits (..., K) -> probabilities: those of each class by itself where a photo may have several."""
        many = self.classes and self.config.task == "multi_label_classification"
        return (ops.sigmoid if many else ops.softmax)(Tensor(np.asarray(logits))).data

    def see(self, photo, name):
        """A View of a photo: as predict sees it where that gives few patches enough, or else of its own ratio."""
        picture = self._open(photo)
        size = self.options["crop"] or self.options["size"]
        P = to_2tuple(self.config.patch_size)
        fits = size and all(side % p == 0 for side, p in zip(size, P, strict=True))
        if self.classes and fits and size[0] // P[0] * (size[1] // P[1]) <= self.patches:
            shown, pixels = self._resize(picture)
        else:
            shown, pixels = self._fit(picture)
        grid = tuple(side // p for side, p in zip(pixels.shape[2:], P, strict=True))
        return View(name, pixels, grid, _data_uri(shown))

    def _open(self, photo):
        picture, note = images.read_image(photo)
        if note:
            print(f"note: {note}")
        return picture.convert("L" if self.config.num_channels == 1 else "RGB")

    def _pixels(self, picture):
        scaling = {name: self.options[name] for name in ("mean", "std", "rescale_factor")}
        return images.pixel_values(np.asarray(picture), do_resize=False, **scaling)[None]  # (1, C, H, W)

    def _resize(self, picture):
        """(photo to show, pixel_values), as predict has them."""
        sides = {name: self.options[name] for name in ("size", "shortest_edge", "crop") if self.options[name]}
        small = images.resized("explore", picture, resample=self.options["resample"], **{"size": None} | sides)
        n = max(1, SHOWN // max(small.size))
        sides = {name: np.multiply(side, n).tolist() for name, side in sides.items()}
        return images.resized("explore", picture, **{"size": None} | sides), self._pixels(small)

    def _fit(self, picture):
        """(photo to show, pixel_values) of about as many patches as are kept."""
        P, Q = to_2tuple(self.config.patch_size)
        about = 1.5 * self.patches  # what is cut away at the edges leaves fewer
        while (small := images.fit_patches(picture, (P, Q), about)).width * small.height > self.patches * P * Q:
            about *= 0.98
        for n in range(max(1, SHOWN // max(small.size)), 0, -1):  # a rounded side may cut one patch more or less
            shown = images.fit_patches(picture, (n * P, n * Q), about)
            if shown.size == (n * small.width, n * small.height):
                break
        return shown, self._pixels(small)


def eye_of(source, folder, fields, tensors):
    """The Eye of a model whose folder was read. MinivitError for one that has nothing to show, or too much."""
    config = ViTConfig.from_dict(fields)
    classes = any(name.startswith("classifier.") for name in tensors)
    faults = {
        "it paints hidden patches, and has no answer": "decoder.0.weight" in tensors,
        "it has no layers": config.num_hidden_layers == 0,
        f"it takes pictures of {config.num_channels} channels": config.num_channels not in (1, 3),
        "it answers with numbers, not with classes": classes and config.task == "regression",
        "heads were cut away (minivit export puts zeros in their places)": bool(config.pruned_heads),
    }
    wrong = [fault for fault, found in faults.items() if found]
    if wrong:
        rule = "a grey or colour ViT with layers of all their heads, a classifier or the body of one."
        raise MinivitError(source, f"this model cannot be explored: {'; '.join(wrong)}.", rule=rule)
    if most_patches(config) < LEAST:
        raise MinivitError(
            source,
            f"this model is too large: a page of {BUDGET / 1e6:.1f} MB has room for {max(0, most_patches(config))} "
            "patches of a photo.",
            rule=f"a photo is cut into {LEAST} patches or more.",
            hint="choose one with fewer layers or a smaller hidden size.",
        )
    if classes:
        model = ViTForImageClassification.from_tensors(fields, tensors)
    else:
        model = ViTModel.from_tensors(fields, tensors, add_pooling_layer=False)
    return Eye(model, weights.preprocessor_of(folder, config))


def most_patches(config):
    """How many patches of a photo are kept so that all of a model's numbers for it take BUDGET bytes."""
    L, D, h = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    # deflated, they are about 0.96 of their bits, and lengths and first numbers 0.85
    hidden = 0.96 * (L + 1) * D * (BITS["hidden"] + BITS["twin"]) / 8
    heads = 0.96 * L * D * (BITS["query"] + BITS["key"] + 2 * BITS["twin"]) / 8
    stages = 0.85 * 2 * ((1 + FIRST) * (2 * (8 * L + 4) + L * h * (2 + 6)) + L * h)
    looks = L * (L - 1) / 2 * h
    pixels = np.prod(to_2tuple(config.patch_size))
    of_channels = 4 * (2 * (L + 1) * D + 4 * L * D)
    room = BUDGET * 3 / 4 - of_channels - 60_000  # for the photo
    return min(MOST, int(room / (hidden + heads + stages + looks + pixels)))


def _twin(model):
    config = type(model.config).from_dict(model.config.to_dict())
    if isinstance(model, ViTForImageClassification):
        return ViTForImageClassification(config, rng=0).eval()
    return ViTModel(config, add_pooling_layer=False, rng=0).eval()


def _data_uri(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def shown_answers(eye, views):
    """The numbers of the answers that the page shows: all of a few, or else the TOP of each photo."""
    K = len(eye.names)
    if K <= FEW:
        return list(range(K))
    with no_grad():
        logits = [eye.model(view.pixel_values, interpolate_pos_encoding=True).logits.data[0] for view in views]
    return sorted({int(k) for each in logits for k in np.argsort(-each, kind="stable")[:TOP]})


def record(eye, view, answers):
    """All that the page shows of one photo, as a dict for JSON. answers: the numbers of those that are shown.

    A number of a hidden state, q or k is off by half a step of its channel, a 500th of its range in this photo. So the
    page's attention, which it computes from q and k, is off by 0.02 at most for the trained eye of the box, and by
    0.0001 in the mean.
    MinivitError where a number is not finite.
    """
    model, x = eye.model, view.pixel_values

    def top(stages):
        logits = eye.answer(stages["last_hidden_state"][:, 0])  # (1, K)
        return logits[0, int(logits.data.argmax())]

    stages = lens.trace(model, x, top)
    with no_grad():
        logits = eye.answer(Tensor(stages["last_hidden_state"].value[:, 0])).data  # (1, K)
    label = int(logits.argmax())
    stages["logits"] = lens.Stage(logits, np.eye(logits.shape[1])[[label]])
    _check_finite(view, stages)
    names = ["embeddings.output", *(f"layer.{i}.output" for i in range(model.config.num_hidden_layers))]
    return {
        "name": view.name,
        "picture": view.picture,
        "grid": view.grid,
        "label": answers.index(label),
        "logits": logits[0, answers].tolist(),
        "probabilities": eye.chances(logits)[0, answers].tolist(),
        "hidden": pack_steps(np.stack([stages[name].value[0] for name in names]), 1, BITS["hidden"]),  # (L + 1, T, D)
        "query": pack_steps(_heads(stages, "query"), 2, BITS["query"]),
        "key": pack_steps(_heads(stages, "key"), 2, BITS["key"]),
        "stages": _stages(stages, model.config.patch_size),
        "average": pack(_averages(stages), "float16"),  # (L, h, T)
        "occlusion": pack(lens.occlusion(model, x, lambda cls: eye.answer(cls)[:, label])),
        "pixel_gradient": pack_steps(abs(stages["pixel_values"].gradient[0]).sum(0), 1),  # (H, W)
        "knocked": _knocked(eye, x, answers),
        "twin": _record_twin(eye, x, names, answers),
    }


def _heads(stages, name):
    """One stage of all layers: (L, h, T, d)."""
    return np.stack([stage.value[0] for key, stage in stages.items() if key.endswith(f".{name}")])


def _averages(stages):
    """sum(dp * p) of all layers, heads and queries, (L, h, T): of dp the page has only the FIRST keys."""
    found = [stage for name, stage in stages.items() if name.endswith(".probabilities")]
    return np.stack([(stage.value[0] * stage.gradient[0]).sum(-1) for stage in found])


def _check_finite(view, stages):
    if not all(np.isfinite(x).all() for stage in stages.values() for x in stage):
        raise MinivitError(
            view.name,
            "what the model makes of it, or its gradient, is not finite.",
            rule="a model's results are finite numbers.",
            hint="its weights are damaged or were spoiled in training: take an earlier copy, or train it anew.",
        )


def _stages(stages, patch_size):
    """Of each stage, for each token and head: the length of its vector and its FIRST numbers, and of its gradient.

    {"list": [{name, of, n}], "scales", "values", "gradients"}: entries (rows, 1 + FIRST) of all stages one behind the
    other, those of values without what the page computes itself; a row is a patch, a token, a head's token (h, T), CLS
    or all, as `of` says, of n numbers. They are times scales, [of values, of gradients] for each stage.
    """
    listed, scales, rows = [], [], {"values": [], "gradients": []}
    for name, stage in stages.items():
        if name == "pixel_values":
            patches = [images.patchify(x[0], patch_size) for x in stage]  # (N, C, P, Q) each
            stage = lens.Stage(*(x.reshape(1, len(x), -1) for x in patches))  # (1, N, C * P * Q)
        of = {"pixel_values": "patches", "embeddings.patches": "patches", "embeddings.cls": "cls"}.get(name)
        of = of or {2: "all", 3: "tokens", 4: "heads"}[stage.value.ndim]
        n = None if name.endswith((".scores", ".probabilities")) else stage.value.shape[-1]  # T, by photo
        listed.append({"name": name, "of": of, "n": n})
        scales.append([])
        for kind, x in zip(rows, stage, strict=True):
            numbers, scale = _numbers(x)
            scales[-1].append(scale)
            if kind == "gradients" or name.rpartition(".")[2] not in COMPUTED:
                rows[kind].append(numbers)
    entries = {kind: pack(np.concatenate(each), "float16") for kind, each in rows.items()}
    return {"list": listed, "scales": scales} | entries


def _numbers(x):
    """(..., n) -> (rows, 1 + FIRST), the length of each vector and its first numbers, over their largest; that one."""
    x = x.reshape(-1, x.shape[-1]).astype(np.float64)  # (rows, n)
    rows = np.zeros((len(x), 1 + FIRST))
    rows[:, 0] = np.sqrt((x * x).sum(1))
    few = x[:, :FIRST]
    rows[:, 1 : 1 + few.shape[1]] = few
    scale = float(f"{rows[:, 0].max():.3g}") or 1.0
    return rows / scale, scale


def _knocked(eye, x, answers):
    """The answers without each head, (L, h, K) each, and what CLS attends to then, a row (T,) for each layer after the
    head's own, the mean over its heads."""
    found = lens.knock_out(eye.model, x, output_attentions=True)
    del found[None]
    L, h = eye.config.num_hidden_layers, eye.config.num_attention_heads
    with no_grad():
        logits = np.stack([eye.answer(Tensor(answer.cls)).data[0] for answer in found.values()]).reshape(L, h, -1)
    looks = [row[0].mean(0) for (i, _), answer in found.items() for n, row in answer.looks.items() if n > i]
    chances = eye.chances(logits)
    return {
        "logits": pack(logits[..., answers]),
        "probabilities": pack(chances[..., answers]),
        "looks": pack_steps(np.stack(looks), 1) if looks else None,  # (rows, T); of one layer there are none
    }


def _record_twin(eye, x, names, answers):
    """Of the untrained twin the hidden states, q and k, and its answers."""
    stages = lens.trace(eye.twin, x)
    with no_grad():
        logits = eye.answer(Tensor(stages["last_hidden_state"].value[:, 0]), eye.twin).data  # (1, K)
    return {
        "label": int(logits[0, answers].argmax()),
        "logits": logits[0, answers].tolist(),
        "probabilities": eye.chances(logits)[0, answers].tolist(),
        "hidden": pack_steps(np.stack([stages[name].value[0] for name in names]), 1, BITS["twin"]),
        "query": pack_steps(_heads(stages, "query"), 2, BITS["twin"]),
        "key": pack_steps(_heads(stages, "key"), 2, BITS["twin"]),
    }
