"""The long trial of interrupts: whole runs on the miniature, ended by signals at random moments.

    python -m tests.trials.interrupts [--count 200] [--seed 0]

Each command begins with a random number of finished artefacts, so that late stages are met as often as early ones, and is ended
within its first seconds, imports included: Ctrl-C or a hang-up to the whole group, or SIGTERM to the command. It has to end
within 3 seconds, with one line, the shell's status, no process left and no wrong artefact. Every tenth command is given again and
has to complete. Signals in the first moments, before Luigi has imported our code, are Python's own to answer: they are counted
apart.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

from tasks.engine.interrupts import LINE
from tests.sessions import session
from tests.trials.whole_runs import (
    COMMAND,
    begin_with,
    generator,
    new_miniature,
    own_lines,
    send,
    undisturbed,
    wrong_artefacts,
)

KINDS = ((signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True))
MOMENTS = 0.3, 6.0  # seconds after the start
PATIENCE, LIMIT = 60.0, 3.0
AT_ITS_END = 1.0  # seconds; a command that goes on for longer and completes has swallowed the signal
BEFORE_OUR_CODE = 0.8  # seconds from the start in which Luigi may still be importing itself, on a busy machine


def trial(miniature, number: signal.Signals, to_group: bool, moment: float) -> tuple[list[str], str, float]:
    """One command: what was wrong, what it printed, and how long it took to end."""
    process = miniature.start(*COMMAND)
    time.sleep(moment)
    if process.poll() is not None:
        return [], "was done before", 0.0
    send(process, number, to_group)
    started = time.monotonic()
    try:
        output = process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return ["did not end"], process.communicate()[0], PATIENCE
    seconds, faults = time.monotonic() - started, []
    if "results: " in output and process.returncode == 0 and seconds < AT_ITS_END:
        return [], "was done before", 0.0
    if process.returncode != 128 + number:
        faults.append(f"status {process.returncode}")
    if own_lines(output) != [LINE]:
        faults.append(f"{len(own_lines(output))} lines")
    if seconds > LIMIT:
        faults.append(f"took {seconds:.1f} s")
    time.sleep(max(0.0, 0.3 - seconds))
    if left := session(process.pid):
        faults.append(f"left {len(left)} processes")
    return faults, output, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has what it starts in the background ignore it
    reference, miniature, choose = undisturbed(), new_miniature(), generator(options.seed)
    total, results, slowest = len(reference.manifests()), Counter(), 0.0
    while sum(results.values()) < options.count:
        begin_with(miniature, reference, choose.randrange(total))
        (number, to_group), moment = choose.choice(KINDS), choose.uniform(*MOMENTS)
        faults, output, seconds = trial(miniature, number, to_group, moment)
        if output == "was done before":
            continue
        slowest = max(slowest, seconds)
        faults += [f"wrong: {name}" for name in wrong_artefacts(miniature, reference)]
        early = moment < BEFORE_OUR_CODE and faults and "running" not in output
        results["before our code" if early else "wrong" if faults else "right"] += 1
        if faults:
            print(f"{number.name} at {moment:.2f} s: {'; '.join(faults)}\n{'' if early else output[-1500:]}", flush=True)
        if sum(results.values()) % 10 == 0:
            miniature.run(*COMMAND)
            wrong = wrong_artefacts(miniature, reference)
            print(f"{dict(results)}, slowest end {slowest:.1f} s; given again: {wrong or 'right'}", flush=True)
            results["wrong"] += bool(wrong)
    for folder in (reference.folder, miniature.folder):
        shutil.rmtree(folder)
    return bool(results["wrong"])


if __name__ == "__main__":
    sys.exit(main())
