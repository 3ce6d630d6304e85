"""`rcnn-cache`: lists, shows, browses, checks and compares what is cached, and removes what is no longer needed.

It trusts nothing that it reads: it follows no link and no path out of an artefact's folder, and runs no stored code.
"""

import argparse
from pathlib import Path

from pipeline.errors import PipelineError
from tasks.cache_cli.diff import diff
from tasks.cache_cli.listing import list_artefacts, list_sizes
from tasks.cache_cli.mlflow import export
from tasks.cache_cli.prune import prune
from tasks.cache_cli.remote import add_options, pull, push
from tasks.cache_cli.show import show
from tasks.cache_cli.text import say
from tasks.cache_cli.verify import verify
from tasks.engine.catalogue import Catalogue
from tasks.engine.lock_check import check_locks
from tasks.engine.places import cache_folder
from tasks.tools import run_tool

KEY = "first digits of a key, STAGE/KEY, `latest`, or a stage's name: its artefact behind `latest`, or else its newest one"


def main(arguments: list[str] | None = None, program: str = "rcnn-cache") -> int:
    """The command line. Returns the exit status: 1 if something is wrong with the cache, 2 for a wrong request."""
    options = make_parser(program).parse_args(arguments)
    return run_tool(program, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.command is pull:
        cache_folder(options.cache_dir)
    if not options.cache_dir.is_dir():
        raise PipelineError(f"{options.cache_dir}: no such folder; run in the project's folder or give --cache-dir")
    return options.command(Catalogue(options.cache_dir), options)


def verify_command(catalogue: Catalogue, options: argparse.Namespace) -> int:
    if options.recompute is not None:
        from tasks.cache_cli.recompute import recompute  # here: other commands can do without its imports

        return recompute(catalogue, options.recompute)
    return verify(catalogue) if options.locks is None else int(not check_locks(catalogue.cache, options.locks, say))


def make_parser(program: str = "rcnn-cache") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=__doc__.splitlines()[0])
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"), help="folder of the cache (default: cache)")
    commands = parser.add_subparsers(required=True)

    def command(name: str, run, text: str, *keys: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.set_defaults(command=run)
        for key in keys:
            subparser.add_argument(key, help=KEY)
        return subparser

    command("ls", lambda catalogue, _: list_artefacts(catalogue),
            "lists the artefacts: age, size with and without shards, which results need them, settings other than the default")
    command("show", lambda catalogue, options: show(catalogue, catalogue.find(options.KEY)),
            "shows one artefact: how it was made, the command that makes it again, what is in its files", "KEY")
    checking = command("verify", verify_command, "compares every file with its digest and prints every fault")
    checking.add_argument("--locks", metavar="SECONDS", nargs="?", type=float, const=60.0,
                          help="instead, test whether locks reach other hosts: give it on two hosts, one soon after the other")
    checking.add_argument("--recompute", metavar="N", type=_positive,
                          help="instead, make N artefacts anew, drawn at random, in a temporary folder, and compare their bytes")
    command("diff", lambda catalogue, options: diff(catalogue, catalogue.find(options.A), catalogue.find(options.B)),
            "says why the keys of two artefacts of one stage differ", "A", "B")
    command("du", lambda catalogue, _: list_sizes(catalogue),
            "prints the bytes on disk per stage, and how many of them the latest results need")
    browsing = command("browse", _browse,
                       "serves pages on this machine that look into feature stores: regions, neighbours, units, hard examples")
    browsing.add_argument("--port", type=int, default=0, help="port of the pages (default: any that is free)")
    browsing.add_argument("--gigabytes", type=float, default=1, help="memory for features that were read (default: 1)")
    pruning = command("prune", lambda catalogue, options: prune(catalogue, options.keep, options.dry_run, options.yes),
                      "removes everything that the latest results were not made from")
    pruning.add_argument("--keep", metavar="KEY", action="append", default=[],
                         help="also keep this artefact and what it was made from")
    pruning.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    exporting = command("mlflow", lambda catalogue, options: export(catalogue, options.FOLDER, options.name),
                        "writes the evaluations as runs into a folder that MLflow shows")
    exporting.add_argument("FOLDER", type=Path, help="file store of MLflow; it may have other experiments")
    exporting.add_argument("--name", default="rcnn-pipeline", help="name of the experiment (default: rcnn-pipeline)")
    pruning.add_argument("--yes", action="store_true", help="do not ask")
    pushing = command("push", push, "puts artefacts, and what they were made from, into a remote cache")
    pushing.add_argument("KEY", nargs="*", help=f"{KEY} (default: latest)")
    pulling = command("pull", pull, "takes artefacts, and what they were made from, from a remote cache")
    pulling.add_argument("KEY", nargs="+", help="STAGE/KEY, with the first digits of its key, or STAGE if there is one of it")
    add_options(pushing)
    add_options(pulling)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"found {text}, expected a number from 1 on")
    return int(text)


def _browse(catalogue: Catalogue, options: argparse.Namespace) -> int:
    from tasks.cache_cli.browse import browse  # here: other commands can do without its imports

    return browse(catalogue, options.port, options.gigabytes)
