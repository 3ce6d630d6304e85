"""What artefacts were made from, and what it took to make them."""

from .artefacts import SHARDS, Artefact
from .jobs import JOB, jobs_of
from .manifest import read_manifest

FROM_CACHE = "from the cache"


def with_shards(artefact: Artefact) -> list[Artefact]:
    """`artefact` and, where it is a sharded stage's, its shards."""
    return [*(artefact.shards() if SHARDS in artefact.manifest["files"] else []), artefact]


def with_inputs(artefacts: list[Artefact]) -> list[Artefact]:
    """`artefacts` and all that is still there of what they were made from, shards included, each once, sources first."""
    found: dict[str, Artefact] = {}

    def visit(artefact: Artefact) -> None:
        manifest = None if artefact.key in found else read_manifest(artefact.folder)
        if manifest and manifest["key"] == artefact.key:
            for made_from in manifest["inputs"].values():
                visit(Artefact(artefact.cache, made_from["stage"], made_from["key"]))
            found[artefact.key] = artefact

    for artefact in artefacts:
        visit(artefact)
    return list(found.values())


def is_new(manifest: dict) -> bool:
    """Whether this command computed it, or another host for it."""
    return JOB in jobs_of(manifest)


def stage_rows(artefacts: list[Artefact]) -> list[list]:
    """Of each stage: its name, how many artefacts, seconds, peak GB, MB on disk, and whether this command computed them."""
    stages: dict[str, list[tuple]] = {}
    for artefact in artefacts:  # tens of thousands, of a large data set: each manifest is read once and let go of
        manifest = artefact.manifest
        size = sum(file["size"] for file in manifest["files"].values())
        stages.setdefault(artefact.stage, []).append((manifest["seconds"], manifest["peak_memory"], size, is_new(manifest)))
    rows = []
    for stage, figures in stages.items():
        seconds, memory, size, new = zip(*figures, strict=True)
        state = FROM_CACHE if not any(new) else "computed" if all(new) else f"{sum(new)} of {len(new)} computed"
        rows.append([stage, len(figures), sum(seconds), max(memory) / 1e9, sum(size) / 1e6, state])
    return rows
