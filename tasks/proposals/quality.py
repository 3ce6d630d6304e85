"""How well the region proposals of one split cover its objects."""

from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import TABLE, show_table
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.faster_rcnn.four_steps import RPNProposals
from tasks.proposals.regions import RegionProposals, load_proposals, method_name
from tasks.stage import Stage

QUALITY = "quality.json"
CURVE = "curve.svg"
SEARCH, RPN_STEPS = "search", {"rpn1": "1", "rpn3": "3"}


class OfOneSource(Stage):
    """A stage that reads one split's proposals, from one source."""

    computes = False
    resolved = ("source",)

    source = parameters.choice(
        SEARCH, (SEARCH, *RPN_STEPS), "proposals", "source",
        "search: those of --proposals; rpn1, rpn3: those of the network from step 1 or 3",
    )

    def requires(self) -> dict[str, CachedTask]:
        step = RPN_STEPS.get(self.source)
        proposals = self.clone(RPNProposals, rpn_step=step) if step else self.clone(RegionProposals)
        return {"index": self.clone(IndexDataset), "proposals": proposals}


@parameters.inherits(RegionProposals, RPNProposals, without=("rpn_step",))
class ProposalQuality(OfOneSource):
    """Recall and best overlap of one split's proposals, for all of them and for the first 1, 2, 5, ... of each image."""

    version = 2

    def resolve(self) -> dict:
        return {"method": self.method}

    @property
    def method(self) -> str:
        return method_name(self) if self.source == SEARCH else self.source

    def build(self, workshop: Workshop) -> dict:
        from pipeline.evaluation.voc_ap import json_number
        from pipeline.proposals.recall import measure_quality, proposal_table
        from pipeline.report.plots import plot_proposal_quality

        split, proposals = load_split(self.inputs()["index"]), self.inputs()["proposals"]
        objects = [(image.boxes[image.counted], image.labels[image.counted]) for image in split.images]
        quality = measure_quality(load_proposals(proposals), *zip(*objects, strict=True), len(split.classes))
        seconds = proposals.manifest["figures"]["core_seconds_per_image"]
        about = {
            "method": self.method, "split": self.split, "images": len(objects), "classes": split.classes,
            "objects": sum(len(boxes) for boxes, _ in objects), "core_seconds_per_image": seconds,
        }
        title = f"proposals '{self.method}' on {len(objects)} images of '{self.split}', {about['objects']} objects"
        workshop.write(QUALITY, canonical_json(about | quality.to_json()) + "\n")
        cost = f", {seconds:.3f} s of a core an image" if seconds else ""  # unknown for proposals from files
        workshop.write(TABLE, f"{title}{cost}\n{proposal_table(quality)}\n")
        plot_proposal_quality(quality, title, workshop.files / CURVE)
        return {
            "boxes_per_image": float(quality.boxes_per_image[-1]), "recall_50": json_number(quality.recalls[-1, 0]),
            "recall_70": json_number(quality.recalls[-1, 4]), "average_recall": json_number(quality.average_recall[-1]),
            "mabo": json_number(quality.mabo[-1]),
        }

    def show(self) -> None:
        show_table(self.artefact, QUALITY, TABLE, CURVE)
