"""A source as it is printed for a projector: its tokens, its colours, and its lines, folded where they are too long."""

import contextlib
import io
import itertools
import keyword
import os
import sys
import tokenize

BOLD, KEYWORD, STRING, COMMENT = "1", "35", "32", "36"  # ANSI: bold, magenta, green, cyan


def shows_colours():
    """Whether the output is a terminal that shows colours, and nobody said that it should not."""
    if not getattr(sys.stdout, "isatty", bool)() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return os.name != "nt" or _windows_console_shows_colours()


def _windows_console_shows_colours():
    """Ask the console to read ANSI codes (ENABLE_VIRTUAL_TERMINAL_PROCESSING), which those before Windows 10 cannot."""
    import ctypes
    import msvcrt

    console, mode = ctypes.c_void_p(msvcrt.get_osfhandle(sys.stdout.fileno())), ctypes.c_ulong()
    kernel = ctypes.windll.kernel32
    return bool(kernel.GetConsoleMode(console, ctypes.byref(mode)) and kernel.SetConsoleMode(console, mode.value | 4))


def painted(text, style, colour=True):
    """The text in an ANSI style, if there is one and there are to be colours."""
    return f"\033[{style}m{text}\033[0m" if colour and style else text


def tokens(source):
    """The tokens of a source; of one that is no whole statement, as a lambda in a list may be, those that there are."""
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        yield from tokenize.generate_tokens(io.StringIO(source).readline)


def _styles(source):
    """For each line of a source, the style of each letter."""
    styles, before = [[""] * len(line) for line in source.splitlines()], ""
    for token in tokens(source):
        name = tokenize.tok_name[token.type]
        style = STRING if "STRING" in name else COMMENT if name == "COMMENT" else ""
        if name == "NAME":
            style = KEYWORD if keyword.iskeyword(token.string) else BOLD if before in ("def", "class") else ""
        (row, start), (last, end) = token.start, token.end
        for line in styles[row - 1 : last] if style else ():
            stop = end if row == last else len(line)
            line[start:stop] = [style] * len(line[start:stop])
            row, start = row + 1, 0
        before = token.string
    return styles


def lines(source, width, colour):
    """The lines of a source as they are printed, in colour; those that are too long are folded at a space."""
    for text, style in zip(source.splitlines(), _styles(source), strict=True):
        indent = len(text) - len(text.lstrip()) + 4
        letters = list(zip(text, style, strict=True))
        while len(letters) > width and (cut := text.rfind(" ", indent + 1, width + 1)) > 0:
            yield _line(letters[:cut], colour)
            letters = [(" ", "")] * indent + letters[cut + 1 :]
            text = " " * indent + text[cut + 1 :]
        yield _line(letters, colour)


def _line(letters, colour):
    groups = itertools.groupby(letters, key=lambda letter: letter[1])
    return "".join(painted("".join(letter for letter, _ in group), style, colour) for style, group in groups)
