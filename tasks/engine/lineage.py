"""What artefacts were made from, and the time, memory and disk that they took."""

from collections.abc import Iterable, Iterator

from .artefacts import SHARDS, Artefact
from .jobs import JOB, jobs_of
from .manifest import read_manifest

FROM_CACHE = "from the cache"


def with_shards(artefact: Artefact) -> list[Artefact]:
    """The shards of `artefact`, if its stage is sharded, and then `artefact` itself."""
    return [*(artefact.shards() if SHARDS in artefact.manifest["files"] else []), artefact]


def with_inputs(artefacts: list[Artefact]) -> list[Artefact]:
    """`artefacts` and their direct and indirect inputs, shards included, each once, inputs first.

    Artefacts that are no longer in the cache are left out.
    """
    return [artefact for artefact, _ in manifests_behind(artefacts)]


def manifests_behind(artefacts: list[Artefact]) -> Iterator[tuple[Artefact, dict]]:
    """Each artefact of `with_inputs`, with its manifest.

    A large data set has tens of thousands: each manifest is read once, and none stays in memory.
    """
    seen: set[str] = set()

    def visit(artefact: Artefact) -> Iterator[tuple[Artefact, dict]]:
        if artefact.key in seen:
            return
        seen.add(artefact.key)
        manifest = read_manifest(artefact.folder)
        if manifest and manifest["key"] == artefact.key:
            for source in artefact.inputs_in(manifest).values():
                yield from visit(source)
            yield artefact, manifest

    for artefact in artefacts:
        yield from visit(artefact)


def is_new(manifest: dict) -> bool:
    """Whether this command made the artefact with `manifest`, on this host or another."""
    return JOB in jobs_of(manifest)


def stage_rows(artefacts: Iterable[tuple[Artefact, dict]]) -> list[list]:
    """For each stage: its name, the number of artefacts, seconds, peak GB, MB on disk, and whether this command computed them.

    Each of `artefacts` comes with its manifest.
    """
    stages: dict[str, list[tuple]] = {}
    for artefact, manifest in artefacts:
        size = sum(file["size"] for file in manifest["files"].values())
        stages.setdefault(artefact.stage, []).append((manifest["seconds"], manifest["peak_memory"], size, is_new(manifest)))
    rows = []
    for stage, figures in stages.items():
        seconds, memory, size, new = zip(*figures, strict=True)
        state = FROM_CACHE if not any(new) else "computed" if all(new) else f"{sum(new)} of {len(new)} computed"
        rows.append([stage, len(figures), sum(seconds), max(memory) / 1e9, sum(size) / 1e6, state])
    return rows
