"""The index of one split of a data set for segmentation: its images, class masks and the names of their labels."""

from functools import cached_property
from pathlib import Path

from pipeline.datasets.voc_archives import MASK_SETS, VOC_CLASSES
from tasks.data.index import IndexDataset
from tasks.data.sources import DownloadMasks
from tasks.engine.task import CachedTask
from tasks.engine.workshop import Workshop


def with_own_settings_of(parent: type[CachedTask]):
    """Class decorator: the key of a subclass of `parent` has the settings that the key of `parent` has.

    Otherwise it would also have those that `parent` inherits, which are in the keys of their own stages.
    """
    def decorate(stage: type[CachedTask]):
        stage.own_parameters = parent.own_parameters
        return stage

    return decorate


@with_own_settings_of(IndexDataset)
class IndexMasks(IndexDataset):
    """One split, read for its class masks and checked strictly: each mask has its image's size, and each value a name.

    In VOC's layout the list is that of `ImageSets/Segmentation`, where there is one, and images need no boxes. In COCO's layout
    the masks are drawn from the objects' outlines and belong to this artefact.
    """

    version = 1
    for_masks = True

    def source(self) -> CachedTask | None:
        is_named = self.dataset in MASK_SETS and not self._user_folder.is_dir()
        return self.clone(DownloadMasks) if is_named else super().source()

    @cached_property
    def draws(self) -> bool:
        """Whether the masks are drawn from outlines, as in COCO's layout."""
        from pipeline.datasets.layouts import COCO, find_layouts

        return self.source() is None and [layout.format for layout in find_layouts(self.root, masks=True)] == [COCO]

    @property
    def mask_root(self) -> Path:
        """The folder that the masks of the records are below."""
        from pipeline.datasets.masks import MASK_FOLDERS

        drawn = self.artefact.folder
        return drawn if (drawn / MASK_FOLDERS["class_mask"]).is_dir() else self.root

    def mask_rules(self, workshop: Workshop):
        from pipeline.datasets.reading import MaskRules

        return MaskRules(self._names(), workshop.files, self.progress())

    def _names(self) -> tuple[str, ...] | None:
        """The names of the masks' values in a data set that is known by name."""
        from pipeline.datasets.digits import CLASSES
        from pipeline.datasets.label_names import of_classes

        if self.dataset in MASK_SETS:
            return of_classes(VOC_CLASSES).names
        return of_classes(CLASSES).names if self.source() else None  # the data sets that are generated

    def figures(self, split) -> dict:
        from pipeline.segmentation.label_maps import usable

        return {"masks": len(usable(split)), "labels": len(split.labels)}
