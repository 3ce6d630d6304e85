"""The script that completes words after `rcnn` in bash and zsh.

The script holds all names, so pressing Tab starts no Python. It belongs to the installed version: print it again after an update.
"""

from collections.abc import Mapping

from tasks.cache_cli import make_parser as make_cache_parser
from tasks.data_cli import make_parser as make_data_parser
from tasks.engine.task import all_stages

SHELLS = ("bash", "zsh")
FOR_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"
OF_LUIGI = ("--experiment", "--workers", "--help")
SCRIPT = """\
# Completes words after rcnn. In bash: eval "$(rcnn completion bash)"; in zsh: eval "$(rcnn completion zsh)".
_rcnn_options() {{
  case "$1" in
{options}
  esac
}}
_rcnn() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}" stage="" words=""
  case "$command" in
{stages}
    stage) stage="${{COMP_WORDS[2]}}" ;;
  esac
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  elif [ "$command" = stage ] && [ "$COMP_CWORD" -eq 2 ]; then
    words="{names}"
  elif [ "${{COMP_WORDS[COMP_CWORD-1]}}" = --experiment ]; then
    words="$(rcnn experiments | cut -d ' ' -f 1)"
  elif [ "${{word#-}}" != "$word" ] && [ -n "$stage" ]; then
    words="$(_rcnn_options "$stage")"
  elif [ "$COMP_CWORD" -eq 2 ]; then
    case "$command" in
{subcommands}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _rcnn rcnn
"""


def script(shell: str, commands: Mapping[str, str], stages: Mapping[str, str]) -> str:
    """The script for `shell`. `commands` are those of `rcnn`; `stages` names the stage of each command that runs one."""
    known = {stage.stage: stage for stage in all_stages() if stage.__module__.startswith("tasks.")}
    subcommands = {"cache": _subcommands(make_cache_parser()), "data": _subcommands(make_data_parser()), "completion": SHELLS}
    text = SCRIPT.format(
        options=_cases({name: (*_options(stage), *OF_LUIGI) for name, stage in known.items()}, "    {}) echo {} ;;"),
        stages=_cases({command: [stage] for command, stage in stages.items()}, "    {}) stage={} ;;"),
        subcommands=_cases(subcommands, '      {}) words="{}" ;;'),
        commands=" ".join(commands), names=" ".join(sorted(known)),
    )
    return (FOR_ZSH if shell == "zsh" else "") + text.rstrip("\n")


def _cases(words: Mapping, pattern: str) -> str:
    """One line of a shell's `case` for each name."""
    return "\n".join(pattern.format(name, " ".join(values)) for name, values in words.items())


def _options(stage) -> list[str]:
    return sorted(parameter.option for _, parameter in stage.get_params() if getattr(parameter, "place", None))


def _subcommands(parser) -> list[str]:
    (commands,) = [action.choices for action in parser._subparsers._group_actions]
    return list(commands)
