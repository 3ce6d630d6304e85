"""How the SVMs of R-CNN and SPP-net are trained. Imports nothing large, so that the command line can read the names."""

from dataclasses import dataclass

from pipeline.errors import PipelineError

# Both reach the same optimum. `warm-start` (svm_solver.py) starts from the class's last SVM and reads float16 rows in place;
# `liblinear` (svm_liblinear.py) is scikit-learn's, which starts from nothing, on a copy of the examples.
WARM_START, LIBLINEAR = "warm-start", "liblinear"
SOLVERS = (WARM_START, LIBLINEAR)


@dataclass(frozen=True)
class SvmSettings:
    """How the SVMs are trained. Defaults: `rcnn_train.m`, except where a comment says otherwise.

    Raises PipelineError for an unknown `solver`.
    """

    cost: float = 1e-3  # liblinear -c
    positive_weight: float = 2.0  # liblinear -w1: a positive's slack costs so many times a negative's
    bias_multiplier: float = 10.0  # liblinear -B: the bias is a weight of a feature of this value, and is regularised
    negative_overlap: float = 0.3  # a negative has IoU < this with every object of the class
    hard_threshold: float = -1.0001  # a negative is hard when it scores > this
    evict_threshold: float = -1.2  # a cached negative is easy when it scores < this
    retrain_limit: int = 2000  # train again when more than this many negatives were added
    # NOTE: the release stops at liblinear's 0.1, 2 % from the optimum. At 1e-4 the mined negatives are those of the optimum.
    tolerance: float = 1e-4
    max_iterations: int = 100_000  # liblinear stops at 1000, converged or not
    cache_gigabytes: float = 2.0  # ours: memory for the examples of all classes
    solver: str = WARM_START  # NOTE: the release calls liblinear; svm_solver.py says what ours saves

    def __post_init__(self):
        if self.solver not in SOLVERS:
            raise PipelineError(f"SVM solver {self.solver!r} is none of {', '.join(SOLVERS)}")
