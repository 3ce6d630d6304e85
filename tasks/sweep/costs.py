"""What the rows of a sweep cost, and what separate runs would have cost: stages, artefacts with their shards, seconds."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from tasks.engine.artefacts import Artefact
from tasks.engine.lineage import is_new, with_inputs


@dataclass(frozen=True)
class Cost:
    """Stages, all artefacts (a stage that works in shards has one for each, too), and the seconds that they took to compute."""

    stages: int = 0
    artefacts: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.stages + other.stages, self.artefacts + other.artefacts, self.seconds + other.seconds)

    def over(self, divisor: "Cost") -> dict:
        """How many times this cost is `divisor`; None where `divisor` is nothing."""
        own, divisors = asdict(self), asdict(divisor)
        return {name: own[name] / divisors[name] if divisors[name] else None for name in own}


@dataclass(frozen=True)
class RowCost:
    """`computed`: for this row first; `shared`: made for an earlier row; `separate`: what its runs would take in empty caches."""

    computed: Cost
    shared: Cost
    separate: Cost

    def to_json(self) -> dict:
        return asdict(self)


def row_costs(rows: Iterable[list[Artefact]]) -> list[RowCost]:
    """The costs of rows, of which each is the list of the results of its runs. Rows come in the order of the sweep."""
    seen: set[str] = set()
    costs = []
    for results in rows:
        of_runs = [_costs_by_key(result) for result in results]
        by_key = {key: cost for costs_of_run in of_runs for key, cost in costs_of_run.items()}
        computed = sum((cost for key, cost in by_key.items() if key not in seen), Cost())
        shared = sum((cost for key, cost in by_key.items() if key in seen), Cost())
        separate = sum((cost for costs_of_run in of_runs for cost in costs_of_run.values()), Cost())
        costs.append(RowCost(computed, shared, separate))
        seen |= by_key.keys()
    return costs


def _costs_by_key(result: Artefact) -> dict[str, Cost]:
    """The cost of each artefact behind `result`, by key."""
    lineage = with_inputs([result])
    shards = {source["key"] for artefact in lineage for name, source in artefact.manifest["inputs"].items()
              if name.startswith("shard ")}
    return {artefact.key: Cost(int(artefact.key not in shards), 1, artefact.manifest["seconds"]) for artefact in lineage}


def total(costs: list[RowCost]) -> dict:
    """The costs of the whole sweep and of separate runs, as JSON."""
    computed = sum((cost.computed for cost in costs), Cost())
    separate = sum((cost.separate for cost in costs), Cost())
    return {"computed": asdict(computed), "separate": asdict(separate), "times_fewer": separate.over(computed)}


def computed_now(results: list[Artefact]) -> tuple[int, int]:
    """How many artefacts behind `results` this command computed, and how many there are."""
    lineage = with_inputs(results)
    return sum(is_new(artefact.manifest) for artefact in lineage), len(lineage)
