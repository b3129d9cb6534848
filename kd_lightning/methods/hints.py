"""Hints: the student's activation must predict the teacher's.

Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", https://arxiv.org/abs/1412.6550, equation 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.methods.base import FeatureLoss
from kd_lightning.methods.hinton import at_least_float32


class Hints(FeatureLoss):
    """Mean squared error between the teacher's activation and a learned linear map of the student's.

    The map is a linear layer for activations (batch, width), a 1 x 1 convolution for (batch, channels, height, width).
    Where the teacher's picture has another size, the student's is resized to it. It is trained together with the other
    terms, not in FitNets' two stages, and without their factor 1/2. The paper compares the middle layers of both nets.

    Args:
        student: Path of the student's module whose output is compared.
        teacher: Path of the teacher's module, the hint.
        weight: Factor of this term in the loss, >= 0.

    Example:
        >>> hints = Hints(student="3", teacher="3", weight=10.0)
    """

    def __init__(self, student: str, teacher: str, weight: float = 1.0) -> None:
        super().__init__(student, teacher, weight)
        self.regressor: nn.Module = nn.Identity()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Make the regressor.

        Raises:
            ValueError: If the activations are neither (1, width) nor (1, channels, height, width).
        """
        match student.ndim, teacher.ndim:
            case 2, 2:
                self.regressor = nn.Linear(student.shape[1], teacher.shape[1])
            case 4, 4:
                self.regressor = nn.Conv2d(student.shape[1], teacher.shape[1], kernel_size=1)
            case _:
                raise ValueError(
                    "Hints need activations (batch, width) or (batch, channels, height, width) of both nets, "
                    f"got {tuple(student.shape)} at {self.student!r} of the student and {tuple(teacher.shape)} at "
                    f"{self.teacher!r} of the teacher"
                )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the mean squared error, a scalar.

        Args:
            student: (batch, width) or (batch, channels, height, width) float.
            teacher: Likewise.
        """
        weights = list(self.regressor.parameters())
        if weights and not torch.is_autocast_enabled(student.device.type):
            student = student.to(weights[0].dtype)
        predicted = self.regressor(student)
        if predicted.shape[2:] != teacher.shape[2:]:
            predicted = F.adaptive_avg_pool2d(predicted, (teacher.shape[2], teacher.shape[3]))
        return F.mse_loss(at_least_float32(predicted), at_least_float32(teacher))
