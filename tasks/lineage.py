"""What artefacts were made from, and what it took to make them."""

from tasks.artefacts import SHARDS, Artefact
from tasks.jobs import JOB, jobs_of


def with_shards(artefact: Artefact) -> list[Artefact]:
    """`artefact` and, where it is a sharded stage's, its shards."""
    return [*(artefact.shards() if SHARDS in artefact.manifest["files"] else []), artefact]


def with_inputs(artefacts: list[Artefact]) -> list[Artefact]:
    """`artefacts` and all that is still there of what they were made from, shards included, each once, sources first."""
    found: dict[str, Artefact] = {}

    def visit(artefact: Artefact) -> None:
        if artefact.key not in found and artefact.exists():
            for made_from in artefact.manifest["inputs"].values():
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
    stages: dict[str, list[dict]] = {}
    for artefact in artefacts:
        stages.setdefault(artefact.stage, []).append(artefact.manifest)
    rows = []
    for stage, manifests in stages.items():
        new = sum(map(is_new, manifests))
        size = sum(file["size"] for manifest in manifests for file in manifest["files"].values()) / 1e6
        state = "from the cache" if not new else "computed" if new == len(manifests) else f"{new} of {len(manifests)} computed"
        seconds = sum(manifest["seconds"] for manifest in manifests)
        memory = max(manifest["peak_memory"] for manifest in manifests) / 1e9
        rows.append([stage, len(manifests), seconds, memory, size, state])
    return rows


def stage_table(artefacts: list[Artefact]) -> str:
    """Time and size of each stage, and whether this command computed it."""
    from pipeline.evaluation.table import format_table

    headers = ["stage", "artefacts", "seconds", "peak GB", "MB on disk", "this run"]
    table = format_table(headers, stage_rows(artefacts), decimals=2)
    computed = any(is_new(artefact.manifest) for artefact in artefacts)
    return table if computed else f"{table}\n\nNothing to do: every stage was in the cache."
