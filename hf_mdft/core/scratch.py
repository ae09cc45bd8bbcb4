"""Folders for work in progress, named after the process that made them: what a killed one left is removed."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


PREFIX = ".mdft-"

NAME = re.compile(re.escape(PREFIX) + r"(?P<host>.*)-(?P<process>\d+)-[0-9a-f]{8}")


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """An empty folder within a folder, removed at the end; what killed processes of this machine left goes too.

    Args:
        parent: The folder; made if need be. The new one has the permissions that the user's umask gives.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(parent)
    work = parent / f"{PREFIX}{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_left_over(parent: Path) -> None:
    """Remove what killed processes of this machine left in a folder."""
    with contextlib.suppress(OSError):
        for path in parent.glob(f"{PREFIX}*"):
            made = NAME.fullmatch(path.name)
            if made and made["host"] == _host() and not psutil.pid_exists(int(made["process"])):
                shutil.rmtree(path, ignore_errors=True)


def share(folder: Path) -> None:
    """Let those read and write a folder's files who may do so with the folder: safetensors makes files for their owner
    alone."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(folder.stat().st_mode & 0o666)


def _host() -> str:
    """Where a process number means something: a machine, or a container on it."""
    with contextlib.suppress(OSError):
        return f"{_word(platform.node())}_{_word(os.readlink('/proc/self/ns/pid'))}"
    return _word(platform.node())


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text)[:40]
