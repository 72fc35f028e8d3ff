"""The Zarr feature store, the one place that knows Zarr."""

from pipeline.store.facts import FORMAT_VERSION, StoreFacts, rows_per_shard
from pipeline.store.features import FeatureStore
from pipeline.store.precision import NonFiniteFeatureError, power_of_two_scale

__all__ = [
    "FORMAT_VERSION",
    "FeatureStore",
    "NonFiniteFeatureError",
    "StoreFacts",
    "power_of_two_scale",
    "rows_per_shard",
]
