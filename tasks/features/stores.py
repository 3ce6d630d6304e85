"""The feature store that stages write and read: its file, its kinds of features, and how it is opened."""

from tasks.engine.artefacts import Artefact

FEATURES = "features.h5"
# The kinds of features that SVMs and box regressors are trained on: R-CNN's and SPP-net's.
CROPS, PYRAMID = "crops", "pyramid"
POOL5 = "pool5"  # the features before the fully connected layers: R-CNN's of crops, or the pyramid


def open_features(artefact: Artefact):
    """The feature store in an artefact of a stage of region features: that of one shard or of the whole stage."""
    from pipeline.feature_store import FeatureStore

    parts = [artefact] if FEATURES in artefact.manifest["files"] else artefact.shards()
    return FeatureStore([part.path(FEATURES) for part in parts])
