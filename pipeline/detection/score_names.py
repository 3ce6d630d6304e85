"""What may be said instead of a number where a lowest score is asked for."""

BEST_F1, AUTO = "best-f1", "auto"
