"""`show`: how one artefact was made, which command makes it again, and what is in its files."""

import textwrap
import time
from collections.abc import Iterator
from pathlib import PurePosixPath

from tasks.cache_cli.listing import used_by
from tasks.cache_cli.recipe import changed_settings, command_line, default, outdated, own_settings, stage_class
from tasks.cache_cli.text import WIDTH, cut, say, show_age, show_size
from tasks.engine.artefacts import SHARDS
from tasks.engine.catalogue import SHARD, Catalogue, Entry, contents, is_plain, name_of
from tasks.engine.digests import canonical_json

ALIKE = 3  # how many files of one kind are listed
MOST_SHARDS = 10  # how many shards are listed


def show(catalogue: Catalogue, entry: Entry) -> int:
    for line in description(catalogue, entry):
        say(line)
    for line in files(catalogue, entry):
        say(line)
    return 0


def description(catalogue: Catalogue, entry: Entry) -> Iterator[str]:
    """What the manifest says, and the command that makes the artefact again."""
    manifest = entry.manifest
    yield entry.name
    yield f"key        {entry.key}"
    yield f"used by    {' '.join(used_by(catalogue).get(entry.name, ['no result']))}"
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.started))
    yield (f"made       {date}, {show_age(time.time() - entry.started)} ago, in {manifest['seconds']:.1f} s, "
           f"at most {show_size(manifest['peak_memory'])} of memory")
    machine = [manifest.get(name) for name in ("host", "platform", "device", "threads")]
    yield "on         {}, {}, {}, threads: {}".format(*machine)
    packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    code = f"stage version {manifest['version']}, Python {manifest.get('python')}, {packages}"
    yield from textwrap.wrap(code, WIDTH, initial_indent="with       ", subsequent_indent=" " * 11)
    for name, value in manifest["figures"].items():
        yield cut(f"figure     {name} {canonical_json(value)}", WIDTH)
    for name, value in manifest["outside"].items():
        yield cut(f"outside    {name} {canonical_json(value)}", WIDTH)
    yield from (f"input      {line}" for line in inputs(catalogue, entry))
    yield from (f"setting    {line}" for line in settings(entry))
    yield from again(catalogue, entry)


def settings(entry: Entry) -> Iterator[str]:
    """The stage's own settings, then those settings of other stages that differ from their defaults."""
    changed, texts = changed_settings(entry), entry.manifest["settings"]
    for name in dict.fromkeys([*own_settings(entry), *changed]):
        default_text = default(entry.stage, name)
        note = f"  (default {default_text or 'none'})" if name in changed and default_text is not None else ""
        yield f"{name} {texts.get(name)}{note}"


def inputs(catalogue: Catalogue, entry: Entry) -> Iterator[str]:
    for name, source in entry.sources.items():
        cached = catalogue.get(source)
        state = ""
        if not cached:
            state = "  (no longer in the cache)"
        elif cached.manifest["digest"] != source["digest"]:
            state = "  (made anew since then, with other bytes)"
        yield f"{name}  {name_of(source)}{state}"


def again(catalogue: Catalogue, entry: Entry) -> Iterator[str]:
    if stage_class(entry.stage) is None:
        yield f"again      the stage {entry.stage} no longer exists"
        return
    yield f"again      {command_line(catalogue, entry)}"
    yield from (f"           today's code gives another key: {reason}" for reason in outdated(catalogue, entry))


def files(catalogue: Catalogue, entry: Entry) -> Iterator[str]:
    """The size, the files with their content, and the shards. Only the first shard's files are shown."""
    shards = catalogue.shards(entry)
    num_shards = sum(name.startswith(SHARD) for name in entry.manifest["inputs"])
    with_shards = f" ({show_size(entry.size)} without its {num_shards} shards)" if num_shards else ""
    yield f"size       {show_size(catalogue.whole_size(entry))}{with_shards} in {entry.folder}"
    yield from files_of(entry, leave_out=(SHARDS,))
    for number, (name, shard) in enumerate(shards.items()):
        if number < MOST_SHARDS:
            yield f"{name:<9}  {shard.name}  {show_size(shard.size)}"
        if number == 0:
            yield from files_of(shard)
    if len(shards) > MOST_SHARDS:
        yield f"... and {len(shards) - MOST_SHARDS} more shards"
    if len(shards) < num_shards:
        yield f"{num_shards - len(shards)} of {num_shards} shards are not in the cache"


def files_of(entry: Entry, leave_out: tuple[str, ...] = ()) -> Iterator[str]:
    """The files and their content. Of many files of one kind, only the content of the first is shown."""
    from tasks.cache_cli.previews import preview

    paths = contents(entry.folder)
    for name in (name for name in entry.manifest["files"] if name not in paths):
        yield f"  {name}  missing"
    kinds: dict[tuple, list[str]] = {}
    for name, path in paths.items():
        if name not in leave_out:
            if is_plain(path) and name in entry.manifest["files"]:
                kinds.setdefault((PurePosixPath(name).parent, PurePosixPath(name).suffix), []).append(name)
            else:
                yield f"  {name}  does not belong to this artefact; see `rcnn-cache verify`"
    for (_, suffix), names in kinds.items():
        sizes = {name: paths[name].stat().st_size for name in names}
        for name in names[:ALIKE]:
            yield f"  {name}  {show_size(sizes[name])}"
            if name == names[0] or len(names) <= ALIKE:
                yield from (f"    {line}" for line in preview(paths[name]))
        if rest := names[ALIKE:]:
            yield f"  ... and {len(rest)} more {suffix} files, {show_size(sum(sizes[name] for name in rest))}"
    yield from (f"    {line}" for line in pooled(entry))


def pooled(entry: Entry) -> Iterator[str]:
    """The first values of SPP-net's pyramid, which is in no file: it is pooled from the maps that are an input."""
    from tasks.features.stores import FEATURES, MAPS_INPUT

    if FEATURES not in entry.manifest["files"] or MAPS_INPUT not in entry.sources:
        return
    from pipeline.spp_net.pooled_store import PooledStore  # here: it imports torch, and most artefacts do without
    from tasks.cache_cli.previews import value_lines
    from tasks.networks.conv_maps import MAPS

    source = name_of(entry.sources[MAPS_INPUT])
    try:
        store = PooledStore([entry.folder / FEATURES], [entry.folder.parents[1] / source / MAPS])
        rows = sum(store.num_rows(image) for image in range(store.num_images))
        yield f"features  float16 [{rows} x {store.num_features}], in no file: pooled from {source} when they are read"
        yield from value_lines(store.read(0).features)
    except Exception as error:  # a damaged file may cause any exception
        yield cut(f"features cannot be pooled from {source}: {error}", WIDTH)
