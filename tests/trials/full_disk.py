"""The long trial of full disks: whole runs on the miniature, on a small disk that another file fills for moments.

    python -m tests.trials.full_disk [--moments 500] [--seed 0]       as root, on Linux

Each command begins with a random number of finished artefacts. While it runs, the disk is full again and again: a random number
of bytes is left for a random time. Every artefact that is published has to be that of an undisturbed run. A command that fails
has to say why in lines that name the disk, without a traceback, and leave nothing half-written. Every fifth is given again, on a
disk with room, and has to complete.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.trials.whole_runs import (
    COMMAND,
    begin_with,
    generator,
    half_written,
    new_miniature,
    own_lines,
    undisturbed,
    wrong_artefacts,
)

DISK = "160m"
LEFT = (0, 4096, 16_384, 65_536, 262_144, 1_048_576)  # bytes
PATIENCE = 120.0
FULL = ("No space left on device", "cannot be read back", "failed (see above)", "goes on without a checkpoint")


def fill(filler: Path, left: int) -> None:
    """Takes all room of the disk but `left` bytes."""
    with open(filler, "wb") as file:
        disk = os.statvfs(filler.parent)
        with contextlib.suppress(OSError):  # it filled up meanwhile
            os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_bsize - left))


def disturbed(miniature, choose, most: int) -> tuple[int, str, int]:
    """One command with moments of a full disk: its status, what it printed, and how many moments it had."""
    process, filler, moments = miniature.start(*COMMAND), miniature.cache / ".filler", 0
    time.sleep(choose.uniform(1.0, 3.0))
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline and moments < most:
        fill(filler, choose.choice(LEFT))
        time.sleep(choose.uniform(0.02, 0.4))
        filler.unlink()
        moments += 1
        time.sleep(choose.uniform(0.02, 0.4))
    output = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, output, moments


def faults_of(status: int, output: str, miniature, reference) -> list[str]:
    faults = [f"wrong: {name}" for name in wrong_artefacts(miniature, reference)]
    if "Traceback" in output:
        faults.append("a traceback")
    if status and not any(words in output for words in FULL):
        faults.append("says nothing of the disk")
    if status:
        faults += [f"half-written: {name}" for name in half_written(miniature.cache)]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    reference, miniature, choose = undisturbed(), new_miniature(), generator(options.seed)
    miniature.cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", miniature.cache], check=True)
    total, moments, runs, results, bad = len(reference.manifests()), 0, 0, Counter(), 0
    try:
        while moments < options.moments:
            begin_with(miniature, reference, choose.randrange(total))
            status, output, some = disturbed(miniature, choose, options.moments - moments)
            moments, runs = moments + some, runs + 1
            faults = faults_of(status, output, miniature, reference)
            lines = len(own_lines(output)) if status else 0
            results[f"failed with {lines} line(s)" if status else "completed"] += 1
            if runs % 5 == 0:
                miniature.run(*COMMAND)
                faults += [f"given again, wrong: {name}" for name in wrong_artefacts(miniature, reference)]
            bad += bool(faults)
            if faults:
                print(f"run {runs}, status {status}: {'; '.join(faults)}\n{output[-3000:]}", flush=True)
            if runs % 10 == 0:
                print(f"{runs} runs, {moments} moments, {bad} wrong: {dict(results)}", flush=True)
    finally:
        subprocess.run(["umount", "-l", miniature.cache], check=True)
    print(f"{runs} runs, {moments} moments, {bad} wrong: {dict(results)}")
    for folder in (reference.folder, miniature.folder):
        shutil.rmtree(folder)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
