"""What README, CONTRIBUTING and CITATION say is so: examples print what they promise, habits from PyTorch are met."""

import re
from pathlib import Path

import numpy as np
import pytest

from minivit import Tensor, __version__, nn, ops
from minivit.config import ViTConfig
from minivit.errors import MinivitError

ROOT = Path(__file__).parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def promised_and_printed(number, capsys):
    """The words that the comments of README's example promise, and those that it prints."""
    code = re.findall(r"```python\n(.*?)```", README, re.S)[number]
    exec(code, {})
    return " ".join(re.findall(r"print\(.*\)  # (.*)", code)).split(), capsys.readouterr().out.split()


def test_the_example_prints_what_its_comments_say(capsys):
    promised, printed = promised_and_printed(0, capsys)
    assert len(promised) == 3 and printed == promised


def test_the_training_loop_learns_as_much_as_its_comment_says(capsys):
    (promised, *_), (printed,) = promised_and_printed(1, capsys)
    assert abs(float(printed) - float(promised)) <= 0.03  # on another machine the last bits differ, and a few answers


def test_the_processor_whose_bits_pixel_values_has_is_the_one_that_the_golden_numbers_are_of():
    golden = (ROOT / "tests" / "golden" / "README.md").read_text(encoding="utf-8")
    assert "`pixel_values` of `ViTImageProcessorPil`" in golden
    claim = re.search(r"gives the same bits as (.*?)\n\n", README, re.S)[1]
    assert "`ViTImageProcessorPil` of transformers 5" in " ".join(claim.split()) and "one grey level off" in claim


def test_the_map_names_every_room():
    package = ROOT / "minivit"
    floor = [path.name for path in package.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    ops = [path.stem for path in (package / "ops").glob("*.py") if path.stem != "__init__"]
    rooms = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    assert [name for name in floor + ops + rooms if name not in README] == []


def test_contributing_names_files_that_are_there():
    named = re.findall(r"`([\w./]+/[\w./]*)`", CONTRIBUTING) + re.findall(r"\]\(([\w./]+)\)", CONTRIBUTING)
    assert len(named) >= 12 and [path for path in named if not (ROOT / path).exists()] == []


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([a-z-]+): (.*)$", text, re.M))
    assert fields["cff-version"] == "1.2.0" and fields["license"] == "MIT"
    assert fields["version"] == __version__ and "  - name: The minivit authors" in text


HABITS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.search(r"\| PyTorch \| minivit .*?\n\n", README, re.S)[0].strip().splitlines()[2:]
]


def names():
    """What the table's code speaks of; torch and F are ops, as the README says above the table."""
    x, y = (Tensor(np.arange(24.0).reshape(2, 3, 4) / (7 + n), requires_grad=True) for n in (0, 1))
    m, z = Tensor(np.ones((2, 4)) * 3, requires_grad=True), Tensor(np.ones((2, 4, 5)))
    given = {"x": x, "y": y, "m": m, "z": z, "mask": x.data > 1, "array": y.data, "labels": [1, 0]}
    given["model"] = nn.Linear(3, 3)
    return given | {"np": np, "nn": nn, "ops": ops, "torch": ops, "F": ops, "ViTConfig": ViTConfig}


@pytest.mark.parametrize(("theirs", "ours"), [row[:2] for row in HABITS], ids=[row[0] for row in HABITS])
def test_a_habit_works_or_is_told_the_way(theirs, ours):
    here = re.findall("`(.+?)`", ours) if not ours.startswith("the same") else []
    for code in re.findall("`(.+?)`", theirs):
        if ours.startswith("the same"):
            exec(code, names())
            continue
        with pytest.raises(MinivitError) as told:
            exec(code, names())
        for word in re.findall("[a-z_]{3,}", " ".join(here) or ours):
            assert word in str(told.value)
    for code in here:
        exec(code, names())


def test_the_table_of_habits_fits_a_screen():
    assert 20 <= len(HABITS) <= 30 and all(len(row) == 3 for row in HABITS)


def test_the_line_that_brings_the_notebooks_names():
    line = re.search(r"`(from minivit\.notebook import \*)`", README)[1]
    here = {"x": np.ones((3, 6, 9), np.float32)}
    exec(f"{line}\nembed_out = Embedding(x, out_channels=8, kernel_size=3)()", here)
    exec("y = Vit(8, 8, heads=2, num_encoders=1)(embed_out)", here)
    assert here["y"].shape == (7, 8) and "MultiheadSelfAttention" in here


def test_the_map_names_what_cuts_an_ops_work():
    from minivit.machinery import blocks

    machinery = re.search(r"  machinery/ .*?\n  weights/", README, re.S)[0]
    assert "blocks.by_rows and by_queries" in machinery and blocks.by_rows and blocks.by_queries
