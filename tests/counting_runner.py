"""`hf-mdft` that also writes down how often this process combined its part of the task vectors."""

import os
from pathlib import Path

import hf_mdft.cli
from hf_mdft.adapter import held
from hf_mdft.adapter.sharded import combine_sharded


def counted(parts, coefficients, shard):
    for part in parts:
        assert part.vectors.shape[1] == len(range(part.start.numel())[shard.part(part.start.numel())])
    with Path(os.environ["SHARDED_CALLS"], str(shard.rank)).open("a", encoding="utf-8") as file:
        file.write("combined\n")
    return combine_sharded(parts, coefficients, shard)


if __name__ == "__main__":
    held.combine_sharded = counted
    hf_mdft.cli.main()
