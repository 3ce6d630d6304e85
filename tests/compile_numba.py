"""Compiles what most tests and commands need, once: our modules and tests to bytecode, functions of numba to machine code.

Else each process that starts early does it itself. Where `PYTHONDONTWRITEBYTECODE` is set, each command compiles our modules.

    python -m tests.compile_numba

What is compiled lies in `__pycache__`, for the processors and versions that it was compiled for. Run again it takes a moment.
"""

import compileall
import contextlib
import multiprocessing
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def is_compiled(path: Path) -> bool:
    """Whether there is something compiled of the module at `path`, newer than the module; numba itself looks closer."""
    compiled = path.parent.glob(f"__pycache__/{path.stem}.*.nbi")
    return any(index.stat().st_mtime > path.stat().st_mtime for index in compiled)


def compile_proposals() -> None:
    import numpy as np

    from pipeline.proposals import OWN
    from pipeline.proposals.propose import propose_for

    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    image.flags.writeable = False  # as images that were read are
    for method in OWN:
        propose_for(image, "image", method=method, max_boxes=20, image_width=0, seed=0)


def compile_svms() -> None:
    import numpy as np

    from pipeline.rcnn.scaling import widen
    from pipeline.rcnn.svm_solver import decisions, solve
    from pipeline.sparse_features import pack, unpack

    generator = np.random.default_rng(0)
    chosen, is_positive = np.arange(60), generator.random(60) < 0.5
    for dtype in np.float16, np.float32:
        rows = generator.normal(size=(60, 80)).astype(dtype)
        solution = solve(
            rows, chosen, is_positive, np.zeros(60), scale=1.0, cost=1.0, positive_weight=2.0, bias_multiplier=10.0,
            tolerance=1e-9, max_passes=1000, seed=0,
        )
        decisions(rows, chosen, solution.w, solution.b, scale=1.0)
        widen(rows)
    features = np.ones((2, 10), np.float16)
    bits, values, counts = pack(features)
    unpack(bits, values, np.cumsum(counts), 10)


def compile_maps() -> None:
    import numpy as np
    import torch

    from pipeline.boxes import nms
    from pipeline.images.resampling import resample
    from pipeline.networks.roi_pooling import roi_pool
    from pipeline.spp_net.pyramid_pooling import map_windows, pyramid_pool

    boxes = np.array([[0, 0, 40, 30], [10, 10, 60, 40]], np.float32)
    nms(boxes, np.array([1.0, 0.5], np.float32), 0.3)
    image, out = np.zeros((48, 64, 3), np.uint8), np.zeros((2, 20, 20, 3), np.float32)
    image.flags.writeable = False  # as images that were read are
    resample(image, (boxes, np.zeros((2, 2)), np.full((2, 2), 20)), np.zeros(2, bool), out, mean=np.zeros(3), std=np.ones(3))
    features = torch.zeros(16, 4, 5, requires_grad=True)
    roi_pool(features, boxes, 1 / 16, 7).sum().backward()
    for dtype in np.float32, np.float16:
        pyramid_pool(np.zeros((4, 5, 16), dtype), map_windows(boxes, 48, 64))


def rewrite_assertions() -> None:
    """Keeps what pytest makes of our modules of tests, which else each of its processes makes anew: seven seconds of a core.

    pytest has no public way to do so. A version that does it otherwise makes them as ever.
    """
    from _pytest.assertion import rewrite

    for path in (REPOSITORY / "tests").rglob("*.py"):
        kept = rewrite.get_cache_dir(path) / f"{path.stem}{rewrite.PYC_TAIL}"
        if path.name.startswith(("test_", "conftest")) and not is_newer(kept, path):
            kept.parent.mkdir(exist_ok=True)
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                source, code = rewrite._rewrite_test(path, None)
                rewrite._write_pyc(None, code, source, kept)


def is_newer(kept: Path, path: Path) -> bool:
    return kept.is_file() and kept.stat().st_mtime > path.stat().st_mtime


if __name__ == "__main__":
    for package in "pipeline", "tasks":
        compileall.compile_dir(REPOSITORY / package, quiet=1)
    modules = [path for path in (REPOSITORY / "pipeline").rglob("*.py") if "@njit(" in path.read_text()]
    parts = [] if all(map(is_compiled, modules)) else [compile_proposals, compile_svms, compile_maps]
    compilers = [multiprocessing.Process(target=part) for part in parts]
    rewriter = multiprocessing.Process(target=rewrite_assertions)
    for process in (*compilers, rewriter):
        process.start()
    for process in (*compilers, rewriter):
        process.join()
    assert not any(process.exitcode for process in compilers), "see above; the tests would fail as well"
