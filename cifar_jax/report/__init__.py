"""What a run left in its folder, as pictures and one page.

    python -m cifar_jax.report runs/cnn3 --out report.html

read.py reads the folder, analysis.py counts errors, figures.py, examples.py and network.py draw,
pictures.py writes files, page.py fills the template. Numbers come from the folder alone; example
images need the data set besides.
"""
