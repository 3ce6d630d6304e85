"""`rcnn-cache ls`, and how it finds an artefact."""

import os
import subprocess
import sys
from pathlib import Path

from tasks.engine.catalogue import Catalogue
from tests.tasks.cache_cli.artefacts import CACHE, REPOSITORY, powers_of, rename


class TestLs:
    def test_line_of_each_artefact_but_shards(self, make, total, tool):
        entry = make(offset=3)
        stages = [line[:22].strip() for line in tool("ls").splitlines()]
        assert stages == ["stage", "ListNumbers", "RaiseNumbers", "SumNumbers", "SumNumbers", "all of them: shard_siz"]
        lines = {line[:22].strip(): line for line in tool("ls").splitlines() if entry.folder.name not in line}
        powers = powers_of(total)
        sizes = [sum(path.stat().st_size for path in folder.iterdir()) / 1000 for folder in
                 (powers.folder, *(shard.folder for shard in Catalogue(CACHE).shards(powers).values()))]
        assert lines["RaiseNumbers"].split()[3:] == [
            "s", f"{sum(sizes):.1f}", "kB", f"{sizes[0]:.1f}", "kB", "latest", "shard_size=4"
        ]
        assert lines["all of them: shard_siz"].endswith("shard_size=4")
        (line,) = [line for line in tool("ls").splitlines() if entry.folder.name in line]
        assert line.split()[-2:] == ["-", "offset=3"]

    def test_users(self, make, stages, total, tool, monkeypatch):
        monkeypatch.setattr("tasks.cache_cli.listing.RESULTS", ("SumNumbers",))
        keys = [make(offset=offset).key[:4] for offset in (1, 2)]
        (line,) = [line for line in tool("ls").splitlines() if line.startswith("ListNumbers")]
        assert f"  latest {keys[1]} +1" in line
        (line,) = [line for line in tool("ls").splitlines() if line[24:28] == keys[0]]
        assert f"  {keys[0]}  " in line

    def test_terminal(self, make, total, tool, monkeypatch):
        make(numbers="../" * 60 + f"{Path.cwd()}/numbers.txt", offset=1)
        whole = tool("ls").splitlines()
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "120")
        lines = tool("ls").splitlines()
        assert len(lines) == len(whole)
        assert max(map(len, lines)) == 120 < max(map(len, whole))

    def test_sizes(self, make, total, tool):
        make(offset=1)
        lines = {line.split()[0]: line.split()[1:] for line in tool("du").splitlines()}
        files = [path for path in CACHE.glob("*/*/*") if path.is_file()]
        assert lines["RaiseNumbers"][0] == "4"
        assert lines["SumNumbers"][0] == "2"
        everything = sum(path.stat().st_size for path in files) / 1000
        unneeded = sum(path.stat().st_size for path in files if path.parent.parent.name == "SumNumbers"
                       and path.parent != total.folder) / 1000
        assert lines["total"] == ["7", f"{everything:.1f}", "kB", f"{everything - unneeded:.1f}", "kB"]


class TestFind:
    def test_names_that_lead_to_one(self, make, total):
        newer = make(offset=1)
        catalogue = Catalogue(CACHE)
        for wanted in (total.key, total.key[:9].upper(), total.name[:15], f"cache/{total.name}/", "latest", "SumNumbers"):
            assert catalogue.find(wanted).name == total.name, wanted
        assert catalogue.find("RaiseNumbers").name == powers_of(total).name  # and no shard
        (CACHE / "latest").unlink()
        assert Catalogue(CACHE).find("SumNumbers").name == newer.name

    def test_none_and_several(self, total, tool):
        assert "no artefact 'Sum'; `rcnn-cache ls` lists them" in tool("show", "Sum", status=2)
        assert "no artefact ''" in tool("show", "", status=2)
        assert "no artefact 'ListNumbers/" in tool("show", f"ListNumbers/{total.key[:8]}", status=2)
        names = [entry.name for entry in Catalogue(CACHE).entries.values() if entry.stage == "RaiseNumbers"]
        for number, name in enumerate(names):
            rename(name, f"{'0' * 11}{number}")
        output = tool("show", "RaiseNumbers/00", status=2)
        listed = "".join(f"\n  RaiseNumbers/00000000000{number}" for number in range(4))
        assert f"'RaiseNumbers/00' is the beginning of 4 keys; give more digits or the stage:{listed}\n" in output


def test_no_such_cache(tool):
    output = tool("--cache-dir", "nowhere", "ls", status=2)
    assert output == "rcnn-cache: nowhere: no such folder; run in the project's folder or give --cache-dir\n"


def test_all_but_show_import_no_arrays_and_show_no_torch(total):
    code = """
import sys
from tasks.cache_cli import main
for words in (["ls"], ["du"], ["verify"], ["diff", "latest", "latest"], ["prune", "--dry-run"]):
    assert main(words) == 0
print([name for name in ("numpy", "h5py", "torch", "safetensors", "PIL") if name in sys.modules])
assert main(["show", "latest"]) == 0
print([name for name in ("torch", "numba") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    lists = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert lists == ["[]", "[]"], done.stderr
