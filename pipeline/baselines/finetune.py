"""Fine-tuning: every parameter trained on the target task from the pretrained weights.

Learning rates and schedule of Kumar et al. (2022); the grid grows where its best lies at an end.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.baselines.augment import Augmentation, usual_augmentation
from pipeline.baselines.training import Recipe
from pipeline.config import Options, Seed

Rates = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class TrainingOptions(Options):
    """What fine-tuning, LP-FT and training from scratch have in common."""

    learning_rates: Rates = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    """First values of the cosine schedules that are tried."""
    extensions: int = Field(default=2, ge=0)
    """How often the grid may grow by half a power of ten where its best rate lies at an end."""
    epochs: PositiveInt = 20
    """Passes over the training rows."""
    batch_size: PositiveInt = 64
    """Images a step."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2 strength inside SGD."""
    augmentation: Augmentation | Literal["usual"] = "usual"
    """``usual``: padded crops and flips up to 64 pixels, random resized crops and flips beyond."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass; weights stay float32."""
    seed: Seed = 0
    """Of the sample order and the augmentation, and of untrained weights."""

    def recipe(self, size: tuple[int, int], *, freeze_batch_norm: bool = False) -> Recipe:
        """The run for images of this height and width, at the first learning rate."""
        chosen = usual_augmentation(size) if self.augmentation == "usual" else self.augmentation
        return Recipe(
            learning_rate=self.learning_rates[0],
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            augmentation=chosen,
            freeze_batch_norm=freeze_batch_norm,
            precision=self.precision,
        )


class FinetuneOptions(TrainingOptions):
    """Train every parameter from the pretrained weights and a new head."""

    kind: Literal["finetune"] = "finetune"
