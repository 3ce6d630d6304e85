"""Luigi's command line: an unknown stage or option gives one line, not pages of usage or a traceback."""

import argparse
import difflib
import functools

from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register

from pipeline.text import printable
from tasks.engine.printing import with_result

USAGE = "luigi --module tasks STAGE [--option VALUE ...]"
GIVEN: list[str] = []  # the command that the user gave in place of `luigi --module tasks STAGE`
UNKNOWN = "unrecognized arguments: "  # argparse's words


def set_up() -> None:
    """Changes Luigi's command line: it refuses wrong words in one line, and a command shows the result of its stage.

    NOTE: Luigi has no public way to do this. A version of Luigi that builds its parser elsewhere keeps its own messages.
    """
    build = getattr(CmdlineParser, "_build_parser", None)
    if build and not hasattr(build, "original"):

        @functools.cache  # Luigi asks for the same parser nine times a command; each has two thousand options
        def build_once(num_stages: int, root_task: str | None, **others) -> argparse.ArgumentParser:
            parser = build(root_task=root_task, **others)
            if root_task:
                if root_task not in Register.task_names():
                    nearest = _nearest(root_task, Register.task_names())
                    parser.exit(2, printable(f"{_program()}: there is no stage {root_task}{nearest}") + "\n")
                parser.usage = f"{GIVEN[0]} [--option VALUE ...]" if GIVEN else USAGE
                parser.allow_abbrev = False  # else Luigi takes `--chain` for `--chains`, and FullPipeline runs for minutes
                parser.error = functools.partial(_refuse, parser, root_task)
                _hide_options(parser, root_task)
            return parser

        def build_ours(root_task: str | None = None, **others) -> argparse.ArgumentParser:
            return build_once(len(Register.task_names()), root_task, **others)

        build_ours.original = build
        CmdlineParser._build_parser = staticmethod(build_ours)
        get_task = CmdlineParser.get_task_obj
        CmdlineParser.get_task_obj = lambda parser: with_result(get_task(parser))


def set_command(command: str) -> None:
    """Says how the user gave the command, such as `rcnn run`, so that messages name it."""
    GIVEN[:] = [command]


def _program() -> str:
    return GIVEN[0].partition(" ")[0] if GIVEN else "luigi"


def _hide_options(parser: argparse.ArgumentParser, stage: str) -> None:
    """Hides options in `--help` that users don't need: those with the stage's name in front, and `--job`."""
    for action in parser._actions:
        if any(option.startswith(f"--{stage}-") or option == "--job" for option in action.option_strings):
            action.help = argparse.SUPPRESS


def _refuse(parser: argparse.ArgumentParser, stage: str, message: str) -> None:
    if message.startswith(UNKNOWN):
        # The parser knows the options of every stage, with the stage's name in front; this stage's options also without it.
        known = [name for name in parser._option_string_actions if not name.startswith(f"--{stage}-")]
        words = [word for word in message.removeprefix(UNKNOWN).split() if word.startswith("-")]
        message = "; ".join(f"{stage} has no option {word}{_nearest(word, known)}" for word in words) or message
    command = GIVEN[0] if GIVEN else f"luigi --module tasks {stage}"
    parser.exit(2, printable(f"{_program()}: {message}; `{command} --help` lists the options") + "\n")


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name.partition("=")[0], known, n=1, cutoff=0.7)
    return f" (did you mean {matches[0]}?)" if matches else ""
