"""The cost of checking files: each is digested while it is written, read again and compared, and its digest is remembered.

    python -m benchmarks.checking [--cache-dir cache]

Repeats all of that for each file in the cache of a finished run. Prints the seconds, and their share of the seconds that the
stages took.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from pipeline.files.writing import BLOCK, compare, new_digest
from tasks.engine.digests import DigestMemory


def digest_content(path: Path) -> bytes:
    """The digest that `pipeline.files.writing.create` computes while a file is written."""
    digest = new_digest()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.digest()


def seconds_of(function, *arguments) -> tuple[float, object]:
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    manifests = {path.parent: json.loads(path.read_text()) for path in parser.parse_args().cache_dir.glob("*/*/manifest.json")}
    costs = dict.fromkeys(("digest the content", "read again and compare", "remember digests", "look digests up"), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        memory = DigestMemory(Path(folder) / "digests")
        for folder_of_artefact, manifest in manifests.items():
            digests = {folder_of_artefact / name: file["sha256"] for name, file in manifest["files"].items()}
            for path in digests:
                seconds, digest = seconds_of(digest_content, path)
                costs["digest the content"] += seconds
                costs["read again and compare"] += seconds_of(compare, path, digest)[0]
            costs["remember digests"] += seconds_of(memory.remember, digests)[0]
            costs["look digests up"] += sum(seconds_of(memory.of, [path])[0] for path in digests)
    size = sum(file["size"] for manifest in manifests.values() for file in manifest["files"].values())
    total = sum(manifest["seconds"] for manifest in manifests.values())
    print(f"{len(manifests)} artefacts, {size / 1e6:.0f} MB; their stages took {total:.0f} s")
    for name, seconds in [*costs.items(), ("all", sum(costs.values()))]:
        print(f"{name:<24} {seconds:7.2f} s   {seconds / total:7.2%}")


if __name__ == "__main__":
    main()
