"""The presets of the command line are whole trainings with the published numbers."""

import pytest

from das.config import paper_resnet50
from pipeline.training.presets import mupots_presets, panoptic_presets


@pytest.mark.parametrize("presets", [panoptic_presets, mupots_presets])
def test_presets_are_whole_trainings(presets):
    for name, (text, preset) in presets().items():
        model, recipe = preset.model.build(), preset.ingest.build()
        assert text.endswith(".") and recipe.test_size.short_side >= 1, name
        assert (name == "small") == (not preset.gpu)
        if name == "release":
            assert preset.optim.epochs == 22 and preset.optim.drop_epochs == (16, 20) and preset.optim.lr == 0.002
            assert preset.workers * preset.ingest.batch_size == 16 and preset.optim.ema_decay is None
            assert not recipe.coco19_nose_is_head and recipe.min_people == 2
            assert model.pose_likelihood == "rle_release"


def test_the_papers_preset_is_the_papers_model():
    _, preset = panoptic_presets()["paper"]
    assert preset.model.build() == paper_resnet50()
