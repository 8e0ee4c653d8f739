"""Which of three photos a photo is most like: a question for a model that has learned no classes."""

import numpy as np

from .. import images, ops
from ..autograd import no_grad

BOX = ("cat.jpg", "coffee.jpg", "pagoda.jpg")  # the photos that a photo is compared with
TEMPERATURE = 3  # times a cosine of -1 to 1: differences that softmax sees, and never a 0


def classifier(model, pixel_values):
    """Three photos as a classifier: (mean, rows), the mean of their class tokens (D,) and what each differs by (3, D).

    Without their mean, since what all photos have in common says nothing; and of length 1, so that the answer is a
    cosine. pixel_values: a function that makes of a photo's path what the model wants, (1, C, H, W).
    """
    with no_grad():
        tokens = []
        for name in BOX:
            output = model(pixel_values(images.photo(name)), interpolate_pos_encoding=True)
            tokens.append(output.last_hidden_state.data[0, 0])
    mean = np.mean(tokens, axis=0)
    rows = np.stack(tokens) - mean
    return mean, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def which_of_three(cls, classifier):
    """Class tokens (B, D) -> logits (B, 3): TEMPERATURE times the cosine between what each has beyond the mean."""
    mean, rows = classifier
    own = cls - mean  # (B, D)
    own = own / (own * own).sum(1, keepdims=True).sqrt()
    return ops.einsum("BD,KD->BK", own, rows) * TEMPERATURE
