"""After all the work: what goes wrong in the last minute costs that alone, and secrets never reach a file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from conftest import call, edited, write_recipe

from hf_mdft import InputError
from hf_mdft.artifacts import figures, open_result, run_folder
from hf_mdft.artifacts.figures import history_figure, svg
from hf_mdft.cards.markdown import escaped, without_html
from hf_mdft.evaluation import Report
from hf_mdft.pool.names import check_task_name


@pytest.fixture
def small(clip_paths, tmp_path):
    """A recipe of one task, whose phases take a step each."""

    def change(content):
        content["pool"]["experts"] = {"shade": content["pool"]["experts"]["shade"]}
        content["tasks"] = {"shade": content["tasks"]["shade"]}
        content["meta"] |= {"max_steps": 2}
        content["specialize"] |= {"max_steps": 1}

    return edited(write_recipe(tmp_path, clip_paths), change)


def failing(*_, **__):
    raise ValueError("it cannot be drawn")


WRITTEN = {"results.json", "meta/mdft.json", "specialists/shade/mdft.json", "specialists/shade/model.safetensors"}


@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        ("hf_mdft.artifacts.figures.encoded", "figures/coefficients.png could not be made"),
        ("hf_mdft.artifacts.specialist_model.specialist_card", "README.md could not be made"),
        ("hf_mdft.artifacts.report_page.svg", "the figure 'Accuracy by task' could not be made"),
    ],
)
def test_what_stands_beside_a_result_costs_no_result(small, tmp_path, monkeypatch, capsys, caplog, broken, missing):
    monkeypatch.setattr(broken, failing)
    figures._png.cache_clear()
    code, _, _ = call(["run", small, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 0 and all((tmp_path / "out" / name).is_file() for name in WRITTEN)
    assert f"{missing} (ValueError: it cannot be drawn); everything else is there" in caplog.text
    open_result(tmp_path / "out" / "specialists" / "shade")


SLOW = [pytest.param(part, marks=pytest.mark.slow) for part in ("meta", "shade", "report.html")]


@pytest.mark.parametrize("part", ["results.json", *SLOW])
def test_one_part_that_cannot_be_written_costs_no_other(small, tmp_path, monkeypatch, capsys, part):
    def full_for(write, place):
        def wrapped(*args):
            if args[place].name == part:
                raise OSError(28, "No space left on device")
            return write(*args)

        return wrapped

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        for where, place in (("replace_folder", 0), ("write_report", 1)):
            patch.setattr(run_folder, where, full_for(getattr(run_folder, where), place))
        patch.setattr(Report, "save", full_for(Report.save, 1))
        code, _, err = call(["run", small, "--output-dir", out], patch, capsys)
    assert code == 2 and f"{part} (No space left on device); written: " in err
    there = err.split("written: ")[1]
    kept = ("results.json", "meta", "specialists/shade", "report.html")
    for name in kept:
        assert (name in there and (out / name).exists()) == (not name.endswith(part)), name
    code, _, _ = call(["run", small, "--output-dir", out], monkeypatch, capsys)
    assert code == 0 and all((out / name).exists() for name in kept)


@pytest.mark.parametrize(
    ("broken", "said"),
    [("merger.MetaMerger.evaluate", "Evaluation failed"), ("recipes.run.Baseline.made", "Baseline ties failed")],
)
def test_what_fails_after_training_costs_no_model(small, tmp_path, monkeypatch, capsys, broken, said):
    monkeypatch.setattr(f"hf_mdft.{broken}", failing)
    with pytest.raises(ValueError, match="cannot be drawn"):
        call(["run", small, "--output-dir", tmp_path / "out", "--baseline", "ties"], monkeypatch, capsys)
    assert all((tmp_path / "out" / name).is_file() for name in WRITTEN)
    assert f"{said}; the models are in" in capsys.readouterr().err


def test_what_is_in_the_way_is_said_first(small, tmp_path, monkeypatch, capsys):
    for name, make in (
        ("specialists", lambda path: path.write_text("x", encoding="utf-8")),
        ("checkpoints", lambda path: path.write_text("x", encoding="utf-8")),
        ("report.html", os.mkfifo),
    ):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        make(out / name)
        code, _, err = call(["run", small, "--output-dir", out], monkeypatch, capsys)
        assert code == 2 and f"{out / name}: not a f" in err and not (out / "results.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="there is no such home")
def test_a_home_that_cannot_be_written(small, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_", "MPL"))}
    environment |= {"HOME": "/dev/null", "HF_HUB_OFFLINE": "1", "LC_ALL": "C"}
    command = [sys.executable, "-m", "hf_mdft", "check", small, "--page", tmp_path / "check.html"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert done.returncode == 2 and len(lines) == 1 and "set HF_HOME" in lines[0], done.stderr


# Names


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\u202eb", " ", "a ", "CON", "nul.txt", "a:b", 'a"b', "../x", "a\\b", "x" * 121, "ü" * 61, ".", "a?"],
)
def test_names_that_no_folder_can_have(name):
    with pytest.raises(InputError, match="task name"):
        check_task_name(name)


def test_names_are_drawn_as_they_are():
    for name in ("$x^$", "a$b$c", "_hidden", "<b>&amp;", "größe 猫"):
        check_task_name(name) if "<" not in name else None
        lines = [{"loss": 1.0, "step": step, f"loss_{name}": 0.5} for step in (1, 2)]
        text = svg(history_figure(lines, "loss_", "mean"))
        assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text


def test_text_of_others_is_no_markup():
    assert escaped("a&lt;b\n$x$ <i>\u202e") == r"a\&lt;b \$x\$ \<i\>\\u202e"
    assert without_html("a <script>x</script>\n```html\n<b>\n```\nc \\<d") == (
        "a &lt;script>x&lt;/script>\n```html\n<b>\n```\nc \\<d"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda facts: facts.update(tower_loader="x\n```\n<script>"), "is no name"),
        (lambda facts: facts["meta"].update(granularity="<script>"), "is no name"),
        (lambda facts: facts.update(features="pooler_output, __import__('os').system('x')"), "is no name"),
        (lambda facts: facts["gate"].update(reason="a\u202eb"), "cannot be seen"),
    ],
)
def test_facts_of_others_cannot_write_the_card(clip_done, tmp_path, change, said):
    clip_done.specialists["shade"].save_pretrained(tmp_path / "shade")
    file = tmp_path / "shade" / "mdft.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content["facts"])
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        open_result(tmp_path / "shade")


# Secrets


def test_no_secret_reaches_a_file_or_a_line(clip_paths, tmp_path, monkeypatch, capsys):
    secret = "hf_abcdefSECRET123"
    monkeypatch.setenv("HF_MDFT_CACHE", str(tmp_path / "cache"))

    def change(content):
        for part in ("meta", "specialize"):
            content[part]["hub_token"] = secret

    recipe = edited(write_recipe(tmp_path / "in", clip_paths), change)
    code, out, err = call(["run", recipe, "--output-dir", tmp_path / "out"], monkeypatch, capsys)
    assert code == 0 and "SECRET" not in out + err
    for file in [*(tmp_path / "out").rglob("*"), *(tmp_path / "cache").rglob("*")]:
        assert not file.is_file() or b"SECRET" not in file.read_bytes(), file
    assert not list((tmp_path / "out").rglob("*.bin")) + list((tmp_path / "out").rglob("*.pt*"))
    address = "https://me:SECRET@127.0.0.1:9/x.zip?sig=SECRET"
    for change in (
        lambda c: c["tasks"]["shade"].update(unlabelled={"path": "csv", "data_files": address, "split": "train"}),
        lambda c: c["tasks"]["shade"].update(unlabelled=address),
        lambda c: c["tasks"]["shade"].update(head=address),
        lambda c: c["pool"].update(base=address),
        lambda c: c["meta"].update(hub_token=[secret]),
    ):
        recipe = edited(write_recipe(tmp_path / "in", clip_paths), change)
        code, out, err = call(["check", recipe, "--output-dir", tmp_path / "new"], monkeypatch, capsys)
        assert code == 2 and "SECRET" not in out + err, err


@pytest.mark.skipif(os.name == "nt", reason="there are no such permissions")
def test_results_are_for_those_whom_the_folder_is_for(clip_done, tmp_path):
    before = os.umask(0o022)
    try:
        (tmp_path / "out").mkdir()
        from hf_mdft.artifacts.layout import replace_folder

        replace_folder(tmp_path / "out" / "meta", clip_done.save_pretrained)
    finally:
        os.umask(before)
    for path in (tmp_path / "out" / "meta").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path
