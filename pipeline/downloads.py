"""Files from the network, whole or not at all: the first of several addresses that has one, resumed, checked by a checksum."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import PipelineError
from pipeline.files.reading import check_regular

TIMEOUT_SECONDS = 30
BLOCK = 1 << 20
PARTIAL, NOTHING_LEFT = 206, 416  # statuses of HTTP


class Checksum(NamedTuple):
    """The first hex `digits` (or all) that a file's digest by `algorithm` (a name of hashlib's) must have."""

    algorithm: str
    digits: str

    def fault(self, path: Path) -> str:
        """How the digest of the file `path` differs; empty when it does not."""
        digest = hashlib.new(self.algorithm, usedforsecurity=False)
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        digits = digest.hexdigest()
        return "" if digits.startswith(self.digits) else f"{self.algorithm} {digits}, expected {self.digits}"


def fetch(
    what: str, target: Path, urls: Sequence[str], checksum: Checksum, *, otherwise: str = "",
    progress: Callable = lambda blocks, total: blocks,
) -> Path:
    """`target`, downloaded from the first of `urls` that gives it, unless it is there; checked in either case.

    The download goes to a `.part` file, which a later call resumes where the server allows it. `what` names the file in errors,
    `otherwise` ends the advice in them. Raises PipelineError, saying which file to put where, when no address gives the file,
    and, leaving it as it is, for a file in place with another checksum and for what is not a file.
    """
    part = target.with_name(f"{target.name}.part")
    for path in target, part:
        check_regular(path)
    if target.is_file():
        if fault := checksum.fault(target):
            raise PipelineError(f"{target}: {fault}; remove it and get it again")
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        try:
            _fetch_part(url, part, checksum, progress)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not an address, or another checksum
            failures.append(f"{url}: {error}")
        else:
            return part.rename(target)
    raise PipelineError(
        f"{what} not here and cannot be downloaded ({'; '.join(failures)}): get {urls[-1]} on a machine with a connection and "
        f"put it at {target}{otherwise}"
    )


def _fetch_part(url: str, part: Path, checksum: Checksum, progress: Callable) -> None:
    """Completes `part`; starts again when the whole has another checksum."""
    resumed = part.exists()
    _download(url, part, progress)
    if fault := checksum.fault(part):
        part.unlink()
        if not resumed:
            raise PipelineError(f"the file there has {fault}")
        _fetch_part(url, part, checksum, progress)


def _download(url: str, part: Path, progress: Callable) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == NOTHING_LEFT:  # a run was killed between the last byte and the checksum
            return
        raise
    with response, open(part, "ab" if response.status == PARTIAL else "wb") as file:
        expected, received = int(response.headers.get("Content-Length") or 0), 0
        for block in progress(iter(lambda: response.read(BLOCK), b""), expected // BLOCK):
            received += file.write(block)
    if received < expected:
        raise OSError(f"cut off after {received} of {expected} bytes; run again to go on from there")
