"""The feature store that stages write and read: how it is called, whose features it can hold, how it is opened."""

from tasks.engine.artefacts import Artefact

FEATURES = "features.h5"
# Whose features the SVMs and box regressors are trained on.
CROPS, PYRAMID = "crops", "pyramid"


def open_features(artefact: Artefact):
    """The feature store in the artefact of one shard of `ExtractFeatures`, or of the whole stage."""
    from pipeline.feature_store import FeatureStore

    parts = [artefact] if FEATURES in artefact.manifest["files"] else artefact.shards()
    return FeatureStore([part.path(FEATURES) for part in parts])
