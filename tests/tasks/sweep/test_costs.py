"""What rows cost: lineages made by hand."""

import pytest

from tasks.engine.artefacts import Artefact
from tasks.engine.workshop import Workshop
from tasks.sweep.costs import Cost, computed_now, row_costs, total


@pytest.fixture
def publish(tmp_path):
    """publish(name, seconds, **inputs) publishes an artefact of the stage `name`."""

    def publish_artefact(name: str, seconds: float, **inputs: Artefact) -> Artefact:
        artefact = Artefact(tmp_path, name, (f"{sum(map(ord, name)):x}" + "0" * 64)[:64])
        workshop = Workshop(artefact)
        with workshop.lock():
            workshop.open()
            described = {key.replace("_", " "): {"stage": source.stage, "key": source.key, "digest": ""}
                         for key, source in inputs.items()}
            workshop.publish({"inputs": described, "seconds": seconds, "figures": {}, "settings": {}})
            workshop.close()
        return artefact

    return publish_artefact


@pytest.fixture
def rows(publish):
    """Two rows of two runs: data (1 s) for all; features (10 s, with a shard of 4 s) for a seed; then a result (2 s) each."""
    data = publish("data", 1)
    results = []
    for seed in "AB":
        features = publish(f"features{seed}", 10, data=data, shard_0=publish(f"shard{seed}", 4, data=data))
        results.append([publish(f"{row}{seed}", 2, features=features) for row in ("first", "second")])
    return list(zip(*results, strict=True))


def test_a_row_computes_what_no_earlier_row_has(rows):
    first, second = row_costs(rows)
    assert first.computed == Cost(5, 7, 1 + 2 * (4 + 10 + 2))
    assert first.shared == Cost()
    assert second.computed == Cost(2, 2, 4)
    assert second.shared == Cost(3, 5, 29)


def test_separate_runs_share_nothing(rows):
    costs = row_costs(rows)
    assert [cost.separate for cost in costs] == [Cost(6, 8, 34), Cost(6, 8, 34)]
    assert total(costs) == {
        "computed": {"stages": 7, "artefacts": 9, "seconds": 37}, "separate": {"stages": 12, "artefacts": 16, "seconds": 68},
        "times_fewer": {"stages": 12 / 7, "artefacts": 16 / 9, "seconds": 68 / 37},
    }


def test_no_seconds_give_no_ratio():
    assert Cost(1, 1, 2.0).over(Cost(1, 2, 0.0)) == {"stages": 1, "artefacts": 0.5, "seconds": None}


def test_artefacts_of_another_command_are_not_counted(rows):
    assert computed_now([result for row in rows for result in row]) == (0, 9)
