"""Text is UTF-8 in every file, and a terminal that lacks a character ends nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import hf_mdft


def opened_without_encoding(path):
    """Lines that open a file as text in whatever encoding the machine has."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
        binary = any(isinstance(arg, ast.Constant) and "b" in str(arg.value) for arg in node.args[1:2])
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        image = getattr(owner, "id", None) in ("Image", "tarfile", "zipped")  # theirs are bytes
        if name in ("read_text", "write_text") or (name in ("open", "fdopen") and not binary and not image):
            yield f"{path.name}:{node.lineno}"


def test_every_text_file_has_an_encoding():
    root = Path(hf_mdft.__file__).parent
    assert [line for path in sorted(root.rglob("*.py")) for line in opened_without_encoding(path)] == []


def test_the_check_finds_what_it_looks_for(tmp_path):
    code = "p.read_text()\np.write_text(t, encoding='utf-8')\nopen(p)\nopen(p, 'rb')\nImage.open(p)\np.open('w')\n"
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    assert list(opened_without_encoding(tmp_path / "code.py")) == ["code.py:1", "code.py:3", "code.py:6"]


def test_a_terminal_without_the_character_ends_nothing():
    code = (
        "import sys, typer\nfrom hf_mdft.cli.app import app, main\n"
        "@app.command()\ndef show(): typer.echo('gr\\u00f6\\u00dfe \\u30b0')\n"
        "sys.argv = ['hf-mdft', 'show']\nmain()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert found.returncode == 0 and found.stdout == b"gr\xf6\xdfe \\u30b0\n", found.stderr
