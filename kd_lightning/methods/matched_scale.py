"""A soft loss at the scale of plain distillation, so that methods are compared and not the sizes of their gradients."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import SoftLoss, SoftTargets
from kd_lightning.methods.hinton import KL, at_least_float32


class MatchedScale(SoftLoss):
    """Another soft loss, times the factor that gives its gradient at the logits the size of plain distillation's.

    The factor is the ratio of the mean L2 norms of both gradients over the first training batches; then it stays. A
    batch whose norms are not finite is left out. It is logged as `soft_loss_scale`, and a checkpoint holds it. No paper
    has it: the comparison in docs/methods.md needs it.

    Args:
        loss: The other soft loss.
        batches: How many training batches are measured, >= 1.

    Raises:
        ValueError: If `batches` is below 1.

    Example:
        >>> loss = MatchedScale(DKD())(student_logits, targets, labels)
    """

    norms: Tensor
    measured: Tensor

    def __init__(self, loss: SoftLoss, batches: int = 20) -> None:
        super().__init__()
        if batches < 1:
            raise ValueError(f"batches of MatchedScale must be >= 1, got {batches}")
        self.loss = loss
        self.batches = batches
        self._fixed = False  # a Python bool: reading it does not wait for the device
        self._plain = KL()
        self.register_buffer("norms", torch.zeros(2, dtype=torch.float64))  # sums: plain distillation's, the other's
        self.register_buffer("measured", torch.zeros((), dtype=torch.int64))  # batches so far

    @property
    def scale(self) -> Tensor:
        """The factor so far, a float64 scalar; 1 before the first batch, and where one gradient is 0."""
        plain, other = self.norms.unbind()
        return torch.where((plain > 0) & (other > 0), plain / other, torch.ones_like(plain))

    @property
    def name(self) -> str:
        """The other loss's."""
        return self.loss.name

    def logged(self) -> dict[str, Tensor]:
        """The factor."""
        return {"soft_loss_scale": self.scale.float(), **self.loss.logged()}

    def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
        """Compute the other loss times the factor, a scalar; errors are its own.

        Args:
            student_logits: (batch, classes) float, before softmax.
            targets: The soft targets of the same examples.
            labels: (batch,) int64, class indices.
        """
        own_targets = self._prepared(targets)
        self._fixed = self._fixed or (self.training and int(self.measured) >= self.batches)
        if self.training and not self._fixed:
            plain = _gradient_norm(self._plain, student_logits, targets, labels)
            other = _gradient_norm(self.loss, student_logits, own_targets, labels)
            norms = torch.stack([plain, other]).to(self.norms)
            finite = norms.isfinite().all()
            self.norms += torch.where(finite, norms, 0.0)
            self.measured += finite
        loss: Tensor = self.loss(student_logits, own_targets, labels)
        return self.scale.to(loss.dtype) * loss

    def _prepared(self, targets: SoftTargets) -> SoftTargets:
        """The targets that the other loss asks for; of several teachers their average is prepared."""
        if type(self.loss).prepare is SoftLoss.prepare:
            return targets
        logits = self.loss.prepare(targets.logits.unsqueeze(0)).squeeze(0)  # (b, c) -> (1, b, c) -> (b, c)
        return SoftTargets(F.log_softmax(logits / targets.temperature, dim=-1), targets.temperature)


def _gradient_norm(loss: SoftLoss, logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
    """L2 norm of a loss's gradient at the logits, a scalar."""
    with torch.enable_grad():
        free = at_least_float32(logits.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(free, targets, labels), free)
    norm: Tensor = gradient.norm()
    return norm
