"""What may be said instead of a number where a lowest score is asked for. Here, so that a command knows it without NumPy."""

BEST_F1, AUTO = "best-f1", "auto"
