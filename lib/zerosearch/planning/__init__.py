"""The plan of a run before it starts: memory, disk, downloads, hours and dollars, against what the machine has.

Nothing here imports torch: a plan is arithmetic on a model's settings, and is made in moments.
"""
