"""The adapter as an ordinary PEFT method, trained by an ordinary Trainer.

python examples/plain_peft_and_trainer.py recipe.yaml
"""

import argparse

from peft import PeftModel, get_peft_model

from hf_mdft import MdftConfig, MdftTrainer, MdftTrainingArguments, ModelPool, Recipe
from hf_mdft.heads import build_head


def main(recipe: str, output_dir: str = "peft-output", max_steps: int = 100) -> None:
    loaded = Recipe.load(recipe)
    pool = ModelPool.from_pretrained(loaded.base, loaded.experts)

    model = get_peft_model(pool.tower(), MdftConfig(pool=pool.reference(), granularity="layer"))
    model.print_trainable_parameters()

    trainer = MdftTrainer(
        model=model,
        args=MdftTrainingArguments(output_dir=f"{output_dir}/checkpoints", max_steps=max_steps, images_per_task=8),
        train_dataset={name: task.unlabelled for name, task in loaded.tasks.items()},
        heads={name: build_head(name, task, pool) for name, task in loaded.tasks.items()},
    )
    trainer.train()

    model.save_pretrained(f"{output_dir}/adapter")  # a few kilobytes: coefficients and where the pool is
    again = PeftModel.from_pretrained(pool.tower(), f"{output_dir}/adapter")
    again.merge_and_unload(safe_merge=True).save_pretrained(f"{output_dir}/folded")  # a plain vision model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--output-dir", default="peft-output")
    parser.add_argument("--max-steps", type=int, default=100)
    main(**vars(parser.parse_args()))
