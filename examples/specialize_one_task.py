"""Improve one expert with a few unlabelled images, and see the gate's decision.

python examples/specialize_one_task.py recipe.yaml mnist --images 256
"""

import argparse

from hf_mdft import Recipe


def main(recipe: str, task: str, images: int | None = None, output_dir: str = "specialist-output") -> None:
    loaded = Recipe.load(recipe)
    merger = loaded.merger()
    merger.fit(loaded.meta_arguments(output_dir))
    specialist = merger.specialize(loaded.specialize_arguments(output_dir, images=images), tasks=[task])[task]

    print(f"{task}: kept the {specialist.kept} ({specialist.decision.reason})")
    specialist.save_pretrained(f"{output_dir}/{task}")  # loads with plain transformers
    # specialist.push_to_hub(f"me/clip-vit-b32-{task}-mdft", private=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("task")
    parser.add_argument("--images", type=int, help="unlabelled images; the default is all")
    parser.add_argument("--output-dir", default="specialist-output")
    main(**vars(parser.parse_args()))
