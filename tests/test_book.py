"""The book: a folder of pages that opens from a stick, made whole or not at all, and an installation without network.

With a course of two lessons and an extra for everything but the last test, which makes the book of all lessons and
reads it in a browser. .ci/run makes one before, with wheels, and says by MINIVIT_BOOK where it is.
"""

import html.parser
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from minivit import images, plots
from minivit.__main__ import main
from minivit.course import lessons
from minivit.course.book import wheelhouse
from minivit.errors import FileError, MinivitError
from minivit.machinery.files import travelling

pytest.importorskip("sphinx", reason='needs the extra: pip install -e ".[notebook]"')

from minivit.course.book import binding

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
LESSON = """# %% [markdown]
# # {title}
#
# Teach: 5 minutes. Run: {seconds} seconds.
#
# Sources: see the [glossary](glossary.md), [the code](../minivit/vit.py).

# %%
import matplotlib.pyplot as plt
from minivit import lessons, plots
x = {{"a <b>": 1}}
assert x == {{
    "a <b>": 1
}}
print("~~~ photo", lessons.photo())
x

# %%
plots.curves(dict(lines={{"y": [1, 2, 4]}}), name="growth", caption="How *y* grows: {title}, a_b.")
plt.show()

# %% [markdown]
# In the explorer:
# [explore.html#lesson=1](../explore.html#lesson=1)
"""
TEACHER = """# Teaching lesson 1: One

As in [lesson 2](../02_two.py).

## Predict, then run

### 1. It grows by

(a) 1, then 2  (b) 3

Right: (a). 2 - 1 is 1.

It grows *faster*.

### 2. It began at

(a) 0  (b) 1

Right: (b).

## Answers

Your turn: 8.
"""


class Page(html.parser.HTMLParser):
    """What a page leads to, loads and shows."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.loaded, self.pictures = path, [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        self.loaded += [attributes[name] for name in ("src",) if name in attributes]
        self.loaded += [attributes["href"]] if tag == "link" else []
        if tag == "img":
            self.pictures.append((attributes["src"], attributes.get("alt")))


def pages(folder):
    found = sorted(path for path in folder.rglob("*.html") if path.name not in ("explore.html", "digits.html"))
    return [Page(path) for path in found]


def words(path):
    """The text of a page, without its tags."""
    return " ".join(re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8")).split())


def lost(folder):
    """Links and loaded files that are not in the folder; what a page loads from the network, too."""
    missing = []
    for page in pages(folder):
        for target in page.loaded + [link for link in page.links if not re.match("https?:", link)]:
            path = urllib.parse.unquote(target.partition("#")[0].partition("?")[0])
            if target.startswith(("http", "//")) or not (page.path.parent / path).exists():
                missing.append((page.path.name, target))
    return missing


def small_course(tmp_path, monkeypatch):
    """The folder tutorials/ of a small course, which the book is made of; the explorer's pages are empty."""
    folder = tmp_path / "clone" / "tutorials"
    texts = {
        "01_one.py": LESSON.format(title="1. One", seconds=2),
        "01b_more.py": LESSON.format(title="1b. More of one", seconds=1),
        "02_two.py": LESSON.format(title="2. Two", seconds=3).replace("explore.html#lesson=1", "digits.html#lesson=2"),
        "README.md": "# The lessons\n\n## [1. One](01_one.py)\n\n![It grows.](figures/01_growth.png)\n",
        "glossary.md": "# Glossary\n\n| word | term |\n| --- | --- |\n| share | attention |\n\n![All](model.svg)\n",
        "model.svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0h9"/></svg>',
        "teacher/01.md": TEACHER,
        "sheets/attention.md": "# Pencil sheet\n\nName: ____\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for module in (lessons, binding):
        monkeypatch.setattr(module, "travelling", lambda name: folder if name == "tutorials" else travelling(name))
    monkeypatch.setattr(binding, "explore", lambda *photos, model=None, out: Path(out).write_text("", encoding="utf-8"))
    return folder


@pytest.fixture
def course(tmp_path, monkeypatch):
    return small_course(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The book of the small course."""
    out = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        small_course(out, patch)
        binding.book(out / "book")
    return out / "book"


def test_a_small_book(course, tmp_path, capsys, monkeypatch):
    out = tmp_path / "stick" / "book"
    photo = images.photo("coffee.jpg")
    assert main(["book", str(photo), "--out", str(out)]) == 0
    printed, err = capsys.readouterr()
    lines = printed.splitlines()
    assert not err and "note" not in printed
    assert sorted(line.rpartition(": ")[0] for line in lines[:-1]) == ["01  One", "01b More of one", "02  Two"]
    assert all(re.search(r": \d+\.\d s$", line) for line in lines[:-1])
    assert re.fullmatch(rf"{re.escape(str(out))}/index.html: \d+ files, \d+ MB, made in \d+ s\. .*", lines[-1])
    assert [path.name for path in out.parent.iterdir()] == ["book"]  # nothing is left beside it

    assert lost(out) == []
    page = Page(out / "tutorials" / "01_one.html")
    for link in ("01b_more.html", "teacher/01.html", "../explore.html#lesson=1", "01_one.py", "02_two.html"):
        assert any(found in (link, f"./{link}") for found in page.links), link
    assert "../minivit/vit.py" not in page.text  # it is not in the book
    caption = "How *y* grows: 1. One, a_b."
    assert page.pictures == [("../_images/01_growth.png", caption)] and f">{caption}<" in page.text
    assert f"~~~ photo {photo}" in page.text and "&lt;b&gt;" in page.text
    assert (out / "tutorials" / "01_one.py").read_bytes() == (course / "01_one.py").read_bytes()
    teacher = Page(out / "tutorials" / "teacher" / "01.html")
    assert {"../01_one.html", "../02_two.html"} <= set(teacher.links)
    assert Page(out / "tutorials" / "README.html").pictures == [("../_images/01_growth.png", "It grows.")]
    with Image.open(out / "_images" / "01_growth.png") as picture:  # without room for the caption, which is text
        assert picture.size == tuple(100 * plots.curves({"lines": {"y": [1, 2, 4]}}).get_size_inches())
    for number, name, order in (("1", "01_one", ("explore", "digits")), ("2", "02_two", ("digits", "explore"))):
        links = [link for link in Page(out / "tutorials" / f"{name}.html").links if f".html#lesson={number}" in link]
        assert links[:2] == [f"../{page}.html#lesson={number}" for page in order]  # its own page is the first
    contents = set(Page(out / "index.html").links)
    assert "install.html" not in contents and "pip install . in a clone" in words(out / "index.html")
    assert {"tutorials/01b_more.html", "tutorials/sheets/attention.html", "images/README.html"} <= contents
    assert "explore.html" in contents and "digits.html" in contents
    index = (out / "searchindex.js").read_text(encoding="utf-8")
    assert "tutorials/02_two" in index and '"attent"' in index  # by its stem

    monkeypatch.setattr(wheelhouse, "pack", lambda folder, platforms: folder.mkdir())
    assert main(["book", "--out", str(out), "--wheels", "windows:3.12"]) == 0  # a book replaces a book
    assert "install.html" in Page(out / "index.html").links and "pip install ." not in words(out / "index.html")
    (out / "homework.txt").write_text("mine", encoding="utf-8")
    capsys.readouterr()
    assert main(["book", "--out", str(out)]) == 2
    assert "holds files that minivit book did not write:\n    homework.txt" in capsys.readouterr().err
    assert (out / "homework.txt").read_text(encoding="utf-8") == "mine"


def test_a_book_with_wheels_says_how_they_are_installed(course, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wheelhouse, "pack", lambda folder, platforms: folder.mkdir())
    out = tmp_path / "book"
    assert main(["book", "--out", str(out), "--wheels", "windows:3.12"]) == 0
    assert "note" not in capsys.readouterr().out and lost(out) == [] and (out / "wheels").is_dir()
    assert "install.html" in Page(out / "index.html").links
    command = r"venv\Scripts\python -m pip install --no-index --find-links wheels minivit"
    for name in ("install.html", "INSTALL.txt"):
        assert command in (out / name).read_text(encoding="utf-8")


def test_every_page_names_whose_photos_and_digits_they_are(small):
    found = pages(small)
    assert {"index.html", "search.html", "01_one.html", "README.html"} <= {page.path.name for page in found}
    for page in found:
        credit = page.text.partition('<p class="credits">')[2].partition("</p>")[0]
        for name in ("Walt, CC0", "Rachel Michetti, CC0", "danielbuechele, CC BY 2.0", "C. Kaynak, CC BY 4.0"):
            assert name in credit, page.path
        (link,) = re.findall(r'href="(.*?)#?"', credit)  # "#" on the page itself
        assert (page.path.parent / link if link else page.path).resolve() == small / "images" / "README.html"


def test_a_class_predicts_before_it_sees_an_output(browser, small):
    tab = browser.new_page(viewport={"width": 1280, "height": 720})
    tab.goto((small / "tutorials" / "01_one.html").as_uri())
    shown, openers = tab.locator(".highlight-text:visible, figure:visible"), tab.locator("[aria-expanded]:visible")
    assert shown.count() == 3 and openers.count() == 0  # print and the value of x in one cell, a figure in the next
    tab.locator("input[name=q]").press("o")  # a letter of what is searched
    assert shown.count() == 3
    tab.get_by_role("button", name="Hide outputs").click()
    assert shown.count() == 0 and openers.all_inner_texts() == ["Show output"] * 2
    code = tab.locator(".highlight-python:visible")
    told, *_ = code.all_inner_texts()
    assert code.count() == 2 and 'x = {"a <b>": 1}' in told and "print(" in told and "assert" not in told
    assert "plt.show()" in code.last.inner_text() and "grows" not in code.last.inner_text()
    for _ in range(2):  # over the link to the glossary
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert openers.all_inner_texts() == ["Hide output", "Show output"] and shown.count() == 2
    assert 'assert x == {\n    "a <b>": 1\n}\n' in code.first.inner_text()
    tab.keyboard.press("Enter")
    assert shown.count() == 0
    tab.emulate_media(media="print")
    assert shown.count() == 3 and tab.get_by_role("button", name="output").count() == 0
    tab.emulate_media(media="screen")
    tab.keyboard.press("Control+o")
    assert shown.count() == 0
    tab.keyboard.press("o")
    assert shown.count() == 3 and openers.count() == 0
    tab.keyboard.press("o")
    tab.reload()
    assert shown.count() == 3
    tab.close()


def test_a_teachers_page_hides_its_answers(browser, small):
    tab = browser.new_page(viewport={"width": 1280, "height": 720})
    tab.goto((small / "tutorials" / "teacher" / "01.html").as_uri())
    whole = tab.locator("article").inner_text()
    tab.keyboard.press("o")
    hidden = ("Right: (a)", "It grows faster.", "Right: (b)", "Your turn: 8.")
    seen = tab.locator("article").inner_text()
    assert all(text in whole and text not in seen for text in hidden)
    assert all(text in seen for text in ("1. It grows by", "(a) 1, then 2", "2. It began at", "Answers"))
    tab.locator("[aria-expanded]:visible").first.click()
    seen = tab.locator("article").inner_text()
    assert [text in seen for text in hidden] == [True, True, False, False]
    assert tab.locator("[aria-expanded]:visible").all_inner_texts() == ["Hide answer", "Show answer", "Show answer"]
    tab.close()
    tab = browser.new_page(java_script_enabled=False)
    tab.goto((small / "tutorials" / "teacher" / "01.html").as_uri())
    assert all(text in tab.locator("article").inner_text() for text in hidden)
    assert tab.locator("article button").count() == 0
    tab.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (853, 480), (1280, 720)])
def test_code_is_large_and_pages_are_accessible_with_what_they_hide(browser, small, width, height):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for scheme in ("light", "dark"):
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        for name in ("index", "search", "tutorials/01_one", "tutorials/teacher/01", "tutorials/glossary"):
            tab.goto((small / f"{name}.html").as_uri())
            tab.keyboard.press("o")
            for opener in tab.locator("[aria-expanded]:visible").all()[:1]:
                opener.click()
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
            found = axe.run(tab, options={"runOnly": WCAG, "preload": False}).response["violations"]
            assert [(name, each["id"], each["nodes"][0]["html"]) for each in found] == []
        tab.goto((small / "tutorials" / "01_one.html").as_uri())
        size = "parseFloat(getComputedStyle(document.querySelector('{} pre')).fontSize)"
        for kind in (".highlight-python", ".highlight-text"):  # 853 is a window of 1280 at 150 %
            assert tab.evaluate(size.format(kind)) >= (19 if width > 390 else 13)
        tab.close()


def test_a_cell_that_fails_is_named_and_no_book_is_written(course, tmp_path, capsys):
    text = (course / "02_two.py").read_text(encoding="utf-8")
    (course / "02_two.py").write_text(text + "\n# %%\nlargest = 3\nassert largest == 4, 'not four'\n", encoding="utf-8")
    out = tmp_path / "stick" / "book"
    assert main(["book", "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "lesson 02: code cell 3 of 3, which begins with 'largest = 3', fails." in message
    assert "rule: AssertionError: not four" in message and "hint: minivit run 02" in message
    assert not out.exists() and not list(tmp_path.glob("**/.minivit*"))


@pytest.mark.parametrize("fails", [1, 2])
def test_a_kernel_that_does_not_start_is_started_once_more(course, monkeypatch, fails):
    import nbclient

    tries, execute = [], nbclient.NotebookClient.async_execute

    async def started(client, *arguments, **options):
        tries.append(client)
        if len(tries) <= fails:
            raise RuntimeError("Kernel didn't respond in 60 seconds")
        await execute(client, *arguments, **options)

    monkeypatch.setattr(nbclient.NotebookClient, "async_execute", started)
    (lesson,) = [lesson for lesson in lessons.lessons() if lesson.number == "01b"]
    if fails == 1:
        ((_, notebook, _),) = binding.kernels.executed([lesson], None)
        assert len(tries) == 2 and len(notebook.cells[1].outputs) == 2
    else:
        with pytest.raises(MinivitError, match=r"lesson 01b: its kernel does not start: Kernel didn't respond"):
            list(binding.kernels.executed([lesson], None))


def test_before_any_long_work(course, tmp_path, monkeypatch):
    monkeypatch.setattr(binding.kernels, "executed", lambda *_: pytest.fail("a lesson was run"))
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine", encoding="utf-8")
    for out, match in (("file", "a file is in the way"), ("thesis", "did not write:\n    thesis.tex")):
        with pytest.raises(FileError, match=match):
            binding.book(tmp_path / out)
    with pytest.raises(FileError):
        binding.book(tmp_path / "book", photo=tmp_path / "file")
    with pytest.raises(MinivitError, match=r"--wheels amiga:3\.12 is no platform"):
        binding.book(tmp_path / "book", platforms=["amiga:3.12"])
    monkeypatch.setattr(binding, "PACKAGES", ("sphinx", "no_such_package"))
    with pytest.raises(MinivitError, match=r'not installed: no_such_package\.(.|\n)*pip install "minivit\[notebook\]"'):
        binding.book(tmp_path / "book")
    assert not (tmp_path / "book").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no Ctrl-C to one process")
def test_ctrl_c_leaves_nothing(tmp_path):
    run = [sys.executable, "-m", "minivit", "book", "--out", str(tmp_path / "book")]
    started = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".minivit-book-*/source/_extra/tutorials")):
        time.sleep(0.1)
    time.sleep(3)  # kernels start
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_platforms():
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert wheelhouse.parsed(["windows:3.12", "win_amd64:3.12", "macos"]) == [
        ("win_amd64", "3.12"),
        ("macosx_11_0_arm64", here),
    ]
    (linux,) = wheelhouse.parsed(["manylinux_2_18_x86_64:3.11"])
    assert linux.tags() == ["manylinux_2_18_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    for wrong in ("windoze", "win_amd64:2.7", "linux:3.10", "linux:3.x", "any:3.12", "", "linux:3.12:x"):
        with pytest.raises(MinivitError, match=r"is no platform\.(.|\n)*windows:3\.12 is win_amd64:3\.12"):
            wheelhouse.parsed([wrong])


def test_the_page_has_three_commands_for_each_system_with_the_newest_python_that_is_packed_for_it():
    page = wheelhouse.page(wheelhouse.parsed(["windows:3.12", "windows:3.11", "macos:3.13"]))
    commands = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    assert commands == [
        "py -3.12 -m venv venv",
        r"venv\Scripts\python -m pip install --no-index --find-links wheels minivit",
        r"venv\Scripts\minivit tour",
        "python3.13 -m venv venv",
        "venv/bin/python -m pip install --no-index --find-links wheels minivit",
        "venv/bin/minivit tour",
    ]
    assert "Linux" not in page and "- win_amd64, Python 3.11" in page and max(map(len, page.splitlines())) <= 120


def test_the_wheel_holds_what_a_wheel_of_the_clone_holds(tmp_path):
    wheel = zipfile.ZipFile(wheelhouse.write_wheel(tmp_path))
    names = set(wheel.namelist())
    root = Path(__file__).parents[1]
    tracked = [path for path in (root / "minivit").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(root).as_posix() for path in tracked} <= names
    assert {"minivit/_images/cat.jpg", "minivit/_images/digits.npz", "minivit/_tutorials/01_patches.py"} <= names
    assert not [name for name in names if name.endswith((".pyc", ".png"))]
    assert b"minivit = minivit.__main__:main" in wheel.read("minivit-0.1.0.dist-info/entry_points.txt")
    assert wheel.testzip() is None
    target = tmp_path / "site"
    run = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    done = subprocess.run([*run, wheel.filename], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # pip compares each file with the record
    run = [sys.executable, "-c", "import minivit; print(minivit.__file__, len(minivit.lessons.lessons()))"]
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.stdout.split() == [str(target / "minivit" / "__init__.py"), str(len(lessons.lessons()))], done.stderr


def test_what_pip_says_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    match = r"^wheels for win_amd64, Python 3\.12: pip cannot get them: ERROR: No matching distribution found for \w+"
    with pytest.raises(MinivitError, match=match):
        wheelhouse.pack(tmp_path / "wheels", wheelhouse.parsed(["windows:3.12"]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The book of all lessons."""
    if "MINIVIT_BOOK" in os.environ:
        return Path(os.environ["MINIVIT_BOOK"])
    out = tmp_path_factory.mktemp("stick") / "book"
    assert main(["book", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_the_book_holds_every_lesson_and_what_stands_around_it(made):
    assert lost(made) == []
    found = {page.path.relative_to(made / "tutorials").as_posix(): page for page in pages(made / "tutorials")}
    for lesson in lessons.lessons():
        page = found[lesson.path.with_suffix(".html").name]
        assert "Traceback" not in page.text
        assert all(alt and not alt.endswith(".png") for _, alt in page.pictures)
        for view in ("explore", "digits"):
            assert f"../{view}.html#lesson={int(lesson.number[:2])}" in page.links
        assert any(link.endswith(lesson.path.name) for link in page.links)
    around = travelling("tutorials")
    for path in (*around.glob("*.md"), *around.glob("*/*.md")):
        assert path.relative_to(around).with_suffix(".html").as_posix() in found
    for page in ("explore.html", "digits.html"):
        assert (made / page).stat().st_size > 500_000
    files = [path for path in made.rglob("*") if path.is_file() and path.suffix != ".whl"]
    assert sum(path.stat().st_size for path in files) < 60e6


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "scheme"), [(390, 844, "dark"), (1280, 720, "light")])
def test_everybody_can_read_the_book(browser, made, width, height, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    names = [page.path.relative_to(made).as_posix() for page in pages(made)]
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    asked, told = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    for name in names:
        tab.goto((made / name).as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
        found = axe.run(tab, options={"runOnly": WCAG, "preload": False}).response["violations"]
        assert [(name, each["id"], each["nodes"][0]["html"]) for each in found] == []
    assert told == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []
    tab.close()


@pytest.mark.slow
def test_search_and_the_links_to_the_explorer_work_from_a_file(browser, made):
    tab = browser.new_page(viewport={"width": 1280, "height": 720})
    tab.goto((made / "index.html").as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent.trim()") == "Skip to content"
    tab.locator("input[name=q]").fill("softmax")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("ul.search li")
    assert "5. Every patch asks every patch" in tab.locator("ul.search").inner_text()
    tab.locator("ul.search a", has_text="5. Every").first.click()
    tab.locator("p.links").get_by_role("link", name="photo").click()
    tab.wait_for_selector("body[data-ready]")
    assert tab.url.startswith(f"{(made / 'explore.html').as_uri()}#lesson=5")
    assert tab.evaluate("window.minivit.state.view") == "attention"
    tab.close()
