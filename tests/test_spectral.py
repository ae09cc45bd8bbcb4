"""Transforms of singular vectors equal their definitions by the full decomposition, in double precision."""

from __future__ import annotations

import pytest
import torch

from hf_mdft.transforms import TRANSFORMS
from hf_mdft.transforms.matrix import leading, orthogonalized


HALF = 2**-11
"""Relative rounding of the half precision in which task vectors are kept."""

SHAPES = [(4, 160, 96), (4, 96, 160), (4, 128, 128), (4, 96, 3, 8, 8)]


def decomposed(matrix):
    return torch.linalg.svd(matrix, full_matrices=False)


def truncated(matrix, rank):
    left, values, right = decomposed(matrix)
    return left[:, :rank] * values[:rank] @ right[:rank]


def polar(factor):
    """Of a factor without full rank, the part that is not arbitrary."""
    left, values, right = decomposed(factor)
    return left * (values > 1e-6 * values[0]) @ right


def experts(shape, decay, seed=0):
    """Task vectors with singular values i^-decay; half of their directions are those of all experts."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape[1], torch.Size(shape[2:]).numel()
    size = min(rows, columns)

    def directions(length, shared):
        own = torch.randn(length, size, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(own + shared)[0]

    lefts, rights = (torch.randn(n, size, generator=generator, dtype=torch.float64) for n in (rows, columns))
    values = torch.arange(1, size + 1, dtype=torch.float64) ** -decay
    made = [directions(rows, lefts) * values @ directions(columns, rights).T for _ in range(shape[0])]
    return 0.1 * torch.stack(made).reshape(shape).float()


def tsv(matrices):
    """Rows of TSV-M, expert by expert."""
    count, rank = len(matrices), max(1, min(matrices.shape[1:]) // len(matrices))
    parts = [tuple(part[..., :rank] for part in (u, s, v.T)) for u, s, v in map(decomposed, matrices)]
    lefts, rights = (polar(torch.cat([part[i] * (part[1] > 1e-6) for part in parts], dim=1)) for i in (0, 2))
    split = zip(lefts.split(rank, dim=1), parts, rights.split(rank, dim=1), strict=True)
    return count * torch.stack([u * s @ v.T for u, (_, s, _), v in split])


def low_rank(matrices):
    return torch.stack([truncated(matrix, max(1, round(min(matrix.shape) / 8))) for matrix in matrices])


def iso_c(matrices):
    left, values, right = decomposed(matrices.sum(dim=0))
    amounts = torch.stack([(left.T @ matrix @ right.T).diagonal().clamp(min=0) for matrix in matrices])
    return len(matrices) * values.mean() * torch.stack([left * part @ right for part in amounts / amounts.sum(dim=0)])


REFERENCES = {"tsv": tsv, "low_rank": low_rank, "iso_c": iso_c}


def error(found, wanted):
    """Largest error in units of half precision's at the largest entry."""
    return ((found - wanted).abs().max() / wanted.abs().max() / HALF).item()


@pytest.mark.parametrize("decay", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_equals_the_definition_within_half_precision(name, shape, decay):
    vectors = experts(shape, decay)
    found, wanted = TRANSFORMS.build(name)("t", vectors), REFERENCES[name](vectors.double().flatten(2))
    assert found.dtype == torch.float32 and found.shape == shape
    assert error(found.flatten(2), wanted) < 0.5


def test_iso_cts_has_as_many_directions_of_each_expert_as_its_authors():
    """Rounded to the nearest: of 64, 51 are common, and an eighth of 13 is 2."""
    vectors = experts((8, 64, 96), 0.7)
    merged = TRANSFORMS.build("iso_cts")("t", vectors).mean(dim=0)
    own, common = 2, 64 - 2 * 8
    total = vectors.double().sum(dim=0)
    left, values, right = decomposed(total)
    rest = vectors.double() - left[:, :common] @ (left[:, :common].T @ vectors.double())
    parts = [tuple(found) for found in map(decomposed, rest)]
    lefts = polar(torch.cat([left[:, :common], *(u[:, :own] for u, _, _ in parts)], dim=1))
    rights = polar(torch.cat([right[:common], *(v[:own] for _, _, v in parts)]).T)
    size = torch.cat([values[:common], *(s[:own] for _, s, _ in parts)]).mean()
    assert error(merged, size * lefts @ rights.T) < 0.5


@pytest.mark.parametrize(("count", "size"), [(3, 5), (3, 2), (8, 4)])
def test_iso_cts_takes_no_more_directions_than_there_are(count, size):
    """With next to nothing in common, as many as fit of each expert, all of one length."""
    vectors = experts((count, size, 6), 0.3)
    merged = TRANSFORMS.build({"name": "iso_cts", "common": 0.01})("t", vectors).mean(dim=0)
    values = torch.linalg.svdvals(merged.double())
    torch.testing.assert_close(values, values.mean().expand(size), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["tsv", "low_rank"])
def test_no_matrix_is_decomposed_in_full(name, monkeypatch):
    sides, svd = [], torch.linalg.svd

    def recorded(matrices, **options):
        sides.append(min(matrices.shape[-2:]))
        return svd(matrices, **options)

    monkeypatch.setattr(torch.linalg, "svd", recorded)
    flat, low = experts((4, 160, 96), 0.7), experts((4, 160, 5), 0.7) @ torch.randn(5, 96)
    for vectors in (flat, low):
        TRANSFORMS.build(name)("t", vectors)
    assert max(sides) < 96


def test_one_expert_stays_as_it_is():
    vectors = experts((1, 64, 48), 0.7)
    assert error(TRANSFORMS.build("tsv")("t", vectors), vectors) < 0.5


def test_nothing_stays_nothing():
    for name in ("tsv", "low_rank", "iso_c", "iso_cts"):
        for shape in SHAPES:
            assert not TRANSFORMS.build(name)("t", torch.zeros(shape)).any()


def test_an_expert_without_a_change_takes_no_room():
    vectors = experts((4, 96, 96), 0.7)
    vectors[2] = 0
    found = TRANSFORMS.build("tsv")("t", vectors)
    assert not found[2].any() and error(found, tsv(vectors.double())) < 0.5


@pytest.mark.parametrize("shape", [(4, 160, 96), (4, 96, 160)], ids=str)
def test_experts_of_low_rank(shape):
    vectors = experts((4, shape[1], 5), 0.7) @ experts((4, 5, shape[2]), 0.7, seed=1)
    assert error(TRANSFORMS.build("low_rank")("t", vectors), vectors) < 0.5
    assert error(TRANSFORMS.build("tsv")("t", vectors), tsv(vectors.double())) < 0.5


@pytest.mark.parametrize("name", ["tsv", "low_rank", "iso_c", "iso_cts"])
def test_nothing_of_a_merge_of_low_rank_is_made_of_rounding(name):
    """LoRAs of rank 2: their merge lies in their own directions, in whichever order they come."""
    factors = torch.randn(3, 64, 2, generator=torch.Generator().manual_seed(0))
    vectors = factors @ torch.randn(3, 2, 48, generator=torch.Generator().manual_seed(1))
    transform = TRANSFORMS.build(name)
    merged = transform("t", vectors).mean(dim=0)
    turned = transform("t", vectors[[2, 0, 1]]).mean(dim=0)
    torch.testing.assert_close(turned, merged, atol=1e-5 * float(merged.abs().max()), rtol=0)
    left, _, right = (part[..., :6] if n < 2 else part[:6] for n, part in enumerate(decomposed(vectors.sum(dim=0))))
    torch.testing.assert_close(left @ (left.T @ merged @ right.T) @ right, merged, atol=1e-5, rtol=1e-4)


def test_the_same_expert_several_times_is_that_expert():
    vectors = experts((1, 96, 96), 0.7).repeat(4, 1, 1)
    mean = TRANSFORMS.build("tsv")("t", vectors).mean(dim=0)
    assert error(mean, truncated(vectors[0].double(), 24)) < 0.5


def test_a_doubled_expert_among_others():
    vectors = experts((4, 160, 96), 0.7)
    vectors[3] = 2 * vectors[1]
    assert error(TRANSFORMS.build("tsv")("t", vectors), tsv(vectors.double())) < 0.5


def test_leading_vectors_are_orthonormal_and_in_order():
    for vectors in (experts((3, 160, 96), 0.7), torch.zeros(3, 160, 96), experts((3, 160, 96), 4)):
        left, values, right = leading(vectors, 12)
        for basis in (left, right.mT):
            torch.testing.assert_close(basis.mT @ basis, torch.eye(12).expand(3, 12, 12), atol=1e-5, rtol=0)
        wanted = torch.linalg.svdvals(vectors.double())[:, :12].float()
        torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-6 * float(wanted.max()))
    assert [part.numel() for part in leading(torch.zeros(3, 6, 5), 0)] == [0, 0, 0]


@pytest.mark.parametrize("smallest", [0.5, 1e-2, 1e-4])
def test_polar_factors_of_any_condition(smallest):
    for shape in [(160, 96), (96, 160), (96, 96)]:
        left, _, right = decomposed(experts((1, *shape), 0)[0].double())
        factor = left * torch.logspace(0, torch.tensor(smallest).log10().item(), 96, dtype=torch.float64) @ right
        error = (orthogonalized(factor.float()) - left @ right).abs().max().item()
        assert error < 1e-6 / smallest, (shape, error)


def test_polar_factors_leave_out_what_a_factor_lacks():
    block = torch.linalg.qr(experts((1, 90, 20), 0)[0])[0]
    found = orthogonalized(torch.cat([block, block, torch.zeros(90, 4)], dim=1))
    torch.testing.assert_close(found, torch.cat([block, block, torch.zeros(90, 4)], dim=1) / 2**0.5, atol=1e-6, rtol=0)


def test_an_eigensolver_that_fails_in_single_precision(monkeypatch):
    """As LAPACK's does for some matrices with many equal eigenvalues."""
    vectors, eigh = experts((4, 160, 96), 0.7), torch.linalg.eigh

    def failing(gram):
        if gram.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return eigh(gram)

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    assert error(TRANSFORMS.build("tsv")("t", vectors), tsv(vectors.double())) < 0.5


@pytest.mark.parametrize("name", ["tsv", "iso_c", "iso_cts"])
@pytest.mark.parametrize("shape", [(1, 1, 12), (1, 12), (12,), (12, 1, 1, 1)])
def test_vectors_stay_vectors_whatever_sides_of_one_they_have(name, shape):
    """A class token of ViT `(1, 1, width)`: coefficients of 1/K give the mean."""
    vectors = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(TRANSFORMS.build(name)("token", vectors), vectors)


@pytest.mark.parametrize("name", ["tsv", "iso_c", "iso_cts", "low_rank"])
def test_position_embeddings_are_matrices_with_and_without_a_side_of_one(name):
    """ViT has `(1, N, width)`, CLIP `(N, width)`."""
    vectors = torch.randn(3, 10, 12, generator=torch.Generator().manual_seed(0))
    transform = TRANSFORMS.build(name)
    found = transform("positions", vectors[:, None])
    assert found.shape == (3, 1, 10, 12)
    torch.testing.assert_close(found[:, 0], transform("positions", vectors))


def test_own_directions_are_not_lost_to_rounding():
    """(1 - 0.8) * 40 is 7.999..., and eight experts need eight."""
    vectors = torch.randn(8, 40, 40, generator=torch.Generator().manual_seed(0))
    isotropic = TRANSFORMS.build({"name": "iso_cts", "common": 0.8})("w", vectors)
    common = TRANSFORMS.build({"name": "iso_c"})("w", vectors)
    assert not torch.allclose(isotropic, common, atol=1e-3)
