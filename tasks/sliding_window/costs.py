"""WindowCosts: what naive and dense sliding windows cost, side by side, and whether they give the same."""

import time

from tasks.data.first import IndexesFirst
from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, tell
from tasks.engine.processes import available_cores
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.sliding_window.detect import DetectSlidingWindow
from tasks.sliding_window.training import TrainWindows

COSTS, MAPS = "costs.json", "maps.npz"
RESAMPLES = 1000  # of the test images, for the interval of the ratio


@parameters.inherits(DetectSlidingWindow)
class WindowCosts(IndexesFirst):
    """Windows and pixels through the conv layers of every test image, naively and densely. Some images are run in both ways.

    The seconds and the largest difference of the two are in the manifest: files hold no clock. The score maps of one image are
    kept for the report.
    """

    priority = -1  # stages that need only a part of the host run first, because this one needs the whole host

    naive_images = parameters.integer(2, "windows", "naive_images", "test images that are run in both ways", minimum=1)
    seed = parameters.seed()

    def detection(self) -> DetectSlidingWindow:
        return self.clone(DetectSlidingWindow)

    def resolve(self) -> dict:
        # The device and the threads are in this key because seconds depend on them.
        windows = {"scales": self.detection().scales, "precision": self.detection().arithmetic}
        return {**windows, "device": self.device, "threads": self.num_threads}

    @property
    def cores_needed(self) -> tuple[int, int]:
        return available_cores(), available_cores()  # so that no other stage runs at the same time

    def requires(self) -> dict[str, CachedTask]:
        return {"test": self.clone(IndexDataset, split=self.test_split), "network": self.clone(TrainWindows)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.files.writing import write_arrays
        from pipeline.images.reading import read_record
        from pipeline.seeding import make_generator
        from pipeline.sliding_window.comparison import Comparison
        from pipeline.sliding_window.costs import cost_table, count_costs
        from pipeline.sliding_window.trunk import is_unpadded

        detector, root = self.detection().load_detector(), self.requires()["test"].root
        images = load_split(self.inputs()["test"]).images
        costs = count_costs(images, detector.layout, detector.settings.scales)
        generator = make_generator(self.seed, "bootstrap", "window costs")
        interval = costs.ratio_interval(RESAMPLES, generator)
        chosen = range(0, len(images), max(1, len(images) // self.naive_images))[: self.naive_images]
        comparison, maps = Comparison(), {}
        for number in self.progress()(chosen, len(chosen)):
            pixels = read_record(root, images[number])
            if not maps:
                list(detector.score(pixels))  # the warm-up
            ways = []
            for naive in (True, False):
                start = time.perf_counter()
                ways.append(list(detector.score(pixels, naive=naive)))
                comparison.add_seconds(naive, time.perf_counter() - start)
            comparison.add(*ways)
            maps = maps or {f"scale_{place}": scale.probabilities for place, scale in enumerate(ways[1])}
        result = {**costs.to_json(), "interval_95": {"naive_over_dense": interval}, "image": images[chosen[0]].id}
        result |= {"window_side": detector.layout.side, "window_step": detector.layout.stride}
        result |= {"unpadded": is_unpadded(detector.model.trunk), "precision": self.detection().arithmetic}
        workshop.write(COSTS, canonical_json(result) + "\n")
        workshop.write(TABLE, cost_table(result) + "\n")
        write_arrays(workshop.files / MAPS, maps)
        return {"naive_over_dense": costs.ratio, "images": len(chosen), **comparison.figures()}

    def show(self) -> None:
        tell(f"\n{costs_text(self.artefact)}")


def costs_text(artefact: Artefact) -> str:
    """The table of costs, and the seconds that some images took."""
    costs, figures = artefact.json(COSTS), artefact.manifest["figures"]
    naive, dense = figures["naive_seconds"], figures["dense_seconds"]
    padded = "" if costs["unpadded"] else (
        "\nThe trunk pads its input: naively zeros are around each window, densely its surroundings. So the two differ."
    )
    return (
        f"sliding windows of {costs['window_side']} pixels, one each {costs['window_step']}; "
        f"means over {costs['images']} images\n"
        f"{artefact.path(TABLE).read_text()}"
        f"On {figures['images']} of them: naive {naive:.3g} s an image, dense {dense:.3g} s, {naive / dense:.0f} times as fast. "
        f"Largest difference of a probability: {figures['largest_difference']:.1e}, "
        f"of a box: {figures['largest_box_difference']:.1e} pixels, in {costs['precision']}.{padded}"
    )


def cost_figures(artefact: Artefact) -> dict:
    """What the summary says of the costs; `interval_95` is that of the ratio."""
    costs, figures = artefact.json(COSTS), artefact.manifest["figures"]
    seconds = {name: figures[name] for name in ("naive_seconds", "dense_seconds", "largest_difference")}
    return {"naive_over_dense": costs["naive_over_dense"], "interval_95": costs["interval_95"], **seconds}
