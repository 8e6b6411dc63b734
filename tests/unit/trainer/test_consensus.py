"""What a teacher says on average."""

import numpy as np
import pytest
import torch

from tests.unit.trainer.shared_training import faces
from trainer.augment import Augmentation
from trainer.consensus import consensus
from trainer.models.resnet import ResNet18

NOTHING = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def teacher() -> ResNet18:
    torch.manual_seed(2)
    return ResNet18(1, 48, 4, 8, dropout=0.0).eval()


def test_it_is_the_mean_of_what_is_said_of_each_view(teacher: ResNet18) -> None:
    shown = faces(12, 0)
    many = consensus(teacher, shown, 6, Augmentation(), seed=4)
    assert many.shape == (12, 8)
    assert np.allclose(many.sum(axis=1), 1, atol=1e-5)
    one = consensus(teacher, shown, 1, Augmentation(), seed=4)
    other = consensus(teacher, shown, 1, Augmentation(), seed=5)
    assert np.abs(one - other).max() > 1e-4
    assert np.abs(many - one).max() < np.abs(one - other).max() * 6
    assert np.array_equal(many, consensus(teacher, shown, 6, Augmentation(), seed=4))


def test_without_changes_it_is_what_is_said_of_faces_and_their_mirror_images(
    teacher: ResNet18,
) -> None:
    shown = faces(4, 0)
    pixels = torch.from_numpy(np.asarray(shown.pixels)).float() / 255
    with torch.no_grad():
        plain = torch.softmax(teacher(pixels), dim=1).numpy()
        mirrored = torch.softmax(teacher(pixels.flip(3)), dim=1).numpy()
    said = consensus(teacher, shown, 64, NOTHING, seed=1)
    low, high = np.minimum(plain, mirrored) - 1e-4, np.maximum(plain, mirrored) + 1e-4
    assert ((said >= low) & (said <= high)).all()
