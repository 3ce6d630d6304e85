"""The log of a training for TensorBoard."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def scalar_log(folder: str, label: str) -> Iterator[Callable | None]:
    """Yields a function that writes scalars for TensorBoard into `folder`/`label`; None without a folder."""
    if not folder:
        yield None
        return
    from pipeline.errors import PipelineError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PipelineError(f"--tensorboard {folder}: TensorBoard is not installed ({error}); pip install tensorboard") from error
    with SummaryWriter(str(Path(folder) / label)) as writer:
        def log(step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        yield log
