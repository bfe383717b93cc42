"""`python -m taskeff.tasks.suite`: the table of the bundled tasks, as in this folder's README.

The last column says how far surface statistics go: a logistic regression over character n-grams,
trained on 512 rows. A task where it is near chance needs more than the letters of the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from taskeff.tasks.suite import suite_tasks
from taskeff.tasks.task import Task, load_spec, load_task

SEED = 0
TRAINING_ROWS = 512
LONGEST_NGRAM = 4
HEADER = ("task", "source", "licence", "rows", "labels", "chance", "majority", "n-gram LR")


def main() -> None:
    """Print one Markdown row per task."""
    print(line(HEADER))
    print(line(["---"] * len(HEADER)))
    for name in suite_tasks():
        task = load_task(load_spec(name), SEED)
        accuracy = f"{ngram_accuracy(task):.2f}" if task.spec.doc_to_choice else ""
        print(line([*describe(task), accuracy]), flush=True)


def describe(task: Task) -> list[str]:
    """The cells of one task, in the order of `HEADER`, but for the last."""
    answers = [
        example.target for split in (task.train, task.validation, task.test) for example in split
    ]
    metadata, labels = task.spec.metadata, task.spec.doc_to_choice
    cells = [task.name, metadata["source"], metadata["licence"], str(len(answers))]
    if labels is None:
        return [*cells, "open", "", ""]
    majority = Counter(answers).most_common(1)[0][1] / len(answers)
    return [*cells, str(len(labels)), f"{1 / len(labels):.2f}", f"{majority:.2f}"]


def ngram_accuracy(task: Task) -> float:
    """Test accuracy of a logistic regression over the character n-grams of the input."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train = task.subset(TRAINING_ROWS, SEED)
    model = make_pipeline(
        CountVectorizer(analyzer="char", ngram_range=(1, LONGEST_NGRAM), binary=True),
        LogisticRegression(max_iter=1000),
    )
    model.fit([example.text for example in train], [example.target for example in train])
    return float(model.score([e.text for e in task.test], [e.target for e in task.test]))


def line(cells: Sequence[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
