"""Files that are written whole or not at all, by several processes on several hosts at once."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from harness.records.case import BadInput

NOTICE_S = 1.0
"""How long a lock is waited for in silence."""


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that its name always stands for its old or its new content, also after SIGKILL or power loss."""
    temporary = path.with_name(f".{path.name}.{owner()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def writable(what: str, remedy: str) -> Iterator[None]:
    """Say as BadInput that something cannot be written, why, and what to do instead."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{what} cannot be written ({error.strerror}): {remedy}") from error


def owner() -> str:
    """What names this thread among all that may write into one folder: host, process, thread."""
    return f"{_host()}.{os.getpid()}.{threading.get_ident()}"


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that dead processes of this host left; other hosts look after their own."""
    for leftover in folder.glob(".*.tmp"):
        _, *owned = leftover.name.removesuffix(".tmp").rsplit(".", 3)
        mine = len(owned) == 3 and owned[0] == _host() and owned[1].isdigit()
        if mine and not psutil.pid_exists(int(owned[1])):
            leftover.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Alone among all threads and processes that ask for the same path, however long that takes.

    waiting: said on stderr once there is something to wait for. A process that dies lets go of its locks.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=NOTICE_S)
    except Timeout:
        if waiting:
            print(waiting, file=sys.stderr, flush=True)
        lock.acquire(timeout=-1)
    except NotImplementedError:  # some file systems of networks know no locks; renames still keep files whole
        pass
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether somebody is `locked` there now; False on file systems that know no locks."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True
    except NotImplementedError:
        return False


def _host() -> str:
    return socket.gethostname().replace(".", "-")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system can (Windows opens no folders)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
