"""Enhancement layers that read another base."""

import copy

import torch

from tests.unit.trainer.test_pipeline import MODEL
from trainer.models.enhancement import EnhancementModel
from trainer.rebasing import rebase


def test_another_base_that_says_the_same_in_other_words_is_read_as_the_first_was() -> None:
    torch.manual_seed(1)
    model = EnhancementModel(MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    old = torch.randn(4000, MODEL.latent_channels, 3, 3) * 3
    # Channels turned, the same at every position.
    turned, _ = torch.linalg.qr(torch.randn(MODEL.latent_channels, MODEL.latent_channels))
    new = torch.einsum("nchw,cd->ndhw", old, turned)
    reader = copy.deepcopy(model)
    rebase(reader, old, new)
    faces, e = torch.rand(50, 1, 48, 48), torch.randn(50, MODEL.enhancement_channels, 1, 1)
    with torch.no_grad():
        wanted = model.synthesis(old[:50], e)
        assert torch.allclose(reader.synthesis(new[:50], e), wanted, atol=2e-3)
        assert not torch.allclose(model.synthesis(new[:50], e), wanted, atol=2e-2)
        analysed = model.analysis(faces, old[:50])
        assert torch.allclose(reader.analysis(faces, new[:50]), analysed, atol=2e-2)


def test_a_shift_of_the_latent_is_taken_back() -> None:
    torch.manual_seed(2)
    model = EnhancementModel(MODEL)
    torch.nn.init.normal_(model.analysis.given.weight)
    old = torch.randn(4000, MODEL.latent_channels, 3, 3) * 3
    reader = copy.deepcopy(model)
    rebase(reader, old, old + 5)
    with torch.no_grad():
        flat = old[:50].flatten(1)
        wanted = model.analysis.given(flat)
        assert torch.allclose(reader.analysis.given(flat + 5), wanted, atol=5e-2)
