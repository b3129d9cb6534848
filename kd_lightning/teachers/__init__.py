"""Who teaches: frozen nets, live or through their stored logits."""

from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.loading import PretrainedNet, load_net, load_teachers
from kd_lightning.teachers.logits_file import LogitsFile
from kd_lightning.teachers.named import Teacher
from kd_lightning.teachers.store_plan import StoreOptions

__all__ = [
    "FrozenEnsemble",
    "LogitsFile",
    "PretrainedNet",
    "StoreOptions",
    "Teacher",
    "load_net",
    "load_teachers",
]
