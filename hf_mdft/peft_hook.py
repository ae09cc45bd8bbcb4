"""Registering the adapter with PEFT without importing PEFT.

PEFT takes seconds to import, which `hf-mdft --help` need not wait for. So the adapter is registered when somebody
imports PEFT: at once if that has happened, else right after it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


ADAPTER = "hf_mdft.adapter"


class _AfterPeft(MetaPathFinder):
    """Finds `peft` as all others would, and has it followed by the adapter.

    It stays until PEFT is really imported: `find_spec` is also called only to see whether PEFT is installed.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "peft":
            return None
        finders = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        others = (finder.find_spec(name, path, target) for finder in finders)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                importlib.import_module(ADAPTER)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = load_and_register
        return spec


def register_with_peft() -> None:
    """Register the adapter now or when PEFT is imported."""
    if "peft" in sys.modules:
        importlib.import_module(ADAPTER)
    elif not any(type(finder).__qualname__ == _AfterPeft.__qualname__ for finder in sys.meta_path):  # or a reload's
        sys.meta_path.insert(0, _AfterPeft())
