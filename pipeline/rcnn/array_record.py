"""Trained models as plain arrays, so that a task can save them without pickle."""

from dataclasses import dataclass, fields

import numpy as np

from pipeline.errors import PipelineError


@dataclass(frozen=True, eq=False)
class ArrayRecord:
    """Base of a dataclass whose fields are arrays, numbers, or a tuple of strings."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """One array a field, for `numpy.savez`; numbers become 0-d arrays, names an array of strings."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]):
        """Inverse of `to_arrays`. Raises PipelineError when a field is missing."""
        missing = [field.name for field in fields(cls) if field.name not in arrays]
        if missing:
            raise PipelineError(
                f"saved {cls.__name__}: no {', '.join(missing)} among {', '.join(sorted(arrays)) or 'no arrays'}; "
                "the file is damaged or of another stage: train again"
            )
        return cls(**{field.name: _restore(arrays[field.name]) for field in fields(cls)})


def _restore(array: np.ndarray):
    if array.ndim == 0:
        return array.item()
    return tuple(array.tolist()) if array.dtype.kind == "U" else array
