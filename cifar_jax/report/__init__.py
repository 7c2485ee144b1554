"""Presents a run's workdir as figures and an HTML page.

    python -m cifar_jax.report runs/cnn3 --out report.html

read.py reads the workdir, and analysis.py counts errors. figures.py and network.py draw,
examples.py selects test images, and pictures.py writes the files. run_page.py builds the page about
one run and comparison.py the page about several, from the parts in page.py. All numbers come from
the workdir; example images also need the data set.
"""
