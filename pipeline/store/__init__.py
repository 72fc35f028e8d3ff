"""The Zarr feature store, the one place that knows Zarr."""

from pipeline.store.facts import StoreFacts, rows_per_shard
from pipeline.store.features import FeatureStore
from pipeline.store.precision import NonFiniteFeatureError, power_of_two_scale

__all__ = [
    "FeatureStore",
    "NonFiniteFeatureError",
    "StoreFacts",
    "power_of_two_scale",
    "rows_per_shard",
]
