"""Slow twins: what the tests compare with, written to be obvious."""

import torch
from torch import Tensor, nn

from pipeline.types import Inputs, batch_size, slice_inputs


def kernel_with_spectrum(eigenvalues: Tensor, seed: int = 0) -> Tensor:
    """A symmetric float64 matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    square = torch.randn(n, n, generator=generator, dtype=torch.float64)
    vectors = torch.linalg.qr(square).Q
    K = (vectors * eigenvalues.double()) @ vectors.T
    return (K + K.T) / 2


def dense_ridge(K: Tensor, Y: Tensor, ridge: float) -> Tensor:
    """(K + ridge·I)⁻¹Y by a dense float64 solve."""
    n = K.shape[0]
    return torch.linalg.solve(K.double() + ridge * torch.eye(n, dtype=torch.float64), Y)


def iterate_descent(K: Tensor, Y: Tensor, ridge: float, lambda_max: float, steps: int) -> Tensor:
    """Gradient descent in θ written in α, one step after the other."""
    alpha, step = torch.zeros_like(Y), 1 / (lambda_max + ridge)
    for _ in range(steps):
        alpha = alpha + step * (Y - K @ alpha - ridge * alpha)
    return alpha


def iterate_nesterov(K: Tensor, Y: Tensor, ridge: float, lambda_max: float, steps: int) -> Tensor:
    """Nesterov's method in θ written in α, without restart."""
    alpha, y, s, step = torch.zeros_like(Y), torch.zeros_like(Y), 1.0, 1 / (lambda_max + ridge)
    for _ in range(steps):
        alpha_next = y + step * (Y - K @ y - ridge * y)
        s_next = (1 + (1 + 4 * s**2) ** 0.5) / 2
        y = alpha_next + ((s - 1) / s_next) * (alpha_next - alpha)
        alpha, s = alpha_next, s_next
    return alpha


def integrate_flow(K: Tensor, Y: Tensor, ridge: float, time: float) -> Tensor:
    """Gradient flow dα/dt = Y − (K + ridge·I)α from zero, by the matrix exponential."""
    n, k = Y.shape
    # [α; 1]' = [[−A, Y], [0, 0]] [α; 1], one target at a time.
    A = K + ridge * torch.eye(n, dtype=K.dtype)
    columns = []
    for j in range(k):
        generator = torch.zeros(n + 1, n + 1, dtype=K.dtype)
        generator[:n, :n], generator[:n, n] = -A, Y[:, j]
        columns.append(torch.linalg.matrix_exp(time * generator)[:n, n])
    return torch.stack(columns, dim=1)


def autograd_jacobian(model: nn.Module, inputs: Inputs, output: int = 0) -> Tensor:
    """Gradients (n, P) of one logit, one backward pass per sample."""
    rows = []
    for i in range(batch_size(inputs)):
        alone = slice_inputs(inputs, slice(i, i + 1))
        result = model(alone) if isinstance(alone, Tensor) else model(**alone)
        value = getattr(result, "logits", result)[0, output]
        found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        flat = [
            (torch.zeros_like(parameter) if gradient is None else gradient).reshape(-1)
            for gradient, parameter in zip(found, model.parameters(), strict=True)
        ]
        rows.append(torch.cat(flat))
    return torch.stack(rows)


def explicit_jacobian(model: nn.Module, inputs: Inputs, outputs: int) -> Tensor:
    """J (n·k, P), sample by sample and output by output, one backward pass per row."""
    by_output = [autograd_jacobian(model, inputs, j) for j in range(outputs)]
    return torch.stack(by_output, dim=1).flatten(0, 1)


def dense_fisher(J: Tensor, H: Tensor) -> Tensor:
    """Σ_i JᵢᵀHᵢJᵢ (P, P) from J (n·k, P) and each sample's H (n, k, k)."""
    n, k, _ = H.shape
    return sum(j.T @ h @ j for j, h in zip(J.view(n, k, -1), H, strict=True))
