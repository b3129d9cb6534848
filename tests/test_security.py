"""Files from elsewhere run no code and can't take the machine's memory."""

import ast
import pickle
import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard.writer import SummaryWriter

import kd_lightning
from kd_lightning.cli.command_line import main
from kd_lightning.data.digit_pictures import read_images
from kd_lightning.data.mnist_files import read_digits
from kd_lightning.nets.digits import MLP
from kd_lightning.runs.checkpoints import read_checkpoint
from kd_lightning.teachers.loading import PretrainedNet

CONFIGS = Path(__file__).parent.parent / "configs" / "quickstart"
BOUND = 300e6  # bytes that a damaged file may cost; a whole MNIST takes 47e6


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(self.target),))  # type: ignore[return-value]


@pytest.mark.parametrize("where", ["teacher", "resume", "test", "export"])
def test_a_pickle_bomb_is_refused_without_running(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, run = tmp_path / "boom", tmp_path / "run"
    file = run / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    with file.open("wb") as opened:
        pickle.dump({"state_dict": {}, "bomb": Bomb(target)}, opened, protocol=2)
    torch_file = run / "checkpoints" / "best.ckpt"
    torch.save({"state_dict": {}, "bomb": Bomb(target)}, torch_file)
    student = ["--config", str(CONFIGS / "student.yaml"), "--trainer.max_steps", "1"]
    for path in (file, torch_file):
        arguments = {
            "teacher": ["fit", *student, "--model.teachers", str(path), "--model.soft_weight", "0.5"],
            "resume": ["fit", *student, "--ckpt_path", str(path)],
            "test": ["test", *student[:2], "--ckpt_path", str(path)],
            "export": ["export", str(path)],
        }[where]
        if where in {"teacher", "resume"}:
            arguments += ["--run_dir", str(tmp_path / "other")]
        assert main(arguments) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ")
        assert "other than tensors" in line or "damaged" in line
        assert not target.exists()
    with pytest.raises(ValueError, match="damaged or holds more than tensors"):
        PretrainedNet(MLP(hidden=[4]), str(torch_file))
    assert not target.exists()


def test_checkpoints_with_changed_bytes_are_damaged_or_whole(tmp_path: Path) -> None:
    chance = random.Random(2)  # noqa: S311  # test data, no secrets
    file = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"w": torch.ones(50)}, "name": "x", "list": [1, 2.0, None]}, file)
    whole = file.read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        file.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        with suppress(ValueError):
            read_checkpoint(file)


def test_the_package_has_no_eval_and_no_shell() -> None:
    for file in Path(kd_lightning.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in {"eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "yaml.load"}, (
                    file
                )
                assert not name.startswith("subprocess"), file
                if name == "torch.load":
                    assert "weights_only=True" in ast.unparse(node), file
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"subprocess", "shelve", "marshal"}, file


class _Peak:
    """Growth of this process's resident memory, in bytes; torch and Pillow are not seen by tracemalloc."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        self.before = self._peak()

    def grown(self) -> int:
        return self._peak() - self.before

    def _peak(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_the_peak_sees_what_torch_takes() -> None:
    peak = _Peak()
    torch.ones(100_000_000)
    assert peak.grown() > 350e6


def test_an_event_files_tags_stay_in_the_output(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    with SummaryWriter(run) as writer:
        writer.add_image("../../../../escaped", torch.zeros(3, 4, 4))
    (run / "config.yaml").write_text("{}")
    output = tmp_path / "a" / "b" / "out"
    assert main(["report", str(run), "--output", str(output)]) == 0
    assert not list(tmp_path.rglob("escaped.png"))
    assert [file.name for file in (output / "report-pictures").iterdir()] == ["run-..-..-..-..-escaped.png"]


def _png(width: int, height: int, content: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def test_images_of_random_bytes_and_huge_headers(tmp_path: Path) -> None:
    chance = random.Random(0)  # noqa: S311  # test data, no secrets
    good = _png(30, 30, zlib.compress(bytes(31) * 30))
    files = [
        b"",
        chance.randbytes(1000),
        b"\x89PNG\r\n\x1a\n" + chance.randbytes(1000),
        _png(2**31 - 1, 2**31 - 1, b""),
        _png(60_000, 60_000, zlib.compress(bytes(100))),
        _png(20_000, 8_000, zlib.compress(bytes(100))),
        _png(0, 0, b""),
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(50),
        *(good[:cut] for cut in range(8, len(good), 7)),
        *(good[:at] + bytes([chance.randrange(256)]) + good[at + 1 :] for at in range(8, len(good), 3)),
    ]
    peak = _Peak()
    refused = 0
    for number, content in enumerate(files):
        file = tmp_path / f"{number}.png"
        file.write_bytes(content)
        try:
            images, _ = read_images([file])
            assert images.shape == (1, 1, 28, 28)
        except ValueError as error:
            refused += file.name in str(error)
    assert peak.grown() < BOUND
    assert refused > 20


def test_idx_files_of_random_bytes_and_huge_headers(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    chance = random.Random(1)  # noqa: S311  # test data, no secrets
    labels = bytes([0, 0, 8, 1]) + (60_000).to_bytes(4, "big") + bytes(60_000)
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / name).write_bytes(labels)
    sizes = (2**32 - 1, 2**31, 60_000, 0)
    contents = [
        b"",
        chance.randbytes(16),
        chance.randbytes(5000),
        *(bytes([0, 0, 8, 3]) + b"".join(s.to_bytes(4, "big") for s in (n, 28, 28)) + bytes(784) for n in sizes),
        bytes([0, 0, 13, 3]) + b"".join(s.to_bytes(4, "big") for s in (1, 28, 28)) + bytes(784),
        bytes([0, 0, 8, 255]) + bytes(2000),
        *(bytes([0, 0, kind, dims]) + chance.randbytes(400) for kind in (7, 8, 12, 14, 99) for dims in (0, 1, 3, 9)),
    ]
    peak = _Peak()
    for content in contents:
        for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
            (raw / name).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match="MNIST"):
            read_digits("MNIST", tmp_path)
    assert peak.grown() < BOUND
