"""minivit show: it finds what is meant, prints what the files say, and what it says of shapes and gradients is true."""

import ctypes
import inspect
import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from minivit import Tensor, nn, notebook, ops, vit
from minivit.__main__ import main
from minivit.course import cases, examples, exercises, lessons, show, source
from minivit.errors import MinivitError
from minivit.machinery.normal import normal

ROOT = Path(__file__).parents[1]
ENTRIES = [entry for entries in show.catalogue().values() for entry in entries]
ANSI = re.compile(r"\033\[\d*m")


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def shown(capsys):
    """shown("softmax", ...): what `minivit show softmax ...` prints, and its exit code."""

    def run(*arguments):
        code = main(["show", *arguments])
        return capsys.readouterr().out, code

    return run


def said(text, label):
    """What stands behind a label, in one line."""
    found = re.search(rf"^{label} +(.*(?:\n {{11}}.*)*)", text, re.M)
    return found and " ".join(found[1].split())


# ---- what is printed


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_everything_listed_is_shown_with_its_source_and_fits_100_columns_of_ascii(entry, shown):
    text, code = shown(entry.path)
    assert code == 0 and text.isascii() and max(map(len, text.splitlines())) <= 100
    head, blank, *rest = text.splitlines()
    path, line = re.fullmatch(rf"{entry.path}   (\S+), line (\d+)", head).groups()
    code_lines, first = inspect.getsourcelines(entry.object)
    assert blank == "" and int(line) == first
    assert (ROOT / path).read_text(encoding="utf-8").splitlines()[first - 1] == code_lines[0].rstrip()
    assert "".join("\n".join(rest).split()).startswith("".join("".join(code_lines).split()))  # folded, but all there
    assert said(text, "lesson")
    if entry.path.startswith("ops.") or ("forward" in vars(entry.object) and entry.object is not nn.Module):
        assert said(text, "shapes")
        error = re.match(r"relative error (\d\.\de-\d\d) \(allowed 1e-06\); .+", said(text, "gradient"))[1]
        assert 0 < float(error) < 1e-6


def test_the_names_fit_one_screen(shown):
    text, code = shown()
    assert not code and len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100
    words = text.split()
    assert [entry.name for entry in ENTRIES if entry.name not in words] == []
    for title in ("ops", "layers", "the model", "the notebook", "the tape"):
        assert re.search(rf"^{title} ", text, re.M)


@pytest.mark.parametrize("module", [ops, nn, vit, notebook])
def test_a_module_is_shown_as_a_line_for_each_of_its_names(module, shown):
    name = module.__name__.removeprefix("minivit.")
    text, code = shown(name)
    here = [entry for entry in ENTRIES if entry.path.startswith(f"{name}.")]
    assert [line.split()[0] for line in text.splitlines()] == [entry.name for entry in here]
    assert not code and max(map(len, text.splitlines())) <= 100
    for line, entry in zip(text.splitlines(), here, strict=True):
        words = " ".join(line.split()[1:]).removesuffix(" ...")
        assert words and " ".join(inspect.getdoc(entry.object).split()).startswith(words)


def test_formula_and_backward_are_the_docstrings(shown):
    text, _ = shown("softmax")
    assert said(text, "formula").startswith("y = exp(x) / sum(exp(x))")
    assert said(text, "backward").startswith("dx = y * (dy - sum(dy * y))")
    assert said(text, "uses") is None


@pytest.mark.parametrize(
    "name, shapes",
    [
        ("layer_norm", "x (2, 3, 5), weight (5,), bias (5,) -> y (2, 3, 5)"),
        ("softmax", "x (2, 3, 5), axis=-1 -> y (2, 3, 5)"),
        ("conv2d", "x (2, 3, 6, 4), weight (5, 3, 3, 2), bias (5,), stride=(3, 2) -> y (2, 5, 2, 2)"),
        ("cross_entropy", "logits (3, 5), labels (3,) -> y ()"),
        ("einsum", "x (3, 2, 5), y (4, 2, 5) -> output (3, 2, 4)"),
        ("Linear", "x (2, 3, 5) -> output (2, 3, 4)"),
        ("PixelShuffle", "x (2, 8, 3, 5) -> output (2, 2, 6, 10)"),
        ("ViTSelfAttention", "hidden_states (2, 9, 12) -> context (2, 9, 12), probabilities (2, 3, 9, 9)"),
        ("ViTLayer.forward", "hidden_states (2, 9, 12) -> output (2, 9, 12), probabilities (2, 3, 9, 9)"),
        ("ViTOutput", "hidden_states (2, 9, 20), input_tensor (2, 9, 12) -> output (2, 9, 12)"),
        (
            "ViTForImageClassification",
            "pixel_values (2, 3, 8, 16), labels (2,) -> loss (), logits (2, 5), attentions 2 x (2, 3, 9, 9)",
        ),
        ("notebook.PatchEmbeddings", "image (3, 7, 10) -> output (6, 5)"),
        ("backward", "x (2, 3), weight (3, 4) -> loss ()"),
    ],
)
def test_the_shapes_are_those_of_a_run(name, shapes, shown):
    assert said(shown(name)[0], "shapes") == shapes


def test_what_an_example_computes_is_said_where_its_shapes_do_not_tell(shown):
    assert said(shown("einsum")[0], "example") == 'einsum "qhd,khd->qhk"'
    assert said(shown("unbroadcast")[0], "example") == "y = expand(x, (4, 2, 3)), whose backward is unbroadcast"
    assert said(shown("layer_norm")[0], "example") is None


def test_the_parts_of_a_class_are_named_for_the_next_question(shown):
    assert said(shown("ViTLayer")[0], "uses") == "Module ViTAttention ViTIntermediate ViTOutput LayerNorm"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path)
def test_a_name_under_uses_finds_what_the_source_means_by_it(entry):
    """By what Python itself finds for a name in the module that the source is from."""
    code, known = "".join(inspect.getsourcelines(entry.object)[0]), vars(sys.modules[entry.object.__module__])
    for name in show._uses(entry, textwrap.dedent(code)):
        found, last = inspect.unwrap(show.find(name)[0].object), name.rpartition(".")[2]
        words = set(re.findall(rf"(?:\b\w+\.)?\b{last}\b", code))
        meant = [known.get(last), *(getattr(known.get(word.partition(".")[0]), last, None) for word in words)]
        assert any(found is inspect.unwrap(x) for x in meant if x is not None)


@pytest.mark.parametrize(
    "name, uses",
    [
        ("gelu", "normal.normal by_rows in_dtype is_grad_enabled"),
        ("layer_norm", "in_dtype layer_norm.mean by_rows total"),
        ("notebook.Embedding", "Module notebook.PatchEmbeddings Linear nn.normal concatenate"),
        ("logsumexp", "add log sum exp subtract squeeze"),
        ("gradcheck.compare", "Tensor _names _changed no_grad _by_element _comparison _by_direction"),
    ],
)
def test_a_name_that_several_have_stands_under_uses_with_its_file(name, uses, shown):
    assert said(shown(name)[0], "uses") == uses


# ---- gradients


def test_the_gradient_check_of_an_op_is_that_of_the_table():
    error, how = examples.Run("ops.linear").check()
    found = cases.errors("linear", np.random.default_rng(0))
    assert error == max(found.values()) > 0 and how == "each number of x, weight, bias nudged, 4 examples"


def test_a_wrong_backward_of_an_op_is_said_and_exits_1(shown, monkeypatch):
    def softmax(x, axis=-1):
        y = np.exp(x.data) / np.exp(x.data).sum(axis, keepdims=True)
        return x * y  # the value is wrong, too, but its gradient misses what y owes to x

    wrong = cases.case(lambda x: softmax(x) + x.data, (2, 3), label="softmax")
    monkeypatch.setitem(cases.CASES, "softmax", [wrong])
    text, code = shown("softmax")
    assert code == 1 and "TOO LARGE (allowed 1e-06)" in said(text, "gradient")


def test_a_wrong_backward_inside_a_layer_is_said_and_exits_1(shown, monkeypatch):
    # GELU without the second term of its derivative
    monkeypatch.setitem(nn.ACTIVATIONS, "gelu", lambda x: x * Tensor(normal(x.data)[0]))
    for name in ("ViTLayer", "ViTForImageClassification"):
        text, code = shown(name)
        assert code == 1 and "TOO LARGE" in said(text, "gradient")
    assert shown("ViTSelfAttention")[1] == 0


def test_a_missing_gradient_of_a_parameter_is_said_and_exits_1(shown, monkeypatch):
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: ops.layer_norm(x, self.weight, Tensor(self.bias.data)))
    text, code = shown("ViTLayer")
    assert code == 1 and "TOO LARGE" in said(text, "gradient")


def test_the_attention_of_the_examples_is_far_from_even(rng):
    """Where all keys get the same share, a wrong gradient of queries and keys would not show."""
    layer = vit.ViTSelfAttention(examples.CONFIG, rng=0)
    _, shares = layer(Tensor(rng.standard_normal((2, 9, 12)).astype(np.float32)), output_attentions=True)
    assert shares.data.max(-1).mean() > 2 / 9


# ---- names


@pytest.mark.parametrize(
    "name, path",
    [
        ("softmax", "ops.softmax"),
        ("Softmax", "nn.Softmax"),
        ("ops.softmax", "ops.softmax"),
        ("minivit.ops.softmax", "ops.softmax"),
        ("ops.softmax.softmax", "ops.softmax"),
        ("layernorm", "ops.layer_norm"),
        ("layer norm", "ops.layer_norm"),
        ("LAYER_NORM", "ops.layer_norm"),
        ("Linear", "nn.Linear"),
        ("linear", "ops.linear"),
        ("vitlayer", "vit.ViTLayer"),
        ("PatchEmbeddings", "vit.PatchEmbeddings"),
        ("notebook.patchembeddings", "notebook.PatchEmbeddings"),
        ("backward", "autograd.Tensor.backward"),
        ("tensor.backward", "autograd.Tensor.backward"),
        ("Tensor.sum", "ops.sum"),
        ("pow", "ops.power"),
        ("_comparison", "gradcheck._comparison"),
        ("Tensor.reshape", "ops.reshape"),
        ("__matmul__", "ops.matmul"),
        ("unbroadcast", "ops.unbroadcast"),
        ("no_grad", "autograd.no_grad"),
        ("differentiable", "autograd.differentiable"),
        ("gradcheck", "gradcheck.gradcheck"),
        ("retain_grad", "autograd.Tensor.retain_grad"),
        ("Linear.state_dict", "nn.Linear.state_dict"),
        ("ViTAttention.prune_heads", "vit.ViTAttention.prune_heads"),
        ("sine_cosine_positions", "ops.positions.sine_cosine_positions"),
        ("attention_rollout", "lens.attention_rollout"),
        ("Dataset.batches", "datasets.Dataset.batches"),
        ("Vit", "notebook.Vit"),
        ("AdamW", "optim.AdamW"),
    ],
)
def test_a_name_is_found(name, path):
    assert show.find(name)[0].path == path


def test_several_words_are_one_name(shown):
    assert shown("cross", "entropy")[0].startswith("ops.cross_entropy ")


def test_a_name_in_two_places_says_how_to_ask_for_the_other(shown):
    assert said(shown("PatchEmbeddings")[0], "also") == "minivit show notebook.PatchEmbeddings"
    assert said(shown("notebook.PatchEmbeddings")[0], "also") == "minivit show vit.PatchEmbeddings"
    assert said(shown("gelu")[0], "also") == "minivit show nn.GELU"
    assert said(shown("softmax")[0], "also") == "minivit show nn.Softmax"
    assert said(shown("linear")[0], "also") == "minivit show nn.Linear"
    assert said(shown("einsum")[0], "also") is None
    assert said(shown("forward")[0], "also").endswith(", ...")


@pytest.mark.parametrize(
    "name, near",
    [
        ("sofmax", "softmax, "),
        ("CrossEntropyLos", "CrossEntropyLoss"),
        ("ops.layernrom", "layer_norm"),
        ("rollout", "attention_rollout, "),
        ("Tensor.bakward", "backward"),
    ],
)
def test_a_name_that_is_not_there_gets_the_nearest_and_exits_2(name, near, capsys):
    assert main(["show", name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"show: there is no '{name}'.\n" in err and f"hint: did you mean {near}" in err


@pytest.mark.parametrize(
    "name, way",
    [
        ("cuda", "leave it out: all numbers lie in the memory of the CPU, which computes with them."),
        ("Tensor.fill_", "none changes x: x = ... is a new one, x.data[...] = numbers not recorded."),
        ("normal_", "none changes x: x = ... is a new one, x.data[...] = numbers not recorded."),
        ("sub", "x - y."),
        ("cat", "ops.concatenate(tensors, axis)."),
        ("MSELoss", "((x - y) ** 2).mean()."),
        ("optim.Adam", "optim.AdamW(parameters, lr, weight_decay=0) is Adam."),
        ("register_buffer", "model.name = array: only a Parameter is learned, and saved."),
    ],
)
def test_a_name_that_only_pytorch_has_gets_the_way_here(name, way, capsys):
    assert main(["show", name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"there is no '{name}'.\n" in err and err.endswith(f"hint: {way}\n")


def test_methods_that_have_only_a_message_are_nowhere(shown):
    assert said(shown("add")[0], "also") is None
    assert [entry.path for entry in show._methods(ENTRIES) if "vocabulary" in entry.object.__module__] == []


@pytest.mark.parametrize("module", ["autograd", "ops", "optim", "lens", "config"])
def test_a_file_as_the_map_of_readme_spells_it_is_its_module(module, shown):
    text = shown(module)[0]
    assert shown(f"{module}.py")[0] == shown(f"{module}/")[0] == text
    assert len(text.splitlines()) > 1


@pytest.mark.parametrize("name", ["zzzz", "", "."])
def test_a_name_like_no_other_gets_no_hint(name):
    with pytest.raises(MinivitError, match=r"there is no '.*'\.\n  rule: .*minivit show lists them\.$"):
        show.find(name)


# ---- lessons


@pytest.mark.parametrize("number, name", [(n, name) for n, names in show.LESSONS.items() for name in names.split()])
def test_a_lesson_that_derives_something_speaks_of_it(number, name):
    [lesson] = [lesson for lesson in lessons.lessons() if lesson.number == number]
    text = lesson.path.read_text(encoding="utf-8") + exercises.stub(number[:2])
    words = re.findall(r"[A-Z]?[a-z\d]+|[A-Z]+(?![a-z])", name.removeprefix("ViT"))
    assert len(re.findall("[ _-]?".join(words), text, re.I)) >= 2
    assert show.find(name)


def test_the_lesson_is_named_with_its_title(shown):
    title = next(lesson.title for lesson in lessons.lessons() if lesson.number == "06")
    assert said(shown("layer_norm")[0], "lesson") == f"6. {title} (minivit run 06)"
    assert said(shown("GELU.forward")[0], "lesson").startswith("6. ")
    assert said(shown("clip_grad_norm")[0], "lesson") == "none derives it"


# ---- colours


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    "environment, arguments, coloured",
    [
        ({}, [], True),
        ({"NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
        ({}, ["--no-color"], False),
        ({"NO_COLOR": "1"}, ["--color"], True),
    ],
)
def test_colours_on_a_terminal(environment, arguments, coloured, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(source, "_windows_console_shows_colours", lambda: True)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["show", "layer_norm", *arguments]) == 0
    assert ("\033[" in sys.stdout.getvalue()) == coloured


def test_no_colours_in_a_file_unless_they_are_asked_for(shown):
    plain, coloured = shown("ViTLayer")[0], shown("ViTLayer", "--color")[0]
    assert "\033" not in plain and ANSI.sub("", coloured) == plain
    for words in ("\033[35mclass\033[0m \033[1mViTLayer\033[0m", "\033[1mshapes\033[0m ", '\033[32m"""One encoder'):
        assert words in coloured


def test_the_styles_of_python():
    code = 'def f(x):  # why\n    """Two\n    lines."""\n    return f"{x}" if x else None\n'
    pieces = [re.findall(r"\033\[(\d+)m(.*?)\033\[0m", line) for line in source.lines(code, 100, True)]
    assert pieces[0] == [("35", "def"), ("1", "f"), ("36", "# why")]
    assert pieces[1:3] == [[("32", '"""Two')], [("32", '    lines."""')]]
    assert [word for style, word in pieces[3] if style == "35"] == ["return", "if", "else", "None"]


def test_a_long_line_is_folded_at_a_space_behind_its_indent():
    line = "    total = first_term + second_term + third_term  # a reason that goes on and on"
    folded = list(source.lines(line, 40, False))
    assert folded == [
        "    total = first_term + second_term +",
        "        third_term  # a reason that goes",
        "        on and on",
    ]
    assert [ANSI.sub("", part) for part in source.lines(line, 40, True)] == folded
    assert list(source.lines("x" * 50, 40, False)) == ["x" * 50]


def test_a_source_that_is_no_whole_statement_is_shown_all_the_same():
    code = "lambda x: (\n    x\n"
    assert "\n".join(source.lines(code, 100, False)) == code.rstrip()


@pytest.mark.parametrize("known, accepted, expected", [(1, 1, True), (0, 1, False), (1, 0, False)])
def test_windows_console_is_asked_whether_it_takes_ansi_codes(known, accepted, expected, monkeypatch):
    asked = []

    class Kernel:
        @staticmethod
        def GetConsoleMode(console, mode):
            mode._obj.value = 3
            return known

        @staticmethod
        def SetConsoleMode(console, mode):
            asked.append((console.value, mode))
            return accepted

    class Windll:
        kernel32 = Kernel

    monkeypatch.setattr(ctypes, "windll", Windll, raising=False)
    monkeypatch.setitem(sys.modules, "msvcrt", type(sys)("msvcrt"))
    sys.modules["msvcrt"].get_osfhandle = lambda number: 40 + number
    monkeypatch.setattr(sys, "stdout", Terminal())
    sys.stdout.fileno = lambda: 1
    assert source._windows_console_shows_colours() == expected
    assert asked == ([(41, 7)] if known else [])  # 7 = 3, as it was, and 4, ANSI


# ---- as a process


def test_it_opens_no_window_and_imports_no_matplotlib():
    code = "import sys, minivit.__main__ as m; m.main(['show', 'ViTModel']); print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nFalse\n") and not done.stderr and "\033" not in done.stdout
