"""The signals that ask a process to end: a training answers them when its step is done."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def deferred_signals():
    """What asks a process to end, Ctrl-C too, only joins the list that this gives, so that a step is never cut in half;
    a second Ctrl-C is not deferred. What is ignored, as nohup does with SIGHUP, stays so.
    """
    asked, before = [], {}

    def handler(number, frame):
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is threading.main_thread():  # only the main thread gets signals
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)  # each system has some of them
            if number is not None and (name == "SIGINT" or signal.getsignal(number) not in (signal.SIG_IGN, None)):
                before[number] = signal.signal(number, handler)
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
