"""How well one number ranks rows of two kinds: the area under the ROC curve."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def auroc(ranking: Float[ndarray, " n"], labels: ndarray) -> float | None:
    """Probability that a row of the higher label is ranked above one of the lower; ties half.

    ``labels`` (n,) are classes or real numbers; None unless exactly two values occur, for then
    there is no such probability.
    """
    from sklearn.metrics import roc_auc_score

    values = np.unique(labels)
    if len(values) != 2:
        return None
    return float(roc_auc_score(labels == values[1], ranking))
