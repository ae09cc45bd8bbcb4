"""`hf-mdft push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import InputError
from .app import CreatePr, Message, Private, Repo, Revision, Token, Verbose, app, prepare, show


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
    from ..artifacts import open_result

    if vision_only and folded:
        raise InputError("--vision-only is for a specialist, --folded for a meta-model: give one of them")
    form = "vision-only" if vision_only else "folded" if folded else None
    options = {"private": private, "revision": revision, "create_pr": create_pr, "commit_message": commit_message}
    show(open_result(folder).push(repo, form, **options), create_pr)
