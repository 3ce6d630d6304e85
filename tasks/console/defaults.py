"""What our luigi.cfg says also holds where there is no luigi.cfg: in a folder outside the checkout."""

import configparser
from pathlib import Path

from luigi.configuration import get_config

SETTINGS = Path(__file__).resolve().parents[1] / "settings" / "luigi.cfg"


def use_our_defaults() -> None:
    """Sets what luigi.cfg in the current folder and an experiment file leave open."""
    ours, config = configparser.ConfigParser(interpolation=None), get_config()
    ours.read_string(SETTINGS.read_text(), str(SETTINGS))
    for section in ours.sections():
        for name, value in ours[section].items():
            if not config.has_option(section, name):
                config.set(section, name, value)
