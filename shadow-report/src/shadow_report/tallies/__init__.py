"""What the batches add up to: counters of bounded size, one per question of the report.

Pure: arrays in, figures out. Each has an `add` that takes a batch and a `report` or properties.
"""
