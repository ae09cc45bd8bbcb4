"""`hf-mdft` on the command line: importing a module of commands adds them."""

# isort: off
from . import run, push, pool, study, bench  # in the order of --help

# isort: on
from .app import main


__all__ = ["bench", "main", "pool", "push", "run", "study"]
