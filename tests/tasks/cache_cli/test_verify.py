"""`rcnn-cache verify` names what is wrong with a cache, and `show` follows nothing out of it."""

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.tasks.cache_cli.artefacts import CACHE, OUTSIDE, edit, flip, insert_space, make_consistent

RECORD = {"size": 27, "sha256": "0" * 64}
FOREIGN, OUT = "foreign file: no stage wrote it", "link out of the cache: to"
UNSEALED = "{}/manifest.json: changed: its bytes differ from those that were written"
LOST = ["cache/latest: link: to SumNumbers/*", "{}: damaged: no readable manifest.json of this key"]


# What is done to the folder of the latest result, and the lines that tell of it; `{}` is the folder.
DAMAGES = {
    "flipped byte": (lambda folder: flip(folder / "powers.json"), ["{}/powers.json: changed: content differs from *SHA-256"]),
    "truncated": (lambda folder: os.truncate(folder / "sum.json", 1), ["{}/sum.json: truncated: 1 bytes, expected 5"]),
    "longer": (lambda folder: (folder / "sum.json").write_text("385.00"), ["{}/sum.json: changed: 6 bytes, expected 5"]),
    "missing": (lambda folder: (folder / "sum.json").unlink(), ["{}/sum.json: missing: listed in its manifest.json"]),
    "foreign file": (lambda folder: (folder / "x\n\033[2J").touch(), ["{}/x\\n\\x1b?2J: " + FOREIGN]),
    "foreign folder": (lambda folder: (folder / "sub/sub").mkdir(parents=True), ["{}/sub: foreign folder: not in its *"]),
    "foreign stage": (lambda folder: Path("cache/my/notes").mkdir(parents=True), ["cache/my/notes: foreign folder: not an *"]),
    "beside the keys": (lambda folder: (folder.parent / "x").touch(), ["cache/SumNumbers/x: " + FOREIGN]),
    "beside the stages": (lambda folder: Path("cache/x").touch(), ["cache/x: " + FOREIGN]),
    "dangling link": (lambda folder: (folder / "x").symlink_to("gone"), ["{}/x: dangling link: to gone"]),
    "link out": (lambda folder: (folder / "x").symlink_to("../../../secret"), [f"{{}}/x: {OUT} ../../../secret; *"]),
    "link to a folder": (lambda folder: (folder / "x").symlink_to("/"), [f"{{}}/x: {OUT} /; *"]),
    "stage made a link": (lambda folder: Path("cache/x").symlink_to("/"), [f"cache/x: {OUT} /; *"]),
    "link inside": (lambda folder: (folder / "x").symlink_to("sum.json"), ["{}/x: link: to sum.json; *"]),
    "file made a link": (
        lambda folder: [(folder / "sum.json").unlink(), (folder / "sum.json").symlink_to(Path("secret").absolute())],
        [f"{{}}/sum.json: {OUT} /*/secret; *"],
    ),
    "pipe": (lambda folder: os.mkfifo(folder / "x"), ["{}/x: neither a file nor a folder"]),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), LOST),
    "manifest made a pipe": (
        lambda folder: [(folder / "manifest.json").unlink(), os.mkfifo(folder / "manifest.json")], LOST,
    ),
    "manifest made a link": (
        lambda folder: [(folder / "manifest.json").rename("away"), (folder / "manifest.json").symlink_to("../../../away")],
        [*LOST, f"{{}}/manifest.json: {OUT} ../../../away; *"],
    ),
    "other settings": (
        lambda folder: edit(folder, parameters={"offset": 1, "seed": 0}),
        [UNSEALED, "{}/manifest.json: changed: its key does not match the settings and inputs that it lists"],
    ),
    "other figures": (lambda folder: edit(folder, figures={"sum": 386}), [UNSEALED]),
    "flipped byte of the manifest": (lambda folder: flip(folder / "manifest.json", 4), [UNSEALED]),
    "space in the manifest": (lambda folder: insert_space(folder / "manifest.json"), [UNSEALED]),
    "made anew with other bytes": (
        lambda folder: make_consistent(next(CACHE.glob("ListNumbers/*"))),
        ["cache/ListNumbers/*: changed: its digest is *, *Numbers/* recorded *"],
    ),
    "never right": (
        lambda folder: make_consistent(folder, "sum.json", b"[385"), ["{}/sum.json: unreadable: Expecting ',' delimiter*"],
    ),
    "locks made a link": (
        lambda folder: Path("cache/.locks").rmdir() or Path("cache/.locks").symlink_to("/"), [f"cache/.locks: {OUT} /; *"],
    ),
    "link among the locks": (
        lambda folder: Path("cache/.locks/a.lock").symlink_to(Path("secret").absolute()), [f"cache/.locks/a.lock: {OUT} *"],
    ),
    "link in unfinished work": (
        lambda folder: [Path("cache/.work/Stage-1").mkdir(), Path("cache/.work/Stage-1/files").symlink_to("/")],
        [f"cache/.work/Stage-1/files: {OUT} /; *"],
    ),
    "memory made a link": (
        lambda folder: [CACHE.joinpath(".digests.sqlite").unlink(True), CACHE.joinpath(".digests.sqlite").symlink_to("/etc/x")],
        ["cache/.digests.sqlite: dangling link: to /etc/x"],
    ),
    "paths out": (
        lambda folder: edit(folder, files={"../../../secret": RECORD, "/etc/passwd": RECORD}),
        [UNSEALED, "{}/manifest.json: changed: its digest does not match the files that it lists", *(
            f"{{}}/manifest.json: path out of the artefact: names the file '{path}'"
            for path in ("../../../secret", "/etc/passwd")
        ), *(f"{{}}/{name}.json: {FOREIGN}" for name in ("powers", "sum"))],
    ),
    "lost shard": (
        lambda folder: next(CACHE.glob("RaiseNumbers/*/powers.json")).parent.rename("away"),
        ["cache/RaiseNumbers/*: missing: its shard [0-2], RaiseNumbers/*"],
    ),
}


@pytest.mark.parametrize(("damage", "faults"), DAMAGES.values(), ids=DAMAGES)
def test_verify_names_what_is_wrong(total, tool, damage, faults):
    assert tool("verify") == "6 artefacts checked, 0 faults\n"
    damage(total.folder)
    *lines, last = tool("verify", status=1).splitlines()
    advice = "remove the folders of damaged artefacts and everything foreign, and run again"
    assert last.endswith(f" artefacts checked, {len(faults)} faults; {advice}")
    for line, fault in zip(lines, faults, strict=True):
        assert fnmatchcase(line, fault.replace("{}", str(total.folder))), line


@pytest.mark.parametrize("name", ["paths out", "link out", "link to a folder", "file made a link", "pipe", "foreign file"])
def test_show_follows_nothing_out_of_the_artefact(total, tool, name):
    DAMAGES[name][0](total.folder)
    output = tool("show", f"SumNumbers/{total.folder.name}")
    assert OUTSIDE not in output
    assert "root:" not in output
    assert "\033" not in output
    assert "does not belong to this artefact; see `rcnn-cache verify`" in output
