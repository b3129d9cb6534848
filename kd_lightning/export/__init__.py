"""The student for use without this package: safetensors, torch.export's pt2, ONNX; re-read and compared."""

from kd_lightning.export.formats import (
    ExportedNet,
    Format,
    compare,
    evaluation_batches,
    load_exported,
    read_exported,
    run_export,
    write_exported,
)

__all__ = [
    "ExportedNet",
    "Format",
    "compare",
    "evaluation_batches",
    "load_exported",
    "read_exported",
    "run_export",
    "write_exported",
]
