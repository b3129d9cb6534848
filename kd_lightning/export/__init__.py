"""The student for use without this package: safetensors, torch.export's pt2, ONNX; read back and compared."""

from kd_lightning.export.command import run_export
from kd_lightning.export.comparison import Comparison, compare, evaluation_batches
from kd_lightning.export.formats import Format, load_exported, read_exported, write_exported
from kd_lightning.export.net import ExportedNet

__all__ = [
    "Comparison",
    "ExportedNet",
    "Format",
    "compare",
    "evaluation_batches",
    "load_exported",
    "read_exported",
    "run_export",
    "write_exported",
]
