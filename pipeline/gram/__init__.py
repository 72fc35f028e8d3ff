"""Kernels from features: streamed, one pass, triangle only.

| function | gives |
|---|---|
| ``gram`` | K of one set of rows, or of two |
| ``gram_blocks`` | K and all cross-kernels from one pass |
| ``gram_prefixes`` | the same for the first q columns, for several q |
| ``gram_rows`` | some rows of K |
| ``gram_to_disk`` | the blocks of ``gram_blocks`` as files, resumable, in bounded memory |
| ``shard_to_disk`` | one worker's rows of the kernels as files, resumable |
| ``FileRows``, ``FeaturePanels`` | K in a file, or never formed, as solvers take it |
| ``exact_kernel`` | K of all parameters, computed panel after panel of parameters |
| ``gram_bytes`` | what a pass needs in memory |
| ``gram_primal`` | ΦᵀΦ and ΦᵀY, for more rows than columns |
"""

from pipeline.gram.blocks import gram_blocks, gram_prefixes
from pipeline.gram.disk import gram_to_disk
from pipeline.gram.exact_kernel import exact_kernel
from pipeline.gram.feature_panels import FeaturePanels, resident
from pipeline.gram.file_rows import FileRows, save_by_rows
from pipeline.gram.finish import DIAGONAL
from pipeline.gram.memory import gram_bytes, prefix_bytes, shard_bytes
from pipeline.gram.panels import PANEL_COLUMNS
from pipeline.gram.primal import gram_primal
from pipeline.gram.rows import gram, gram_rows
from pipeline.gram.shards import shard_rows, shard_to_disk
from pipeline.gram.sources import PanelSource

__all__ = [
    "DIAGONAL",
    "PANEL_COLUMNS",
    "FeaturePanels",
    "FileRows",
    "PanelSource",
    "exact_kernel",
    "gram",
    "gram_blocks",
    "gram_bytes",
    "gram_prefixes",
    "gram_primal",
    "gram_rows",
    "gram_to_disk",
    "prefix_bytes",
    "resident",
    "save_by_rows",
    "shard_bytes",
    "shard_rows",
    "shard_to_disk",
]
