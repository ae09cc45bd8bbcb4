"""A process that uses the package and the real Hub client; tests send it work, and imports are paid once.

Each line of stdin is `{"argv": [...]}` for the command line, or `{"code": "..."}`, whose `result` comes back.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import time
import traceback

from hf_mdft import cli


slept: list[float] = []
really_sleep = time.sleep


def sleep(seconds: float) -> None:
    """Waiting is asked for, noted, and cut short."""
    slept.append(seconds)
    really_sleep(min(seconds, 0.05))


def work(request: dict) -> dict:
    out, err, code, found = io.StringIO(), io.StringIO(), 0, None
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(request.get("environment", {}))
    os.chdir(request["cwd"])
    slept.clear()
    handler = logging.StreamHandler(err)
    logging.getLogger("hf_mdft").addHandler(handler)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if "argv" in request:
                sys.argv = ["hf-mdft", *request["argv"]]
                cli.main()
            else:
                names: dict = {}
                exec(request["code"], names)
                found = names.get("result")
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
    logging.getLogger("hf_mdft").removeHandler(handler)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "result": found, "slept": list(slept)}


if __name__ == "__main__":
    time.sleep = sleep
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(work(json.loads(line)), default=str) + "\n")
        answers.flush()
