"""Train the backbone itself, where a benchmark brings no pretrained one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.distributed.worker import computing_threads
from pipeline.models.head import with_head
from pipeline.registry import RunConfig, build_backbone
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.stage import run_stage
from pipeline.types import InputError, run_model

WEIGHTS = "weights.safetensors"


def pretrain(job: Job) -> Path | None:
    """The file of the weights this run trained, or None where the config brings its own."""
    options = job.config.pretrain
    if options is None:
        return None
    split = job.split("pretrain")
    provenance = stage_provenance(
        "pretrain",
        model=job.config.model.model_dump(mode="json"),
        options=options.model_dump(mode="json"),
        preprocess=job.config.benchmark.preprocess.model_dump(mode="json"),
        data=split.digest(),
        labels=split.label_digest(),
    )

    def make(folder: Path) -> Mapping[str, Any]:
        inputs = load_batch(
            split, slice(0, len(split)), Preprocess(job.config.benchmark.preprocess)
        )
        labels = torch.from_numpy(split.labels)
        module = untrained(job.config, outputs=len(job.benchmark.pretrain_classes))
        # One thread: networks this small gain nothing from more, and equal bytes everywhere.
        with computing_threads(1):
            accuracy = train(module, inputs, labels, **options.model_dump())
        save_file(module.state_dict(), folder / WEIGHTS)
        return {"images": len(split), "train_accuracy": round(accuracy, 4)}

    run_stage(job.folder, "pretrain", job.folder.model, provenance, make)
    return job.folder.model / WEIGHTS


def untrained(config: RunConfig, outputs: int) -> nn.Module:
    """The config's network with fresh weights and one output per pretraining class."""
    backbone = build_backbone(config.model.model_copy(update={"weights": None}))
    return with_head(backbone, "random", outputs=outputs, seed=config.model.seed).module


def train(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> float:
    """Train in place with Adam and a cosine schedule; the accuracy of the last epoch."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = torch.Generator().manual_seed(seed)
    correct = 0
    for _ in range(epochs):
        correct = 0
        for rows in torch.randperm(len(inputs), generator=order).split(batch_size):
            logits = run_model(module, inputs[rows])
            loss = nn.functional.cross_entropy(logits, labels[rows])
            if not torch.isfinite(loss):
                raise InputError(
                    f"training diverged: its loss is {loss.item()}. Lower the learning rate "
                    f"({learning_rate}).",
                    "pretrain.learning_rate",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            correct += int((logits.argmax(dim=1) == labels[rows]).sum())
        schedule.step()
    module.eval()
    return correct / len(inputs)
