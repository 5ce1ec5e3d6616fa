"""A small network with and without a teacher: Hinton et al. 2015, arXiv 1503.02531, on small images."""

from smallcnn.study.definition import SMALL, Row, Study

_STUDENT = "effnet_cifar:block=mobilenet"

DISTILLATION = Study(
    name="distillation",
    title="A student with and without a teacher",
    question="How much does a small network gain from a larger teacher?",
    source="Hinton et al. 2015 (arXiv 1503.02531) has no such table; temperature and weight are ours",
    published="",
    recipe=SMALL,
    rows=(
        Row("Alone", _STUDENT, 1600),
        Row("Softened answers", _STUDENT, 600, distil="soft"),
        Row("Answers as labels", _STUDENT, 600, distil="hard"),
    ),
)
