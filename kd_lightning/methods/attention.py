"""Attention transfer: student and teacher must look at the same places.

Source: Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", https://arxiv.org/abs/1612.03928, equation 2.
"""

from torch import Tensor
from torch.nn import functional as F

from kd_lightning.methods.base import FeatureLoss
from kd_lightning.methods.hinton import at_least_float32


class AttentionTransfer(FeatureLoss):
    """Mean squared difference of both nets' attention maps: channels' mean square at each place, scaled to norm 1.

    Where the maps differ in size the student's is resized to the teacher's. The paper's weight is about 1,000.

    Args:
        student: Path of the student's module whose output is compared, (batch, channels, height, width).
        teacher: Path of the teacher's module.
        weight: Factor of this term in the loss, >= 0.

    Example:
        >>> term = AttentionTransfer(student="layer3", teacher="layer3", weight=1000.0)
    """

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Check the shapes; there are no layers to make.

        Raises:
            ValueError: If an activation is not (1, channels, height, width).
        """
        for net, path, activation in (("student", self.student, student), ("teacher", self.teacher, teacher)):
            if activation.ndim != 4:
                raise ValueError(
                    f"AttentionTransfer needs activations (batch, channels, height, width), got "
                    f"{tuple(activation.shape)} at {path!r} of the {net}"
                )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the term, a scalar.

        Args:
            student: (batch, channels, height, width) float.
            teacher: Likewise; channels and size may differ.
        """
        of_student, of_teacher = (at_least_float32(each).square().mean(dim=1) for each in (student, teacher))
        if of_student.shape != of_teacher.shape:
            of_student = F.adaptive_avg_pool2d(of_student, (of_teacher.shape[1], of_teacher.shape[2]))
        student_map, teacher_map = (F.normalize(each.flatten(1), dim=1) for each in (of_student, of_teacher))
        return F.mse_loss(student_map, teacher_map)  # of (b, h * w)
