"""Region proposals of one split as one file, for other software or for `--proposals`."""

from pipeline.text import printable
from tasks.data.splits import load_split
from tasks.engine import parameters
from tasks.engine.printing import tell
from tasks.engine.workshop import Workshop
from tasks.faster_rcnn.four_steps import RPNProposals
from tasks.proposals.quality import OfOneSource
from tasks.proposals.regions import RegionProposals, load_proposals


@parameters.inherits(RegionProposals, RPNProposals, without=("rpn_step",))
class ExportProposals(OfOneSource):
    """One split's proposals as `proposals.mat` or `proposals.npz`."""

    format = parameters.choice("mat", ("mat", "npz"), "proposals", "format", "format of the file: the releases' or ours")

    def build(self, workshop: Workshop) -> dict:
        from pipeline.proposals.files import write_mat, write_npz

        ids = [image.id for image in load_split(self.inputs()["index"]).images]
        boxes = load_proposals(self.inputs()["proposals"])
        write = write_mat if self.format == "mat" else write_npz
        write(workshop.files / self.file, ids, boxes)
        return {"images": len(ids), "boxes": sum(map(len, boxes))}

    @property
    def file(self) -> str:
        return f"proposals.{self.format}"

    def show(self) -> None:
        tell(printable(f"proposals: {self.artefact.path(self.file)}"))
