"""Runs commands one after the other, each in a process of its own with limits. One JSON line for each, in and out."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import datasets
import matplotlib.figure  # noqa: F401
import transformers  # noqa: F401
from tqdm import tqdm

import hf_mdft.recipes.preflight
import hf_mdft.recipes.run  # noqa: F401
from hf_mdft import InputError
from hf_mdft.artifacts import open_result
from hf_mdft.cli.app import main


MEMORY, SECONDS = 4 << 30, 60


def run(arguments):
    if arguments[0] != "open":
        sys.argv = ["hf-mdft", *arguments]
        return main()
    try:
        result, target = open_result(arguments[1]), Path(arguments[1]).with_name("other-form")
        for write in result.forms().values():
            write(target)
    except InputError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)


def child(arguments, folder):
    out = os.open(Path(folder) / "shown.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.chdir(folder)
    code = 0
    try:
        run(arguments)
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    tqdm.get_lock()  # a semaphore, which a child that ends by `os._exit` would leave to be complained of (Python 3.14)
    for line in sys.stdin:
        asked = json.loads(line)
        process = os.fork()
        if not process:
            child(asked["arguments"], asked["folder"])
        end, status = time.monotonic() + SECONDS, None
        while status is None:
            gone, found = os.waitpid(process, os.WNOHANG)
            if gone:
                status = os.waitstatus_to_exitcode(found)
            elif time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                status = "it hangs"
            time.sleep(0.01)
        sys.stdout.write(f"{json.dumps(status)}\n")
        sys.stdout.flush()
