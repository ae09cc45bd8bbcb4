"""`hf-mdft` on the command line; also `python -m hf_mdft`, so that `accelerate launch -m hf_mdft run ...` works."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from safetensors import SafetensorError

from ..core.allocator import keep_freed_memory
from ..core.errors import InputError


if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


DISK_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM)
RENAMED = {"--peer": "--baseline", "--shots": "--images", "--images-per-pass": "--images-per-micro-batch"}


app = typer.Typer(
    help="Model-driven, labelled-data-free fine-tuning: merge a pool of fine-tuned vision models and specialise it, "
    "without one label.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeFile = Annotated[Path, typer.Argument(help="Recipe in YAML.", metavar="RECIPE.yaml", show_default=False)]
Repo = Annotated[str, typer.Argument(help="Hub repo: owner/name.", show_default=False)]
Private = Annotated[bool | None, typer.Option(help="Whether a new repo is private.")]
Revision = Annotated[str | None, typer.Option(help="Branch to commit to; made if need be.")]
CreatePr = Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")]
Message = Annotated[str | None, typer.Option(help="Message of the commit.")]
AllowBaseMismatch = Annotated[
    bool, typer.Option("--allow-base-mismatch", help="Take experts that were fine-tuned from another base.")
]
Token = Annotated[str | None, typer.Option(help="Hub token; better: 'hf auth login' or HF_TOKEN.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the libraries' own messages.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hf-mdft {version_of('hf-mdft')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of `hf-mdft` itself."""


def progress(line: str) -> None:
    """Show one line of progress on stderr (data go to stdout); once, however many processes there are."""
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(line, err=True)


def make_folder_of(file: Path) -> None:
    """The folder that a file is to be written in.

    Raises:
        InputError: It cannot be made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file}: its folder cannot be made ({error.strerror}); give another place") from error


def tell(text: str) -> None:
    """Write data to stdout; where that is full or closed, results are in files all the same."""
    try:
        typer.echo(text)
    except OSError as error:
        progress(f"Nothing more can be shown ({error.strerror}); files are not affected")


def prepare(verbose: bool, token: str | None = None) -> None:
    """Silence libraries' messages about normal things (our own progress bars stay), and set the process up."""
    if token:
        # Where every library looks for it: experts that an adapter refers to, data sets, the text tower.
        os.environ["HF_TOKEN"] = token
    keep_freed_memory()
    import datasets
    import huggingface_hub
    import transformers

    from ..core.cache import cache_root

    own = "HF_MDFT_CACHE" if "HF_MDFT_CACHE" in os.environ else "HF_HOME"
    caches = {cache_root(): own, Path(datasets.config.HF_DATASETS_CACHE): "HF_HOME"}
    for folder, setting in caches.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be made ({error.strerror}); set {setting} to a folder that you may write"
            ) from error
    if verbose:
        return
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of a home that cannot be written
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # The line above silences downloads too.
    huggingface_hub.utils.enable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()


def show(commit: CommitInfo, create_pr: bool) -> None:
    """Print the address of a push."""
    if create_pr and not commit.pr_url:
        progress("Nothing differs from what is there: no pull request was opened")
    typer.echo(commit.pr_url or commit)


def main() -> None:
    """Run the command. Exit codes: 0 done, 2 bad input (one line), 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    try:
        for before, argument in zip(sys.argv, sys.argv[1:], strict=False):
            option, given, value = argument.partition("=")
            if option in RENAMED:
                raise InputError(f"{option} is now called {RENAMED[option]}")
            if not argument.strip() or (given and not value.strip()):  # an empty path would be the current folder
                raise InputError(f"{option if given else before}: the value is empty; give one, or leave it out")
        app()
    except InputError as error:
        progress(f"Error: {error}")
        sys.exit(2)
    except (OSError, SafetensorError) as error:
        # A full or read-only disk can show anywhere that a library writes; anything else is a fault of ours.
        number = getattr(error, "errno", None)
        if number not in DISK_ERRORS and not isinstance(error, SafetensorError):
            raise
        typer.echo(f"Error: {error}; free space, or choose another --output-dir (or HF_MDFT_CACHE)", err=True)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == 130:
            typer.echo("Interrupted; the same command goes on where it stopped.", err=True)
        raise
