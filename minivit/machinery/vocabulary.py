"""What is called otherwise elsewhere: names of PyTorch and NumPy, and how the same is written here.

Only names that a reader would look for in vain: what has its PyTorch name needs no entry. In the entries x and y are
tensors, n a number of times.
"""

import functools
import inspect

import numpy as np

from ..errors import MinivitError, UnknownNameError

# keywords of PyTorch, and one of NumPy, for what another keyword means here
KEYWORDS = {"dim": "axis", "keepdim": "keepdims", "unbiased": "correction", "ddof": "correction"}

_PROCESSOR = "leave it out: all numbers lie in the memory of the CPU, which computes with them"
_REPEAT = "x.unsqueeze(-1).expand(..., n) for each number n times, ops.concatenate([x] * n) for the whole"
_NORM = "nn.LayerNorm(size), which normalises each token by itself; a norm over the batch is not here"
_HALF = "x.float(): float32 and float64 are what has gradients here"

FUNCTIONS = {  # of torch, torch.nn.functional or numpy
    "absolute": "ops.abs(x)",
    "add.reduce": "ops.sum(x, axis)",
    "amax": "ops.max(x, axis)",
    "amin": "ops.min(x, axis)",
    "bmm": "ops.matmul(x, y), or x @ y",
    "broadcast_to": "ops.expand(x, shape)",
    "cat": "ops.concatenate(tensors, axis)",
    "clamp": "ops.clip(x, min, max)",
    "column_stack": "ops.stack(tensors, axis=1), or of matrices ops.concatenate(tensors, axis=1)",
    "concat": "ops.concatenate(tensors, axis)",
    "cumsum": "ops.matmul(x, np.triu(np.ones((n, n)))) along a last axis of n",
    "div": "x / y",
    "dot": "ops.matmul(x, y), or x @ y",
    "dstack": "ops.stack(tensors, axis=-1)",
    "expand_dims": "ops.unsqueeze(x, axis)",
    "expm1": "ops.exp(x) - 1",
    "flip": "x[::-1] along axis 0, x[:, ::-1] along axis 1, x[..., ::-1] along the last",
    "float_power": "ops.power(x, y), or x ** y",
    "hstack": "ops.concatenate(tensors, axis=1)",
    "from_numpy": "minivit.Tensor(array)",
    "index_select": "x[index] along axis 0, x[:, index] along axis 1, x[..., index] along the last",
    "inner": "ops.matmul(x, y.T)",
    "l1_loss": "ops.abs(x - y).mean()",
    "log1p": "ops.log(1 + x)",
    "matrix_transpose": "ops.swapaxes(x, -1, -2)",
    "mm": "ops.matmul(x, y), or x @ y",
    "moveaxis": "ops.transpose(x, axes)",
    "movedim": "ops.transpose(x, axes)",
    "mse_loss": "((x - y) ** 2).mean()",
    "mul": "x * y",
    "neg": "-x",
    "nll_loss": "ops.cross_entropy(logits, labels), of the scores themselves",
    "norm": "(x * x).sum().sqrt()",
    "outer": 'ops.einsum("i,j->ij", x, y)',
    "permute": "ops.transpose(x, axes)",
    "permute_dims": "ops.transpose(x, axes)",
    "pow": "ops.power(x, y), or x ** y",
    "ravel": "ops.flatten(x)",
    "reciprocal": "1 / x",
    "repeat": _REPEAT,
    "rsqrt": "1 / ops.sqrt(x)",
    "square": "x * x",
    "sub": "x - y",
    "take": "x[index], as of an array",
    "tensor": "minivit.Tensor(data)",
    "tensordot": "ops.einsum(equation, x, y)",
    "tile": "ops.concatenate([x] * n, axis)",
    "trace": 'ops.einsum("ii", x)',
    "vdot": "(x * y).sum()",
    "view": "ops.reshape(x, shape)",
    "vstack": "ops.concatenate(tensors, axis=0)",
}

_AS_FUNCTIONS = (
    "absolute amax amin bmm broadcast_to cumsum div dot expm1 flip index_select inner log1p mm movedim mul neg norm "
    "outer ravel reciprocal repeat rsqrt square sub take tile trace"
).split()
_ONLY_NUMPY = "all any argsort ceil cos cumprod floor isfinite isnan median nonzero prod round sign sin sort".split()
_IN_PLACE = "add clamp copy div fill masked_fill mul normal sub uniform zero".split()
_COMPARED = {"eq": "==", "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "ne": "!="}

METHODS = {  # of torch.Tensor
    **{name: FUNCTIONS[name] for name in _AS_FUNCTIONS},
    **{name: f"np.{name}(x.data), which is not recorded" for name in _ONLY_NUMPY},
    **{f"{name}_": "none changes x: x = ... is a new one, x.data[...] = numbers not recorded" for name in _IN_PLACE},
    **{name: f"x {sign} y, an array of True and False" for name, sign in _COMPARED.items()},
    "add": "x + y",
    "bfloat16": _HALF,
    "bool": "x.data.astype(bool)",
    "copy": "x.clone()",
    "cuda": _PROCESSOR,
    "expand_as": "x.expand(y.shape)",
    "gather": "x[rows, index], as of an array",
    "half": _HALF,
    "indices": "x.argmax(axis); x.max(axis) is the numbers alone, as in NumPy",
    "int": "x.data.astype(np.int32)",
    "long": "x.data.astype(np.int64)",
    "register_hook": "x.retain_grad(), and after backward() look at x.grad",
    "topk": "np.argsort(-x.data, axis=-1)[..., :n] are the places of the n largest, which is not recorded",
    "type": "x.astype(dtype)",
    "type_as": "x.astype(y.dtype)",
    "values": "x.max(axis) is the numbers alone, as in NumPy; x.argmax(axis) their places",
    "view_as": "x.reshape(y.shape)",
}

MODULES = {  # of torch.nn.Module
    "add_module": "setattr(model, name, child)",
    "apply": "for part in model.modules(): ...",
    "bfloat16": "model.to(np.float32)",
    "buffers": "an array that is an attribute: only a Parameter is learned, and saved",
    "children": "[child for name, child in model.named_children()]",
    "cpu": _PROCESSOR,
    "cuda": _PROCESSOR,
    "double": "model.to(np.float64)",
    "float": "model.to(np.float32)",
    "get_submodule": "dict(model.named_modules())[name]",
    "half": "model.to(np.float32)",
    "register_buffer": "model.name = array: only a Parameter is learned, and saved",
    "register_forward_hook": "output_attentions and output_hidden_states of the models, or minivit.lens",
    "register_parameter": "model.name = nn.Parameter(array)",
}

LAYERS = {  # of torch.nn
    "BatchNorm1d": _NORM,
    "BatchNorm2d": _NORM,
    "Embedding": "table = nn.Parameter(array), and table[index]",
    "L1Loss": "ops.abs(x - y).mean()",
    "LogSoftmax": "ops.log_softmax(x, axis)",
    "MSELoss": "((x - y) ** 2).mean()",
    "ModuleDict": "attributes of a Module, or nn.ModuleList(modules)",
    "MultiheadAttention": "vit.ViTAttention(config), or ops.scaled_dot_product_attention(q, k, v)",
    "NLLLoss": "nn.CrossEntropyLoss(), of the scores themselves",
    "ParameterList": 'an attribute for each, setattr(self, f"weight{i}", nn.Parameter(array))',
    "TransformerEncoderLayer": "vit.ViTLayer(config)",
    "functional": "import minivit.ops as F",
    "init": "nn.normal(shape, std, rng), nn.uniform and nn.constant make Parameters",
    "utils": "optim.clip_grad_norm(parameters, max_norm)",
}

OPTIMISERS = {  # of torch.optim
    "Adam": "optim.AdamW(parameters, lr, weight_decay=0) is Adam",
    "lr_scheduler": "schedule = optim.warmup_cosine(total_steps), and optimizer.lr = lr * schedule(step)",
}

GROUPS = {  # of torch.optim.Optimizer
    "add_param_group": "one optimiser for each group of parameters",
    "param_groups": "optimizer.lr = 1e-4, optimizer.parameters: there is one group",
}

MODELS = {  # of transformers' modeling_vit
    "ViTImageProcessor": "images.pixel_values(photo, size)",
    "ViTPatchEmbeddings": "vit.PatchEmbeddings(image_size, patch_size, num_channels, embed_dim)",
}

OPTIONS = {  # keywords that PyTorch's functions, methods and layers take
    "create_graph": "there are no gradients of gradients",
    "device": _PROCESSOR,
    "dtype": "x.to(np.float64) of a tensor, model.to(np.float64) of a model",
    "gradient": "t.backward(grad)",
    "inplace": "leave it out: y is always a new tensor",
    "padding": "np.pad(pixel_values, ((0, 0), (0, 0), (n, n), (n, n))) puts n pixels around the pictures",
    "reduction": "leave it out: the loss is the mean over the batch, and loss * len(labels) the sum",
    "retain_graph": "leave it out: of two losses, (one + two).backward(); else the forward pass once more",
    "set_to_none": "leave it out: each .grad is None again",
}

CALLS = {  # ops that PyTorch, or the method of their name, is called otherwise
    "dropout": "ops.dropout(x, p, rng), rng a Generator or a seed; nn.Dropout(p) brings its own",
    "expand": "ops.expand(x, shape), the shape one tuple; x.expand(2, 3) of a tensor",
    "reshape": "ops.reshape(x, shape), the shape one tuple; x.reshape(2, 3) of a tensor",
    "transpose": "ops.swapaxes(x, 1, 2), or x.transpose(1, 2), for two axes; ops.transpose(x, axes) for all",
}


def recorded(name, ops):
    """What minivit has for a function of PyTorch or NumPy, written as a call of one of its ops; or None."""
    return f"ops.{name}{inspect.signature(ops[name])}" if name in ops else FUNCTIONS.get(name)


def unknown(owner, where, name, table):
    """The AttributeError of a name that owner lacks; where the table has it, or NumPy an op, it says what there is."""
    way = table.get(name)
    if way is None and table is FUNCTIONS and callable(getattr(np, name, None)):
        way = f"np.{name}, which gives an array and is not recorded"
    if way is None:
        return AttributeError(f"{where} has no attribute {name!r}", name=name, obj=owner)
    return UnknownNameError(f"{where}.{name}", "there is no such name.", hint=f"{way}.")


def refuse_options(where, signature, options):
    """MinivitError for one of PyTorch's keywords among the options of a call whose signature lacks it."""
    own = signature.parameters
    lacking = [word for word in options if word in OPTIONS and word not in own]
    if lacking and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
        raise MinivitError(where, f"there is no {lacking[0]}= here.", hint=f"{OPTIONS[lacking[0]]}.")


def explains(method):
    """method, which says what to do where one of PyTorch's keywords came that it lacks (OPTIONS)."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def explained(*args, **options):
        refuse_options(method.__qualname__.lstrip("_"), signature, options)
        return method(*args, **options)

    return explained


def absent(name):
    """A property of Tensor that has only its message. (With a __getattr__, Python would be slower at every x.data.)"""

    def message(self):
        raise unknown(self, "Tensor", name, METHODS)

    return property(message, doc=f"Not here: {METHODS[name]}.")


def speaks(op):
    """op, which takes PyTorch's dim= for its axis=, and so on (KEYWORDS)."""
    own = inspect.signature(op).parameters
    words = {word: name for word, name in KEYWORDS.items() if name in own}
    if not words:
        return op

    @functools.wraps(op)
    def translated(*args, **options):
        if not options or words.keys().isdisjoint(options):
            return op(*args, **options)
        for word in words.keys() & options.keys():
            if word == "dim" and op.__name__ in ("max", "min"):
                raise MinivitError(
                    op.__name__,
                    f"PyTorch's {op.__name__}(dim=...) gives two tensors, the numbers and their places.",
                    hint=f"x.{op.__name__}(axis) for the numbers, x.arg{op.__name__}(axis) for their places.",
                )
            if words[word] in options:
                raise MinivitError(op.__name__, f"{word}= is {words[word]}=, and both came.")
            options[words[word]] = options.pop(word)
        return op(*args, **options)

    return translated
