"""`hf-mdft` on the command line; also `python -m hf_mdft`, so that `accelerate launch -m hf_mdft run ...` works."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from safetensors import SafetensorError

from .errors import InputError


DISK_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM)


app = typer.Typer(
    help="Model-driven, labelled-data-free fine-tuning: merge a pool of fine-tuned vision models and specialise it, "
    "without one label.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
pool_app = typer.Typer(help="Look at pools.", no_args_is_help=True)
app.add_typer(pool_app, name="pool")

RecipeFile = Annotated[Path, typer.Argument(help="Recipe in YAML.", metavar="RECIPE.yaml", show_default=False)]
OutputDir = Annotated[Path, typer.Option(help="Folder of results; an interrupted run goes on there.")]
Token = Annotated[str | None, typer.Option(help="Hub token; better: 'hf auth login' or HF_TOKEN.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the libraries' own messages.")]


def say(text: str) -> None:
    """Tell the user on stderr (data go to stdout); once, however many processes there are."""
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(text, err=True)


def quiet(verbose: bool) -> None:
    """Silence what libraries say about normal things; our own progress bars stay."""
    if verbose:
        return
    import datasets
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()


@app.command(epilog="Example: `hf-mdft demo --output-dir demo-output`")
def demo(output_dir: OutputDir = Path("demo-output"), seed: int = 0, verbose: Verbose = False) -> None:
    """Build a small pool on real images that ship with scikit-learn and scikit-image, and do the whole job on it.

    Needs the extra `demo` (`pip install 'hf-mdft[demo]'`) and no network.
    """
    quiet(verbose)
    from .demo import demo_recipe

    run_recipe(demo_recipe(seed, say), output_dir)


@app.command(epilog="Example: `hf-mdft run recipe.yaml --output-dir results`")
def run(
    recipe: RecipeFile, output_dir: OutputDir = Path("mdft-output"), token: Token = None, verbose: Verbose = False
) -> None:
    """Do the whole job: pool, meta-model, specialists, evaluation, results.

    With several processes: `accelerate launch --num_processes 2 -m hf_mdft run recipe.yaml`
    """
    quiet(verbose)
    run_recipe(recipe, output_dir, token)


def run_recipe(path: Path, output_dir: Path, token: str | None = None) -> None:
    """Run a recipe, then show the table and where everything else is."""
    from .recipe import Recipe
    from .run import run as run_all

    recipe = Recipe.load(path)
    work = output_dir / "checkpoints"
    meta, specialize = recipe.meta_arguments(work), recipe.specialize_arguments(work)
    report = run_all(recipe.merger(token), output_dir, meta, specialize, say)
    if report:
        typer.echo(str(report))
        say(f"\nReport: {output_dir / 'report.html'}   figures: {output_dir / 'results.json'}")
        say(f"Meta-model: {output_dir / 'meta'}   specialists: {output_dir / 'specialists'}")


@app.command(epilog="Example: `hf-mdft evaluate recipe.yaml --meta results/meta`")
def evaluate(
    recipe: RecipeFile,
    meta: Annotated[Path | None, typer.Option(help="A meta-model to evaluate too: a run's 'meta' folder.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write results.json here.")] = None,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Measure base, experts, static merges and, if given, a meta-model on a recipe's evaluation images."""
    quiet(verbose)
    from .merger import MetaMerger
    from .recipe import Recipe

    loaded = Recipe.load(recipe)
    merger = MetaMerger.from_pretrained(meta, tasks=loaded.tasks, token=token) if meta else loaded.merger(token)
    report = merger.evaluate()
    if not report.accuracy.get("base"):
        raise InputError(f"{recipe}: no task has 'evaluation' images; there is nothing to measure")
    typer.echo(str(report))
    if output:
        report.save(output)


@app.command(epilog="Example: `hf-mdft push results/specialists/mnist me/clip-vit-b32-mnist-mdft --private`")
def push(
    folder: Annotated[Path, typer.Argument(help="A run's 'meta' or 'specialists/TASK' folder.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="Hub repo: owner/name.", show_default=False)],
    private: Annotated[bool | None, typer.Option(help="For a repo that is new.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to.")] = None,
    create_pr: Annotated[bool, typer.Option(help="Open a pull request instead.")] = False,
    commit_message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    token: Token = None,
) -> None:
    """Push a result to the Hub in one commit."""
    from .hub import push_folder

    if not (folder / "README.md").is_file():
        raise InputError(f"{folder}: no result of a run (no README.md); give its 'meta' or 'specialists/TASK' folder")
    typer.echo(
        push_folder(
            folder,
            repo,
            private=private,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            token=token,
        )
    )


@pool_app.command(epilog="Example: `hf-mdft pool inspect recipe.yaml`")
def inspect(recipe: RecipeFile, token: Token = None, verbose: Verbose = False) -> None:
    """Show a recipe's pool: revisions, sizes and norms of task vectors, and how alike they are."""
    quiet(verbose)
    from .pool import ModelPool
    from .pool.geometry import describe
    from .recipe import Recipe

    loaded = Recipe.load(recipe)
    typer.echo(describe(ModelPool.from_pretrained(loaded.base, loaded.experts, token=token)))


def main() -> None:
    """Exit codes: 0 done, 2 bad input (one line), 130 interrupted."""
    try:
        app()
    except InputError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            typer.echo(f"Error: {error}", err=True)
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


if __name__ == "__main__":
    main()
