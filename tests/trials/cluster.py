"""The long trial of several hosts: whole runs of all chains on the miniature, by luigid, a job and two assistants.

    python -m tests.trials.cluster [--undisturbed 10] [--assistant-killed 10] [--job-killed 5] [--seed 0]

Each run starts with an empty cache. A host is killed, with all that runs on it, at a random moment. A killed job is given again
at once. Every job has to end with 0 and show its table, and every assistant that lives has to leave with 0. Every artefact
has to have the digest that it has after a run on one host, and nothing may be made twice but what the killed host was making. A
run takes about a minute. The exit status is 1 when anything was wrong.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.tasks.conftest import Miniature
from tests.tasks.hosts import Hosts, kill, status_and_output

KINDS = "undisturbed", "assistant-killed", "job-killed"
TIMED = "Summarise/"  # holds seconds, and so differs from run to run
PATIENCE = 600


def new_miniature() -> Miniature:
    miniature = Miniature(Path(tempfile.mkdtemp(prefix="rcnn-trial-")))
    miniature.config.write_text(miniature.config.read_text().replace("workers = 1", "workers = 2"))
    return miniature


def digests(miniature: Miniature) -> dict[str, str]:
    return {name: digest for name, digest in miniature.digests().items() if not name.startswith(TIMED)}


def builds(output: str, word: str) -> Counter:
    """How often a host said of each artefact that it is running, or done."""
    return Counter(re.findall(rf"(\w+/[0-9a-f]{{12}})[^:\n]*: {word}", output))


def faults_of(output: str, killed: str, wanted: dict[str, str], actual: dict[str, str]) -> list[str]:
    """What is wrong with what the hosts made; `output` is of all of them, `killed` of those that were killed."""
    interrupted = builds(killed, "running") - builds(killed, "done")
    twice = [name for name, count in builds(output, "running").items() if count > 1 + interrupted[name]]
    twice += [name for name, count in builds(output, "done").items() if count > 1]
    faults = [f"made twice: {name}" for name in dict.fromkeys(twice)]
    return faults + [f"another digest, or not there: {name}" for name in wanted if actual.get(name) != wanted[name]]


def trial(kind: str, moment: float, wanted: dict[str, str]) -> list[str]:
    """One run; returns what was wrong. A host is killed after `moment` seconds."""
    miniature, killed, faults = new_miniature(), "", []
    with Hosts(miniature, disconnect=8, idle=2) as hosts:
        assistants = [hosts.start("FullPipeline", "--assistant") for _ in range(2)]
        job = hosts.start("FullPipeline")
        if kind != "undisturbed":
            time.sleep(moment)
            victim = job if kind == "job-killed" else assistants.pop()
            if victim.poll() is None:
                kill(victim)
                killed = victim.communicate()[0]
            if victim is job:
                job = hosts.start("FullPipeline")
        outputs = [killed]
        for process in [job, *assistants]:
            status, output = status_and_output(process, PATIENCE)
            outputs.append(output)
            if status or output.count("results: cache/Summarise/") != (process is job):
                faults.append(f"status {status} of {'the job' if process is job else 'an assistant'}: {output[-2000:]}")
    faults += faults_of("".join(outputs), killed, wanted, digests(miniature))
    faults += [f"left behind: {name}" for name in miniature.leftovers()]
    shutil.rmtree(miniature.folder)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, runs in zip(KINDS, (10, 10, 5)):
        parser.add_argument(f"--{kind}", type=int, default=runs)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    moments, bad = random.Random(options["seed"]), 0
    alone, started = new_miniature(), time.monotonic()
    alone.run("FullPipeline")
    wanted, seconds = digests(alone), time.monotonic() - started
    shutil.rmtree(alone.folder)
    print(f"one host: {len(wanted)} artefacts in {seconds:.0f} s", flush=True)
    for kind in KINDS:
        for number in range(options[kind.replace("-", "_")]):
            started, moment = time.monotonic(), moments.uniform(1, 0.9 * seconds)
            faults = trial(kind, moment, wanted)
            bad += bool(faults)
            at = "" if kind == "undisturbed" else f" at {moment:.1f} s"
            print(f"{kind} {number + 1}{at}: {'; '.join(faults) or 'right'} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{bad} runs were wrong")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
