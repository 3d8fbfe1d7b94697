"""The processes that torchrun starts fail as one: the first to fail says why, the others end.

A process that fails leaves the others waiting for it, in a collective where not even a signal
reaches them. So it says in the store that torchrun keeps that it has failed, and a thread of each
process looks there.
"""

import atexit
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.distributed as dist

from common.errors import UserError
from training import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERVAL = 1  # seconds between two looks into the store
STOP = b"\0"  # what ends the watching thread; a signal sends its number


class ProcessLostError(UserError):
    """Another process ended without a word, or does not answer."""

    exit_status = 1


@contextmanager
def together(script: str, remedy: str) -> Iterator[None]:
    """A block that ends in all processes when it fails in one, and that leaves their group.

    The first process that fails raises its error; the others end with status 1, without output.
    A signal, which torchrun also sends when another process was killed, ends the first process that
    gets it with a line that names the script and the remedy, and the others without. With one
    process, nothing is added to the block. Raises ProcessLostError.
    """
    if distributed.world_size() == 1:
        yield
        return
    # A client of its own: one that waits for another process would keep the thread waiting, too.
    store = next(dist.rendezvous("env://", timeout=distributed.TIMEOUT))[0]
    line = f"{script}: {UserError(f'interrupted, or another process ended; {remedy}')}"
    handlers = {number: signal.signal(number, _leave_to_thread) for number in SIGNALS}
    stop = _start_watching(store, line)
    try:
        yield
        distributed.destroy()
    except BaseException as error:
        stop()
        if not _is_first_to_fail(store):
            os._exit(1)
        # What torch tears down when Python ends may wait for the others.
        atexit.register(os._exit, 1)
        if _is_of_connection(error):
            raise ProcessLostError(f"another process ended; {remedy}") from error
        raise
    stop()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _leave_to_thread(number: int, frame: object) -> None:
    """Do nothing: the wake-up descriptor tells the thread, even while the main thread waits."""


def _start_watching(store: dist.Store, line: str) -> Callable[[], None]:
    """Start the thread; returns what ends it."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    thread = threading.Thread(target=_watch, args=(store, woken, line), daemon=True)
    thread.start()

    def stop() -> None:
        signal.set_wakeup_fd(-1)
        os.write(wake, STOP)
        thread.join()
        os.close(wake)
        os.close(woken)

    return stop


def _watch(store: dist.Store, woken: int, line: str) -> None:
    """End this process when another one has failed or a signal has come, until STOP comes."""
    while True:
        if not select.select([woken], [], [], INTERVAL)[0]:
            if _has_failed(store):
                os._exit(1)
            continue
        byte = os.read(woken, 1)
        if byte == STOP:
            return
        if byte[0] in SIGNALS:
            if _is_first_to_fail(store):
                print(line, file=sys.stderr, flush=True)
            os._exit(130)


def _key() -> str:
    """Where processes say that they have failed; another one after torchrun's restart."""
    return "failed" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _is_first_to_fail(store: dist.Store) -> bool:
    """Say that this process has failed; returns whether no other process has said so before."""
    try:
        return store.add(_key(), 1) == 1
    except RuntimeError:  # the store has ended: two lines are better than none
        return True


def _has_failed(store: dist.Store) -> bool:
    """Whether a process has failed."""
    try:
        return store.check([_key()])
    except RuntimeError:  # the store has ended, perhaps because all is done
        return False


def _is_of_connection(error: BaseException) -> bool:
    """Whether a collective failed; gloo's errors are RuntimeErrors that name its source."""
    gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    return gloo or isinstance(error, dist.DistError)
