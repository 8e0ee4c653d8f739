"""Weights that travel: the folder that Hugging Face writes, both ways, its hub, and the state of a training."""

from .box import box_folder, dinov2_small
from .folder import CONFIG, INDEX, WEIGHTS, is_own, read_folder, write_config, write_folder
from .hub import find
from .preprocessor import PREPROCESSOR, at_size, picture_options, preprocessor, preprocessor_of, read_preprocessor
from .spellings import hub_name
from .state import STATE, read_state, state_weights, write_state

__all__ = [
    "CONFIG",
    "INDEX",
    "PREPROCESSOR",
    "STATE",
    "WEIGHTS",
    "at_size",
    "box_folder",
    "dinov2_small",
    "find",
    "hub_name",
    "is_own",
    "picture_options",
    "preprocessor",
    "preprocessor_of",
    "read_folder",
    "read_preprocessor",
    "read_state",
    "state_weights",
    "write_config",
    "write_folder",
    "write_state",
]
