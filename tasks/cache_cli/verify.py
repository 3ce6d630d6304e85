"""`verify`: prints everything that is wrong with the cache."""

from tasks.cache_cli.text import say
from tasks.engine.catalogue import Catalogue, has_key_for_name
from tasks.engine.verify import all_faults
from tasks.file_checks import FILE_CHECKS


def verify(catalogue: Catalogue) -> int:
    """Prints every fault; returns 1 if there is any."""
    faults = 0
    for fault in all_faults(catalogue, FILE_CHECKS):
        faults += 1
        say(fault)
    checked = len(catalogue.entries) + sum(map(has_key_for_name, catalogue.broken))
    advice = "; remove the folders of damaged artefacts and everything foreign, and run again"
    say(f"{checked} artefacts checked, {faults} faults{advice if faults else ''}")
    return 1 if faults else 0
