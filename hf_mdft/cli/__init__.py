"""`hf-mdft` on the command line: importing a module of commands adds them."""

# isort: off
from . import check, run, push, pool, study, bench  # in the order of --help

# isort: on
from .app import main


__all__ = ["bench", "check", "main", "pool", "push", "run", "study"]
