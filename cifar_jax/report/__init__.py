"""Presents a run's workdir as figures and an HTML page.

    python -m cifar_jax.report runs/cnn3 --out report.html

read.py reads the folder, analysis.py counts errors, figures.py, examples.py and network.py draw,
pictures.py writes files, and page.py fills the template. All numbers come from the folder; example
images also need the data set.
"""
