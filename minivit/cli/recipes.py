"""Recipes: for each kind of data, the model, the augmentation and the training that `minivit train` uses by default."""

import math
from dataclasses import dataclass, field

from .. import augment, optim, training
from ..errors import MinivitError


@dataclass
class Recipe:
    """How to train: `model` are ViTConfig's fields; `affine`, `crop` and `flip` are the augmentation (see augment).

    lr: of AdamW at the top of a warm-up over a tenth of the steps (100 at most) and half a cosine. decay: of the
    average of the weights, which is what is kept.
    """

    epochs: int
    batch_size: int
    lr: float
    model: dict = field(default_factory=dict)
    affine: dict = field(default_factory=dict)
    crop: int = 0
    flip: bool = False
    weight_decay: float = 0.1
    label_smoothing: float = 0.1
    max_norm: float = 1.0
    decay: float = 0.999

    def __post_init__(self):
        if not (0 < self.lr < math.inf and self.epochs > 0 and self.batch_size > 0):
            came = f"lr={self.lr}, epochs={self.epochs}, batch_size={self.batch_size}"
            raise MinivitError("Recipe", f"{came}.", rule="all three are above 0, and finite.")

    def augment(self, pixel_values, rng):
        """The batch (B, C, H, W), each picture changed in its own way."""
        if self.affine:
            pixel_values = augment.random_affine(pixel_values, rng, **self.affine)
        if self.crop:
            pixel_values = augment.random_crop(pixel_values, self.crop, rng)
        if self.flip:
            pixel_values = augment.random_flip(pixel_values, rng)
        return pixel_values

    def fit(self, model, train, test=None, *, rng=0, loss=None, checkpoint=None, resume=False, verbose=True):
        """training.fit with this recipe, for the parameters that require a gradient. Returns the history."""
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        steps = self.epochs * -(-len(train) // self.batch_size)
        return training.fit(
            model,
            train,
            test,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=optim.AdamW(learned, lr=self.lr, weight_decay=self.weight_decay),
            schedule=optim.warmup_cosine(steps, min(steps // 10, 100)),
            augment=self.augment,
            label_smoothing=self.label_smoothing,
            rng=rng,
            checkpoint=checkpoint,
            resume=resume,
            loss=loss,
            max_norm=self.max_norm,
            average=optim.ExponentialMovingAverage(model.parameters(), self.decay),
            verbose=verbose,
        )


_SMALL = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
_RECIPES = {
    "digits": Recipe(
        epochs=120,
        batch_size=32,
        lr=2e-3,
        model={
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 8,
            "intermediate_size": 128,
            "patch_size": 4,
            "initializer_range": 0.15,
            "hidden_dropout_prob": 0.1,
        },
        affine={"degrees": 10, "shift": 0.5, "scale": 0.1, "shear": 10},
    ),
    "mnist": Recipe(
        epochs=5,
        batch_size=100,
        lr=1e-3,
        model=_SMALL | {"patch_size": 4, "initializer_range": 0.05},
        affine={"degrees": 10, "shift": 2, "scale": 0.1, "shear": 10},
    ),
    "cifar10": Recipe(
        epochs=20,
        batch_size=100,
        lr=1e-3,
        model=_SMALL | {"patch_size": 4, "initializer_range": 0.05},
        crop=4,
        flip=True,
    ),
    "photos": Recipe(
        epochs=30,
        batch_size=32,
        lr=5e-4,
        model=_SMALL | {"patch_size": 8, "initializer_range": 0.05},
        affine={"degrees": 10, "shift": 4, "scale": 0.2},
        flip=True,
    ),
}
PHOTO_SIZE = 64  # pixels a side that a folder of photos is resized to when a model is trained from scratch


def recipe(data):
    """The Recipe for a data set by its name, as datasets.load takes it."""
    kind = str(data).partition(":")[0]
    return _RECIPES.get(kind, _RECIPES["photos"])
