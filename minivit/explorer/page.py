"""One file that needs nothing else: page.html with its style, its scripts and its data."""

import base64
import hashlib
import html
import json
import re
import time
import warnings
from pathlib import Path

from .. import __version__, images, weights
from ..config import ViTConfig, to_2tuple
from ..course import three
from ..course.lessons import lessons
from ..errors import FileError, MinivitError, shown
from ..machinery.files import regular, replacing, writable_folder
from ..vit import ViTForImageClassification
from . import live, recording

ROOM = Path(__file__).parent
MARK = '<meta name="generator" content="minivit'  # in the first lines of a page, so that no other file is replaced
MOST_LIVE = 300_000  # parameters of a model that runs in the page: a page of 2 MB
STYLES = ("style.css", "modes.css")
FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "num_channels",
    "layer_norm_eps",
    "hidden_act",
    "qkv_bias",
)


def explore(photos=(), model="dinov2-small", out="explore.html", force=False):
    """Write the page that takes a model apart, as one HTML file, and print what it shows. Returns its path.

    model: a folder, or a name in the box. One that reads digits is drawn on: its page holds the model, and takes no
    photos. Of any other, the page holds what it makes of the photos: paths; none are the three of the box. force:
    replace a file that explore did not write. The file is whole, or as it was before.
    FileError, before any long work, for a bad photo and for a file that cannot be written; MinivitError for a model
    that cannot be explored.
    """
    for photo in photos:
        images.read_image(photo)
    folder = weights.find(model)
    fields, tensors = weights.read_folder(folder)
    name = shown(Path(model).name, 60)
    if _is_live(fields, tensors):
        if photos:
            raise MinivitError(model, "reads digits, which are drawn on its page.", hint="leave out the photos.")
        digits = ViTForImageClassification.from_tensors(fields, tensors)
        options = weights.picture_options(weights.preprocessor_of(folder, digits.config), digits.config.num_channels)
        out = writable_page(out, force)
        data = live.live_data(digits, options) | {"credit": credit(images.photo("digits.npz"))}
        config, title = digits.config, "a digit that is drawn"
    else:
        eye = recording.eye_of(model, folder, fields, tensors)
        out = writable_page(out, force)
        photos = photos or [images.photo(photo) for photo in three.BOX]
        config, data, title = eye.config, _recorded(eye, photos), ", ".join(Path(photo).name for photo in photos)
    write(out, described(config, name) | data, f"minivit: {name}, {title}")
    return out


def _is_live(fields, tensors):
    """Whether a model reads digits, and is small enough to run in the page at each stroke."""
    config, size = ViTConfig.from_dict(fields), sum(array.size for array in tensors.values())
    return "classifier.weight" in tensors and live.reads_digits(config) and size <= MOST_LIVE


def _recorded(eye, photos):
    """What a photo page holds beside its config: each photo recorded, with a line that says so."""
    views = [eye.see(photo, Path(photo).name) for photo in photos]
    recordings = []
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # what overflows is refused
        answers = recording.shown_answers(eye, views)
        for photo, view in zip(photos, views, strict=True):
            start = time.perf_counter()
            recordings.append(recording.record(eye, view, answers) | {"credit": credit(photo)})
            seconds = time.perf_counter() - start
            print("{}: {} x {} patches, {:.1f} s".format(shown(view.name), *view.grid, seconds), flush=True)
    (stages, *_) = [each["stages"].pop("list") for each in recordings]  # the same of all
    return {
        "kind": "photo",
        "stages": stages,
        "answers": [eye.names[k] for k in answers],
        "answers_are": "classes" if eye.classes else "photos",
        "photos": recordings,
    }


def credit(path):
    """Whose a file in the package is, and its licence, as images/README.md has it; "" of a file of somebody's own."""
    table = images.photo().with_name("README.md")
    if Path(path).resolve().parent != table.resolve().parent:
        return ""
    row = re.search(rf"^\| {re.escape(Path(path).name)} \|[^|]*\| ([^|:]+)", table.read_text(encoding="utf-8"), re.M)
    return row[1].strip() if row else ""


def described(config, name):
    """What a page says of its model, whatever its kind."""
    fields = {key: getattr(config, key) for key in FIELDS}
    sides = {key: to_2tuple(getattr(config, key)) for key in ("image_size", "patch_size")}
    titles = {lesson.number: lesson.title for lesson in lessons()}
    return {"minivit": __version__, "config": fields | sides, "model": name, "lessons": titles}


def writable_page(path, force=False):
    """The path of a page that can be written there. FileError for a folder, and for a file of another program."""
    path = Path(path)
    if path.is_dir():
        raise FileError(path, "this is a folder.", hint="name a file in it: --out explore.html.")
    if path.exists() and not (force or is_own_page(path)):
        raise FileError(path, "was not written by minivit explore.", hint="give another --out; --force replaces it.")
    writable_folder(path.parent)
    return path


def is_own_page(path):
    """Whether a file is a page that write() wrote."""
    try:
        with open(regular(path), "rb") as file:
            return MARK.encode() in file.read(1000)
    except OSError:
        return False


def write(path, data, title):
    """Write a page; the file is whole, or as it was before. data: a dict for JSON. Raises FileError."""
    text = filled(data, title)
    with replacing(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8", newline="\n")


def filled(data, title):
    """The text of a page."""
    style, script = "".join(map(_read, STYLES)), _script()
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{name} {value}" for name, value in policy.items())
    parts = {
        "csp": f'{MARK} {__version__}">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "title": html.escape(shown(title)),
        "style": style,
        "data": json_in_html(data),
        "script": script,
    }
    # in one go: a title that spells a placeholder stays what it is
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], _read("page.html"))


def json_in_html(data):
    """A dict as JSON that says the same and has no letter that HTML or JavaScript could take for their own."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 and U+2029 are escaped, too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script():
    """All scripts as one, each able to call the others' functions, and none of them visible outside."""
    files = sorted(ROOM.glob("*.js"), key=lambda path: (path.stem == "view", path.stem))  # view.js starts the others
    return '\n(() => {\n"use strict";\n\n' + "\n".join(_read(path.name) for path in files) + "})();\n"


def _read(name):
    return (ROOM / name).read_text(encoding="utf-8")


def _hash(text):
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
