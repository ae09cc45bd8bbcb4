"""Independent work that the processes of one run share out among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import torch.distributed
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType


ALONE = {"distributed_type": DistributedType.NO, "num_processes": 1, "process_index": 0, "local_process_index": 0}


@contextmanager
def alone() -> Iterator[None]:
    """Each process by itself: what is called inside, Trainers included, finds one process and this process's device.

    What is made inside is what one process makes without a launcher, bit for bit. There is no public way to look away
    from the other processes for a while: accelerate keeps what it knows of them in two dictionaries, and transformers,
    which saves models in the first process alone, asks torch.
    """
    states = (PartialState()._shared_state, AcceleratorState._shared_state)
    kept = [dict(state) for state in states]
    AcceleratorState._shared_state.clear()
    PartialState._shared_state.update(ALONE)
    try:
        with patch.object(torch.distributed, "is_initialized", lambda: False):
            yield
    finally:
        for state, before in zip(states, kept, strict=True):
            state.clear()
            state.update(before)


def own_share(sizes: Mapping[str, float]) -> list[str]:
    """Names of the work that is this process's, in the given order.

    The largest first, each to the process that has least so far: the same in every process.

    Args:
        sizes: How much work each is, by name.
    """
    state = PartialState()
    loads, owned = [0.0] * state.num_processes, []
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        process = min(range(len(loads)), key=loads.__getitem__)
        loads[process] += sizes[name]
        if process == state.process_index:
            owned.append(name)
    return [name for name in sizes if name in owned]
