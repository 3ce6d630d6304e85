"""A trained segmenter as one folder that works without the cache: for `SegmentPhotographs --segmenter` and for Python."""

from dataclasses import asdict

from pipeline.text import printable
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.networks.base import NetworkTask
from tasks.segmentation.training import MODEL, TrainSegmenter

SETTINGS, NETWORK, ONNX = "segmenter.json", "network.safetensors", "network.onnx"


@parameters.inherits(TrainSegmenter)
class ExportSegmenter(NetworkTask):
    """One method's segmenter: its network, and `segmenter.json` with everything else."""

    computes = False

    onnx_size = parameters.integers(
        (), "segmentation", "onnx_size", "height,width of the images of an ONNX file that is written too; empty: none", minimum=1
    )

    def requires(self) -> dict[str, CachedTask]:
        return {"network": self.clone(TrainSegmenter)}

    def build(self, workshop: Workshop) -> dict:
        from pipeline.files.writing import copy_file

        network = self.clone(TrainSegmenter)
        copy_file(network.artefact.path(MODEL), workshop.files / NETWORK)
        description = {
            "method": network.segment_method, "names": list(network.names()), "layout": asdict(network.layout()),
            "precision": self.arithmetic,
        }
        workshop.write(SETTINGS, canonical_json(description) + "\n")
        self._write_onnx(workshop, network)
        return {"megabytes": sum(path.stat().st_size for path in workshop.files.iterdir()) / 1e6}

    def _write_onnx(self, workshop: Workshop, network: TrainSegmenter) -> None:
        """Writes the network for images of `--onnx-size`, if it is given."""
        from pipeline.errors import PipelineError
        from pipeline.segmentation.onnx_export import write_onnx

        if not self.onnx_size:
            return
        if len(self.onnx_size) > 2:
            raise PipelineError(f"--onnx-size {','.join(map(str, self.onnx_size))}: expected height,width")
        height, width = (*self.onnx_size, *self.onnx_size)[:2]  # one number is a square
        write_onnx(network.load_network(), (height, width), workshop.files / ONNX)

    def show(self) -> None:
        tell("\n" + printable(f"segmenter: {self.artefact.folder}/ ({', '.join(self.artefact.manifest['files'])})"))
