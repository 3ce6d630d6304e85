"""Luigi's command line: an unknown stage or option gives one line, not pages of usage or a traceback."""

import argparse
import difflib
import functools

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register

from pipeline.text import printable
from tasks.engine.printing import with_result

USAGE = "luigi --module tasks STAGE [--option VALUE ...]"
GIVEN: list[str] = []  # the command that the user gave in place of `luigi --module tasks STAGE`
UNKNOWN = "unrecognized arguments: "  # argparse's words


class StageParser(argparse.ArgumentParser):
    """Luigi's parser, with few of its four thousand options: Luigi's own, the stage's, and those that the command names.

    A command may name an option of any stage, `--OtherStage-option`. To add these first would take most of the time of a
    command that has nothing to do.
    """

    def __init__(self, stage: str | None):
        super().__init__(add_help=False)
        self.add_argument("root_task", nargs="?", metavar="Required root task", help="Task family to run. Is not optional.")
        self.stage = stage
        self.missing = {}  # stages whose options are not there yet
        for name, task in Register._get_reg().items():
            if task == Register.AMBIGUOUS_CLASS:
                continue
            if task.use_cmdline_section and name != stage:
                self.missing[name] = task
            else:
                self._add_options(name, task)

    def _add_options(self, name: str, task: type[luigi.Task]) -> None:
        """As Luigi does it: all options with the stage's name in front, and those of this command's stage without it as well."""
        front = f"{name}_" if task.use_cmdline_section else ""
        for option, parameter in task.get_params():
            shown = name == self.stage or parameter.always_in_help
            explanation = parameter.description if shown else argparse.SUPPRESS
            flag = "--" + f"{front}{option}".replace("_", "-")
            self.add_argument(flag, help=explanation, **parameter._parser_kwargs(option, name))
            if name == self.stage:
                self.add_argument("--" + option.replace("_", "-"), help=explanation, **parameter._parser_kwargs(option))

    def add_missing(self, words: list[str]) -> None:
        """Adds the options of the stages that `words` name."""
        for name in [name for name in self.missing if any(word.startswith(_front(name)) for word in words)]:
            self._add_options(name, self.missing.pop(name))

    def parse_known_args(self, args=None, namespace=None):
        self.add_missing(args)
        return super().parse_known_args(args, namespace)


def _front(stage: str) -> str:
    """How the options of a stage begin, outside its own command."""
    return f"--{stage.replace('_', '-')}-"


def set_up() -> None:
    """Changes Luigi's command line: it refuses wrong words in one line, and a command shows the result of its stage.

    NOTE: Luigi has no public way to do this. A version of Luigi that builds its parser elsewhere keeps its own messages.
    """
    build = getattr(CmdlineParser, "_build_parser", None)
    if build and not hasattr(build, "original"):

        @functools.cache  # Luigi asks for the same parser nine times a command
        def build_once(num_stages: int, root_task: str | None, help_all: bool = False) -> argparse.ArgumentParser:
            parser = build(root_task=root_task, help_all=True) if help_all else StageParser(root_task)
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
        if isinstance(parser, StageParser):
            parser.add_missing([_front(name) for name in parser.missing])  # the nearest may be any stage's
        words = [word for word in message.removeprefix(UNKNOWN).split() if word.startswith("-")]
        message = "; ".join(f"{stage} has no option {word}{_advice(word, parser, stage)}" for word in words) or message
    command = GIVEN[0] if GIVEN else f"luigi --module tasks {stage}"
    parser.exit(2, printable(f"{_program()}: {message}; `{command} --help` lists the options") + "\n")


def _advice(word: str, parser: argparse.ArgumentParser, stage: str) -> str:
    """What an unknown option may be meant as."""
    # Each option is known with its stage's name in front; this stage's options also without it.
    known = [name for name in parser._option_string_actions if not name.startswith(f"--{stage}-")]
    of_others = {name.removeprefix("--").partition("-")[2] for name in known}
    return " (other stages have it)" if word.removeprefix("--").partition("=")[0] in of_others else _nearest(word, known)


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name.partition("=")[0], known, n=1, cutoff=0.7)
    return f" (did you mean {matches[0]}?)" if matches else ""
