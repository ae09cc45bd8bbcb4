"""What users of `Trainer` expect of the Hub: the adapter and its card, in one commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo

from ..artifacts import MetaModelParts
from ..artifacts.meta_model import refuse_local
from ..artifacts.provenance import beside
from ..artifacts.record import meta_facts
from ..artifacts.result import push_result
from ..core.errors import InputError
from ..heads import Head
from ..hub.client import call_hub
from ..pool import ModelPool
from ..tasks import Task
from ..trainers import options_of
from ..trainers.base import PhaseTrainer
from .arguments import MdftTrainingArguments


class PushingTrainer(PhaseTrainer):
    """`Trainer`'s methods for cards and pushes, for a meta-model.

    A push happens when training has ended, or when `push_to_hub` is called.
    """

    pool: ModelPool
    _given_args: MdftTrainingArguments
    """Options as the user gave them."""
    _own_heads: dict[str, Head]
    """Heads that the tasks came with."""
    trained_heads: dict[str, Head]

    def save_result(self, folder: str | Path) -> None:
        """Write the meta-model's folder as `MetaMerger.save_pretrained` does."""
        model, heads, trained = self.accelerator.unwrap_model(self.model), self._own_heads, self.trained_heads
        seed = self.args.seed
        recipe = {"meta": beside(options_of(self._given_args), seed), "seed": seed}
        facts = meta_facts(
            pool=self.pool,
            model=model,
            unlabelled=dict.fromkeys(heads),
            trained_heads=trained,
            history=self.state.log_history,
            recipe=recipe,
        )
        tasks = {task: Task(None, class_names=head.class_names, head=head) for task, head in heads.items()}
        parts = MetaModelParts(self.pool, model, tasks, heads, trained, self.args.seed, facts, {}, {})
        parts.write(Path(folder))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the adapter with its card, which holds what every card of this package does, into the output
        folder."""
        if self.is_world_process_zero():
            self.save_result(self.args.output_dir)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repo that `push_to_hub` pushes to; see `Trainer.init_hf_repo`.

        Raises:
            InputError: The pool holds folders of this machine, or the Hub refuses.
        """
        refuse_local(self.pool.pinned())
        where = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        call_hub(lambda: super(PushingTrainer, self).init_hf_repo(token, private), where, writing=True)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | None:
        """Push adapter and card to `args.hub_model_id` in one commit; arguments as in `Trainer.push_to_hub`.

        Returns:
            The commit; `None` in every process but the first.

        Raises:
            InputError: `blocking` is off, the pool holds folders of this machine, or the Hub refuses.
        """
        if not blocking:
            raise InputError("push_to_hub: blocking=False is not supported (a push takes seconds); leave it on")
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if not self.is_world_process_zero():
            return None
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        return push_result(
            self.save_result,
            repo_id=self.hub_model_id,
            commit_message=commit_message,
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            private=private if private is not None else self.args.hub_private_repo,
        )
