"""What tests of whole runs on the miniature share: what a run makes, and how to look at it."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from safetensors.numpy import load_file

from tests.tasks.commands import fork_server
from tests.tasks.test_docs import check_artefact

REPOSITORY = Path(__file__).resolve().parents[3]
# Artefacts of a cold run: a sharded stage has two shards and the list of them for each split.
COLD = Counter(
    GenerateDigits=1, IndexDataset=2, RegionProposals=6, PretrainClassifier=1, FineTune=1, ExtractFeatures=6, ConvFeatures=6,
    FineTuneSPP=1, SpatialPyramidFeatures=12, TrainSVMs=2, TrainBoxRegressors=2, TrainFastRCNN=1, TrainRPN=2, RPNProposals=6,
    TrainSharedFastRCNN=2, SharedConvFeatures=3, DetectRCNN=6, DetectFastRCNN=3, DetectFasterRCNN=3, TimeDetection=4, Evaluate=4,
    Summarise=1,
)
# What follows the training of R-CNN; of R-CNN and SPP-net.
DETECTION = Counter(DetectRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
BOTH = Counter(DetectRCNN=6, TimeDetection=2, Evaluate=2, Summarise=1)
# What follows the training of Faster R-CNN; its four steps.
FASTER = Counter(DetectFasterRCNN=3, TimeDetection=1, Evaluate=1, Summarise=1)
STEPS = Counter(TrainRPN=2, RPNProposals=6, TrainSharedFastRCNN=2, SharedConvFeatures=3)
# What a report adds: proposals of step 3 for the test split among it.
REPORT = Counter(TopRegions=1, HardNegatives=1, ProposalQuality=2, RPNProposals=3, SharedConvFeatures=3, FullPipeline=1)
NOTHING = Counter()
CLASSES = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def printed(project, *arguments: str, status: int = 0) -> str:
    """Runs Python in the project's folder, checks the exit status and returns what was printed."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def cache_tool(project, *arguments: str, status: int = 0) -> str:
    """Runs `rcnn-cache`, checks the exit status and returns what was printed."""
    if project.fresh:
        return printed(project, "-m", "tasks.cache_cli", *arguments, status=status)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = fork_server().start([*arguments], project.folder, environment, "tasks.cache_cli")
    output, _ = command.communicate(timeout=60)
    assert command.returncode == status, output
    return output


def check_docs(project) -> None:
    """Checks that the stages' pages name all files and inputs of the project's artefacts."""
    for manifest in project.manifests().values():
        check_artefact(manifest["stage"], set(manifest["files"]), {source["stage"] for source in manifest["inputs"].values()})


def check_second_run(project, *command: str) -> None:
    """Checks that the command makes nothing when it is run again."""
    before = project.manifests()
    project.run(*command)
    assert project.made(before) == NOTHING


def check_two_workers(project, second, *command: str) -> None:
    """Checks that the command with two workers makes in `second` the bytes that one process made in `project`."""
    second.run(*command, "--workers", "2")
    alone, together = project.digests(), second.digests()
    assert together
    assert {name: digest for name, digest in together.items() if alone.get(name) != digest} == {}
    assert second.leftovers() == []


def check_shown(project, expected: dict[str, str]) -> None:
    """Checks that `rcnn-cache show` of each stage prints what is expected."""
    for stage, line in expected.items():
        assert line in cache_tool(project, "show", stage)


def read_summary(project) -> dict:
    return json.loads((project.cache / "latest" / "summary.json").read_text())


def inputs_of(project, before: dict, stage: str) -> dict[str, dict]:
    """The inputs, without shards, of the artefact of `stage` made since `before`; of several, of that with the most inputs."""
    new = [manifest for name, manifest in project.manifests().items() if manifest["stage"] == stage and name not in before]
    inputs = [{name: source for name, source in manifest["inputs"].items() if not name.startswith("shard")} for manifest in new]
    return max(inputs, key=len)


def tensors_of(project, stage: str, name: str, **settings) -> dict:
    """The weights in the file `name` of the one artefact of `stage` whose manifest bears these settings."""
    (folder,) = [folder for folder, manifest in project.manifests().items() if manifest["stage"] == stage
                 and settings.items() <= manifest["settings"].items()]
    return load_file(project.cache / folder / name)


def trunk_of(tensors: dict) -> dict:
    """The tensors of the trunk, by their names in a backbone."""
    return {name.removeprefix("backbone."): value for name, value in tensors.items() if "trunk" in name}


def same(first: dict, second: dict) -> bool:
    assert first.keys() == second.keys() != set()
    return all(first[name].tobytes() == second[name].tobytes() for name in first)
