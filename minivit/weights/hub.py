"""The Hugging Face hub: a model's name becomes a folder. The package huggingface_hub is an optional extra."""

import os
import re
from pathlib import Path

from ..errors import FileError, MinivitError
from .box import CHECKSUMS, box_folder

FILES = (
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
)


def find(name, files=FILES, revision=None):
    """The folder of a model: a folder is itself, "dinov2-small" and "digits" in the box; the hub gives all others.

    "owner/model" or "owner/model@revision" is downloaded; revision, a branch, tag or commit, can be given beside it,
    too. files: the names of what is downloaded, as far as it is there. huggingface_hub keeps what it downloaded in its
    cache, and follows HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN.
    Raises FileError: no such folder or model, gated, out of reach; MinivitError where huggingface_hub is missing.
    """
    if name in CHECKSUMS and not os.path.exists(name) and revision is None:
        return box_folder(name)
    repository, _, tag = name.partition("@") if isinstance(name, str) else ("", "", "")
    if revision is not None and (tag or os.path.exists(name) or not isinstance(revision, str)):
        rule = 'a model on the hub has revisions, as "owner/model@main" or with revision="main"; a folder has none.'
        raise MinivitError(name, f"revision={revision!r}.", rule=rule)
    revision = revision or tag
    if os.path.exists(name) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository, re.ASCII):
        check_folder(name)
        return Path(name)
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError as error:
        raise MinivitError(
            name,
            "there is no such folder, and to ask the Hugging Face hub the package huggingface_hub is needed.",
            hint='check the spelling, or pip install "minivit[hub]"',
        ) from error
    hub = constants.ENDPOINT
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except Exception as error:  # requests', httpx's, the operating system's or its own, by version and by fault
        reason = str(error.__cause__ or error).strip().partition("\n")[0] or type(error).__name__
        log_in = f"log in on {hub}/{repository} and put your access token into HF_TOKEN."
        nowhere = f"there is no such folder, and no such model on {hub}.", f"check the spelling; if private, {log_in}"
        connect = "unset HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "look at the network, and at HF_ENDPOINT"
        faults = {
            errors.GatedRepoError: (f"is gated on {hub}: its authors let in who asks them.", f"ask: {log_in}"),
            errors.RepositoryNotFoundError: nowhere,
            errors.HFValidationError: nowhere,
            errors.RevisionNotFoundError: (
                f"the model has no revision {revision!a}.",
                f"take a branch, tag or commit of {hub}/{repository}.",
            ),
            errors.LocalEntryNotFoundError: (
                f"there is no such folder, and no such model in the cache; {hub} did not give it: {reason}",
                f"check the spelling; {connect}; once downloaded, a model is found without the network.",
            ),
            Exception: (
                f"cannot be downloaded from {hub}: {reason}",
                f"try again, what has come already is kept; for 401 or 403 {log_in}",
            ),
        }
        what, hint = next(texts for kind, texts in faults.items() if isinstance(error, kind))
        raise FileError(name, what, hint=hint) from error
    if not folder.is_dir():
        raise FileError(name, f"has none of a model's files on {hub}: {', '.join(files)}.")
    return folder


def check_folder(name):
    """Refuse what is no folder."""
    if not os.path.isdir(name):
        raise FileError(
            name,
            "this is a file, not a folder." if os.path.exists(name) else "there is no such folder.",
            hint="give the folder that holds config.json and model.safetensors, or a model's name on the Hugging Face "
            "hub, such as google/vit-base-patch16-224.",
        )
