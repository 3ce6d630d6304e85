"""The algorithms of the R-CNN family: arrays and tensors in, arrays and tensors out.

Nothing here imports Luigi or `tasks/`, or knows where the cache is; `tasks/` calls these functions and saves what they return.
"""
