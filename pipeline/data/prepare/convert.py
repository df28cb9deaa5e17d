"""From original data to Parquet: Ray tasks over chunks of a source, then a manifest that lists the result.

    OUT/manifest.json                  counts, terms, fingerprint, names of all shards; written last
    OUT/index.parquet                  split, key and image hash of every row
    OUT/train-digest.parquet           hashes of the training rows (pipeline/data/digest.py), for checkpoints
    OUT/quarantine.parquet             frames that should have given a row and did not; absent if none
    OUT/{train,val,test}/shard-00000-HASH.parquet

Order of work: plan.py lists the chunks and packs them into tasks, run_tasks.py runs the tasks (shard_task.py) on Ray,
finish.py writes quarantine, index, digest and manifest. The plan is made before the work starts, from the listing
alone, so the same input gives the same shards whatever the number of nodes and the order in which they finish. Each
shard is written by one task, row group by row group, and appears as a whole. An interrupted conversion continues where
it stopped when it is started again; a finished one is not repeated. The memory of driver and tasks does not grow with
the number of frames.

Faults of the whole source are refused at once, before anything is written: the folder does not exist or is not of this
source, an annotation file or calibration is missing or unreadable, the calibration lacks a camera, a key appears
twice, or the folder to write holds files that no conversion writes (output_folder.py).

Faults of single frames go to quarantine, one entry a frame:

- the image is missing, damaged or of another size;
- the annotation is not JSON, has NaN in it or another number of joints;
- ``validate`` refuses the row, for a negative depth for example;
- in Panoptic's layout, the image has no pose file although the frames before and after it have one.

The conversion then goes on to its end and fails there, unless ``allow_missing`` accepts the frames that are left.

A task that fails as a whole is tried again where its error may pass (an ``OSError``, or a worker that is lost). After
that the other tasks go on, the conversion names it at its end and fails, and a rerun makes only what is missing.
Frames that a recipe leaves out are not faults; they are counted apart (``drops``).

Two conversions into one folder at the same time: conversions of different inputs exclude each other
(pipeline/infra/claims.py); equal ones share their work. Shards are named by their content and readers open only those
that the manifest names, so a file that a killed attempt's last task writes late is never read. The only requirement on
the file system is that a file appears as a whole under its name and is listed from then on, which holds for local disks
and object storage alike. The originals must not change while they are read; they may lie in
object storage, too (bucket.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pipeline.data.catalog import CATALOG, read_splits
from pipeline.data.manifest import MANIFEST, QUARANTINE, Manifest, load_manifest
from pipeline.data.prepare.bucket import in_bucket, mirrored, needed
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.finish import finish, format_counts
from pipeline.data.prepare.output_folder import (
    CLAIMS,
    check_only_own_files,
    name_folder_in_errors,
    remove_leftovers,
)
from pipeline.data.prepare.plan import Plan, check_keys_unique, list_chunks, pack
from pipeline.data.prepare.shard_task import PARTS
from pipeline.data.sources.base import DroppedFrame
from pipeline.data.sources.terms import TERMS_FILE, terms_of
from pipeline.data.splits import SPLITS, SplitManifest
from pipeline.infra.claims import claimed
from pipeline.infra.cluster import absolute_storage, connect
from pipeline.infra.files import exists, join
from pipeline.infra.redaction import redacted
from pipeline.infra.regular_files import unread


def convert(config: ConvertConfig) -> Manifest:
    """Converts, or finds that it is done already; starts Ray when it is not running.

    Raises:
        ValueError: the source is missing, malformed or empty, two of its images share a key, ``out`` holds a finished
            conversion of something else or files that no conversion writes, cannot be written or is full, another
            conversion is writing there, or frames went to quarantine and ``allow_missing`` is off. Finished shards
            stay for the next attempt; no manifest is written.
    """
    # Ray tasks run in working directories of their own, so a relative path would mean another folder there.
    config = replace(config, out=absolute_storage(config.out), root=config.root.removeprefix("file://"))
    if not in_bucket(config.root):
        return _planned(config, config.root)
    source = CATALOG[config.source].source
    with mirrored(config.root, [TERMS_FILE, *source.listed_files(_change_splits(source.SPLITS, config))]) as folder:
        return _planned(config, folder)


def _planned(config: ConvertConfig, folder: str) -> Manifest:
    plan = plan_conversion(config, folder)
    with name_folder_in_errors(config.out):
        return _convert(config, plan, folder)


def plan_conversion(config: ConvertConfig, folder: str | None = None) -> Plan:
    """Lists the originals and packs them into tasks; writes nothing and does not need Ray.

    Args:
        config: of the conversion.
        folder: where the originals are listed, if not in their root: a mirror of a bucket.

    Raises:
        ValueError: the source is missing, malformed or empty, or two of its images share a key.
    """
    source = CATALOG[config.source].source
    folder = config.root if folder is None else folder
    try:
        splits = _change_splits(source.SPLITS, config)
        chunks = list_chunks(source, config.source, folder, splits, config.splits, config.as_split)
    except OSError as error:
        raise ValueError(f"{config.source}: {unread(error)}") from error
    copies = None
    if in_bucket(config.root):
        chunks = [replace(chunk, root=config.root) for chunk in chunks]
        copies = partial(needed, source.files, folder)
    terms = terms_of(source, folder)  # a faulty terms.txt is refused now, not after hours of work
    check_keys_unique(chunks)
    tasks = pack(chunks, config.out, config.shard_mb, config.rows_per_group, config.reencode_long_side, copies)
    return Plan(config.source, config.root, config.out, splits, terms, tasks, config.reencode_long_side)


def _change_splits(own: SplitManifest, config: ConvertConfig) -> SplitManifest:
    """The split manifest that the options name (``own`` by default), with the changes that the other options make."""
    splits = own if config.split_manifest is None else read_splits(config.split_manifest)
    splits = splits.narrowed(config.sequences)
    if config.cameras:
        if not splits.cameras:
            raise ValueError(f"cameras = {config.cameras}, but {config.source} has one camera without a name")
        splits = replace(splits, cameras=config.cameras)
    if config.step is not None:
        splits = replace(splits, step=config.step)
    if config.test_frames is not None:
        splits = replace(splits, test_frames=config.test_frames)
    return splits


def _convert(config: ConvertConfig, plan: Plan, folder: str) -> Manifest:
    """Does the part of the plan that is not done yet, holding a claim on the prepared folder."""
    if (done := _finished_before(config, plan)) is not None and not exists(join(config.out, PARTS)):
        print(f"{redacted(config.out)}: converted before, nothing to do")
        return done
    if done is None:
        check_only_own_files(config.out)
    with claimed(join(config.out, *CLAIMS), plan.inputs, config.out) as claim:
        # An equal conversion may have finished since the first look, or was killed while it removed leftovers.
        if (done := _finished_before(config, plan)) is not None:
            if not claim.others():
                remove_leftovers(config.out, done)
            return done
        # Here: it imports Ray, and what is refused above needs none of it.
        import ray

        from pipeline.data.prepare.run_tasks import in_tasks, run_tasks

        if not ray.is_initialized():
            connect(config.cluster, config.out)
        try:
            summaries = run_tasks(plan.tasks, CATALOG[config.source].source.records)
            unannotated = partial(_find_unannotated, config, plan.splits, folder)
            return finish(plan, summaries, unannotated, config.allow_missing, claim, in_tasks)
        except (OSError, ValueError):
            # An equal conversion may have finished meanwhile and removed the reports that this one was reading.
            if (done := _finished_before(config, plan)) is not None:
                return done
            raise


def _finished_before(config: ConvertConfig, plan: Plan) -> Manifest | None:
    """The manifest of the same conversion, finished before; None when there is no manifest.

    Raises:
        ValueError: the folder holds a finished conversion of something else, or one that is incomplete and
            ``allow_missing`` is off.
    """
    if not exists(join(config.out, MANIFEST)):
        return None
    done = load_manifest(config.out)
    if done.inputs != plan.inputs:
        raise ValueError(
            f"{config.out} holds a finished conversion of {done.source} from other files or with other options "
            f"(inputs {done.inputs[:12]}, wanted {plan.inputs[:12]}): choose another folder or delete it"
        )
    if done.quarantine and not config.allow_missing:
        raise ValueError(
            f"{config.out} was converted with --allow-missing and lacks frames ({format_counts(done.quarantine)}; "
            f"listed in {QUARANTINE}): to convert files that have been mended since, choose another folder or delete it"
        )
    return done


def _find_unannotated(config: ConvertConfig, splits: SplitManifest, folder: str) -> Iterator[tuple[str, DroppedFrame]]:
    """Images that should have an annotation and have none, each with the split that its row would be in."""
    if (find := CATALOG[config.source].unannotated_images) is not None:
        for split in (split for split in SPLITS if split in config.splits):
            for drop in find(folder, split, splits):
                yield config.as_split or split, drop
