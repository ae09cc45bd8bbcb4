"""Training ends where the loss on held-out images no longer falls."""

from __future__ import annotations

import shutil

import pytest
import torch
from conftest import TASKS
from peft import get_peft_model
from transformers import TrainerState

from hf_mdft import MdftConfig, MdftTrainer, MdftTrainingArguments
from hf_mdft.meta.held_out import held_out_loss
from hf_mdft.objectives import expert_divergence
from hf_mdft.trainers.flat import EVERY, HELD_OUT_LOSS, LEAST_GAIN, PATIENCE, flat


@pytest.fixture
def train(merger, tmp_path, monkeypatch):
    """A phase 1 that looks at the held-out images after every second step, and ends after one look without a gain."""
    monkeypatch.setattr("hf_mdft.trainers.flat.EVERY", 2)
    monkeypatch.setattr("hf_mdft.trainers.flat.PATIENCE", 1)

    def make(folder, least_gain=0.01, resume=None, **options):
        monkeypatch.setattr("hf_mdft.trainers.flat.LEAST_GAIN", least_gain)
        defaults = dict(max_steps=8, images_per_task=4, save_steps=2, head_steps=0, restore=False, logging_steps=1)
        defaults |= dict(use_cpu=True, disable_tqdm=True, report_to="none")
        trainer = MdftTrainer(
            get_peft_model(merger.pool.tower(), MdftConfig(pool=merger.pool)),
            MdftTrainingArguments(output_dir=str(tmp_path / folder), **{**defaults, **options}),
            train_dataset={task: merger.unlabelled(task) for task in TASKS},
            heads={task: merger.head(task) for task in TASKS},
            pool=merger.pool,
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return make


def coefficients(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def losses(trainer):
    return [line[HELD_OUT_LOSS] for line in trainer.state.log_history if HELD_OUT_LOSS in line]


def state_of(*values):
    state = TrainerState()
    state.log_history = [{HELD_OUT_LOSS: value} for value in values] + [{"loss": 1.0}]
    return state


def test_flat_is_without_a_gain_over_the_lowest_so_far():
    assert (EVERY, PATIENCE, LEAST_GAIN) == (50, 2, 0.01)
    assert not flat(state_of()) and not flat(state_of(1.0, 1.0))
    assert flat(state_of(1.0, 0.995, 0.992)) and flat(state_of(0.5, 0.6, 0.7))
    assert not flat(state_of(1.0, 1.1, 0.98)), "a gain later counts"


def test_held_out_images_are_not_trained_on_and_tell_the_distance_to_the_experts(train, merger):
    trainer = train("run")
    rows = trainer._held_out
    assert {task: len(own) for task, own in rows.items()} == dict.fromkeys(TASKS, 3)
    drawn = trainer.train_dataset.__getitems__(list(range(len(trainer.train_dataset))))
    for number, task in enumerate(TASKS):
        own = set(drawn["index"][torch.tensor(drawn["task"]) == number].tolist())
        assert own == set(range(24)) - set(rows[task].tolist())
    expected, tower = [], trainer.finish()
    for task in TASKS:
        images, objective = merger.unlabelled(task), trainer.objective.tasks[task]
        x = images.preprocessor.normalize(images.pixels(rows[task]))
        with torch.no_grad():
            logits = objective.head(merger.pool.architecture.features(tower(pixel_values=x)))
        expected.append(expert_divergence(logits, objective.expert_logits[rows[task]]).mean())
    args = (tower, merger.pool, trainer.objective.tasks, trainer._images_of, rows, trainer.args)
    assert held_out_loss(*args) == pytest.approx(torch.stack(expected).mean().item(), rel=1e-3)


def test_training_ends_where_it_is_flat_and_is_not_gone_on_with(train):
    ended = train("run", least_gain=0.99)
    assert ended.state.global_step == 4 and len(losses(ended)) == 2
    again = train("run", least_gain=0.99, resume=True)
    assert again.state.global_step == 4 and torch.equal(coefficients(again), coefficients(ended))
    gone_on = train("run", fewer_steps=False, max_steps=6, resume=True)
    assert gone_on.state.global_step == 6, "all steps are asked for now"
    whole = train("whole", fewer_steps=False, max_steps=4)
    assert not losses(whole) and whole.state.global_step == 4 and not any(map(len, whole._held_out.values()))


@pytest.mark.slow
def test_an_interrupted_training_ends_where_it_would_have(train, tmp_path):
    whole = train("whole", least_gain=0.99)
    train("cut", least_gain=-10.0, save_total_limit=None)
    for step in (4, 6, 8):
        shutil.rmtree(tmp_path / "cut" / f"checkpoint-{step}")
    resumed = train("cut", least_gain=0.99, resume=str(tmp_path / "cut" / "checkpoint-2"))
    assert resumed.state.global_step == whole.state.global_step == 4
    assert losses(resumed) == losses(whole) and torch.equal(coefficients(resumed), coefficients(whole))
