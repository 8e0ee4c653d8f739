# ---
# jupyter:
#   kernelspec: {display_name: Python 3, name: python3}
# ---

# %% [markdown]
# # 8b. Five wrong backwards, caught live
#
# The question: a model with a wrong gradient often still learns, only worse. So how do
# you know that a backward is right?
#
# Builds: the right step for a finite difference; five backwards, each wrong by a line,
# and what gradcheck says; what it cannot find; a whole model in six forward passes.
#
# New ideas: (1) *central differences*, between truncation error and rounding error;
# (2) the *random cotangent*; (3) *gradcheck*, and how each mistake looks; (4) what it
# cannot find: a wrong forward; (5) *directional derivatives*, for a whole model.
#
# Teach: 40 minutes. Run: 2 seconds.
#
# Axes: N patches, D hidden size; q k query and key tokens. An op makes y of x, or z of
# x and y; d before a name is a gradient.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivit import differentiable, gradcheck, images, lessons, ops, plots, vit
from minivit.gradcheck import GradientError, compare

pixels = images.pixel_values(lessons.photo(), 32).astype(np.float64)  # (C, H, W)
rng = np.random.default_rng(0)

# %% [markdown]
# ## How far do you move a number?
#
# To move each number is too slow to train with (lesson 8), and just right for a test.
# Move it by eps up and down: a *central difference*. If eps is large, we measure the
# curve and not the slope: a *truncation error*, like eps * eps. If it is small, both
# losses agree in nearly all digits, and the difference is noise: a *rounding error*,
# like 1e-16 / eps. Which eps is best? Guess before you run.

# %%
x = pixels[0, 12:16, 12:16].reshape(-1)  # 16 pixels of the photo, the scores
v = rng.standard_normal(16)
y = np.exp(x) / np.exp(x).sum()  # pixels lie between -1 and 1: no maximum needed here
right = y * (v - (y * v).sum())  # the gradient of softmax(x) . v

def error_of(eps, dtype):
    moves = np.eye(16, dtype=dtype) * dtype(eps)
    up, down = (np.exp(x.astype(dtype) + sign * moves) for sign in (1, -1))  # (16, 16)
    up, down = (e / e.sum(1, keepdims=True) @ v.astype(dtype) for e in (up, down))
    return np.linalg.norm((up - down) / dtype(2 * eps) - right) / np.linalg.norm(right)

eps, errors = 10.0 ** -np.arange(1, 13), {}
for dtype in (np.float64, np.float32):
    error = [error_of(step, dtype) for step in eps]
    errors[dtype.__name__] = eps, error
    print(dtype.__name__, f"at best {min(error):.0e}, eps {eps[np.argmin(error)]:.0e}")
assert min(errors["float64"][1]) < 1e-7 < 1e-6 < min(errors["float32"][1])
panel = {"xscale": "log", "yscale": "log", "xlabel": "eps", "ylabel": "relative error"}
caption = "Right of its lowest point a line shows truncation, left of it rounding."

# %%
plots.curves({"lines": errors, **panel}, name="step_size", caption=caption)
plt.show()

# %% [markdown]
# So gradcheck computes in float64, with eps 1e-6, near the best step, and allows a
# relative error of 1e-5.
#
# ## Many outputs, one number
#
# A central difference needs one number, an op returns many. Add them up? A softmax sums
# to 1 wherever you are: every gradient of that sum is 0. A backward of zeros passes.

# %%
@differentiable
def lazy_softmax(x):
    return ops.softmax(x).data, lambda dy: np.zeros_like(dy)

scores, found = rng.standard_normal((4, 3)), {}  # (q, k)
print("lazy softmax, summed:", gradcheck(lambda x: lazy_softmax(x).sum(), scores))

def catch(fn, *inputs):
    """Print what gradcheck says, keep the worst. -> whether it found a mistake."""
    try:
        return not gradcheck(fn, *inputs)
    except GradientError as error:
        found[fn.__name__] = max(compare(fn, *inputs), key=lambda each: each.worst)
        print(error)
        return True

assert catch(lazy_softmax, scores)

# %% [markdown]
# So gradcheck gives each output a random weight, the *random cotangent*, then adds. No
# output can hide behind another.
#
# ## One
#
# All five run, none crashes, each shape is right. **Find the mistake before you run the
# cell.** The mean over the patches, as a summary of a photo:

# %%
@differentiable
def mean_of_patches(x):
    return x.mean(0), lambda dy: np.broadcast_to(dy, x.shape)  # (N, D) -> (D,)

assert catch(mean_of_patches, rng.standard_normal((5, 4)))

# %% [markdown]
# The 1 / N is missing, and gradcheck tells us N. **Two**: a difference, as in add.

# %%
@differentiable
def difference(x, y):
    return x - y, lambda dz: (dz, dz)

square = rng.standard_normal((4, 4))
assert catch(difference, square, square.T)

# %% [markdown]
# It names the argument: x is right, y has the wrong sign. **Three**: a linear layer.
# The weight is (out, in), here both 4, so every shape fits.

# %%
@differentiable
def project(x, weight):
    return x @ weight.T, lambda dy: (dy @ weight, x.T @ dy)

assert catch(project, rng.standard_normal((6, 4)), square)

# %% [markdown]
# It is dy.T @ x. With 4 inputs and 3 outputs the engine would have refused the shape:
# so test with odd, unequal sizes. **Four**: take the mean away, as a layer norm does.

# %%
@differentiable
def centre(x):
    return x - x.mean(), lambda dy: dy

assert catch(centre, rng.standard_normal(12))

# %% [markdown]
# The mean depends on x, too: a second road, and its gradient is missing. **Five**, the
# meanest: GELU, forward with the usual tanh in place of the normal distribution.

# %%
@differentiable
def nearly_gelu(x):
    cdf = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return x * cdf, lambda dy: dy * (cdf + x * density)

catch(nearly_gelu, np.linspace(-3, 3, 24))
off = found["nearly_gelu"].backward - found["nearly_gelu"].numeric
print(f"largest difference {abs(off).max():.1e}: a test of three decimals lets it pass")
assert 1e-4 < abs(off).max() < 1e-3

# %% [markdown]
# The density is that of the exact GELU, not the slope of the tanh. This one is
# published: class GELU of numpy-ml (Bourgin, neural_nets/activations/activations.py)
# has that pair in `fn` and `grad`. All five and the lazy softmax, backward against what
# really happens:

# %%
plots.agreement(
    found,
    name="five_wrong_backwards",
    caption="A dot is an entry of a gradient; what is right lies on the dashed line.",
)
plt.show()

# %% [markdown]
# nearly_gelu lies on the line, to the eye. A picture does not replace the number.
#
# ## What gradcheck cannot find
#
# It asks whether backward and forward belong together, at the inputs that you gave. If
# *forward* is wrong, and backward agrees, it is content. What you did not try, it does
# not see.

# %%
@differentiable
def absolute(x):
    return abs(x), lambda dy: dy

wrong_axis = ops.softmax(scores, axis=0).data  # over the queries
print("softmax over the queries:", gradcheck(lambda x: ops.softmax(x, axis=0), scores))
print("but the rows sum to", *wrong_axis.sum(1).round(2))
print("absolute, of numbers above 0:", gradcheck(absolute, rng.random(6)))
assert catch(absolute, scores)

# %% [markdown]
# So test the values against a plain version, and the gradients on every kind of input.
#
# ## A whole model
#
# Thousands of numbers, two forward passes each? Move *all* of them at once, along a
# random direction: the *directional derivative*, two passes for a direction. We check a
# small ViT: as it is; with a GELU that forgets its slope; with the nearly right one.

# %%
sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
sizes |= {"intermediate_size": 20, "image_size": 32, "patch_size": 8, "num_labels": 5}
model = vit.ViTForImageClassification(vit.ViTConfig(**sizes), rng=0).to(np.float64)

@differentiable
def no_slope(x):
    return ops.gelu(x).data, lambda dy: dy

def loss(*parameters):
    return model.eval()(pixels[None], labels=[3]).loss

worst = {}
for gelu in (ops.gelu, no_slope, nearly_gelu):
    for layer in model.vit.encoder.layer:
        layer.intermediate.intermediate_act_fn = gelu
    worst[gelu.__name__] = compare(loss, *model.parameters(), directions=3)[0].worst
    print(f"{gelu.__name__}: relative error {worst[gelu.__name__]:.0e}, allowed 1e-5")
assert worst["gelu"] < 1e-5 < worst["no_slope"]

# %% [markdown]
# That is 4,989 gradients by 6 forward passes, not 9,978. The missing slope shows. But
# the fifth mistake drowns in the rest. So check each op by its numbers, then the model.
#
# ## Your turn
#
# In pairs: one writes an op whose backward is wrong, with the right shape. The other
# finds the mistake, first by reading, then with `catch`. Which one took longest?
#
# ## What you can say now
#
# - A central difference has a best step; float32 has no good one.
# - gradcheck compares backward with forward, under a random cotangent: a sum can hide
#   a mistake.
# - It knows nothing of a wrong forward, nor of inputs that it was not given.
# - A whole model is checked along directions, after its ops one by one.
#
# ## Exercises
#
# - Repair all five, until `gradcheck` says True.
# - `(x - x.mean()) / x.std()`, with a backward that takes mean and std for constants:
#   which hint does gradcheck give?
#
# Sources: Hendrycks and Gimpel 2016, Baydin et al. 2018.
#
# In the explorer, a page that `minivit explore --model digits --out digits.html`
# writes: [digits.html#lesson=8](../digits.html#lesson=8)
