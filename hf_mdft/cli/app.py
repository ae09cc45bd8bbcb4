"""`hf-mdft` on the command line; also `python -m hf_mdft`, so that `accelerate launch -m hf_mdft run ...` works."""

from __future__ import annotations

import errno
import functools
import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from safetensors import SafetensorError

from ..core.allocator import keep_freed_memory
from ..core.errors import InputError
from ..recipes.presets import PRESETS


if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

    from ..pool import ModelPool


NAMES = ", ".join(PRESETS)
DISK_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM)


app = typer.Typer(
    help="Model-driven, labelled-data-free fine-tuning: merge a pool of fine-tuned vision models and specialise it, "
    "without one label.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
pool_app = typer.Typer(help="Find, look at and publish pools.", no_args_is_help=True)
app.add_typer(pool_app, name="pool")
study_app = typer.Typer(help="Measure the method on a recipe with evaluation images.", no_args_is_help=True)
app.add_typer(study_app, name="study")

RecipeFile = Annotated[Path, typer.Argument(help="Recipe in YAML.", metavar="RECIPE.yaml", show_default=False)]
Repo = Annotated[str, typer.Argument(help="Hub repo: owner/name.", show_default=False)]
Private = Annotated[bool | None, typer.Option(help="For a repo that is new.")]
Revision = Annotated[str | None, typer.Option(help="Branch to commit to; made if need be.")]
CreatePr = Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")]
Message = Annotated[str | None, typer.Option(help="Of the commit.")]
Form = Annotated[Literal["table", "json"], typer.Option("--format", help="How to show it.")]
OutputDir = Annotated[Path, typer.Option(help="Folder of results; an interrupted run goes on there.")]
StudyDir = Annotated[Path, typer.Option(help="Folder of the tables; a study that was cut off goes on there.")]
Token = Annotated[str | None, typer.Option(help="Hub token; better: 'hf auth login' or HF_TOKEN.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the libraries' own messages.")]


def say(text: str) -> None:
    """Tell the user on stderr (data go to stdout); once, however many processes there are."""
    if int(os.environ.get("RANK", "0")) == 0:
        typer.echo(text, err=True)


def prepare(verbose: bool, token: str | None = None) -> None:
    """Silence what libraries say about normal things (our own progress bars stay), and set the process up."""
    if token:
        # Where every library looks for it: experts that an adapter refers to, data sets, the text tower.
        os.environ["HF_TOKEN"] = token
    keep_freed_memory()
    if verbose:
        return
    import datasets
    import huggingface_hub
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # The line above silences downloads too.
    huggingface_hub.utils.enable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()


@app.command(epilog="Example: `hf-mdft demo --output-dir demo-output`")
def demo(output_dir: OutputDir = Path("demo-output"), seed: int = 0, verbose: Verbose = False) -> None:
    """Build a small pool on real images that ship with scikit-learn and scikit-image, and do the whole job on it.

    Needs the extra `demo` (`pip install 'hf-mdft[demo]'`) and no network.
    """
    prepare(verbose)
    from ..demo import demo_recipe

    run_recipe(demo_recipe(seed, say), output_dir)


@app.command(epilog="Example: `hf-mdft run recipe.yaml --output-dir results`")
def run(
    recipe: RecipeFile,
    output_dir: OutputDir = Path("mdft-output"),
    preset: Annotated[str | None, typer.Option(help=f"A published method in place of ours: {NAMES}.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="A preset to compare with in the same run; repeatable.")
    ] = None,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Do the whole job: pool, meta-model, specialists, evaluation, results.

    With several processes: `accelerate launch --num_processes 2 -m hf_mdft run recipe.yaml`
    """
    prepare(verbose, token)
    run_recipe(recipe, output_dir, preset, peer or [])


def run_recipe(path: Path, output_dir: Path, preset: str | None = None, peers: list[str] | None = None) -> None:
    """Run a recipe, then show the table and where everything else is."""
    from ..adapter import MdftConfig
    from ..recipes.recipe import Recipe
    from ..recipes.run import run as run_all

    recipe = Recipe.load(path)
    work = output_dir / "checkpoints"
    compared = {}
    for name in peers or []:
        other = recipe.with_preset(name)
        compared[name] = MdftConfig(**other.adapter), other.meta_arguments(work / "peers" / name)
    if preset:
        recipe = recipe.with_preset(preset)
    meta, specialize = recipe.meta_arguments(work), recipe.specialize_arguments(work)
    report = run_all(recipe.merger(), output_dir, meta, specialize, say, compared)
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
    prepare(verbose, token)
    from ..merger import MetaMerger
    from ..recipes.recipe import Recipe

    loaded = Recipe.load(recipe)
    merger = MetaMerger.from_pretrained(meta, tasks=loaded.tasks) if meta else loaded.merger()
    report = merger.evaluate()
    if not report.accuracy.get("base"):
        raise InputError(f"{recipe}: no task has 'evaluation' images; there is nothing to measure")
    typer.echo(str(report))
    if output:
        report.save(output)


@app.command(epilog="Example: `hf-mdft push results/specialists/mnist me/clip-vit-b32-mnist-mdft --private`")
def push(
    folder: Annotated[Path, typer.Argument(help="A run's 'meta' or 'specialists/TASK' folder.", show_default=False)],
    repo: Repo,
    vision_only: Annotated[
        bool, typer.Option("--vision-only", help="A specialist's vision tower alone, with a card of its own.")
    ] = False,
    folded: Annotated[
        bool, typer.Option("--folded", help="A meta-model as a plain model, with a card of its own.")
    ] = False,
    private: Private = None,
    revision: Revision = None,
    create_pr: CreatePr = False,
    commit_message: Message = None,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Push a result to the Hub in one commit: a specialist (a complete model), or a meta-model (an adapter)."""
    prepare(verbose, token)
    from ..artifacts.saving import read_adapter, refuse_local
    from ..hub import push_folder
    from ..specialize.specialist import check_result

    if vision_only and folded:
        raise InputError("--vision-only is for a specialist, --folded for a meta-model: give one of them")
    source = folder
    is_meta = check_result(folder)
    if vision_only and is_meta:
        raise InputError(f"{folder}: a meta-model; --vision-only is for a specialist, --folded for this one")
    if folded and not is_meta:
        raise InputError(f"{folder}: a specialist; --folded is for a run's 'meta' folder, --vision-only for this one")
    if is_meta and not folded:
        refuse_local(read_adapter(folder, str(folder))["pool"])
    if folded:
        from ..merger import MetaMerger

        merger = MetaMerger.from_pretrained(folder)

        def source(target: Path) -> None:
            merger.save_pretrained(target, folded=True)

    if vision_only:
        from ..specialize.specialist import vision_only_copy

        def source(target: Path) -> None:
            vision_only_copy(folder, target)

    show(
        push_folder(
            source,
            repo,
            private=private,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        ),
        create_pr,
    )


def show(commit: CommitInfo, create_pr: bool) -> None:
    """Print where a push went."""
    if create_pr and not commit.pr_url:
        say("Nothing differs from what is there: no pull request was opened")
    typer.echo(commit.pr_url or commit)


@pool_app.command(epilog="Example: `hf-mdft pool discover openai/clip-vit-base-patch32 --output recipe.yaml`")
def discover(
    base: Annotated[str, typer.Argument(help="Hub id of the base model, or id@revision.", show_default=False)],
    author: Annotated[str | None, typer.Option(help="Only models of this user or organisation.")] = None,
    search: Annotated[str | None, typer.Option(help="Only models whose name holds this.")] = None,
    limit: Annotated[int, typer.Option(help="How many to look at, most downloaded first.", min=1)] = 50,
    output: Annotated[Path | None, typer.Option(help="Write a recipe with those that fit, to be edited.")] = None,
    form: Form = "table",
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Find the Hub's fine-tuned models of a base that fit it; reads headers, downloads no weights."""
    prepare(verbose, token)
    from ..pool.discovery import as_json, as_text
    from ..pool.discovery import discover as search_hub
    from ..recipes.recipe import draft

    if output and output.exists():
        raise InputError(f"{output}: exists already; give another --output")
    source, found = search_hub(base, author=author, search=search, limit=limit)
    fitting = [candidate for candidate in found if not candidate.refused]
    typer.echo(as_json(source, found) if form == "json" else as_text(fitting))
    for candidate in found:
        if candidate.refused and verbose:
            say(f"Left out {candidate.id}: {candidate.refused}")
    hint = "" if verbose or len(fitting) == len(found) else " (--verbose tells why others do not)"
    say(f"{len(fitting)} of {len(found)} models fit {source}{hint}")
    if output:
        output.write_text(draft(source, fitting), encoding="utf-8")
        say(f"Recipe to edit: {output}")


@pool_app.command(epilog="Example: `hf-mdft pool inspect recipe.yaml --figure cosines.png`")
def inspect(
    pool: Annotated[str, typer.Argument(help="A recipe, or the Hub id of a published pool.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Download no weights: no norms, no cosines.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the cosines: .png, .svg or .pdf.")] = None,
    form: Form = "table",
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Show a pool: revisions, sizes, what is to be downloaded, licenses, norms and cosines of task vectors."""
    prepare(verbose, token)
    from ..pool.geometry import geometry
    from ..pool.inspect import facts, geometry_text, listing

    if figure and figure.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"{figure}: give a file that ends in .png, .svg or .pdf")
    if figure and dry_run:
        raise InputError("--figure needs the weights; leave --dry-run out")
    loaded = _pool(pool)
    if form == "table":
        typer.echo(listing(loaded))
    shape = None if dry_run else geometry(loaded)
    if form == "json":
        typer.echo(json.dumps(facts(loaded, shape), indent=2))
    elif shape:
        typer.echo("\n" + geometry_text(shape))
    if figure:
        from ..artifacts.figures import cosine_figure, save

        save(cosine_figure(shape.experts, shape.cosines), figure)
        say(f"Figure: {figure}")


def _pool(name: str) -> ModelPool:
    """From a recipe's file, or from the Hub."""
    from ..pool import ModelPool
    from ..recipes.recipe import Recipe

    is_recipe = Path(name).is_file() or name.endswith((".yaml", ".yml"))
    return Recipe.load(name, images=False).pool() if is_recipe else ModelPool.from_pretrained(name)


@pool_app.command("push", epilog="Example: `hf-mdft pool push recipe.yaml me/my-pool --collection 'My pool'`")
def pool_push(
    recipe: RecipeFile,
    repo: Repo,
    collection: Annotated[str | None, typer.Option(help="Title of a Hub collection to put its models into.")] = None,
    private: Private = None,
    revision: Revision = None,
    create_pr: CreatePr = False,
    commit_message: Message = None,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Publish a recipe's pool as one Hub repo: pinned revisions, class names, prompts, card; no weights.

    Others read it with `pool: me/my-pool` in a recipe, or `ModelPool.from_pretrained("me/my-pool")`.
    """
    prepare(verbose, token)
    from ..pool.collection import LONGEST_TITLE, collect

    if collection and len(collection) > LONGEST_TITLE:
        raise InputError(
            f"--collection: a title has at most {LONGEST_TITLE} characters, this one has {len(collection)}"
        )
    pool = _pool(str(recipe))
    commit = pool.push_to_hub(
        repo, private=private, revision=revision, create_pr=create_pr, commit_message=commit_message
    )
    for problem in pool.license()[1]:
        say(f"License: {problem}")
    untold = [task for task in pool.tasks if "unlabelled" not in pool.descriptions.get(task, {})]
    if untold:
        say(f"No images of the Hub for {', '.join(untold)}: who uses the pool names their own")
    show(commit, create_pr)
    if collection:
        typer.echo(collect(pool, commit.repo_url.repo_id, collection, private=bool(private)))


@app.command(epilog="Example: `hf-mdft bench --size vit-b-32 --experts 8`")
def bench(
    phase: Annotated[Literal["both", "meta", "specialists"], typer.Option(help="What to measure.")] = "both",
    size: Annotated[Literal["vit-b-32", "vit-b-16", "vit-l-14", "tiny"], typer.Option(help="Of the tower.")] = (
        "vit-b-32"
    ),
    experts: Annotated[int, typer.Option(help="In the pool.")] = 8,
    tasks: Annotated[int, typer.Option(help="In a batch of the meta-model.")] = 8,
    images_per_task: Annotated[int, typer.Option(help="In a batch of the meta-model.")] = 16,
    images_per_micro_batch: Annotated[
        int | None, typer.Option(help="Of the meta-model's step; the default is what is fast.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Of a specialist.")] = 64,
    precision: Annotated[Literal["bf16", "fp32"], typer.Option(help="bf16: autocast.")] = "bf16",
    turns: Annotated[int, typer.Option(help="Each is four steps and four of the floor.")] = 2,
    peer: Annotated[bool, typer.Option("--peer", help="FusionBench's wrapper too, if it is installed.")] = False,
    verbose: Verbose = False,
) -> None:
    """Measure what a step costs, beside its floor, with random weights and images.

    The floor of the meta-model is one forward and one backward pass of one model on the same batch; that of a
    specialist is plain fine-tuning. Each is run in turns with ours. Prints a Markdown table.
    """
    prepare(verbose)
    from ..bench import Setting, as_markdown, find_peer, measure_apart

    if peer:
        find_peer()
    setting = Setting(
        size=size,
        experts=experts,
        tasks=tasks,
        images_per_task=images_per_task,
        images_per_micro_batch=images_per_micro_batch,
        batch_size=batch_size,
        bf16=precision == "bf16",
        turns=turns,
    )
    wanted = (["meta", "specialists"] if phase == "both" else [phase]) + (["peer"] if peer else [])
    costs = []
    for name in wanted:
        say(f"Measuring: {name}")
        costs.append(measure_apart(setting, name, functools.partial(prepare, verbose)))
    typer.echo(as_markdown(costs))


@study_app.command(
    epilog="Example: `hf-mdft study few-shot recipe.yaml --images 16 --images 64 --images 256 --images all`"
)
def few_shot(
    recipe: RecipeFile,
    images: Annotated[list[str] | None, typer.Option(help="Images per task, or 'all'; repeat.")] = None,
    output_dir: StudyDir = Path("few-shot"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Measure what few unlabelled images per task give, in both phases."""
    prepare(verbose, token)
    from ..core.tables import markdown_table
    from ..recipes.recipe import Recipe
    from ..studies.few_shot import HEADER, as_facts, as_lines
    from ..studies.few_shot import few_shot as study

    counts = [_images(text) for text in images or ("16", "64", "256", "1000", "all")]
    table = study(Recipe.load(recipe), counts, output_dir / "work", say)
    _write_study(output_dir, {"few-shot": markdown_table(HEADER, as_lines(table))}, as_facts(table))


def _images(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit() or int(text) < 2:
        raise InputError(f"--images: give a number of at least 2, or 'all', got '{text}'")
    return int(text)


@study_app.command(epilog="Example: `hf-mdft study leave-one-out recipe.yaml`")
def leave_one_out(
    recipe: RecipeFile,
    output_dir: StudyDir = Path("leave-one-out"),
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Take each task's expert away and adapt the others' to it: what a pool does for a task outside it."""
    prepare(verbose, token)
    import dataclasses

    from ..recipes.recipe import Recipe
    from ..studies.ablation import as_markdown
    from ..studies.leave_one_out import leave_one_out as study

    rows = study(Recipe.load(recipe), output_dir / "work", say)
    facts = {name: dataclasses.asdict(row) for name, row in rows.items()}
    _write_study(output_dir, {"leave-one-out": as_markdown(list(rows.values()), by_task=True)}, facts)


@study_app.command(epilog="Example: `hf-mdft study gate results-*/results.json`")
def gate(
    results: Annotated[list[Path], typer.Argument(help="results.json or few-shot.json files.", show_default=False)],
) -> None:
    """Count how often the gate was right, what it saved and what it cost, over many runs."""
    from ..studies.gate_record import as_text, gate_record

    typer.echo(as_text(gate_record(results)))


@app.command(epilog="Example: `hf-mdft ablate recipe.yaml --output-dir ablation`")
def ablate(
    recipe: RecipeFile,
    output_dir: StudyDir = Path("ablation"),
    phase: Annotated[Literal["both", "meta", "specialists"], typer.Option(help="What to take apart.")] = "both",
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Take one part of the recipe out at a time, and show what each part adds, with paired intervals.

    Writes `ablation.md` and `ablation.json`; a study that was cut off goes on with the same command. It takes as many
    runs as there are parts: set `max_steps` and `images` in the recipe for a quick look.
    """
    prepare(verbose, token)
    import dataclasses

    from ..recipes.recipe import Recipe
    from ..studies.ablation import ablate as study
    from ..studies.ablation import as_markdown

    phases = ("meta", "specialists") if phase == "both" else (phase,)
    tables = study(Recipe.load(recipe), output_dir / "work", phases, say)
    facts = {name: [dataclasses.asdict(row) for row in rows] for name, rows in tables.items()}
    _write_study(output_dir, {name: as_markdown(rows) for name, rows in tables.items()}, facts, "ablation")


def _write_study(folder: Path, tables: dict[str, str], facts: object, name: str | None = None) -> None:
    """Show tables, and write them with their facts."""
    text = "\n\n".join(f"{title}\n\n{table}" for title, table in tables.items()) if name else "".join(tables.values())
    typer.echo(text)
    folder.mkdir(parents=True, exist_ok=True)
    name = name or next(iter(tables))
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    say(f"Table: {folder / name}.md   figures: {folder / name}.json")


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
