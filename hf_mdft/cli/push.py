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
