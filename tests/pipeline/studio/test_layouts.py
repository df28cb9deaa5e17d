"""All layouts: terms of use, bytes for any size of chunks, refused configurations."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.sources import coco, muco, mupots
from pipeline.data.sources.terms import terms_of
from pipeline.studio.config import RENDERED_TERMS, sequence_names
from pipeline.studio.layouts import layout_chunks, render_layout
from tests.pipeline.studio.small_renderings import TINY


def test_every_layout_has_the_studios_terms(root, tmp_path):
    for source in (muco, coco, mupots):
        folder = root / source.__name__.rpartition(".")[2]
        assert terms_of(source, folder) == RENDERED_TERMS != source.TERMS
    (tmp_path / "terms.txt").write_text("a copy made in May")
    assert terms_of(coco, tmp_path) == f"{coco.TERMS}: a copy made in May", "text is added"


def test_bytes_of_coco_do_not_depend_on_the_size_of_chunks(root, tmp_path):
    render_layout(replace(TINY, chunk_frames=4), tmp_path, workers=1, layout="coco")

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert contents(tmp_path) == contents(root / "coco")


def test_a_layout_without_its_sequences_is_refused():
    with pytest.raises(ValueError, match="layout coco: wanted train or val sequences, found none"):
        layout_chunks(replace(TINY, train_sequences=(), val_sequences=()), "coco")
    with pytest.raises(ValueError, match="MuPoTS-3D has 20, found 21"):
        layout_chunks(replace(TINY, test_sequences=sequence_names("test")[:21]), "mupots")
