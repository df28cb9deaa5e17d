"""`das render` on a folder that was rendered before."""

import json
from dataclasses import replace

import pytest

from pipeline.studio.config import VERSION
from pipeline.studio.render_config import RenderConfig
from pipeline.studio.render_job import render_with_ray
from tests.pipeline.studio.small_renderings import TINY


def test_a_rendered_folder_is_recognised_by_version_layout_and_settings(tmp_path):
    done = tmp_path / "studio.json"
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(TINY).items()}
    done.write_text(json.dumps({"config": plain, "pictures": 7, "layout": "muco", "version": 10**6}))
    with pytest.raises(ValueError, match="rendered by version 1000000 of the studio"):
        render_with_ray(RenderConfig(str(tmp_path), TINY, layout="muco"))
    content = json.loads(done.read_text())
    done.write_text(json.dumps({**content, "version": VERSION}))
    assert render_with_ray(RenderConfig(str(tmp_path), TINY, layout="muco")) == 7
    for other in (RenderConfig(str(tmp_path), TINY, layout="coco"), RenderConfig(str(tmp_path), replace(TINY, seed=2))):
        with pytest.raises(ValueError, match="with other settings"):
            render_with_ray(other)


def test_a_folder_that_names_chunk_frames_by_its_former_name_is_recognised(tmp_path):
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(TINY).items()}
    plain["shard_frames"] = plain.pop("chunk_frames")
    content = {"config": plain, "pictures": 7, "layout": "muco", "version": VERSION}
    (tmp_path / "studio.json").write_text(json.dumps(content))
    assert render_with_ray(RenderConfig(str(tmp_path), TINY, layout="muco")) == 7
    other = replace(TINY, chunk_frames=TINY.chunk_frames + 1)
    with pytest.raises(ValueError, match="with other settings"):
        render_with_ray(RenderConfig(str(tmp_path), other, layout="muco"))
