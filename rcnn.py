"""`rcnn`: one command for the stages, the cache and data sets.

It starts quickly: what a command needs is imported when that command is given.
"""

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Packaged copies of luigi.cfg and of experiments/: in a checkout they are links to the files themselves.
EXPERIMENTS = HERE / "tasks" / "settings" / "experiments"
EXPERIMENT, VARIABLE = "--experiment", "LUIGI_CONFIG_PATH"
STAGES = {"run": "FullPipeline", "detect": "DetectImages", "export": "ExportDetector"}
COMMANDS = {
    "run": "runs the chains on a data set, and makes the table and the report",
    "detect": "finds objects in photographs: rcnn detect PHOTOS",
    "export": "puts a trained detector into one folder, for Python and other machines",
    "stage": "runs one stage: rcnn stage NAME; without a name, lists all stages",
    "cache": "lists, shows, checks, compares and removes what is cached",
    "data": "converts and describes data sets",
    "experiments": "lists the experiment files that are installed",
    "completion": "prints the script that completes words in a shell: rcnn completion bash|zsh",
}
USAGE = """usage: rcnn COMMAND [--option VALUE ...]

The systems of a lecture on CNN applications as one pipeline of cached stages.

{commands}

Results go into ./cache, the folder `cache` in the current folder; `--cache-dir DIR` chooses another.
`--experiment NAME|FILE` reads settings from an experiment file, in run, detect, export and stage.
`rcnn COMMAND --help` lists the options of a command, `rcnn --version` prints the version."""


class UsageError(Exception):
    """The command cannot be understood."""


def main(words: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 2 for a wrong request."""
    words = sys.argv[1:] if words is None else words
    try:
        return _run(*words) if words and words[0] not in ("-h", "--help") else _print(usage())
    except UsageError as error:
        print(f"rcnn: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `rcnn stage | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(command: str, *words: str) -> int:
    runners: dict[str, Callable[..., int]] = {
        "cache": _cache, "data": _data, "experiments": _experiments, "completion": _completion, "--version": _version,
    }
    if command in STAGES:
        return _run_stage(STAGES[command], command, _with_photographs(words) if command == "detect" else words)
    if command == "stage":
        return _stage(*words)
    if command not in runners:
        raise UsageError(f"there is no command {command!r}{nearest(command, COMMANDS)}; `rcnn --help` lists the commands")
    return runners[command](*words)


def usage() -> str:
    width = max(map(len, COMMANDS))
    return USAGE.format(commands="\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()))


def nearest(word: str, known) -> str:
    """A question about the nearest known word, or nothing."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _print(*lines: str) -> int:
    print(*lines, sep="\n", flush=True)
    return 0


# Stages

def _stage(name: str = "--help", *words: str) -> int:
    if not name.startswith("-"):
        return _run_stage(name, f"stage {name}", words)
    if name not in ("-h", "--help"):
        raise UsageError(f"expected the name of a stage before {name!r}; `rcnn stage` lists the stages")
    from tasks.console.front import stage_lines

    return _print("usage: rcnn stage NAME [--option VALUE ...]\n", *stage_lines())


def _run_stage(stage: str, command: str, words) -> int:
    words = _use_experiment(list(words))
    from tasks.console.front import run_stage  # from here on the experiment file can no longer change

    return run_stage(stage, f"rcnn {command}", words)


def _with_photographs(words: tuple[str, ...]) -> tuple[str, ...]:
    """`rcnn detect PHOTOS` is short for `rcnn detect --images PHOTOS`."""
    return ("--images", *words) if words and not words[0].startswith("-") else words


def _use_experiment(words: list[str]) -> list[str]:
    """The words without `--experiment FILE`; the file is where Luigi looks for it."""
    kept, rest = [], iter(words)
    for word in rest:
        name, given, value = word.partition("=")
        if name == EXPERIMENT:
            os.environ[VARIABLE] = str(find_experiment(value if given else next(rest, "")))
        else:
            kept.append(word)
    return kept


def find_experiment(name: str) -> Path:
    """The user's own file, or the installed file of that name."""
    own, installed = Path(name), EXPERIMENTS / f"{name.removesuffix('.cfg')}.cfg"
    if own.is_file():
        return own
    if os.sep not in name and installed.is_file():
        return installed
    known = [path.stem for path in EXPERIMENTS.glob("*.cfg")]
    hint = nearest(name, known)
    raise UsageError(f"{EXPERIMENT} {name}: found no such file{hint}; give a file, or a name from `rcnn experiments`")


# The other commands

def _cache(*words: str) -> int:
    from tasks.cache_cli import main as run

    return run(list(words), "rcnn cache")


def _data(*words: str) -> int:
    from tasks.data_cli import main as run

    return run(list(words), "rcnn data")


def _experiments(*words: str) -> int:
    if words:
        return _print("usage: rcnn experiments", "", f"{COMMANDS['experiments']}: name and file, to copy and change")
    files = sorted(EXPERIMENTS.glob("*.cfg"))
    width = max(len(path.stem) for path in files)
    return _print(*(f"{path.stem:<{width}}  {path}" for path in files))


def _completion(*words: str) -> int:
    from tasks.console.completion import SHELLS, script

    if len(words) != 1 or words[0] not in SHELLS:
        raise UsageError(f"expected `rcnn completion {'|'.join(SHELLS)}`")
    return _print(script(words[0], COMMANDS, STAGES))


def _version(*words: str) -> int:
    from importlib.metadata import version

    return _print(f"rcnn-pipeline {version('rcnn-pipeline')}")


if __name__ == "__main__":
    sys.exit(main())
