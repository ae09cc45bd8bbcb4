"""Versions that results and cards record."""

import platform
from importlib.metadata import version


PACKAGES = ("hf-mdft", "torch", "transformers", "peft", "accelerate", "datasets", "huggingface_hub")


def versions() -> dict[str, str]:
    """Python and the packages that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
