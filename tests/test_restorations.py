"""Restorations of pictures, and which are found without labels."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hf_mdft.embedding import restoration
from hf_mdft.embedding.restoration import better, find_restorations
from hf_mdft.objectives import image_information
from hf_mdft.restorations import RESTORATIONS, restore, restored
from hf_mdft.restorations.sharpness import blur
from hf_mdft.tasks import Images


def generator():
    return torch.Generator().manual_seed(0)


class ByteImages(Images):
    """Images in memory."""

    def __init__(self, pixels):
        self._bytes, self.shape = pixels, tuple(pixels.shape[1:])
        self._rows = np.arange(len(pixels))
        self.preprocessor = SimpleNamespace(normalize=lambda x: x.float() / 255)

    key = property(lambda self: str(int(self._bytes.sum())))

    def pixels(self, indices):
        return self._bytes[np.asarray(indices)]


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
@pytest.mark.parametrize("name", RESTORATIONS.names())
def test_shape_range_and_independence_of_the_batch(name, size):
    pixels = torch.rand(5, 3, *size, generator=generator())
    pixels[1] = 0.0
    pixels[2] = 1.0
    before = pixels.clone()
    made = restore(pixels, [name])
    assert made.shape == pixels.shape and made.isfinite().all() and made.min() >= 0 and made.max() <= 1
    assert torch.equal(pixels, before)
    assert torch.allclose(made[3:], restore(pixels[3:], [name]), atol=1e-6)
    assert (made[3:] - pixels[3:]).abs().mean() > 1e-3, "it changes something"


def test_each_undoes_what_it_is_for():
    picture = torch.rand(4, 3, 32, 32, generator=generator()).round()  # black and white
    smooth = blur(torch.rand(4, 3, 32, 32, generator=generator()), 1.5)
    smooth = (smooth - smooth.amin()) / (smooth.amax() - smooth.amin())

    def distance(made, wanted):
        return (made - wanted).abs().mean().item()

    faint = 0.4 + 0.2 * picture
    assert distance(restore(faint, ["stretch"]), picture) < 1e-5 < distance(faint, picture)
    cast = smooth * torch.tensor([1.0, 0.8, 0.5]).view(3, 1, 1)
    means = restore(cast, ["gray world"]).mean(dim=(2, 3))
    assert (means.amax(1) - means.amin(1)).max() < 0.02 < (cast.mean((2, 3))[:, 0] - cast.mean((2, 3))[:, 2]).min()
    assert torch.allclose(restore(restore(picture, ["invert"]), ["invert"]), picture)
    blurred = blur(smooth, 0.8)
    assert distance(restore(blurred, ["sharpen 1"]), smooth) < distance(blurred, smooth)
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=generator())
    for name in ("blur 0.7", "median", "bilateral 0.3"):
        assert distance(restore(noisy, [name]), smooth) < distance(noisy, smooth), name
    hot = smooth.clone()
    hot[:, :, 10, 10] = 1 - hot[:, :, 10, 10].round()
    assert (restore(hot, ["median"]) - smooth)[:, :, 10, 10].abs().max() < 0.25
    edge = torch.zeros(1, 3, 32, 32)
    edge[..., 16:] = 1
    assert distance(restore(edge, ["bilateral 0.15"]), edge) < 1e-4 < distance(restore(edge, ["blur 0.7"]), edge)
    ring = torch.zeros(1, 3, 32, 32)
    ring[..., 12:20, 12:20] = 1
    assert restore(ring, ["zoom 1.25"]).mean() > 1.3 * ring.mean() > 1.3 * restore(ring, ["zoom 0.8"]).mean()
    speckled = torch.full((1, 3, 8, 8), 0.08)
    assert (
        restore(speckled, ["black point 0.1"]).amax() == 0 and restore(1 - speckled, ["white point 0.15"]).amin() == 1
    )


def test_unknown_restoration_is_named():
    with pytest.raises(Exception, match="unknown restoration 'sharpen': did you mean 'sharpen"):
        restore(torch.rand(1, 3, 8, 8), ["sharpen"])


def test_restored_images_are_made_once_and_have_a_key_of_their_own(monkeypatch):
    images = ByteImages((255 * torch.rand(70, 3, 16, 16, generator=generator())).byte())
    assert restored(images, []) is images
    names = ["invert", "gamma 1.4"]
    made = restored(images, names)
    wanted = restore(images.pixels(range(70)).float() / 255, names)
    assert len(made) == 70 and (made.pixels(range(70)).float() - 255 * wanted).abs().max() <= 0.5 + 1e-3
    assert torch.equal(made.pixels([3, 1]), made.pixels(range(70))[[3, 1]])
    assert len({images.key, made.key, restored(images, names[::-1]).key}) == 3
    some = made.subset([6, 2, 3])
    assert torch.equal(some.pixels([0, 2]), made.pixels([6, 3])) and len(some) == 3 and some.key != made.key
    monkeypatch.setattr("hf_mdft.restorations.images.restore", lambda *_: pytest.fail("made again"))
    assert torch.equal(restored(images, names).pixels([5]), made.pixels([5]))


def test_information_is_entropy_of_the_mean_minus_mean_entropy():
    logits = 3 * torch.randn(50, 4, generator=generator())
    p = logits.softmax(-1)
    wanted = -(p.mean(0) * p.mean(0).log()).sum() + (p * p.log()).sum(-1).mean()
    assert image_information(p).mean().item() == pytest.approx(wanted.item(), abs=1e-6)
    assert image_information(torch.full((9, 4), 0.25)).abs().max() < 1e-6, "nothing is told by guessing"
    assert image_information(torch.eye(4)[[2] * 9]).abs().max() < 1e-6, "nor by one class for all"


def test_a_gain_must_matter_and_be_beyond_chance():
    old, spread = torch.full((100,), 0.5), torch.linspace(-1, 1, 100)
    assert better(old + 0.02, old) and not better(old + 0.01, old)  # 4 % and 2 % of 0.5
    assert not better(old + 0.02 + spread, old), "2 standard errors are 0.12"
    assert better(old + 0.2 + spread, old)


@dataclasses.dataclass
class Expert:
    """A pool of one expert, which tells by how much brighter the left half is than the right, at usual contrast."""

    runs: int = 0

    def identity(self, task):
        return ["expert", task]

    def tower(self, task):
        pool = self

        class Tower(nn.Module):
            def forward(self, pixel_values):
                pool.runs += len(pixel_values)
                halves = pixel_values.mean(dim=(1, 2)).unflatten(1, (2, -1)).mean(dim=-1)
                return (halves[:, 0] - halves[:, 1])[:, None]

        return Tower()

    architecture = SimpleNamespace(features=lambda outputs: outputs)


class Linear(nn.Module):
    def key(self):
        return "head"

    def forward(self, features):
        return torch.cat([12 * features, -12 * features], dim=-1)


def sides(contrast):
    """Images whose left or right half is the brighter one."""
    signs = torch.ones(60, 1, 1, 1)
    signs[::2] = -1
    pattern = torch.ones(1, 1, 16, 16)
    pattern[..., 8:] = -1
    noise = 0.02 * torch.randn(60, 3, 16, 16, generator=generator())
    pictures = 0.5 + contrast * (0.3 * signs * pattern + noise)
    return ByteImages((255 * pictures.clamp(0, 1)).round().byte())


def test_restorations_are_found_where_images_are_not_as_the_expert_knows_them():
    pool, head = Expert(), Linear()
    faint, clear = sides(0.1), sides(1.0)
    assert find_restorations(pool, "side", clear, head) == []
    found = find_restorations(pool, "side", faint, head)
    assert found and found[0] in ("stretch", "stretch channels", "contrast 2")
    before = pool.runs
    assert find_restorations(pool, "side", faint, head) == found and pool.runs == before, "kept"
    logits = [head(pool.tower("side")(restore(faint.pixels(range(60)).float() / 255, names))) for names in ([], found)]
    assert image_information(logits[1].softmax(-1)).mean() > 3 * image_information(logits[0].softmax(-1)).mean()


def test_images_of_one_class_are_not_restored():
    """Where all are of one class, information rises with whatever makes the expert err."""
    faint = sides(0.1)
    one = ByteImages(faint.pixels(range(1, 60, 2)))
    assert find_restorations(Expert(), "side", one, Linear()) == []
    assert find_restorations(Expert(), "side", faint, Linear()) != []


def test_where_predictions_are_uneven_restorations_must_give_more():
    few = torch.cat([torch.arange(0, 60, 2), torch.arange(1, 60, 10)])  # 30 of one class, 6 of the other

    def found(contrast, rows=None):
        images = sides(contrast)
        return find_restorations(
            Expert(), "side", images if rows is None else ByteImages(images.pixels(rows)), Linear()
        )

    assert found(0.1, few), "information rises severalfold"
    assert found(0.35) and not found(0.35, few)


def test_the_screen_finds_what_looking_at_all_images_finds(monkeypatch):
    faint = sides(0.15)
    found = find_restorations(Expert(), "side", faint, Linear())
    monkeypatch.setattr(restoration, "SHORT_LIST", 1000)
    monkeypatch.setattr(restoration, "VERSION", "all")
    assert find_restorations(Expert(), "side", faint, Linear()) == found
