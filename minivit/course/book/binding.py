"""A folder that opens from a stick: pages by Sphinx of what stands in tutorials/, beside the explorer's pages."""

import contextlib
import importlib.util
import io
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path

from ... import __version__, images
from ...errors import FileError, MinivitError, shortened
from ...explorer.page import explore
from ...machinery.files import folder_written, read_regular, travelling, writable_folder
from .. import lessons as course
from . import kernels, wheelhouse

PACKAGES = ("furo", "ipykernel", "jupytext", "myst_parser", "nbconvert", "sphinx")
MARK = ".minivit-book"  # the names of all files that a book has, so that no other file is lost with it
_FIRST_LINE = f"minivit {__version__} wrote these files, and a new book replaces them."
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what systems leave where somebody looked
_ROOM = Path(__file__).parent
_EXPLORER = {"explore.html": "photo", "digits.html": "live"}  # either page opens at the view of any lesson
_INSTALL = "with [three commands](install.md), from this folder and without a network."
_NO_WHEELS = "with `python -m pip install .` in a clone of it. A book made with `--wheels` brings them along."
_CONFIG = {
    "project": "minivit",
    "version": __version__,
    "release": __version__,
    "extensions": ["myst_parser"],
    "myst_enable_extensions": ["attrs_block", "attrs_inline"],
    "myst_heading_anchors": 3,
    "html_theme": "furo",
    "html_title": "minivit",
    "smartquotes": False,
    "html_static_path": ["_static"],
    "templates_path": ["_templates"],
    "html_css_files": ["book.css"],
    "html_js_files": ["book.js"],
    "html_extra_path": ["_extra"],
    "html_show_copyright": False,
    "html_show_sourcelink": False,
    "html_copy_source": False,
    "html_show_search_summary": False,  # it would have to fetch the pages, which no browser does from a stick
    "html_use_index": False,
    "pygments_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "exclude_patterns": ["_*"],
    # a page may begin below a title of its own; and a process may make two books
    "suppress_warnings": ["myst.header", "app.add_node", "app.add_directive", "app.add_role"],
}


def book(out, photo=None, platforms=()):
    """Write the book into the folder `out`, and print a line for each lesson. Returns the path of its first page.

    photo: that the lessons run on; None is the cat. platforms: such as "win_amd64:3.12", whose wheels are packed as
    well. The folder is a whole book, or as it was before; a book that is there is replaced. MinivitError, before any
    long work, where the extra `notebook` lacks; FileError for a bad photo, and for a folder that holds other files;
    MinivitError for a lesson that fails.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        hint = 'python -m pip install "minivit[notebook]"; from a clone: python -m pip install -e ".[notebook]"'
        raise MinivitError("book", f"not installed: {', '.join(missing)}.", "the extra notebook brings them.", hint)
    if photo is not None:
        images.read_image(photo)
    platforms = wheelhouse.parsed(platforms)
    out = _own_folder(out)
    with folder_written(out), tempfile.TemporaryDirectory(prefix=".minivit-book-", dir=out.parent) as work:
        work = Path(work)
        (work / "html").mkdir()
        if platforms:
            wheelhouse.pack(work / "html" / "wheels", platforms)
        _write_sources(work / "source", photo, platforms)
        _build(work)
        names = sorted(path.relative_to(work / "html").as_posix() for path in _files(work / "html"))
        (work / "html" / MARK).write_text("\n".join([_FIRST_LINE, *names, ""]), encoding="utf-8", newline="\n")
        _replace(work / "html", out, work / "before")
    return out / "index.html"


def _files(folder):
    return [path for path in folder.rglob("*") if not path.is_dir()]


def _own_folder(out):
    """The absolute path of a folder that a book can be written to."""
    out = Path(os.path.abspath(out))
    if out.exists() and not out.is_dir():
        raise FileError(out, "a file is in the way of this folder.", hint="name another folder.")
    names = {path.relative_to(out).as_posix() for path in _files(out)} if out.exists() else set()
    own = set()
    if MARK in names:
        with contextlib.suppress(OSError, ValueError):
            own = {MARK, *read_regular(out / MARK).decode("utf-8").split("\n")[1:]}
    foreign = sorted(name for name in names - own if name.rpartition("/")[2] not in _LITTER)
    if foreign:
        what = "\n    ".join(["holds files that minivit book did not write:", *shortened(foreign, 5)])
        raise FileError(out, what, hint="name another folder, a new one in this one, say.")
    writable_folder(out.parent)
    return out


def _write_sources(source, photo, platforms):
    """What Sphinx reads: the folders of a clone, each lesson as a page that has run; and what goes along as it is."""
    shutil.copytree(travelling("tutorials"), source / "tutorials", ignore=shutil.ignore_patterns("*.ipynb", "__py*"))
    (source / "images").mkdir()
    shutil.copy(travelling("images") / "README.md", source / "images")
    (source / "_static").mkdir()
    for name in ("book.css", "book.js"):
        shutil.copy(_ROOM / name, source / "_static")
    (source / "_templates").mkdir()
    shutil.copy(_ROOM / "page.html.j2", source / "_templates" / "page.html")
    extra, figures = source / "_extra", source / "tutorials" / "figures"
    figures.mkdir(exist_ok=True)
    (extra / "tutorials").mkdir(parents=True)
    found = course.lessons()
    with contextlib.closing(kernels.executed(found, photo)) as done:
        for lesson, notebook, seconds in done:
            text = kernels.markdown(notebook, lesson.number, figures)
            _page(lesson, source).write_text(_with_links(text, lesson, found, source), encoding="utf-8")
            shutil.copy(lesson.path, extra / "tutorials")
            print(f"{lesson.number:3} {lesson.title}: {seconds:.1f} s", flush=True)
    explore([images.photo() if photo is None else photo], out=extra / "explore.html")
    explore(model="digits", out=extra / "digits.html")
    _add_line(source / "tutorials" / "model.md", "{.links}\n[The full picture](../_images/model.svg){.external}")
    if platforms:
        (source / "install.md").write_text(wheelhouse.page(platforms), encoding="utf-8")
        (extra / "INSTALL.txt").write_text(wheelhouse.page(platforms), encoding="utf-8")
    (source / "index.md").write_text(_contents(source, found), encoding="utf-8")
    for page in source.rglob("*.md"):
        page.write_text(_linked(page.read_text(encoding="utf-8"), page.parent, source), encoding="utf-8", newline="\n")


def _page(lesson, source):
    return source / "tutorials" / lesson.path.with_suffix(".md").name


def _with_links(text, lesson, found, source):
    """A lesson's page with a line of links below its title."""
    base = lesson.number[:2]
    others = [other for other in found if other.number != lesson.number and other.number.startswith(base)]
    links = [f"[{other.number.lstrip('0')}. {other.title}]({other.path.name})" for other in others]
    if (source / "tutorials" / "teacher" / f"{base}.md").exists():
        links.append(f"[For the teacher](teacher/{base}.md)")
    own = re.findall(r"\]\(\.\./([a-z]+\.html)#lesson=", text)[-1:]  # the page that the lesson itself sends to
    pages = sorted(_EXPLORER, key=lambda page: page not in own)
    views = ", ".join(f"[{_EXPLORER[page]}](../{page}#lesson={int(base)})" for page in pages)
    links.append(f"In the explorer: {views}")
    links.append(f"[{lesson.path.name}](./{lesson.path.name}){{.external}} ([to run it](../index.md#to-run-a-lesson))")
    title, _, rest = text.lstrip().partition("\n")
    return f"{title}\n\n{{.links}}\n{' | '.join(links)}\n{rest}"


def _add_line(path, line):
    """A line below the title of a page, where there is such a page."""
    if path.exists():
        title, _, rest = path.read_text(encoding="utf-8").partition("\n")
        path.write_text(f"{title}\n\n{line}\n{rest}", encoding="utf-8")


def _linked(text, folder, source):
    """A page whose links lead to pages of the book: a lesson's file to its page, and what is not in it to nothing."""

    def link(found):
        mark, words, target, attributes = found.groups()
        path = target.partition("#")[0]
        if re.match(r"(https?:|mailto:|#)", target) or attributes:
            return found[0]
        if path.endswith(".html"):
            return f"{mark}[{words}]({target}){{.external}}"
        if path.endswith(".py") and (folder / path).with_suffix(".md").exists():
            return f"{mark}[{words}]({target.replace('.py', '.md', 1)})"
        return found[0] if (folder / path).exists() else words

    return re.sub(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)(\{[^}]*\})?", link, text)


def _contents(source, found):
    """The first page."""
    tutorials = source / "tutorials"
    pages = {
        "Lessons": ["tutorials/README", *(f"tutorials/{lesson.path.stem}" for lesson in found)],
        "For the teacher": [f"tutorials/teacher/{path.stem}" for path in sorted(tutorials.glob("teacher/*.md"))],
        "Pencil sheets": [f"tutorials/sheets/{path.stem}" for path in sorted(tutorials.glob("sheets/*.md"))],
        "To look up": [
            *(f"tutorials/{path.stem}" for path in sorted(tutorials.glob("[a-z]*.md"))),
            "images/README",
            *(["install"] if (source / "install.md").exists() else []),
        ],
    }
    trees = [
        f"## {caption}\n\n```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n" + "\n".join(names) + "\n```\n"
        for caption, names in pages.items()
        if names
    ]
    install = _INSTALL if (source / "install.md").exists() else _NO_WHEELS
    return (_ROOM / "index.md").read_text(encoding="utf-8").format(install=install) + "\n" + "\n".join(trees)


def _build(work):
    """The pages of work/source as HTML in work/html."""
    from sphinx.application import Sphinx

    settings = "".join(f"{name} = {value!r}\n" for name, value in _CONFIG.items())
    (work / "source" / "conf.py").write_text(settings, encoding="utf-8")
    told = io.StringIO()
    source, html, doctrees = (str(work / name) for name in ("source", "html", "doctrees"))
    with warnings.catch_warnings(action="ignore"):  # what these packages deprecate of one another
        Sphinx(source, source, html, doctrees, "html", status=None, warning=told).build()
    for name in (".buildinfo", "objects.inv"):
        (work / "html" / name).unlink(missing_ok=True)
    for line in shortened(re.sub(r"\x1b\[[\d;]*m", "", told.getvalue()).splitlines(), 5):
        print(f"note: {line}")


def _replace(new, out, before):
    """Give the new folder the name `out`; what is there has the name `before` then."""
    if out.exists():
        out.rename(before)
    try:
        new.rename(out)
    except OSError:
        if before.exists():
            before.rename(out)
        raise
