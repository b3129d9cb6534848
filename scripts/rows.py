"""What scripts.reproduce runs: the rows of its tables, each a configuration and what differs from it.

Settings were chosen from the tuning rows, by errors on 5,000 training images held out; docs/results/mnist-tuning.md.
"""

from typing import Any, NamedTuple


class Row(NamedTuple):
    """A line of a table: one configuration, several seeds.

    Attributes:
        name: Folder of the runs, with the seed behind it.
        what: What it is, for people.
        config: Configuration below configs/mnist.
        flags: What differs from it.
        seeds: How many.
        paper: The paper's errors, None where it has none.
        needs: Rows that must be done first, its teachers.
        teachers: How many seeds of each of those teach.
    """

    name: str
    what: str
    config: str
    flags: tuple[str, ...]
    seeds: int
    paper: int | None = None
    needs: tuple[str, ...] = ()
    teachers: int = 1


def options(**values: object) -> tuple[str, ...]:
    """Flags of the command line; two underscores stand for a point."""
    return tuple(text for name, value in values.items() for text in (f"--{name.replace('__', '.')}", str(value)))


def students(kind: str, what: str, config: str, flags: tuple[str, ...], *, seeds: int, **more: Any) -> list[Row]:
    """The row for both widths, 800 and 300 units; `more` goes to Row, `papers` holds the paper's two figures."""
    papers = more.pop("papers", (None, None))
    return [
        Row(f"{kind}-800", f"{what}, 2x800", config, flags, seeds, papers[0], **more),
        Row(f"{kind}-300", f"{what}, 2x300", config, (*SMALL, *flags), seeds, papers[1], **more),
    ]


JITTER = options(data__augment="kd_lightning.Jitter")
# Milder than Elastic's defaults, which 2x1200 units do not fit within a hundred epochs.
ELASTIC = options(
    data__augment="kd_lightning.Elastic",
    data__augment__strength=1.0,
    data__augment__degrees=8,
    data__augment__shear=0.05,
    data__augment__pixels=1,
)
# 64 of the transforms, so that the teachers' logits on all of them can be stored.
ELASTIC_64 = (*ELASTIC, *options(data__augment__views=64))
# Large batches in bfloat16 with a larger step: three times the speed on processors that have it.
FAST = options(
    data__batch_size=512,
    trainer__precision="bf16-mixed",
    model__optimizer="torch.optim.Adam",
    model__optimizer__lr=2e-3,
)
# Not fast: without other images to see, batches of 128 in float32 make fewer errors.
LONG = options(trainer__max_epochs=40)
NO_DROPOUT = options(model__net__dropout_input=0.0, model__net__dropout_hidden=0.0, model__max_norm="null")
LESS_DROPOUT = options(model__net__dropout_input=0.1, model__net__dropout_hidden=0.3)
LIGHT_DROPOUT = options(model__net__dropout_input=0.1, model__net__dropout_hidden=0.3, model__max_norm="null")
CONV = options(
    model__net="kd_lightning.SmallConvNet",
    model__net__channels="[16,32,64]",
    model__max_norm="null",
    data__batch_size=256,
    trainer__max_epochs=20,
)
SMALL = options(model__student__hidden="[300,300]")
TAUGHT = options(model__temperature=20, model__teacher_precision="bfloat16")
WARM = (*TAUGHT, *options(model__temperature=4))

ELASTIC_TEACHER = (*ELASTIC, *FAST, *NO_DROPOUT)
BEST_TEACHER = (*ELASTIC_TEACHER, *options(trainer__max_epochs=100))
SAME_VIEW = (*FAST, *ELASTIC_64, *options(trainer__max_epochs=80))
LONG_TAUGHT = (*LONG, *TAUGHT, *options(model__soft_weight=0.9))
VIEW_TAUGHT = (*SAME_VIEW, *WARM, *options(model__soft_weight=0.9))
MANY_TAUGHT = (*VIEW_TAUGHT, *options(data__augment__views=25))

BEST = Row("best-teacher", "teacher 2x1200: elastic images, no dropout, 100 epochs", "teacher", BEST_TEACHER, 1, 47)
TEACHERS: list[Row] = [
    Row(
        "teacher-jitter",
        "teacher 2x1200: dropout of 0.1 and 0.3, weight limit, jitter",
        "teacher",
        (*FAST, *LESS_DROPOUT),
        3,
        67,
    ),
    BEST._replace(seeds=2),
]

# One teacher, plain students, and those that it teaches.
TABLE: list[Row] = [
    BEST,
    *students("plain", "plain", "student", (), seeds=5, papers=(146, None)),
    *students("plain-long", "plain, schedule of the next rows", "student", LONG, seeds=3),
    *students(
        "distilled",
        "distilled at T = 20 without jitter, from one teacher",
        "distill",
        LONG_TAUGHT,
        seeds=5,
        papers=(74, 74),
        needs=("best-teacher",),
    ),
    *students("plain-view", "plain, elastic images, schedule of the next rows", "student", SAME_VIEW, seeds=3),
    *students(
        "same-view",
        "distilled at T = 4, student and teacher on the same elastic images",
        "distill",
        VIEW_TAUGHT,
        seeds=3,
        needs=("best-teacher",),
    ),
]

# One student from ten teachers.
ENSEMBLE: list[Row] = [
    Row(
        "teacher",
        "teacher 2x1200: elastic images, no dropout, 25 epochs",
        "teacher",
        (*ELASTIC_TEACHER, *options(trainer__max_epochs=25)),
        10,
    ),
    *students(
        "ensemble",
        "distilled at T = 4 on elastic images, from ten teachers",
        "distill",
        MANY_TAUGHT,
        seeds=3,
        needs=("teacher",),
        teachers=10,
    ),
]

# From the strongest teachers, small convolutional nets. On validation images those trained on either kind of images are
# level, so both teach: the first two of each.
FROM_CONV: dict[str, Any] = {"needs": ("conv", "conv-elastic"), "teachers": 2}
STRONG: list[Row] = [
    Row("conv", "teacher: convolutional net, jitter", "teacher", (*FAST, *CONV), 2),
    Row("conv-elastic", "teacher: convolutional net, elastic images", "teacher", (*ELASTIC, *FAST, *CONV), 4),
    *students(
        "strong",
        "distilled at T = 4 on elastic images, from four convolutional nets",
        "distill",
        MANY_TAUGHT,
        seeds=3,
        **FROM_CONV,
    ),
    Row(
        "strong-1200",
        "distilled at T = 4 on elastic images, from four convolutional nets, 2x1200",
        "distill",
        (*options(model__student__hidden="[1200,1200]"), *MANY_TAUGHT),
        2,
        **FROM_CONV,
    ),
    *students(
        "chain",
        "distilled at T = 20 without jitter, from one such 2x1200 net",
        "distill",
        LONG_TAUGHT,
        seeds=5,
        papers=(74, 74),
        needs=("strong-1200",),
    ),
]

# From nothing to the paper's figure as fast as possible.
MINUTES: list[Row] = [
    Row(
        "quick-teacher",
        "teacher 2x1200, 25 epochs",
        "teacher",
        (*ELASTIC_TEACHER, *options(trainer__max_epochs=25)),
        1,
    ),
    Row(
        "quick-300",
        "distilled at T = 4 on 25 of the elastic images, 2x300, 60 epochs",
        "distill",
        (
            *SMALL,
            *FAST,
            *ELASTIC,
            *WARM,
            *options(data__augment__views=25, model__soft_weight=0.9, trainer__max_epochs=60),
        ),
        1,
        74,
        needs=("quick-teacher",),
    ),
]

# Does the paper's claim hold: 300 units and more alike above T = 8, 30 units best at 2.5 to 4?
SWEEP: list[Row] = [
    Row(
        f"sweep-{width}-{temperature:g}",
        f"2x{width} at T = {temperature:g}",
        "distill",
        (
            *FAST,
            *options(model__teacher_precision="bfloat16", model__temperature=temperature, model__soft_weight=1.0),
            *options(model__student__hidden=f"[{width},{width}]", trainer__max_epochs=20),
        ),
        3,
        needs=("best-teacher",),
    )
    for width in (30, 300, 800)
    for temperature in (1, 2, 2.5, 4, 8, 12, 20, 40)
]

# Do large batches in bfloat16 cost accuracy? Validation errors of the same student, trained both ways.
FAST_MODE: list[Row] = [
    Row(name, what, "distill", (*TAUGHT, *flags, *options(model__soft_weight=0.9)), 5, needs=("teacher-mild",))
    for name, what, flags in (
        ("mode-plain", "distilled 2x800, batch 128, float32, Adam 1e-3", ()),
        ("mode-fast", "distilled 2x800, batch 512, bf16-mixed, Adam 2e-3", FAST),
        (
            "mode-fast-4",
            "distilled 2x800, batch 512, bf16-mixed, Adam 4e-3",
            (*FAST, *options(model__optimizer__lr=4e-3)),
        ),
        (
            "mode-fast-betas",
            "distilled 2x800, batch 512, bf16-mixed, Adam 4e-3, betas 0.8 and 0.99",
            (*FAST, *options(model__optimizer__lr=4e-3, model__optimizer__betas="[0.8,0.99]")),
        ),
        (
            "mode-fast-long",
            "distilled 2x800, batch 512, bf16-mixed, Adam 2e-3, 40 epochs",
            (*FAST, *LONG),
        ),
        (
            "mode-large",
            "distilled 2x800, batch 512, float32, Adam 4e-3",
            (*FAST, *options(model__optimizer__lr=4e-3, trainer__precision="32-true")),
        ),
    )
]


def _tried(name: str, what: str, flags: tuple[str, ...], t: float = 20) -> Row:
    return Row(
        name,
        f"2x300, {what}",
        "distill",
        (*SMALL, *FAST, *TAUGHT, *flags, *options(model__temperature=t)),
        1,
        needs=("teacher-nodrop",),
    )


def _schedule(weight: float, rate: float, epochs: int) -> tuple[str, ...]:
    return options(model__soft_weight=weight, model__optimizer__lr=rate, trainer__max_epochs=epochs)


_SMALL_BATCH = options(data__batch_size=128, trainer__precision="32-true", model__optimizer__lr=1e-3)
_WILD = options(data__augment="kd_lightning.Elastic")
_WILD_64 = (*_WILD, *options(data__augment__views=64))
_AFFINE_64 = options(data__augment="kd_lightning.Affine", data__augment__views=64)
_DECAYED = options(model__optimizer="torch.optim.AdamW", model__optimizer__lr=4e-3, model__optimizer__weight_decay=0.1)


def _conv(name: str, what: str, images: tuple[str, ...]) -> Row:
    return Row(name, f"convolutional teacher, {what}", "teacher", (*images, *FAST, *CONV), 1)


def _from_conv(name: str, what: str, *flags: str, trained: str = "elastic") -> Row:
    return Row(
        name,
        f"2x300, T = 4, 25 views of milder Elastic, from a convolutional net trained on {trained} images, {what}",
        "distill",
        (*SMALL, *MANY_TAUGHT, *flags),
        3,
        needs=(f"conv-{trained}",),
    )


def _alone(name: str, what: str, *flags: str) -> Row:
    large = (*FAST, *options(model__optimizer__lr=4e-3, trainer__max_epochs=100), *TAUGHT)
    weighted = (*SMALL, *large, *options(model__soft_weight=0.9), *flags)
    return Row(name, f"2x300, T = 20, no jitter, {what}", "distill", weighted, 3, needs=("teacher-mild",))


# By errors on the validation images; one seed where the difference is large.
TUNING: list[Row] = [
    Row("teacher-paper", "teacher, jitter, dropout 0.2 and 0.5, weight limit", "teacher", FAST, 1),
    Row("teacher-less", "teacher, jitter, dropout 0.1 and 0.3, weight limit", "teacher", (*FAST, *LESS_DROPOUT), 1),
    Row("teacher", "teacher, elastic images, light dropout", "teacher", (*_WILD, *FAST, *LIGHT_DROPOUT), 1),
    Row("teacher-nodrop", "teacher, elastic images, no dropout", "teacher", (*_WILD, *FAST, *NO_DROPOUT), 1),
    Row("teacher-mild", "teacher, milder elastic images", "teacher", ELASTIC_TEACHER, 1),
    Row(
        "teacher-affine",
        "teacher, milder images, not elastic",
        "teacher",
        (*ELASTIC, *options(data__augment__strength=0), *FAST, *NO_DROPOUT),
        1,
    ),
    _conv("conv-jitter", "jitter", JITTER),
    _conv("conv-elastic", "milder elastic images", ELASTIC),
    *(
        Row(
            f"patient-{epochs}",
            f"2x300, same 64 views of milder Elastic, T = 4, {epochs} epochs",
            "distill",
            (*SMALL, *VIEW_TAUGHT, *options(trainer__max_epochs=epochs)),
            1,
            needs=("teacher-mild",),
        )
        for epochs in (80, 200)
    ),
    _from_conv("from-conv-jitter", "Adam 2e-3", trained="jitter"),
    _from_conv("from-conv", "Adam 2e-3"),
    _from_conv("from-conv-large-step", "Adam 4e-3", *options(model__optimizer__lr=4e-3)),
    _from_conv("from-conv-small-batch", "batch 128, float32, Adam 1e-3", *_SMALL_BATCH)._replace(seeds=1),
    _alone("alone", "batch 512, bf16-mixed, Adam 4e-3, 100 epochs"),
    _alone("alone-small-batch", "batch 128, float32, Adam 1e-3, 40 epochs", *_SMALL_BATCH, *LONG),
    _tried("view-jitter", "same 25 views of Jitter", (*JITTER, *_schedule(0.9, 2e-3, 80))),
    _tried("view-affine", "same 64 views of Affine", (*_AFFINE_64, *_schedule(0.9, 2e-3, 80))),
    _tried("view-elastic", "same 64 views of Elastic", (*_WILD_64, *_schedule(0.9, 2e-3, 80))),
    _tried("view-elastic-soft", "same 64 views of Elastic, soft loss alone", (*_WILD_64, *_schedule(1.0, 2e-3, 80))),
    _tried("view-elastic-4", "same 64 views of Elastic, T = 4", (*_WILD_64, *_schedule(0.9, 2e-3, 80)), t=4),
    _tried("same-90", "no jitter, soft_weight 0.9", _schedule(0.9, 4e-3, 100)),
    _tried("same-90-decay", "no jitter, soft_weight 0.9, weight decay 0.1", (*_schedule(0.9, 4e-3, 100), *_DECAYED)),
    _tried("same-90-4", "no jitter, soft_weight 0.9, T = 4", _schedule(0.9, 4e-3, 100), t=4),
    _tried(
        "same-90-drop",
        "no jitter, soft_weight 0.9, dropout 0.1 of the pixels",
        (*_schedule(0.9, 4e-3, 100), *options(model__student__dropout_input=0.1)),
    ),
]

GROUPS = {
    "table": TABLE,
    "teachers": TEACHERS,
    "ensemble": ENSEMBLE,
    "strong": STRONG,
    "minutes": MINUTES,
    "sweep": SWEEP,
    "fast-mode": FAST_MODE,
    "tuning": TUNING,
}
# Where two groups have a row of one name, the final one counts.
ALL_ROWS = {row.name: row for group in reversed(GROUPS.values()) for row in group}
# These see validation images alone.
ON_VALIDATION = ("fast-mode", "tuning")
