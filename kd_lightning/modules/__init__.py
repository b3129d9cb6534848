"""The LightningModules: read these first."""

from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.distiller import Distiller
from kd_lightning.modules.optimization import WarmupCosine
from kd_lightning.modules.rising_momentum import RisingMomentum
from kd_lightning.modules.schedules import Linear
from kd_lightning.modules.teacher import TeacherModule

__all__ = [
    "ClassifierModule",
    "DistillModule",
    "Distiller",
    "Linear",
    "RisingMomentum",
    "TeacherModule",
    "WarmupCosine",
]
