"""The stages, as Luigi tasks: `luigi --module tasks FullPipeline`.

The modules here import torch, numba and other slow packages only inside the functions that use them. So a run with nothing to do
is quick.
"""

from tasks.engine import interrupts  # noqa: F401 - must be imported first

# isort: split
from tasks.console import cluster, command_line, log, unfinished
from tasks.console.defaults import use_our_defaults
from tasks.console.experiment_file import check_environment
from tasks.console.forks import import_between_forks
from tasks.data.index import IndexDataset
from tasks.data.index_masks import IndexMasks
from tasks.data.sources import DownloadMasks, DownloadVOC, GenerateDigits, GenerateSingleDigits
from tasks.engine import trouble
from tasks.engine.printing import only_shows
from tasks.evaluation.evaluate import Evaluate, TimeDetection
from tasks.evaluation.summary import Summarise
from tasks.evaluation.thresholds import FindThresholds
from tasks.export import ExportDetector
from tasks.fast_rcnn import CompressFastRCNN, DetectFastRCNN, TrainFastRCNN
from tasks.faster_rcnn.detect import DetectFasterRCNN
from tasks.faster_rcnn.four_steps import RPNProposals, SharedConvFeatures, TrainRPN, TrainSharedFastRCNN
from tasks.faster_rcnn.joint import TrainFasterRCNN
from tasks.features.crops import ExtractFeatures
from tasks.features.pyramid import SpatialPyramidFeatures
from tasks.full_pipeline import FullPipeline
from tasks.later_detectors.detect import DetectWithNetwork
from tasks.later_detectors.training import TrainDetector
from tasks.localisation.evaluate import CompareLocalisers, EvaluateLocalisation, TimeLocalisation
from tasks.localisation.localise import Localise
from tasks.localisation.training import TrainLocaliser
from tasks.networks.conv_maps import ConvFeatures
from tasks.networks.finetune import FineTune
from tasks.networks.finetune_pyramid import FineTuneSPP
from tasks.networks.weights import LoadWeights, PretrainClassifier
from tasks.photographs.detect import DetectImages
from tasks.photographs.index import IndexImages
from tasks.pose.estimate import EstimatePoses
from tasks.pose.evaluate import EvaluatePose, TimePose
from tasks.pose.export import ExportPoseModel
from tasks.pose.photographs import PhotographPoses
from tasks.pose.training import TrainPose
from tasks.proposals.export import ExportProposals
from tasks.proposals.quality import ProposalQuality
from tasks.proposals.regions import RegionProposals
from tasks.r_fcn import DetectRFCN, TrainRFCN
from tasks.rcnn import DetectRCNN, SoftmaxClassifier, TrainBoxRegressors, TrainSVMs
from tasks.report.evidence import HardNegatives, TopRegions
from tasks.segmentation.compare import CompareSegmenters, CompareUpsampling
from tasks.segmentation.costs import SegmentationCosts
from tasks.segmentation.evaluate import EvaluateSegmentation, TimeSegmentation
from tasks.segmentation.export import ExportSegmenter
from tasks.segmentation.photographs import SegmentPhotographs
from tasks.segmentation.segment import SegmentImages
from tasks.segmentation.training import TrainSegmenter
from tasks.sliding_window.costs import WindowCosts
from tasks.sliding_window.detect import DetectSlidingWindow
from tasks.sliding_window.training import TrainWindows
from tasks.sweep.sweep import Sweep

log.set_up()
command_line.set_up()
cluster.set_up()
unfinished.set_up()
check_environment()
use_our_defaults()
trouble.set_up()
import_between_forks(is_idle=only_shows)

__all__ = [
    "CompareLocalisers", "CompareSegmenters", "CompareUpsampling", "CompressFastRCNN", "ConvFeatures", "DetectFastRCNN",
    "DetectFasterRCNN", "DetectImages", "DetectRCNN", "DetectRFCN", "DetectSlidingWindow", "DetectWithNetwork",
    "DownloadMasks", "DownloadVOC", "EstimatePoses", "Evaluate", "EvaluateLocalisation", "EvaluatePose",
    "EvaluateSegmentation", "ExportDetector", "ExportPoseModel", "ExportProposals", "ExportSegmenter", "ExtractFeatures",
    "FindThresholds", "FineTune", "FineTuneSPP", "FullPipeline", "GenerateDigits", "GenerateSingleDigits",
    "HardNegatives", "IndexDataset", "IndexImages", "IndexMasks", "LoadWeights", "Localise", "PhotographPoses",
    "PretrainClassifier", "ProposalQuality", "RPNProposals", "RegionProposals", "SegmentImages", "SegmentPhotographs",
    "SegmentationCosts", "SharedConvFeatures", "SoftmaxClassifier", "SpatialPyramidFeatures", "Summarise", "Sweep",
    "TimeDetection", "TimeLocalisation", "TimePose", "TimeSegmentation", "TopRegions", "TrainBoxRegressors",
    "TrainDetector", "TrainFastRCNN", "TrainFasterRCNN", "TrainLocaliser", "TrainPose", "TrainRFCN", "TrainRPN",
    "TrainSVMs", "TrainSegmenter", "TrainSharedFastRCNN", "TrainWindows", "WindowCosts",
]
