"""The answers to the exercises, to be changed: `python -m tests.answers >FILE`, and `python -m tests.answers FILE`."""

import sys
from pathlib import Path

from minivit.course.exercises import answers

if __name__ == "__main__":
    if sys.argv[1:]:
        text = Path(sys.argv[1]).read_text(encoding="utf-8")
        answers.PACKED.write_text(answers.packed(text), encoding="utf-8", newline="\n")
    else:
        print(answers.unpacked(), end="")
