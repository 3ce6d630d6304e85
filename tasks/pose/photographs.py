"""Poses of the objects in the user's own images, by networks that this run trains or that were exported before."""

from pathlib import Path

from pipeline.detection.score_names import BEST_F1
from pipeline.errors import PipelineError
from pipeline.files.reading import MAX_MEGAPIXELS
from pipeline.text import printable
from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.engine.digests import canonical_json
from tasks.engine.printing import tell
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop
from tasks.export import DETECTOR, ExportDetector
from tasks.photographs.annotations import Score
from tasks.photographs.base import PhotographTask, failed_entry, raise_if_failed
from tasks.photographs.index import IndexImages, picture_names
from tasks.pose.export import SETTINGS, ExportPoseModel

RESULT, IMAGES = "poses.json", "images.json"
PICTURES = "pictures"
DECIMALS = 2  # of a pixel


@parameters.inherits(IndexImages, ExportPoseModel)
class PhotographPoses(PhotographTask):
    """Joints of the objects in the user's images, as JSON and drawn into the images.

    The boxes are those of an exported detector; without one each image is one box. An unusable image is no failure of the stage:
    this depends only on its content, which is in the key. The artefact is complete and names the image and the reason.
    """

    resolved = (*PhotographTask.resolved, "pose_model", "pose_detector", "pose_score")

    pose_model = parameters.text(
        "", "pose", "model", "folder made by ExportPoseModel, used in place of a training; empty: the networks of this run"
    )
    pose_detector = parameters.text(
        "", "pose", "detector", "folder made by ExportDetector, whose detections are the boxes; empty: each image is one box"
    )
    pose_score = Score(
        default=BEST_F1, config_path={"section": "pose", "name": "score"},
        description="lowest score of a detection that gets a pose: a number, best-f1 or auto, as in --draw-score",
    )

    def upstream(self) -> dict[str, CachedTask]:
        return {} if self.pose_model else {"model": self.clone(ExportPoseModel)}

    def resolve(self) -> dict:
        digests: dict = {}
        if self.max_megapixels != MAX_MEGAPIXELS:
            digests["max_megapixels"] = self.max_megapixels
        if self.pose_model:
            digests["model"] = self.folder_digests("--pose-model", self.pose_model, SETTINGS, ExportPoseModel.stage)
        if self.pose_detector:
            digests["detector"] = self.folder_digests("--pose-detector", self.pose_detector, DETECTOR, ExportDetector.stage)
            digests["score"] = self.pose_score
        return digests

    @property
    def folder(self) -> Path:
        """The folder of the pose model."""
        return Path(self.pose_model).expanduser() if self.pose_model else self.inputs()["model"].check()

    def build_shard(self, workshop: Workshop, split) -> dict:
        from pipeline.pose_model import PoseModel
        from pipeline.prefetch import prefetch

        model, find = PoseModel.load(self.folder, self.device, self.num_threads), self._finder()
        entries, unknown = [], 0
        pixels = self.progress()(prefetch(map(self.read, split.images)), len(split.images))
        for record, image in zip(split.images, pixels, strict=True):
            if isinstance(image, PipelineError):
                entries.append(failed_entry(record, image))
                continue
            candidates = find(image, record)
            known = [each for each in candidates if each.get("class") in (None, *model.classes)]
            unknown += len(candidates) - len(known)
            joints = model.estimate(image, [each["box"] for each in known]) if known else []
            poses = [{**each, "joints": dict(zip(model.names, pose.round(DECIMALS).tolist(), strict=True))}
                     for each, pose in zip(known, joints, strict=True)]
            entries.append({"image": record.id, "width": image.shape[1], "height": image.shape[0], "poses": poses})
        workshop.write(IMAGES, canonical_json(entries) + "\n")
        counts = {"images": len(entries), "poses": sum(len(entry.get("poses", ())) for entry in entries)}
        return {**counts, "without_joints": unknown, "failed": sum("error" in entry for entry in entries)}

    def _finder(self):
        """A function that gives the boxes of an image, each as an entry of the result without its joints."""
        from pipeline.detector import Detector

        if not self.pose_detector:
            return lambda image, record: [{"box": [0, 0, image.shape[1], image.shape[0]]}]
        detector = Detector.load(Path(self.pose_detector).expanduser(), self.device, self.num_threads)
        lowest = detector.lowest_scores(self.pose_score)

        def find(image, record) -> list[dict]:
            detections = detector.detect(image, Path(record.id).stem, warn=False)
            chosen = detections.reach(lowest) & (detections.boxes[:, 2:] > detections.boxes[:, :2]).all(axis=1)
            return [
                {"class": detections.names[row], "score": _number(detections.scores[row]), "box": list(map(_number, box))}
                for row, box in zip(chosen.nonzero()[0], detections.boxes[chosen], strict=True)
            ]

        return find

    def merge_shards(self, workshop: Workshop, shards: list[Artefact]) -> dict:
        from pipeline.pose_model_folder import read_settings

        entries, settings = [entry for shard in shards for entry in shard.json(IMAGES)], read_settings(self.folder)
        usable = [entry for entry in entries if "error" not in entry]
        names = picture_names([entry["image"] for entry in usable])
        self._draw(workshop.files / PICTURES, usable, names, settings)
        result = {
            "names": settings["names"], "limbs": settings["limbs"], "failed": [entry for entry in entries if "error" in entry],
            "images": [{**entry, "picture": f"{PICTURES}/{name}"} for entry, name in zip(usable, names, strict=True)],
        }
        workshop.write(RESULT, canonical_json(result) + "\n")
        return {}

    def _draw(self, folder: Path, usable: list[dict], names: list[str], settings: dict) -> None:
        import numpy as np

        from pipeline.files.writing import write_image
        from pipeline.pose.drawing import draw_poses
        from pipeline.prefetch import prefetch

        records = {record.id: record for record in self.load_split().images}
        pixels = prefetch(self.read(records[entry["image"]]) for entry in usable)
        for number, image in enumerate(self.progress("picture")(pixels, len(usable))):
            joints = np.array([[pose["joints"][name] for name in settings["names"]] for pose in usable[number]["poses"]])
            path = folder / names[number]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, draw_poses(image, joints, settings["limbs"]), quality=95)

    def show(self) -> None:
        """Prints where the results are. Raises PipelineError when an image cannot be used."""
        artefact, figures = self.artefact, self.artefact.manifest["figures"]
        tell(f"\n{figures['images']} images, {figures['poses']} poses")
        if unknown := figures["without_joints"]:
            tell(f"{unknown} detections are of classes without joints in training and have no pose")
        tell(printable(f"results: {artefact.folder}/ ({RESULT}, {PICTURES}/)"))
        raise_if_failed(artefact, RESULT)


def _number(value) -> float:
    """Of a float32; its text has the fewest digits that identify it."""
    return float(str(value))
