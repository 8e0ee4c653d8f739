"""Lessons as executed notebooks, two or more at once, and as Markdown pages with their figures as files."""

import asyncio
import atexit
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path

from ...errors import MinivitError, shown

SECONDS = 600  # for one cell
MOST = 4  # lessons at once, each with up to 1 GB of memory
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_FIRST = "from minivit.course.book.kernels import begin\nbegin({!r})"
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def begin(arguments):
    """In the kernel of a lesson, before its first cell: its command line, and plt.show(), which gives each figure away
    as a picture with its label and, as text that is read on a telephone, too, its caption.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    from ...plots import take_caption

    sys.argv = arguments

    def show():
        for figure in map(plt.figure, plt.get_fignums()):
            png, told = io.BytesIO(), {"caption": take_caption(figure), "label": figure.get_label()}
            figure.savefig(png, format="png", dpi="figure")
            display({"image/png": png.getvalue()}, raw=True, metadata=told)
        plt.close("all")

    plt.show = show


def executed(lessons, photo):
    """Execute lessons on a photo, as many at once as there are cores, the longest first. Gives (lesson, notebook,
    seconds) as each ends. MinivitError for a cell that fails; then, and after Ctrl-C, no kernel is left.
    """
    clients, lessons = [], sorted(lessons, key=lambda lesson: -lesson.seconds)
    at_once = min(_CORES, MOST, len(lessons))
    environment = dict.fromkeys(_THREADS, str(_CORES // at_once)) | {"MPLBACKEND": "agg"}
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(_execute, lesson, photo, os.environ | environment, clients) for lesson in lessons]
        try:
            waiting = set(futures)
            while waiting:  # with a time limit, since Windows answers Ctrl-C only between two waits
                with contextlib.suppress(TimeoutError):
                    for future in as_completed(waiting, timeout=1):
                        waiting.discard(future)
                        yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            while wait([future for future in futures if not future.cancelled()], timeout=0.2).not_done:
                for client in clients:
                    with contextlib.suppress(AttributeError):  # one that starts, and has no process yet
                        client.km.provisioner.process.kill()


def _execute(lesson, photo, environment, clients):
    import jupytext
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    start = time.perf_counter()
    notebook = jupytext.read(lesson.path)
    arguments = [str(lesson.path), *([] if photo is None else [str(Path(photo).absolute())])]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_FIRST.format(arguments)))
    for last in (False, True):
        # without folders of kernels, python3 is the Python that runs here, and no other that is called so
        kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        client = NotebookClient(notebook, km=kernel, kernel_name="python3", timeout=SECONDS)
        clients.append(client)
        try:
            silent = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)  # of its log; a lesson's output comes
            asyncio.run(client.async_execute(env=environment, cleanup_kc=True, **silent))
            break
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            hint = f"minivit run {lesson.number} on the same photo shows where. No book is written."
            raise MinivitError(f"lesson {lesson.number}", *_failed(notebook, error), hint) from error
        except RuntimeError as error:  # it does not start: another program has got one of its ports before it, say
            if last:
                what = f"its kernel does not start: {shown(str(error), 400)}"
                raise MinivitError(f"lesson {lesson.number}", what, hint="make the book once more.") from error
        finally:
            atexit.unregister(client._cleanup_kernel)  # which it leaves there for a kernel that was killed in its start
    del notebook.cells[0]
    return lesson, notebook, time.perf_counter() - start


def _failed(notebook, error):
    """(what, rule) of a lesson that did not run to its end, behind the cell that begins it."""
    code = [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]
    count = max(1, sum(cell.execution_count is not None for cell in code))
    begin = shown(code[count - 1].source.strip().split("\n")[0], 80)
    told = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else str(error)
    return f"code cell {count} of {len(code)}, which begins with {begin!r}, fails.", shown(told, 400)


def markdown(notebook, number, figures):
    """A notebook as the text of a Markdown page. Its figures are written to a folder, as NUMBER_LABEL.png."""
    import jinja2
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    for count, output in enumerate(drawn, start=1):
        told = output.metadata
        name = f"{number}_{told.get('label') or f'figure{count}'}.png"
        (figures / name).write_bytes(base64.b64decode(output.data["image/png"]))
        caption = " ".join(told.get("caption", "").split()) or name
        told.update(picture=f"{figures.name}/{name}", alt=json.dumps(caption), caption=_plain(caption))
    template = {"lesson.md.j2": Path(__file__).with_name("lesson.md.j2").read_text(encoding="utf-8")}
    config = Config({"ExtractOutputPreprocessor": {"enabled": False}})  # it knows no names
    exporter = MarkdownExporter(config, extra_loaders=[jinja2.DictLoader(template)], template_file="lesson.md.j2")
    text, _ = exporter.from_notebook_node(notebook)
    return text


def _plain(text):
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_\[\]<>{}#|$])", r"\\\1", text)
