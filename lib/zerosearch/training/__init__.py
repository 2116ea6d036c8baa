"""Training: the simulator (SFT) and the policy (RL), on TRL's trainers.

``simulator_sft.tune_simulator`` and ``arm_training.train_arm`` are the two doors; notebooks 02 and 03 call
them.  Everything a student should be able to check by hand is a pure function in a file of its own:
``advantages``, ``batching``, ``objective``, ``renaming``, ``simulator_data``, ``simulator_quality``,
``simulator_freshness``.
"""
