"""The whole job in one script, on the embedded pool.

python examples/quickstart.py
"""

import argparse

from hf_mdft import MetaMerger, ModelPool, Recipe


def main(recipe: str | None = None, output_dir: str = "quickstart-output") -> None:
    if recipe is None:
        from hf_mdft.demo import demo_recipe

        recipe = demo_recipe(seed=0, progress=print)
    loaded = Recipe.load(recipe)
    pool = ModelPool.from_pretrained(loaded.base, loaded.experts)

    merger = MetaMerger(pool, tasks=loaded.tasks)
    merger.fit(loaded.meta_arguments(output_dir))  # labels are never read
    specialists = merger.specialize(loaded.specialize_arguments(output_dir))

    print(merger.evaluate())  # the only place where labels are read
    for task, specialist in specialists.items():
        specialist.save_pretrained(f"{output_dir}/specialists/{task}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", help="the default is the demo's")
    parser.add_argument("--output-dir", default="quickstart-output")
    main(**vars(parser.parse_args()))
