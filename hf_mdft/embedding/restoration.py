"""Which restorations make a task's images like those that its expert knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..core.cache import key_of, prepared
from ..core.device import fast_bf16
from ..heads import Head
from ..objectives import image_information
from ..objectives.prior import LEAST_EVENNESS, class_shares, effective_classes
from ..pool import ModelPool
from ..restorations import RESTORATIONS, restore
from ..tasks import Images


VERSION = 4
"""Version of how restorations are found; another one for every change of what is found."""

IMAGES, SCREENED, SHORT_LIST = 512, 128, 6
"""Images that are looked at; a quarter of them screens all restorations, and the best few are looked at on all, in
half as many forward passes."""

LEAST_GAIN = 0.03
"""Least gain in information of one more restoration, relative to what there is. On images like those that the experts
were trained on, the best single one gained at most 2.8 %; under a shift, the first one gained 5 to 80 %."""

LEAST_GAIN_IF_UNEVEN = 0.1
"""Least gain in information of all restorations together, relative to what there was, where predictions are of uneven
classes. Of sets of uneven classes without a shift, the restorations found gained at most 6.4 %; under a shift (S) 5 %
(brain MRI) and 7 % or more."""

LEAST_ERRORS = 2.0
"""Least gain in its standard errors, which matters where there are few images."""

ONE_CLASS = 0.95
"""Share of images that the expert takes for one class, from which on none is restored: where the images are of one
class, information rises with whatever makes the expert err."""

PIXELS = 2**21
"""Pixels restored and seen by the expert at a time: 128 images, fewer of large ones."""

LONGEST = 4
"""Largest number of restorations, one after the other."""

FILE = "restorations.json"


def better(new: torch.Tensor, old: torch.Tensor) -> bool:
    """Whether images carry more information `(N,)` than before, beyond chance and by enough to matter."""
    gain = new - old
    error = gain.std(correction=min(1, len(gain) - 1)) / len(gain) ** 0.5
    return bool(gain.mean() > max(LEAST_GAIN * old.mean(), LEAST_ERRORS * error))


@torch.no_grad()
def find_restorations(
    pool: ModelPool,
    task: str,
    images: Images,
    head: Head,
    *,
    device: torch.device | str = "cpu",
    desc: str | None = None,
) -> list[str]:
    """Restorations of a task's images, one after the other, under which the mutual information of image and the
    expert's prediction is largest; none for images like those that the expert was trained on, and none where the
    expert takes nearly all for one class.

    An expert that meets images of another camera is unsure, or predicts one class for most: the mutual information of
    image and prediction falls. Greedily, the restoration under which it is highest is added, while it rises. Where
    images are of uneven classes it can also rise because the expert errs, so where predictions are uneven, all
    restorations together must raise it by `LEAST_GAIN_IF_UNEVEN`, or none is used. No label is read, and no weight is
    changed (information maximisation, Krause et al. 2010 and SHOT, Liang et al. 2020,
    https://huggingface.co/papers/2002.08546, over inputs in place of weights).

    Args:
        pool: Base and experts.
        task: Task whose expert is asked.
        images: Unlabelled images; up to `IMAGES` of them, evenly spread, are looked at.
        head: Head of the task.
        device: Device that the expert runs on.
        desc: Title of a progress bar; the default shows none.

    Returns:
        Names in `RESTORATIONS`, in order. They are kept: the second call looks at nothing.
    """
    bf16, names = fast_bf16(device), RESTORATIONS.names()
    limits = (LEAST_GAIN, LEAST_GAIN_IF_UNEVEN, LEAST_ERRORS, ONE_CLASS, LONGEST)
    key = key_of("restorations", VERSION, *limits, pool.identity(task), images.key, head.key(), names, bf16)

    def make(folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(_search(pool, task, images, head, device, bf16, desc)), encoding="utf-8")

    return json.loads((prepared("restorations", key, make) / FILE).read_text(encoding="utf-8"))


def _search(
    pool: ModelPool, task: str, images: Images, head: Head, device: torch.device | str, bf16: bool, desc: str | None
) -> list[str]:
    tower, head = pool.tower(task).to(device).eval(), head.to(device)
    rows = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().long()
    pixels = (images.pixels(rows).float() / 255).to(device)
    size = max(1, min(128, PIXELS // (pixels.shape[-1] * pixels.shape[-2])))
    screened = torch.arange(0, len(pixels), max(1, len(pixels) // SCREENED))

    def predicted(names: Sequence[str], few: bool = False) -> torch.Tensor:
        logits = []
        for batch in (pixels[screened] if few else pixels).split(size):
            pixel_values = images.preprocessor.normalize(255 * restore(batch, names))
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
                outputs = tower(pixel_values=pixel_values)
            logits.append(head(pool.architecture.features(outputs).float()))
        return torch.cat(logits).double().softmax(dim=-1)

    def informative(names: Sequence[str], few: bool = False) -> torch.Tensor:
        return image_information(predicted(names, few)).cpu()

    found: list[str] = []
    plain = predicted(found)
    if plain.argmax(dim=-1).bincount().max() >= ONE_CLASS * len(plain):
        return found
    uneven = effective_classes(class_shares(plain), len(plain)) < LEAST_EVENNESS
    best = image_information(plain).cpu()
    enough = best.mean() * (1 + LEAST_GAIN_IF_UNEVEN) if uneven else best.mean()
    with tqdm(desc=desc, total=LONGEST * len(RESTORATIONS.names()), leave=False, disable=desc is None) as bar:
        while len(found) < LONGEST:
            screen = {}
            for name in RESTORATIONS.names():
                screen[name] = informative([*found, name], few=True).mean().item()
                bar.update()
            best_first = sorted(screen, key=screen.__getitem__, reverse=True)
            candidates = {name: informative([*found, name]) for name in best_first[:SHORT_LIST]}
            name = max(candidates, key=lambda name: candidates[name].mean().item())
            if not better(candidates[name], best):
                break
            found, best = [*found, name], candidates[name]
    return found if best.mean() >= enough else []
