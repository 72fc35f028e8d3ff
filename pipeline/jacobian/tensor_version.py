"""Whether a weight is the one that something was computed from."""

from torch import Tensor

Version = tuple[int, int]


def tensor_version(tensor: Tensor) -> Version:
    """Changes when the tensor is written to, or its data are replaced.

    Assigning ``.data``, as ``vector_to_parameters`` does, moves the data and leaves torch's counter
    as it was; ``tensor.data.copy_(…)`` changes neither and is not seen.
    """
    return tensor._version, tensor.data_ptr()
