"""What a model's output can do beside having its attributes: unpack and index like the tuple of what is not None."""

from dataclasses import fields

from ..errors import EntryError

HINTS = {  # how to get what is None
    "loss": "model(x, labels=labels) gives a loss; a model that paints patches, model(x, bool_masked_pos=mask).",
    "pooler_output": "ViTModel(config, add_pooling_layer=True) has a pooler.",
    "hidden_states": "model(x, output_hidden_states=True) gives them.",
    "attentions": "model(x, output_attentions=True) gives them.",
}


class ModelOutput:
    """The base of a dataclass: `loss, logits = model(x, labels=y)`, and `output.logits` is `output["logits"]`.

    What is None is left out: no number leads to it, it is not among the keys, and len() does not count it.
    EntryError, which is a KeyError and an IndexError, for what is not there.
    Source: transformers' ModelOutput, which unpacks only after to_tuple(): a plain loop over it gives the names.
    """

    def keys(self):
        """The names of what is not None, in their order."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def items(self):
        """(name, value) of what is not None, in their order."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def to_tuple(self):
        """What is not None, in its order."""
        return tuple(value for _, value in self.items())

    def __iter__(self):
        return iter(self.to_tuple())

    def __len__(self):
        return len(self.keys())

    def __contains__(self, name):
        return name in self.keys()

    def __getitem__(self, key):
        try:
            return dict(self.items())[key] if isinstance(key, str) else self.to_tuple()[key]
        except LookupError:
            known = key in [field.name for field in fields(self)]
            raise EntryError(
                type(self).__name__,
                f"{key} is None." if known else f"there is no entry {key!r}.",
                rule="it holds " + ", ".join(f'"{name}" [{number}]' for number, name in enumerate(self.keys())) + ".",
                hint=HINTS.get(key),
            ) from None
