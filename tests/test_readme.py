"""The README's example runs, and prints what its comments say."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_its_comments_say(capsys):
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    exec(code, {})
    printed = capsys.readouterr().out.split()
    promised = " ".join(re.findall(r"print\(.*\)  # (.*)", code)).split()
    assert len(promised) == 3 and printed == promised


def test_the_map_names_every_room():
    package = Path(__file__).parents[1] / "minivit"
    floor = [path.name for path in package.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    ops = [path.stem for path in (package / "ops").glob("*.py") if path.stem != "__init__"]
    rooms = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    assert [name for name in floor + ops + rooms if name not in README] == []
