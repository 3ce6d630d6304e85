"""Sweep: several runs that differ in some settings. Each reuses all stages that do not differ; one table compares them."""

import logging
from functools import cached_property
from itertools import combinations
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.text import printable
from tasks.data.splits import load_split
from tasks.detection import DETECTIONS
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.errors import UserError
from tasks.engine.printing import TABLE, show_table, tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.evaluate import METRIC, Evaluate
from tasks.evaluation.published import published_map
from tasks.stage import Stage
from tasks.sweep.costs import computed_now, row_costs, total
from tasks.sweep.plan import Plan, Row, make_plan
from tasks.sweep.settings import SEED, written
from tasks.sweep.table import sweep_page, sweep_table

logger = logging.getLogger("stages")

SWEEP, PAGE = "sweep.json", "sweep.html"


@parameters.inherits(Evaluate)
class Sweep(Stage):
    """Runs that differ in some settings: mAP with its spread over seeds, differences from the first row, and the cost of each."""

    computes = False
    resolved = ("vary", "rows")

    vary = parameters.text(
        "", "sweep", "vary",
        'values of settings: "layer=pool5,fc6 svm_c=0.1,1 seed=0,1"; each combination is a row, except that seeds make none',
    )
    rows = parameters.text("", "sweep", "rows", "file of named rows, a section each; the first is the baseline")
    finished = parameters.Numbers(default=(), description="numbers of the rows that could be finished; set by the program")

    @cached_property
    def plan(self) -> Plan:
        """The rows and seeds. Raises SettingError or PipelineError for whatever is wrong with a setting."""
        plan = make_plan(self.vary, self.rows, self.seed)
        self._check_differences(plan)
        return plan

    @property
    def rows_shown(self) -> list[Row]:
        return [row for number, row in enumerate(self.plan.rows) if not self.finished or number in self.finished]

    def evaluations(self, row: Row, seeds: tuple[int, ...]) -> list[Evaluate]:
        """The runs of a row, one for each seed."""
        return [self.clone(Evaluate, **{**row.settings, SEED: seed}) for seed in seeds]

    def requires(self) -> dict[str, CachedTask]:
        return {
            f"{row.name}, seed {seed}": task
            for row in self.rows_shown
            for seed, task in zip(self.plan.seeds, self.evaluations(row, self.plan.seeds), strict=True)
        }

    def deps(self) -> list[CachedTask]:
        if not (self.vary or self.rows):
            raise parameters.SettingError('nothing to vary; give --vary "layer=pool5,fc6 seed=0,1", or --rows FILE')
        return list(self.requires().values())

    def resolve(self) -> dict:
        plan = self.plan
        return {"rows": [row.to_json() for row in plan.rows], "seeds": list(plan.seeds)}

    # Checks before hours of work

    def _check_differences(self, plan: Plan) -> None:
        """Raises SettingError for a varied setting that changes no result, and for a named row that equals an earlier one."""
        keys = {row.name: [self._key_of(row, task) for task in self.evaluations(row, plan.seeds)] for row in plan.rows}
        for name, values in plan.varied.items():
            if name == SEED or len(values) == 1:
                continue
            pairs = [(first, second) for first, second in combinations(plan.rows, 2) if _differ_in(first, second) == {name}]
            if all(keys[first.name] == keys[second.name] for first, second in pairs):
                shown = ", ".join(written(name, value) for value in values)
                raise parameters.SettingError(f"--vary: {name} changes nothing in these runs (values {shown}); leave it out")
        if not plan.varied.keys() - {SEED}:
            for first, second in combinations(plan.rows, 2):
                if keys[first.name] == keys[second.name]:
                    raise parameters.SettingError(
                        f"{self.rows}: [{second.name}] is the same run as [{first.name}]: its settings change nothing; "
                        "leave it out"
                    )

    @staticmethod
    def _key_of(row: Row, task: CachedTask) -> str:
        try:
            return task.key
        except (UserError, PipelineError) as error:
            raise parameters.SettingError(f"row '{row.name}': {error}") from error

    # The result

    def build(self, workshop: Workshop) -> dict:
        from pipeline.evaluation.row_comparison import RowComparison
        from pipeline.seeding import make_generator

        rows, seeds = self.rows_shown, self.plan.seeds
        tasks = [self.evaluations(row, seeds) for row in rows]
        comparison = RowComparison(self.bootstrap_resamples, make_generator(seeds[0], "sweep"), METRIC)
        results = [comparison.add(map(_evaluated, of_row)) for of_row in tasks]
        costs = row_costs([task.artefact for task in of_row] for of_row in tasks)
        sweep = {
            "seeds": list(seeds), "baseline": rows[0].name, "costs": total(costs),
            "unfinished": [row.name for row in self.plan.rows if row not in rows],
            "rows": [
                {**row.to_json(), "published_map": _published(of_row[0]), "results": result.to_json(), "cost": cost.to_json(),
                 "artefacts": [repr(task.artefact) for task in of_row]}
                for row, of_row, result, cost in zip(rows, tasks, results, costs, strict=True)
            ],
        }
        workshop.write(SWEEP, canonical_json(sweep) + "\n")
        workshop.write(TABLE, sweep_table(sweep) + "\n")
        workshop.write(PAGE, sweep_page(sweep))
        fewer = sweep["costs"]["times_fewer"]
        return {"rows": len(rows), "seeds": len(seeds), "times_fewer_artefacts": fewer["artefacts"],
                "times_fewer_stages": fewer["stages"]}

    def show(self) -> None:
        show_table(self.artefact, SWEEP, PAGE, TABLE)
        computed, behind = computed_now([task.artefact for task in self.requires().values()])
        tell(f"This command computed {computed} of the {behind} artefacts behind the table; the rest was in the cache.")

    def show_unfinished(self) -> None:
        """Shows the rows that are complete, after others have failed."""
        if self.finished:
            return
        rows = self.plan.rows
        finished = [number for number, row in enumerate(rows)
                    if all(task.complete() for task in self.evaluations(row, self.plan.seeds))]
        if not finished:
            return
        missing = ", ".join(f"'{row.name}'" for number, row in enumerate(rows) if number not in finished)
        logger.warning("Sweep: %d of %d rows are finished; not %s", len(finished), len(rows), printable(missing))
        partial = self.clone(finished=tuple(finished))
        partial.make_artefact()
        partial.show()


def _evaluated(task: Evaluate):
    """The evaluation of a run's detections, with the matches."""
    from pipeline.detection.detections import Detections
    from pipeline.evaluation.voc_ap import evaluate

    split = load_split(task.inputs()["test"])
    detections = Detections.load(task.inputs()["detections"].path(DETECTIONS))
    return evaluate(detections, split.images, split.classes, task.iou_threshold)


def _published(task: Evaluate) -> float | None:
    return published_map(task.chain, task, Path(task.dataset).resolve().name)


def _differ_in(first: Row, second: Row) -> set[str]:
    """The settings in which two rows differ."""
    names = first.settings.keys() | second.settings.keys()
    return {name for name in names if first.settings.get(name, first) != second.settings.get(name, second)}
