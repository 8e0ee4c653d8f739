"""What README.md, CONTRIBUTING.md and CITATION.cff say is so: examples print what they promise, files are there."""

import re
from pathlib import Path

from minivit import __version__

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
