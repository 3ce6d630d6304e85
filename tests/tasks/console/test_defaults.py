"""Our luigi.cfg in a folder that has none."""

import configparser
from pathlib import Path

import pytest

from tasks.console import defaults

REPOSITORY = Path(__file__).resolve().parents[3]


class Config(configparser.ConfigParser):
    """What `use_our_defaults` uses of Luigi's configuration."""

    def set(self, section, option, value=None):
        if not self.has_section(section):
            self.add_section(section)
        super().set(section, option, value)


@pytest.fixture
def config(monkeypatch):
    config = Config()
    monkeypatch.setattr(defaults, "get_config", lambda: config)
    return config


def test_the_file_is_that_of_the_checkout():
    assert defaults.SETTINGS.resolve() == REPOSITORY / "luigi.cfg"


def test_all_of_it_holds_where_nothing_is_set(config):
    defaults.use_our_defaults()
    ours = configparser.ConfigParser()
    ours.read(REPOSITORY / "luigi.cfg")
    assert config == ours
    assert config.getboolean("core", "local_scheduler")


def test_what_is_set_stays(config):
    config.read_string("[core]\nworkers = 7\n[svm]\nc = 1\n")
    defaults.use_our_defaults()
    assert (config["core"]["workers"], config["svm"]["c"]) == ("7", "1")
    assert config["core"]["log_level"] == "WARNING"
