"""`hf-mdft` on the command line: importing a module of commands adds them."""

# isort: off
from . import check, run, push, pool, ablate, study, bench  # in the order of --help

# isort: on
from .app import main


__all__ = ["ablate", "bench", "check", "main", "pool", "push", "run", "study"]
