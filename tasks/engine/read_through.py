"""`--remote`: what a run lacks it takes from the remote cache, and with `--remote-write` it puts there what it makes.

What is wrong in the remote cache is refused, and made here as if it were not there. A remote cache that does not answer ends the
run: else hours of work would begin that nobody wanted.
"""

import logging

from .artefacts import Artefact

logger = logging.getLogger("stages")


def take(artefact: Artefact, url: str) -> bool:
    """Brings `artefact` from the remote cache at `url`; False if it is not there, or not as it should be."""
    from .remote import Remote, WrongContent  # not above: most runs have no remote cache

    try:
        is_there = Remote(url).pull(artefact)
    except WrongContent as error:
        logger.warning("%s: refused from the remote cache, made here: %s", artefact, error)
        return False
    if is_there:
        logger.info("%s: from the remote cache", artefact)
    return is_there


def give(artefact: Artefact, url: str) -> None:
    """Puts `artefact` into the remote cache at `url`. If that fails there is a warning: the result is in the cache here."""
    from .remote import Remote, RemoteError

    try:
        if Remote(url).push(artefact):
            logger.info("%s: put into the remote cache", artefact)
    except RemoteError as error:
        logger.warning("%s: not put into the remote cache: %s", artefact, error)
