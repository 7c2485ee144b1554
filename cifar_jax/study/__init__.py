"""Hyperparameter search with Optuna: many workers train the trials of one study.

space.py parses the space and applies a trial's values to the config. opening.py opens the study,
queue.py hands out its trials, ownership.py says which worker trains a trial, trial.py trains one,
and worker.py repeats this until all trials have ended. result.py and search_page.py show the
result.
"""
