import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainer.datasets import drawn
from trainer.augment import Augmentation, augment, erase, mixup

STILL = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)


def faces() -> torch.Tensor:
    return torch.from_numpy(drawn(8)[:, None]).float() / 255


def test_the_same_generator_gives_the_same_faces() -> None:
    first, second = (
        augment(faces(), Augmentation(), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)
    other = augment(faces(), Augmentation(), torch.Generator().manual_seed(4))
    assert not torch.equal(first, other)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_augmented_faces_stay_pictures(seed: int) -> None:
    changed = augment(faces(), Augmentation(), torch.Generator().manual_seed(seed))
    assert changed.shape == (8, 1, 48, 48)
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_without_ranges_a_face_is_only_mirrored() -> None:
    changed = augment(faces(), STILL, torch.Generator().manual_seed(0))
    for face, original in zip(changed, faces(), strict=True):
        plain = (face - original).abs().max() < 0.02
        mirrored = (face - original.flip(2)).abs().max() < 0.02
        assert plain or mirrored


def test_erasing_fills_one_rectangle() -> None:
    erased = erase(faces(), 1.0, torch.Generator().manual_seed(0))
    for face, original in zip(erased, faces(), strict=True):
        changed = (face != original)[0]
        assert 0 < changed.sum() <= 14 * 14
        assert len(torch.unique(face[0][changed])) == 1
    assert torch.equal(erase(faces(), 0.0, torch.Generator().manual_seed(0)), faces())


def test_mixup_blends_pictures_and_targets_alike() -> None:
    targets = torch.eye(8)
    mixed, blended = mixup(faces(), targets, 0.4, torch.Generator().manual_seed(1))
    assert torch.allclose(blended.sum(dim=1), torch.ones(8))
    weights = blended.diagonal()
    for index in range(8):
        other = int((blended[index] * (torch.arange(8) != index)).argmax())
        weight = float(weights[index])
        if weight < 1:
            expected = weight * faces()[index] + (1 - weight) * faces()[other]
            assert torch.allclose(mixed[index], expected, atol=1e-5)


def test_scaled_ranges_shrink_together() -> None:
    half = Augmentation().scaled(0.5)
    assert half.scale == Augmentation().scale / 2
    assert half.noise_share == Augmentation().noise_share / 2
    assert Augmentation().scaled(0) == STILL
