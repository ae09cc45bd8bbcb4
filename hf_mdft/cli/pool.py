"""`hf-mdft pool`: find, look at and publish pools."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..core.errors import InputError
from .app import (
    AllowBaseMismatch,
    CreatePr,
    Message,
    Private,
    RecipeFile,
    Repo,
    Revision,
    Token,
    Verbose,
    app,
    make_folder_of,
    prepare,
    progress,
    show,
)


if TYPE_CHECKING:
    from ..pool import ModelPool


commands = typer.Typer(help="Find, look at and publish pools.", no_args_is_help=True)
app.add_typer(commands, name="pool")

Form = Annotated[Literal["table", "json"], typer.Option("--format", help="How to show it.")]


@commands.command(epilog="Example: `hf-mdft pool discover openai/clip-vit-base-patch32 --output recipe.yaml`")
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
    from ..recipes.draft import draft

    if output:
        make_folder_of(output)
    if output and output.exists():
        raise InputError(f"{output}: exists already; give another --output")
    source, found = search_hub(base, author=author, search=search, limit=limit)
    fitting = [candidate for candidate in found if not candidate.refused]
    typer.echo(as_json(source, found) if form == "json" else as_text(fitting))
    for candidate in found:
        if candidate.refused and verbose:
            progress(f"Left out {candidate.reference.id}: {candidate.refused}")
    hint = "" if verbose or len(fitting) == len(found) else " (--verbose: why others do not)"
    progress(f"{len(fitting)} of {len(found)} models fit {source}{hint}")
    if output:
        output.write_text(draft(source, fitting), encoding="utf-8")
        progress(f"Recipe to edit: {output}")


@commands.command(epilog="Example: `hf-mdft pool convert lab/my-open-clip ./my-clip`")
def convert(
    source: Annotated[str, typer.Argument(help="A folder, or a Hub id (id@revision).", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Folder to write; new or empty.", show_default=False)],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub id.")] = None,
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Make a folder of safetensors, as pools read it, of a model whose weights are in another format.

    Of transformers: `.bin`, `.pt`, variants such as `model.fp16.safetensors`, weights saved under `module.` or
    `_orig_mod.`. Of open_clip: ViT models with their text tower, as CLIPModel. Of peft: LoRA adapters and the like,
    merged into their base. Pickled files are read with
    `torch.load(weights_only=True)`, which runs no code. The result is compared with the source on random inputs.
    """
    prepare(verbose, token)
    from ..convert import convert as make

    made = make(source, folder, revision=revision, token=token)
    same = "holds every tensor of the source"
    if made.difference is not None:
        same = f"outputs differ from the source's by at most {made.difference:.1e} of the largest (rounding)"
    typer.echo(
        f"{made.folder}: {made.model}, {made.parameters / 1e6:.1f} M parameters in fp32, from {made.files[0]}; {same}"
    )
    if made.without_tokenizer:
        progress(f"{source} has no tokenizer: for zero-shot heads, put the files of its tokenizer into {made.folder}")


@commands.command(epilog="Example: `hf-mdft pool inspect recipe.yaml --figure cosines.png`")
def inspect(
    pool: Annotated[str, typer.Argument(help="A recipe, or the Hub id of a published pool.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Download no weights: no norms, no cosines.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the cosines: .png, .svg or .pdf.")] = None,
    allow_base_mismatch: AllowBaseMismatch = False,
    form: Form = "table",
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Show a pool: revisions, sizes, what is to be downloaded, licenses, norms and cosines of task vectors.

    It also compares what each model computes here with what plain transformers computes from its files.
    """
    prepare(verbose, token)
    from ..pool.geometry import geometry
    from ..pool.inspect import facts, geometry_text, listing
    from ..pool.parity import parity, parity_text
    from ..pool.processors import check_processors

    if figure and figure.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"{figure}: give a file that ends in .png, .svg or .pdf")
    if figure:
        make_folder_of(figure)
    if figure and dry_run:
        raise InputError("--figure needs the weights; leave --dry-run out")
    loaded = _pool(pool, allow_base_mismatch)
    if form == "table":
        typer.echo(listing(loaded))
    check_processors(loaded, loaded.tasks)
    shape = None if dry_run else geometry(loaded)
    same = None if dry_run else parity(loaded)
    if form == "json":
        typer.echo(json.dumps({**facts(loaded, shape), **({"parity": same} if same else {})}, indent=2))
    elif shape:
        typer.echo(f"\n{geometry_text(shape)}\n\n{parity_text(same)}")
    if figure:
        from ..artifacts.figures import cosine_figure, save

        save(cosine_figure(shape.experts, shape.cosines), figure)
        progress(f"Figure: {figure}")


def _pool(name: str, allow_base_mismatch: bool = False) -> ModelPool:
    """From a recipe's file, or from the Hub."""
    from ..pool import ModelPool
    from ..recipes.schema import Recipe

    is_recipe = Path(name).is_file() or name.endswith((".yaml", ".yml"))
    if is_recipe:
        return Recipe.load(name, images=False, allow_base_mismatch=allow_base_mismatch).pool()
    return ModelPool.from_pretrained(name, allow_base_mismatch=allow_base_mismatch)


@commands.command(epilog="Example: `hf-mdft pool rank recipe.yaml --task mnist`")
def rank(
    recipe: RecipeFile,
    task: Annotated[str, typer.Option(help="Task whose experts are ordered.", show_default=False)],
    images: Annotated[int, typer.Option(help="Unlabelled images that they are run on.", min=16)] = 300,
    form: Form = "table",
    token: Token = None,
    verbose: Verbose = False,
) -> None:
    """Order a task's experts without labels, the most trusted first, and show the evidence.

    Each costs five forward passes over a few hundred images. Trust is the odds of the share of predictions that small
    translations leave as they are, times those of predicting what the others do, sharpened; the other columns are for
    comparison (docs/method.md).
    """
    prepare(verbose, token)
    from ..core.device import best_device
    from ..experts.rank import as_text
    from ..experts.rank import rank as order
    from ..recipes.schema import Recipe

    loaded = Recipe.load(recipe)
    merger = loaded.merger()
    (name,) = merger.named([task])
    if len(merger.pool.experts_of(name)) < 2:
        raise InputError(f"{recipe}: task '{name}' has fewer than two experts, so there is nothing to order")
    chosen = merger.unlabelled(name).distinct().sample(images, loaded.seed)
    ranked = order(merger.experts(name, best_device()), chosen, title=name)
    typer.echo(json.dumps([asdict(r) for r in ranked], indent=2) if form == "json" else as_text(ranked))


@commands.command("push", epilog="Example: `hf-mdft pool push recipe.yaml me/my-pool --collection 'My pool'`")
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
    from ..hub.collection import LONGEST_TITLE, collect

    if collection and len(collection) > LONGEST_TITLE:
        raise InputError(
            f"--collection: a title has at most {LONGEST_TITLE} characters, this one has {len(collection)}"
        )
    from ..pool.published import PublishedPool

    pool = _pool(str(recipe))
    commit = pool.push_to_hub(
        repo, private=private, revision=revision, create_pr=create_pr, commit_message=commit_message
    )
    for problem in pool.license().problems:
        progress(f"License: {problem}")
    shared = PublishedPool(pool.pinned(), pool.descriptions).options()
    missing = [task for task in pool.tasks if "unlabelled" not in shared.get(task, {})]
    if missing:
        progress(f"No images of the Hub for {', '.join(missing)}: users of the pool name their own")
    show(commit, create_pr)
    if collection:
        notes = {commit.repo_url.repo_id: "The pool: base and experts at pinned revisions"}
        base = pool.base.reference
        notes[base.id] = f"base, at {base.revision}"
        notes |= {s.reference.id: f"expert for {t}, at {s.reference.revision}" for t, s in pool.experts.items()}
        typer.echo(collect(notes, collection, private=bool(private)))
