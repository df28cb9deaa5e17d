"""Conversions of Panoptic's layout for tests."""

from pathlib import Path

from pipeline.data.prepare.config import ConvertConfig

SMALL = 0.04  # MB: a few images a shard


def config(raw: Path, out: Path, **changes) -> ConvertConfig:
    return ConvertConfig("panoptic", str(raw), str(out), **{"allow_missing": True, **changes})


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
