"""What stands around the lessons in tutorials/: sheets and their keys, shapes, the diagram, references, glossary and
teacher's pages say what is so, and lead where they say."""

import ast
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import minivit
from minivit import Tensor, gradcheck, lens, nn, ops, vit
from minivit.cli.recipes import recipe
from minivit.config import ViTConfig
from minivit.course import sheets
from minivit.course.lessons import lessons
from minivit.machinery.files import travelling

TUTORIALS = travelling("tutorials")


def read(name):
    return (TUTORIALS / name).read_text(encoding="utf-8")


# ---- pencil sheets

SHEETS = sorted(path.stem for path in (TUTORIALS / "sheets").glob("*.md") if not path.stem.endswith("_key"))


def numbers(text):
    return [float(x) for x in re.findall(r"(?<![\w.\[])-?\d+(?:\.\d+)?(?![\w.\]])", text)]


def given(name):
    """The numbers in the table cells of a sheet's part `## Given`, without its headings, table by table."""
    tables = re.search(r"^## Given\n(.*?)^## ", read(f"sheets/{name}.md"), re.M | re.S)[1].strip().split("\n\n")
    rows = [[row.split("|")[2:] for row in table.splitlines()[2:]] for table in tables]
    return [np.array([numbers(" ".join(row)) for row in table]) for table in rows]


def filled(name):
    """What the committed key has in its blanks, numbers as floats."""
    answers = re.findall(r"\*\*(-?\d+(?:\.\d+)?|\(\d[\d, ]*\))\*\*", read(f"sheets/{name}_key.md"))
    return [x if x.startswith("(") else float(x) for x in answers]


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def attention():
    (table,) = given("attention")
    (q, k, v), d = (table[:, i : i + 2] for i in (0, 2, 4)), 2
    s = q @ k.T / np.sqrt(d)
    p = softmax(s)
    y, dy = p @ v, np.array([[1.0, -1], [0, 1]])
    dv, dp = p.T @ dy, dy @ v.T
    ds = np.einsum("qk,qkj,qj->qk", p, np.eye(2) - p[:, None], dp)  # by the Jacobian: p_k (1[k = j] - p_j)
    dq, dk = ds @ k / np.sqrt(d), ds.T @ q / np.sqrt(d)
    loss, more = (y * dy).sum(), (p @ np.add(v, [[0.3, 0], [0, 0]]) * dy).sum()
    exps, sums = np.c_[np.exp(s), np.exp(s).sum(1), p], np.c_[dp, (dp * p).sum(1), ds]
    return s, exps, y, loss, np.c_[dy, dv], sums, np.c_[dq, dk], 0, 0, 0, more, more - loss


def softmax_sheet():
    (table,) = given("softmax")
    x, labels = table[:, :3], table[:, 3].astype(int)
    p, t = softmax(x), np.eye(3)[labels]
    losses = -np.log((p * t).sum(1))
    dx, dp = (p - t) / 2, -t / (2 * p)
    shifted = np.exp(x[0] - x[0].max())
    exps = np.c_[np.exp(x), np.exp(x).sum(1)]
    rest = dx, np.c_[dp, (dp * p).sum(1)], dx, 0, shifted, shifted.sum(), p[0, 2], x[0] - dx[0]
    return exps, p, losses, losses.mean(), *rest


def layer_norm():
    ((x, weight, bias, dy),) = given("layer_norm")

    def norm(x):
        return (x - x.mean()) / x.std()

    n, dn, eps = norm(x), dy * weight, 1e-6
    dx = [(dn @ norm(x + step) - dn @ norm(x - step)) / (2 * eps) for step in eps * np.eye(4)]
    centred, constants = x - x.mean(), dn / x.std()
    forward = x.mean(), x.var(), x.std(), centred, n, n * weight + bias
    return *forward, dy * n, dy, dn, dn.mean(), (dn * n).mean(), dx, 0, 0, constants, constants.sum()


def image():
    pixels, projection, learned = given("image")
    weight, bias, positions = projection[:, :4], projection[:, 4], learned[:, 1:].T
    patches = np.array([pixels[y : y + 2, x : x + 2].ravel() for y in (0, 2) for x in (0, 2)])
    features = patches @ weight.T + bias
    tokens = np.vstack([learned[:, 0], features]) + positions
    shapes = "(1, 1, 4, 4)", "(1, 4, 2)", "(1, 5, 2)"
    count = weight.size + bias.size + learned.size
    d = np.array([[1.0, 1], [2, 0], [0, 0], [0, 1], [0, 0]])
    ends = d[0], d[3], d[1:].sum(0), d[1:].T @ patches, (d[1:] @ weight)[[0, 2]]
    return np.c_[patches, features], tokens.T, *shapes, count, *ends


BY_HAND = {"attention": attention, "image": image, "layer_norm": layer_norm, "softmax": softmax_sheet}


@pytest.mark.parametrize("name", SHEETS)
def test_the_committed_key_is_the_sheet_filled_by_minivit(name):
    assert read(f"sheets/{name}_key.md") == sheets.key(name)
    assert not sheets.BLANK.search(read(f"sheets/{name}_key.md"))


@pytest.mark.parametrize("name", SHEETS)
def test_a_key_has_the_numbers_that_numpy_has_from_what_the_sheet_gives(name):
    expected = [x for part in BY_HAND[name]() for x in (np.ravel(part) if not isinstance(part, str) else [part])]
    answers = filled(name)
    assert len(answers) == len(sheets.BLANK.findall(read(f"sheets/{name}.md"))) == len(expected)
    for answer, x in zip(answers, expected, strict=True):  # the sheet gives its roots and logarithms in 3 decimals
        assert answer == x if isinstance(x, str) else abs(answer - x) < 0.0015 * max(1, abs(x)), (answer, x)


@pytest.mark.parametrize("name", SHEETS)
def test_a_sheets_blanks_stay_as_they_are_in_any_markdown(name):
    """Between spaces underscores are no emphasis. And nothing on it is more than a program without formulas shows."""
    text = read(f"sheets/{name}.md")
    assert len(re.findall(r"(?<=\s)_{6,}(?=\s)", text)) == len(re.findall(r"_{6,}", text))
    assert text.isascii() and not re.search(r"<[a-z/]|\$", text)


@pytest.mark.parametrize("name", SHEETS)
def test_what_a_sheet_asks_for_does_not_stand_on_it(name):
    """No number with a fraction; a 0 or a 2 stands anywhere."""
    asked = {x for x in filled(name) if not isinstance(x, str) and not x.is_integer()}
    text = read(f"sheets/{name}.md")
    below = text[text.index("## Forward") :]
    assert asked & set(numbers(below)) == set()


def test_what_the_keys_are_computed_with_passes_gradcheck_at_their_numbers():
    root, log2, log3 = np.sqrt(2), np.log(2), np.log(3)
    q, k, v = np.array([[root, 0], [0, root]]), np.array([[0, log3], [log2, 0]]), np.array([[3.0, 0], [0, 6]])
    assert gradcheck(ops.scaled_dot_product_attention, q, k, v)
    tensors = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    y = ops.scaled_dot_product_attention(*tensors)
    (y[0, 0] - y[0, 1] + y[1, 1]).backward()
    named = dict(zip(("q", "k", "v"), (t.grad for t in tensors), strict=True))
    parts = sheets.attention()
    np.testing.assert_allclose(parts[5], np.c_[named["q"], named["k"]], atol=1e-12)
    np.testing.assert_allclose(parts[3][:, 2:], named["v"], atol=1e-12)
    x, weight, bias = np.array([0.0, 6, 6, 8]), np.array([1, 2, 1, 0.5]), np.array([1.0, 0, 0, 1])
    assert gradcheck(lambda *arrays: ops.layer_norm(*arrays, eps=0), x, weight, bias)
    assert gradcheck(lambda x: ops.cross_entropy(x, [0, 2]), np.log([[2.0, 3, 5], [1, 1, 2]]))


# ---- shapes


def table(name, heading):
    """The rows of the first table below a heading, each a list of its cells."""
    text = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", read(name), re.M | re.S)[1]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def in_numbers(shape, column):
    """A shape in letters with the numbers of that column of the letters' table: 2 is Base/16, 3 the digits."""
    letters = {row[0]: int(row[column]) for row in table("shapes.md", "Letters")}
    letters |= {"q": letters["T"], "k": letters["T"]}
    return tuple(letters.get(side) or int(side) for side in re.findall(r"\w+", shape))


def of_digits():
    chosen = recipe("digits")
    config = ViTConfig(num_labels=10, image_size=8, num_channels=1, **chosen.model)
    return vit.ViTForImageClassification(config), chosen.batch_size


def of_base():
    """Base/16 with the first of its blocks."""
    return vit.ViTForImageClassification(ViTConfig.base(num_hidden_layers=1, num_labels=1000)), 1


@pytest.mark.parametrize(("make", "column"), [(of_base, 2), (of_digits, 3)])
def test_the_page_of_shapes_has_those_of_a_real_model_forward_and_backward(make, column):
    model, B = make()
    pixels = np.zeros((B, *in_numbers("(C, H, W)", column)), np.float32)
    named = {name.removeprefix("layer.0."): stage for name, stage in lens.trace(model, pixels, 0).items()}
    named = {name: stage for name, stage in named.items() if not name.startswith("layer.")}
    rows = table("shapes.md", "Forward")
    assert [row[1].strip("`") for row in rows] == [*named]
    for row, stage in zip(rows, named.values(), strict=True):
        shape = tuple(map(int, re.findall(r"\d+", row[column + 1])))
        assert in_numbers(row[2], column) == shape == stage.value.shape == stage.gradient.shape, row


@pytest.mark.parametrize(("column", "config"), [(2, ViTConfig.base(num_labels=1000)), (3, of_digits()[0].config)])
def test_the_page_of_shapes_counts_what_is_learned(column, config):
    with nn.meta():
        model = vit.ViTForImageClassification(config)
    sizes = config.num_attention_heads, config.intermediate_size, config.num_hidden_layers, config.num_labels
    assert in_numbers("h F L K", column) == sizes
    (*rows, total), counted = table("shapes.md", "What is learned"), []
    for name, shape, times, _, *numbers in rows:
        times = math.prod(in_numbers(times, column))
        shape = in_numbers(shape, column)
        assert numbers[column - 2] == f"{times * math.prod(shape):,}", name
        counted += [shape] * times
    found = [parameter.shape for parameter in model.parameters()]
    assert sorted(counted) == sorted(found) and total[column + 2] == f"{model.num_parameters():,}"


def test_the_page_of_shapes_tells_the_two_readers_of_digits_apart():
    model = vit.ViTForImageClassification.from_pretrained("digits")
    P, N = model.config.patch_size, (8 // model.config.patch_size) ** 2
    assert f"P = {P}: N = {N} and T = {N + 1}. Both have {model.num_parameters():,}" in read("shapes.md")
    assert model.num_parameters() == of_digits()[0].num_parameters()


# ---- the diagram


def test_the_diagram_is_text_with_a_title_and_the_shapes_of_the_page():
    tree = ElementTree.parse(TUTORIALS / "model.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    title, description = tree.find(f"{name}title"), tree.find(f"{name}desc")
    assert tree.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
    texts = [element.text for element in tree.iter(f"{name}text")]
    shapes = [re.fullmatch(r"(?:logits )?([A-Z, ]+) \(([\d, ]+)\)", text) for text in [*texts, " ".join(texts[4:6])]]
    shapes = [match.groups() for match in shapes if match]
    assert len(shapes) == 9
    for letters, numbers in shapes:
        sides = tuple(map(int, numbers.split(",")))
        groups = [math.prod(in_numbers(side, 2)) for side in letters.split(",")]
        assert tuple(groups) == sides[-len(groups) :] and math.prod(groups) == math.prod(sides)


# ---- references

# "Ba et al. 2016", "Ba, Kiros and Hinton 2016", "Zhang (2019", with a letter where a name has two papers in a year
NAMES = r"((?:[A-Z][\w'-]+|nostalgebraist)(?:, [A-Z][\w'-]+)*(?:,? and [A-Z][\w'-]+| et al\.)?)"
CITATION = re.compile(NAMES + r",? \(?((?:18|19|20)\d\d[a-z]?)\b")
PAPERS = read("references.md").partition("\n## ")[0]
LESSONS = sorted(TUTORIALS.glob("[0-9][0-9]*.py"))
TEACHERS = sorted((TUTORIALS / "teacher").glob("*.md"))


def cited(path):
    """{(name, year)} of every citation: all names that stand before the year, the first author's among them."""
    text = re.sub(r"\s*\n\s*(?:# ?)?", " ", path.read_text(encoding="utf-8"))
    return [(re.findall(r"[A-Z][\w'-]+|nostalgebraist", names), year) for names, year in CITATION.findall(text)]


def references():
    """{(first author, year): the entry's text}, in the order of the page."""
    entries = [" ".join(entry.split()) for entry in re.split(r"\n- ", PAPERS)[1:]]
    keys = [re.match(r"\*\*([\w'-]+)[^*]* (\d{4}[a-z]?)\.\*\* ", entry) for entry in entries]
    return {(key[1], key[2]): entry for key, entry in zip(keys, entries, strict=True)}


@pytest.mark.parametrize("path", [*LESSONS, *TEACHERS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_cited_stands_in_the_references(path):
    known = references()
    assert [(names, year) for names, year in cited(path) if not any((name, year) in known for name in names)] == []


def test_references_say_which_lessons_name_them():
    """If not, the right lines are those that pytest shows."""
    named = {}
    for path in LESSONS:
        for names, year in cited(path):
            for name in names:
                named.setdefault((name, year), {})[path.name.partition("_")[0].lstrip("0")] = None
    wrong = []
    for key, entry in references().items():
        lessons = list(named.get(key, ()))
        said = f"Lesson{'s' * (len(lessons) > 1)} {', '.join(lessons)}." if lessons else "minivit's code."
        if not entry.endswith(f". {said}"):
            wrong.append(f"{' '.join(key)}: {said}")
    assert wrong == []


def test_references_are_in_order_and_lead_somewhere():
    entries = references()
    assert list(entries) == sorted(entries, key=lambda key: (key[0].lower(), key[1])) and len(entries) > 40
    for key, entry in entries.items():
        arxiv, doi = r"\[arXiv:(\d{4}\.\d{5}|1\d{3}\.\d{4,5})\]\(https://arxiv\.org/abs/\1\)", r"\[doi:(10\.\S+)\]"
        links = arxiv, rf"{doi}\(https://doi\.org/\1\)", r"\[((?:jmlr|lesswrong|github)\.\w+)\]\(https://(?:www\.)?\1/"
        assert sum(bool(re.search(link, entry)) for link in links) == 1 and re.search(r" \*[^*]+\.\* ", entry), key


# ---- glossary


def terms():
    """(term, its lessons), of every row of the glossary."""
    lines = [line for line in read("glossary.md").splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(row[1], re.findall(r"\[(\d+b?)\]", row[3])) for row in rows]


def plain(text):
    """Words alone, in small letters, without Markdown's signs and the # of a comment."""
    return " ".join(re.sub(r"\n\s*#", "\n", text).replace("*", "").replace("`", "").split()).lower()


@pytest.mark.parametrize("lesson", sorted({lesson for _, lessons in terms() for lesson in lessons}))
def test_a_lesson_teaches_the_terms_that_the_glossary_says(lesson):
    """In the core or in its extra."""
    paths = TUTORIALS.glob(f"{int(lesson.rstrip('b')):02}*_*.py")
    text = plain("\n".join(path.read_text(encoding="utf-8") for path in paths))
    missing = [term for term, lessons in terms() if lesson in lessons and plain(term) not in text]
    assert missing == []


def test_the_glossary_is_in_order_and_has_what_students_ask_for():
    names = [term.lower() for term, _ in terms()]
    assert all(lessons for _, lessons in terms())
    assert names == sorted(names) and len(names) == len({*names})
    assert {"logit", "cls", "cotangent", "einsum", "attention weights", "inductive bias", "residual stream"} <= {*names}


# ---- teacher's pages

SHEET_OF = {"attention": [5], "image": [1, 2, 3, 4], "layer_norm": [6], "softmax": [9]}  # lessons
MINUTES = {lesson.number: lesson.minutes for lesson in lessons()}


@pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)
def test_a_teachers_page_has_its_parts_and_its_minutes(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120 and text.isascii() and not re.search(r"<[a-z/]+>|\$", text)
    assert text.startswith(f"# Teaching lesson {int(path.stem)}: ")
    headings = re.findall(r"^## (.+)$", text, re.M)
    extra = [f"Minutes of {int(path.stem)}b"] * (f"{path.stem}b" in MINUTES)
    expected = ["Minutes", *extra, "Draw", "Where students get lost", "Predict, then run", "Answers"]
    assert sorted(headings) == sorted(expected)
    for heading, number in zip(["Minutes", *extra], [path.stem, f"{path.stem}b"], strict=False):
        rows = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
        assert sum(map(int, re.findall(r"^\| (\d+) \|", rows, re.M))) == MINUTES[number], heading


@pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)
def test_a_teachers_page_asks_three_questions_with_a_right_answer_and_reasons(path):
    part = re.search(r"^## Predict, then run\n(.*?)^## ", path.read_text(encoding="utf-8"), re.M | re.S)[1]
    questions = re.split(r"^### ", part, flags=re.M)[1:]
    assert [question[:3] for question in questions] == ["1. ", "2. ", "3. "]
    for question in questions:
        options, right, reasons = re.split(r"Right: \(([a-e])\)", question)
        asked = re.findall(r"\(([a-e])\) ", options)
        assert len(asked) >= 3 and asked == list("abcde"[: len(asked)]) and right in asked
        assert {*asked} - {right} <= {*re.findall(r"\(([a-e])\)", reasons)} and re.search(r"\d", reasons)


@pytest.mark.parametrize("number", sorted(number for number in MINUTES if not number.endswith("b")))
def test_every_lesson_has_a_teachers_page(number):
    assert f"{number}.md" in [path.name for path in TEACHERS]


@pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)
def test_a_teachers_page_has_no_number_that_was_never_filled_in(path):
    """Such as PROBE10: it was written to be replaced by a lesson's own number."""
    assert re.findall(r"\b[A-Z]{2,}\d+\b", path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TEACHERS, ids=lambda path: path.stem)
def test_a_teachers_page_leads_to_its_lesson_its_extra_its_sheets_and_its_view(path):
    links = re.findall(r"\]\((\S+)\)", path.read_text(encoding="utf-8"))
    beside = {f"../{lesson.name}" for lesson in LESSONS if lesson.name.startswith(path.stem)}
    named = [name for name in SHEETS if int(path.stem) in SHEET_OF[name]]
    beside |= {f"../sheets/{name}{key}.md" for name in named for key in ("", "_key")}
    assert beside <= {*links}
    assert any(link.endswith(f".html#lesson={int(path.stem)}") for link in links)


# ---- links

EXPLORERS = {"explore.html", "digits.html"}  # what `minivit explore` and `minivit book` write beside tutorials/


@pytest.mark.parametrize("page", sorted(path.relative_to(TUTORIALS).as_posix() for path in TUTORIALS.rglob("*.md")))
def test_a_link_on_a_page_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)\s]+)\)", read(page))
    files = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    files = [file for file in files if file.removeprefix("../../") not in EXPLORERS]
    missing = [file for file in files if not (TUTORIALS / page).parent.joinpath(file).exists()]
    assert missing == []


# ---- travelling


def test_every_page_beside_the_lessons_travels_in_the_wheel():
    source = (Path(minivit.__file__).parent / "machinery" / "wheel.py").read_text(encoding="utf-8")
    kinds = ast.literal_eval(re.search(r"^FOLDERS = (.*)$", source, re.M)[1])["tutorials"]
    pages = {path for path in TUTORIALS.rglob("*") if path.suffix in (".py", ".md", ".svg")}
    assert pages - {path for kind in kinds for path in TUTORIALS.glob(kind)} == set()
