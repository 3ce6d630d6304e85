"""The stages, as Luigi tasks: `luigi --module tasks FullPipeline`.

Modules here import torch, numba and the like only inside the functions that need them, so that a run with nothing to do is quick.
"""

from tasks import interrupts  # noqa: F401 - before all else

# isort: split
from tasks import cluster, command_line, log, processes, trouble
from tasks.conv_features import ConvFeatures
from tasks.data import DownloadVOC, GenerateDigits, IndexDataset
from tasks.detect_images import DetectImages, DetectPhotographs
from tasks.evaluation import Evaluate, MeasurePrecision, TimeDetection
from tasks.experiment import check_environment
from tasks.export import ExportDetector, PackDetector
from tasks.fast_rcnn import CompressFastRCNN, DetectFastRCNN, TrainFastRCNN
from tasks.faster_rcnn import DetectFasterRCNN, RPNProposals, SharedConvFeatures, TrainFasterRCNN, TrainRPN, TrainSharedFastRCNN
from tasks.features import ExtractFeatures, SpatialPyramidFeatures
from tasks.full_pipeline import FullPipeline
from tasks.networks import FineTune, LoadWeights, PretrainClassifier
from tasks.photographs import IndexImages
from tasks.proposal_export import ExportProposals, WriteProposals
from tasks.proposal_quality import MeasureProposals, ProposalQuality
from tasks.proposals import RegionProposals
from tasks.rcnn import DetectRCNN, TrainBoxRegressors, TrainSVMs
from tasks.report import HardNegatives, Report, TopRegions
from tasks.summary import Summarise

log.set_up()
command_line.set_up()
cluster.set_up()
check_environment()
trouble.set_up()
processes.import_between_forks()

__all__ = [
    "CompressFastRCNN", "ConvFeatures", "DetectFastRCNN", "DetectFasterRCNN", "DetectImages", "DetectPhotographs",
    "DetectRCNN", "DownloadVOC", "Evaluate", "ExportDetector", "ExportProposals", "ExtractFeatures", "FineTune",
    "FullPipeline", "GenerateDigits", "HardNegatives", "IndexDataset", "IndexImages", "LoadWeights", "MeasurePrecision",
    "MeasureProposals", "PackDetector", "PretrainClassifier", "ProposalQuality", "RPNProposals", "RegionProposals", "Report",
    "SharedConvFeatures", "SpatialPyramidFeatures", "Summarise", "TimeDetection", "TopRegions", "TrainBoxRegressors",
    "TrainFastRCNN", "TrainFasterRCNN", "TrainRPN", "TrainSVMs", "TrainSharedFastRCNN", "WriteProposals",
]
