"""Live against stored teachers on a user's own pictures, from folders, as a whole fit takes them."""

import itertools
import json
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from scripts.benchmarks.loops import quiet_fit

_STUDENT = {
    "class_path": "kd_lightning.SmallConvNet",
    "init_args": {"channels": [8, 16], "hidden": 64, "side": 32, "in_channels": 3},
}
_QUIET = ["--seed_everything", "0", "--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]


class PictureFits(NamedTuple):
    """Fits of one student on some pictures of a folder, decoded once, under crop and mirror.

    Attributes:
        root: Empty folder.
        folder: Holds a folder of pictures of 32 x 32 per class, ten of them.
        teacher: The teacher's net, as `--model.net` takes it: a class path, or JSON with class_path and init_args.
        images: How many pictures are used, evenly of the classes.
        epochs: Of the student.
        views: Views of each picture.
    """

    root: Path
    folder: Path
    teacher: str
    images: int
    epochs: int
    views: int

    def seconds(self) -> dict[str, float]:
        """Wall time of whole fits of the same length, the store's filling included; the teacher is hardly trained."""
        used = copy_some(self.folder, self.root / "pictures" / "train", self.images)
        self._fit("teacher", "kd_lightning.TeacherModule", "--model.net", self.teacher, "--trainer.max_steps", "20")
        teach = ["--model.teachers", str(self.root / "teacher"), "--model.teachers_must_beat_chance", "false"]
        ways = {
            "plain student, s": ["--model.soft_weight", "0"],
            "live teacher, s": [*teach, "--model.soft_targets", "live"],
            "stored teacher, its logits computed first, s": [*teach, "--model.soft_targets", "stored"],
            "stored teacher, logits of an earlier run, s": [*teach, "--model.soft_targets", "stored"],
        }
        figures = {"images": float(used), "epochs": float(self.epochs), "views of each image": float(self.views)}
        for name, flags in ways.items():
            started = time.perf_counter()
            self._fit("student", "kd_lightning.DistillModule", *self._student(), *flags)
            figures[name] = time.perf_counter() - started
            print(f"{name}: {figures[name]:.1f}", flush=True)
        live, stored, again = (figures[name] for name in list(ways)[1:])
        return figures | {"live / stored": live / stored, "live / stored by an earlier run": live / again}

    def _student(self) -> list[str]:
        store = ["--model.temperature", "4", "--model.store.folder", str(self.root / "store")]
        return ["--model.student", json.dumps(_STUDENT), "--trainer.max_epochs", str(self.epochs), *store]

    def _fit(self, run: str, module: str, *flags: str) -> None:
        data = ["--data", "kd_lightning.ImageFolderDataModule", "--data.data_dir", str(self.root / "pictures")]
        data += ["--data.test_dir", "null", "--data.cache_dir", str(self.root / "cache"), "--data.batch_size", "128"]
        data += ["--data.augment", "kd_lightning.CropMirror", "--data.augment.views", str(self.views)]
        quiet_fit(["--model", module, *data, *_QUIET, *flags], self.root / run)


def copy_some(folder: Path, to: Path, count: int) -> int:
    """Copy the first pictures of each class folder, and give how many there are.

    Args:
        folder: Holds a folder per class.
        to: Gets the same folders.
        count: About how many in all.
    """
    classes = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    if not classes:
        sys.exit(f"error: pictures must name a folder with a folder of pictures per class, got {folder}")
    copied = 0
    for each in classes:
        (to / each.name).mkdir(parents=True)
        for file in itertools.islice(sorted(each.iterdir()), count // len(classes)):
            shutil.copy(file, to / each.name)
            copied += 1
    return copied
