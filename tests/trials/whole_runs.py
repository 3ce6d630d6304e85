"""What the long trials share: the miniature of all chains, a cache that holds its first artefacts alone, and what must hold."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.tasks.conftest import Miniature

TIMED = ("Summarise/", "FullPipeline/", "ProposalQuality/")  # hold seconds, and so differ from run to run
STAGE_LINE = re.compile(r"\d\d:\d\d:\d\d ")
COMMAND = ("FullPipeline", "--workers", "2", "--report", "true")


def new_miniature() -> Miniature:
    return Miniature(Path(tempfile.mkdtemp(prefix="rcnn-trial-")))


def undisturbed() -> Miniature:
    """A miniature after a whole run."""
    miniature = new_miniature()
    miniature.run(*COMMAND)
    return miniature


def digests(miniature: Miniature) -> dict[str, str]:
    return {name: digest for name, digest in miniature.digests().items() if not name.startswith(TIMED)}


def begin_with(miniature: Miniature, reference: Miniature, count: int) -> None:
    """Gives the miniature the `count` artefacts of `reference` that were made first."""
    for path in miniature.cache.iterdir() if miniature.cache.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    first = sorted(reference.manifests().items(), key=lambda item: item[1]["started"])[:count]
    for name, _ in first:
        shutil.copytree(reference.cache / name, miniature.cache / name)


def wrong_artefacts(miniature: Miniature, reference: Miniature) -> list[str]:
    """Artefacts of another digest than in `reference`, or whose files are not those of their manifests."""
    wanted = reference.digests()
    wrong = [name for name, digest in digests(miniature).items() if digest != wanted.get(name)]
    return wrong + damaged(miniature.cache)


def damaged(cache: Path) -> list[str]:
    from tasks.engine.manifest import describe_files

    folders = [path.parent for path in cache.glob("*/*/manifest.json")]
    return [str(folder) for folder in folders
            if describe_files(folder) != json.loads((folder / "manifest.json").read_text())["files"]]


def half_written(cache: Path) -> list[str]:
    """What a failed run left, checkpoints excepted."""
    return [str(path) for path in (cache / ".work").glob("*/*") if path.name not in ("checkpoint", "key")]


def own_lines(output: str) -> list[str]:
    """The lines that are not of a stage's progress."""
    return [line for line in output.splitlines() if line.strip() and not STAGE_LINE.match(line)]


def send(process: subprocess.Popen, number: signal.Signals, to_group: bool) -> None:
    (os.killpg if to_group else os.kill)(process.pid, number)


def generator(seed: int) -> random.Random:
    return random.Random(seed)
