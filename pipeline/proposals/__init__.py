"""Region proposals: class-independent boxes that may hold an object (Girshick et al. 2014, section 2.1)."""

# Our selective search, in its modes (selective_search.py), and that of two packages (package.py, opencv.py).
OWN = ("balanced", "single", "fast", "quality")
METHODS = (*OWN, "selectivesearch", "opencv", "opencv-quality")
