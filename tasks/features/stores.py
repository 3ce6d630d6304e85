"""The feature store that stages write and read: its file, its kinds of features, and how it is opened."""

from tasks.engine import parameters
from tasks.engine.artefacts import Artefact
from tasks.networks.conv_maps import MAPS
from tasks.networks.sizes import feature_size, has_zeros

FEATURES = "features.h5"
# The kinds of features that SVMs and box regressors are trained on: R-CNN's and SPP-net's.
CROPS, PYRAMID = "crops", "pyramid"
MAPS_INPUT = "maps"  # the name of the pyramid's maps among its inputs
POOL5 = "pool5"  # the features before the fully connected layers: R-CNN's of crops, or the pyramid
NO_COMPRESSION, SPARSE = "none", "sparse"
COMPRESSIONS = NO_COMPRESSION, "gzip", SPARSE  # those of `pipeline.feature_store`, which is slow to import

SPARSE_BYTES = 1  # a value, where there are zeros; 0.4 to 1.2 were measured
COLUMN_BYTES = 45  # a region, without the overlaps


def compression_setting():
    return parameters.choice(
        SPARSE, COMPRESSIONS, "features", "compression",
        "how stores of features are made smaller, the same bit for bit; sparse: without zeros; gzip: for other HDF5 tools",
    )


def compression_key(task) -> dict:
    """What the setting adds to the key. Nothing where stores are as they were before there was one: older keys stay valid."""
    return {} if task.feature_compression == NO_COMPRESSION else {"compression": task.feature_compression}


def region_bytes(task, layer: str, num_classes: int) -> float:
    """About how many bytes a region takes in the store that `task` writes."""
    is_sparse = task.feature_compression != NO_COMPRESSION and has_zeros(task.backbone)
    return feature_size(task.backbone, layer) * (SPARSE_BYTES if is_sparse else 2) + column_bytes(num_classes)


def column_bytes(num_classes: int) -> int:
    """The bytes of a region's other columns, the overlaps with each class among them."""
    return COLUMN_BYTES + 4 * num_classes


def open_features(artefact: Artefact):
    """The feature store in an artefact of a stage of region features: that of one shard or of the whole stage.

    SPP-net's pyramid is pooled from the maps that the artefact was made from.
    """
    from pipeline.feature_store import FeatureStore
    from pipeline.spp_net.pooled_store import PooledStore

    parts = [artefact] if FEATURES in artefact.manifest["files"] else artefact.shards()
    files, maps = [part.path(FEATURES) for part in parts], [part.inputs().get(MAPS_INPUT) for part in parts]
    if None in maps:
        return FeatureStore(files)
    return PooledStore(files, [of_part.path(MAPS) for of_part in maps])
