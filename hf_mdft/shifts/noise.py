"""Noise. Its grain is 1/64 of the side, at least one pixel: noise of single pixels vanishes in large pictures."""

from __future__ import annotations

import numpy as np

from .base import SHIFTS, Shift, side_of


def _grain(picture: np.ndarray) -> int:
    return max(1, round(side_of(picture) / 64))


def _spread(grains: np.ndarray, like: np.ndarray) -> np.ndarray:
    """One value per grain to all of its pixels."""
    grain, (height, width) = _grain(like), like.shape[1:]
    return grains.repeat(grain, axis=1).repeat(grain, axis=2)[:, :height, :width]


@SHIFTS.register("gaussian_noise")
class GaussianNoise(Shift):
    """Gaussian noise: a sensor in bad light."""

    unit = "standard deviation, of the range"
    constants = (0.04, 0.08, 0.12, 0.18, 0.26)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        step = _grain(picture)
        return picture + constant * _spread(rng.standard_normal(picture[:, ::step, ::step].shape), picture)


@SHIFTS.register("shot_noise")
class ShotNoise(Shift):
    """Poisson noise: few photons, so that bright parts are noisier than dark ones."""

    unit = "photons of full white"
    constants = (60, 25, 12, 5, 3)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        step = _grain(picture)
        light = picture[:, ::step, ::step]
        return picture + _spread(rng.poisson(constant * light) / constant - light, picture)


@SHIFTS.register("impulse_noise")
class ImpulseNoise(Shift):
    """Salt and pepper: channels of single pixels at their smallest or largest value."""

    unit = "share of values"
    constants = (0.02, 0.05, 0.09, 0.17, 0.27)

    def change(self, picture: np.ndarray, constant: float, rng: np.random.Generator) -> np.ndarray:
        step = _grain(picture)
        drawn = _spread(rng.random(picture[:, ::step, ::step].shape), picture)
        return np.where(drawn < constant / 2, 0.0, np.where(drawn > 1 - constant / 2, 1.0, picture))
