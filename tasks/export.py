"""A trained detector as one folder that works without the cache: for `DetectImages --detector` and for Python."""

from pipeline.detector_onnx import check_exportable, write_onnx
from pipeline.errors import PipelineError
from pipeline.proposals import METHODS
from pipeline.text import printable
from tasks.data.first import IndexesFirst
from tasks.data.index import IndexDataset
from tasks.data.splits import load_split
from tasks.detection import DetectSplit
from tasks.engine import parameters
from tasks.engine.digests import canonical_json
from tasks.engine.printing import tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.evaluation.evaluate import CHAINS, LOCALISATION, OF_ONE_CHAIN, STAGES, OfOneChain, chain_setting
from tasks.evaluation.thresholds import FindThresholds, detector_thresholds, source_text, thresholds_of
from tasks.left_out import note_limit_of_split
from tasks.localisation.localise import Localise
from tasks.proposals.regions import proposal_settings

DETECTOR = "detector.json"
THRESHOLDS = "thresholds"
TORCH, ONNX = "torch", "onnx"
NO_THRESHOLDS = "thresholds: none (--threshold-split)"


@parameters.inherits(*STAGES, Localise, FindThresholds, without=OF_ONE_CHAIN)
class ExportDetector(OfOneChain, IndexesFirst):
    """One chain's detector: its trained parts, and `detector.json` with everything else.

    The best thresholds are part of it where there is a split for them.
    """

    version = 3
    computes = False
    resolved = (*OfOneChain.resolved, "format")

    chain = chain_setting((*CHAINS, LOCALISATION))
    format = parameters.choice(
        TORCH, (TORCH, ONNX), "detect", "format", "what an exported detector is for: this project, or also other programs"
    )

    def splits(self) -> dict[str, IndexDataset]:
        task = thresholds_of(self)
        return task.splits() if task else {"train": self.detection().train_index()}

    def detection(self) -> DetectSplit | Localise:
        return self.clone(Localise) if self.chain == LOCALISATION else super().detection()

    def requires(self) -> dict[str, CachedTask]:
        parts = {part: task for part, (task, _) in self.detection().detector_parts().items()}
        thresholds = {THRESHOLDS: task} if (task := thresholds_of(self)) else {}
        return {"train": self.detection().train_index(), **parts, **thresholds}

    def resolve(self) -> dict:
        # The keys of the parts do not cover how the parts are used.
        use = self.use_of_parts()
        if self.format == TORCH:  # the default stays out of keys, so that older keys stay valid
            return use
        check_exportable(self.chain, use["settings"])
        return {**use, "format": self.format}

    def use_of_parts(self) -> dict:
        return {"settings": self.detection().detector_settings(), "proposals": self._proposals()}

    def _proposals(self) -> dict | None:
        if not self.detection().needs_proposals:
            return None
        if self.proposals not in METHODS:
            methods = ", ".join(METHODS)
            raise PipelineError(f"--proposals {self.proposals}: files contain no proposals for new images; give one of {methods}")
        return proposal_settings(self)

    def build(self, workshop: Workshop) -> dict:
        from pipeline.files.writing import copy_file

        names = {}
        for part, (task, file) in self.detection().detector_parts().items():
            source = task.artefact.path(file)
            names[part] = f"{part}{source.suffix}"
            copy_file(source, workshop.files / names[part])
        train = load_split(self.inputs()["train"])
        description = {"chain": self.chain, "classes": train.classes, "parts": names, **self.use_of_parts()}
        if THRESHOLDS in self.inputs():
            description |= detector_thresholds(self.inputs()[THRESHOLDS], train.classes)
        if train.coco:
            description["category_ids"] = train.coco.category_ids
        workshop.write(DETECTOR, canonical_json(description) + "\n")
        if self.format == ONNX:
            write_onnx(workshop.files)
        return {"megabytes": sum(path.stat().st_size for path in workshop.files.iterdir()) / 1e6}

    def show(self) -> None:
        note_limit_of_split(self.label, self.mean_per_image)
        described = self.artefact.json(DETECTOR).get(THRESHOLDS)
        tell(f"\n{printable(source_text(described)) if described else NO_THRESHOLDS}")
        tell(printable(f"detector: {self.artefact.folder}/ ({', '.join(self.artefact.manifest['files'])})"))
