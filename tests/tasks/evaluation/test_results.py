"""The link to the last results."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tasks.evaluation import results
from tasks.evaluation.results import point_latest


class TestLatest:
    def test_points_at_the_results_in_one_step(self, artefact, caplog):
        link = artefact.cache / "latest"
        for before in (None, "Stage/gone", "Stage/0123456789ab"):
            if before:
                link.unlink()
                link.symlink_to(before)
            point_latest(artefact)
            assert os.readlink(link) == "Stage/0123456789ab"
            assert sorted(path.name for path in artefact.cache.glob("*latest*")) == ["latest"]

    @pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
    def test_where_nothing_can_be_written_is_a_warning(self, artefact, monkeypatch, error):
        def refuse(path, *arguments):
            raise OSError(error, os.strerror(error), str(path))

        warnings = self.warnings(monkeypatch)
        monkeypatch.setattr(Path, "symlink_to", refuse)
        point_latest(artefact)
        (line,) = warnings
        assert line.startswith(f"{artefact.cache / 'latest'}: cannot be written: {os.strerror(error)}; ")
        assert line.endswith("; the link does not point to these results")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_in_a_folder_that_cannot_be_written(self, artefact, monkeypatch):
        warnings = self.warnings(monkeypatch)
        artefact.cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
        point_latest(artefact)
        artefact.cache.chmod(stat.S_IRWXU)
        assert "Permission denied" in warnings[0]

    def test_where_a_folder_is_in_the_way(self, artefact, monkeypatch):
        (artefact.cache / "latest" / "mine").mkdir(parents=True)
        warnings = self.warnings(monkeypatch)
        point_latest(artefact)
        assert "latest: cannot be written: " in warnings[0]
        assert (artefact.cache / "latest" / "mine").is_dir()
        assert sorted(path.name for path in artefact.cache.glob("*latest*")) == ["latest"]

    @staticmethod
    def warnings(monkeypatch) -> list[str]:
        lines = []
        monkeypatch.setattr(results.logger, "warning", lambda text, *arguments: lines.append(text % arguments))
        return lines
