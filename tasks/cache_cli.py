"""`rcnn-cache`: what is cached, is it intact, what can go."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tasks import locks
from tasks.artefacts import KEY_DIGITS, MANIFEST, Artefact, Workshop, digest_files, read_manifest
from tasks.digests import digest_file

LATEST = "latest"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 when something is wrong with the cache."""
    parser = argparse.ArgumentParser(prog="rcnn-cache", description=__doc__)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"), help="folder of the cache (default: cache)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ls", help="the artefacts: stage, key, age, size, and whether the latest results were made from them")
    commands.add_parser("verify", help="compares every file with the digest in its manifest")
    prune = commands.add_parser("prune", help="removes what the latest results were not made from")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    prune.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    cache = options.cache_dir
    if not cache.is_dir():
        print(f"rcnn-cache: {cache}: no such folder; run in the project's folder or give --cache-dir", file=sys.stderr)
        return 2
    try:
        if options.command == "prune":
            return prune_cache(cache, options.dry_run, options.yes)
        return {"ls": list_cache, "verify": verify_cache}[options.command](cache)
    except BrokenPipeError:  # `rcnn-cache ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def folders(cache: Path) -> Iterator[Path]:
    """Every folder that is an artefact or should be one. Links are not followed."""
    for stage in sorted(path for path in cache.iterdir() if is_folder(path) and not path.name.startswith(".")):
        yield from sorted(path for path in stage.iterdir() if is_folder(path))


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def list_cache(cache: Path) -> int:
    needed = latest_needs(cache)
    print(f"{'stage':<20} {'key':<{KEY_DIGITS}} {'age':>8} {'size':>10}  latest  figures")
    for folder in folders(cache):
        manifest = read_manifest(folder)
        if manifest is None:
            print(f"{folder.parent.name:<20} {folder.name:<{KEY_DIGITS}} no readable manifest")
            continue
        size = sum(file["size"] for file in manifest["files"].values())
        numbers = {name: value for name, value in manifest["figures"].items() if isinstance(value, (int, float))}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        used = "yes" if folder in needed else "-"
        age = show_age(time.time() - manifest["started"])
        print(f"{manifest['stage']:<20} {folder.name:<{KEY_DIGITS}} {age:>8} {show_size(size):>10}  {used:<6}  {figures}")
    return 0


def verify_cache(cache: Path) -> int:
    """Prints every fault; returns 1 if there is one."""
    checked, faults = 0, []
    for folder in folders(cache):
        checked += 1
        faults += list(folder_faults(folder))
    for fault in faults:
        print(fault)
    print(f"{checked} artefacts checked, {len(faults)} faults" + ("; remove the folders named and run again" if faults else ""))
    return 1 if faults else 0


def folder_faults(folder: Path) -> Iterator[str]:
    manifest = read_manifest(folder)
    if manifest is None:
        yield f"{folder}: no readable {MANIFEST}"
        return
    if (manifest.get("stage"), str(manifest.get("key"))[:KEY_DIGITS]) != (folder.parent.name, folder.name):
        yield f"{folder}: its manifest is of {manifest.get('stage')}/{str(manifest.get('key'))[:KEY_DIGITS]}"
    if manifest.get("digest") != digest_files(manifest["files"]):
        yield f"{folder}: the digest in its {MANIFEST} is not that of the files that it lists"
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()} if folder.is_dir() else {}
    for name, recorded in manifest["files"].items():
        path = there.pop(name, None)
        if path is None:
            yield f"{folder / name}: missing"
        elif path.stat().st_size != recorded["size"]:
            yield f"{path}: {path.stat().st_size} bytes, expected {recorded['size']}"
        elif digest_file(path) != recorded["sha256"]:
            yield f"{path}: content differs from the recorded SHA-256"
    yield from (f"{folder / name}: not in the manifest" for name in there if name != MANIFEST)


def prune_cache(cache: Path, dry_run: bool, yes: bool) -> int:
    """Removes artefacts that `latest` does not need and unfinished work that nobody holds."""
    if not (cache / LATEST).is_symlink():
        print(f"{cache}: no {LATEST} results, so nothing tells what is needed; nothing removed", file=sys.stderr)
        return 1
    if running := [path.stem for path in (cache / ".locks").glob("*.lock") if locks.is_held(path)]:
        print(f"{cache}: a run is building {', '.join(running)}; wait for it, since it may need anything", file=sys.stderr)
        return 1
    needed = latest_needs(cache)
    work = cache / ".work"
    unneeded = [folder for folder in folders(cache) if folder not in needed]
    unneeded += sorted(path for path in work.iterdir() if is_folder(path)) if work.is_dir() else []
    sizes = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in unneeded]
    for folder, size in zip(unneeded, sizes, strict=True):
        print(f"{'would remove' if dry_run else 'remove'} {folder} ({show_size(size)})")
    print(f"{len(unneeded)} folders, {show_size(sum(sizes))}; {len(needed)} artefacts stay")
    if dry_run or not unneeded:
        return 0
    if not yes and not asked("Remove them? [y/N] "):
        print("nothing removed")
        return 0
    for folder in unneeded:
        remove(cache, folder)
    return 0


def asked(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def remove(cache: Path, folder: Path) -> None:
    """Removes an artefact or a work folder, unless a running stage holds it."""
    stage, _, digits = folder.name.rpartition("-") if folder.parent.name == ".work" else (folder.parent.name, "", folder.name)
    with Workshop(Artefact(cache, stage, digits)).lock(wait=False) as held:
        if held:
            shutil.rmtree(folder)
        else:
            print(f"{folder}: in use, left alone")


def latest_needs(cache: Path) -> set[Path]:
    """The folders of the latest results and of everything that they were made from."""
    needed: set[Path] = set()
    open_ends = [cache / os.readlink(cache / LATEST)] if (cache / LATEST).is_symlink() else []
    while open_ends:
        folder = open_ends.pop()
        manifest = read_manifest(folder)
        if manifest is not None and folder not in needed:
            needed.add(folder)
            open_ends += [Artefact(cache, made["stage"], made["key"]).folder for made in manifest["inputs"].values()]
    return needed


def show_size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def show_age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


if __name__ == "__main__":
    sys.exit(main())
