"""The algorithms of the R-CNN family: arrays and tensors in, arrays and tensors out.

Nothing here knows of Luigi, of tasks or of where the cache lies; `tasks/` calls these functions and saves what they return.
"""
