"""What importing the package does, and what it leaves to others."""

from __future__ import annotations

import subprocess
import sys

import pytest


REGISTERED = (
    "from peft import PEFT_TYPE_TO_CONFIG_MAPPING as m, PeftType; assert m[PeftType.MDFT].__name__ == 'MdftConfig'"
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "imports",
    [
        "import peft, hf_mdft",
        *[
            pytest.param(line, marks=pytest.mark.slow)
            for line in (
                "import hf_mdft, importlib.util as u; u.find_spec('peft')",
                "from hf_mdft import MdftConfig",
                "import hf_mdft.adapter",
                "import hf_mdft.pool",
            )
        ],
    ],
)
def test_peft_knows_the_adapter_whatever_is_imported_first(imports):
    found = run(f"{imports}\n{REGISTERED}")
    assert found.returncode == 0, found.stderr


def test_the_package_and_its_help_wait_for_no_other_package():
    heavy = "('torch', 'transformers', 'peft', 'datasets', 'huggingface_hub', 'numpy')"
    check = f"import sys; print([name for name in {heavy} if name in sys.modules])"
    assert run(f"import hf_mdft\n{check}").stdout.strip() == "[]"
    code = f"from hf_mdft.cli.app import app\ntry: app(['run', '--help'])\nexcept SystemExit: pass\n{check}"
    found = run(code)
    assert "Example" in found.stdout and found.stdout.splitlines()[-1] == "[]", found.stdout + found.stderr


@pytest.mark.slow
def test_nothing_rests_on_what_windows_lacks():
    others = "import accelerate, datasets, evaluate, matplotlib.figure, peft, psutil, sys, transformers, typer\n"
    lacking = "for name in ('resource', 'fcntl', 'pwd', 'grp'): sys.modules[name] = None\n"
    found = run(f"{others}{lacking}import hf_mdft.merger, hf_mdft.cli.run, hf_mdft.recipes.run, hf_mdft.bench.measure")
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_a_reload_registers_once():
    found = run(
        f"import importlib, hf_mdft, hf_mdft.peft_hook as hook\nimportlib.reload(hook)\n"
        f"importlib.reload(hf_mdft)\n{REGISTERED}"
    )
    assert found.returncode == 0, found.stderr


def test_without_peft_the_error_is_pefts_own():
    found = run("import sys, hf_mdft\nsys.path[:] = []\nimport peft")
    assert "ModuleNotFoundError: No module named 'peft'" in found.stderr


def test_finders_of_others_may_be_odd():
    """And PEFT knows the adapter where it is imported last."""
    odd = "import sys\nclass Odd: find_module = staticmethod(lambda *_: None)\nsys.meta_path.append(Odd())\n"
    code = f"{odd}import hf_mdft, peft\n"
    found = run(code + REGISTERED)
    assert found.returncode == 0, found.stderr
