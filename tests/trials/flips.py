"""The long trial of damaged files: one byte of an artefact flipped, then a stage that is made from it.

    python -m tests.trials.flips [--count 300] [--seed 0]

All kinds of files are met alike, manifests included. The stage has to refuse the damaged file by name, or to make what it made
from the sound one: then it does not read that file, or the damage shows and the file's artefact counts as missing.
"""

import argparse
import multiprocessing
import shutil
import sys
from collections import Counter
from pathlib import Path

import tasks  # noqa: F401 - in this process, of which the builds are forks
from tests.trials.whole_runs import TIMED, generator, undisturbed

fork = multiprocessing.get_context("fork")


def consumers(manifests: dict[str, dict]) -> list[tuple[str, dict]]:
    """The artefacts that are made from others, except those that hold seconds and so differ each time."""
    return [(name, manifest) for name, manifest in manifests.items() if manifest["inputs"] and not name.startswith(TIMED)]


def files_behind(cache: Path, manifests: dict[str, dict], manifest: dict) -> dict[str, list[Path]]:
    """The files of the inputs, and of their shards, by suffix; manifests are a kind of their own."""
    kinds: dict[str, list[Path]] = {}
    folders = [f"{source['stage']}/{source['key'][:12]}" for source in manifest["inputs"].values()]
    for name in folders:
        folders += [f"{source['stage']}/{source['key'][:12]}" for part, source in manifests[name]["inputs"].items()
                    if part.startswith("shard ")]
        for path in [cache / name / file for file in manifests[name]["files"]] + [cache / name / "manifest.json"]:
            kinds.setdefault("manifest" if path.name == "manifest.json" else path.suffix, []).append(path)
    return kinds


def build(manifest: dict, cache: str, answer) -> None:
    """Makes the artefact of `manifest` again; sends its digest, or the error."""
    import logging

    from tasks.cache_cli.recipe import stage_class

    logging.disable()
    task = stage_class(manifest["stage"]).from_str_params(manifest["settings"] | {"cache_dir": cache})
    try:
        task.make_artefact()
        answer.send(("made", task.artefact.manifest["digest"]))
    except task.user_errors as error:
        answer.send(("refused", str(error)))
    except Exception as error:
        answer.send(("bug", repr(error)))


def trial(choose, cache: Path, manifests: dict[str, dict]) -> tuple[str, str]:
    """The outcome of one flipped byte, and the kind of the file."""
    name, manifest = choose.choice(consumers(manifests))
    kinds = files_behind(cache, manifests, manifest)
    kind = choose.choice(sorted(kinds))
    path = choose.choice(kinds[kind])
    content = bytearray(path.read_bytes())
    if not content:
        return "empty file", kind
    place = choose.randrange(len(content))
    content[place] ^= 1 << choose.randrange(8)
    path.write_bytes(content)
    shutil.rmtree(cache / name)
    receiver, sender = fork.Pipe(False)
    process = fork.Process(target=build, args=(manifest, str(cache), sender))
    process.start()
    sender.close()
    try:
        result, text = receiver.recv()
    except EOFError:
        result, text = "bug", "the process died"
    process.join()
    if result == "made":
        return ("not read, and the same" if text == manifest["digest"] else f"USED SILENTLY: {path} at {place} by {name}"), kind
    if (result == "refused" and path.name in text) or (kind == "manifest" and result == "refused"):
        return "refused by name", kind
    return f"WRONG: {path} at {place} by {name}: {text}", kind


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    reference, choose, results = undisturbed(), generator(options.seed), Counter()
    manifests, cache = reference.manifests(), reference.folder / "copy"
    for _ in range(options.count):
        shutil.copytree(reference.cache, cache, symlinks=True)
        result, kind = trial(choose, cache, manifests)
        shutil.rmtree(cache)
        if result.startswith(("USED", "WRONG")):
            print(f"{kind}: {result}", flush=True)
            result = result.partition(":")[0]
        results[f"{kind}: {result}"] += 1
    for result, count in sorted(results.items()):
        print(f"{count:4d}  {result}")
    shutil.rmtree(reference.folder)
    return any("USED" in result or "WRONG" in result for result in results)


if __name__ == "__main__":
    sys.exit(main())
