"""Convolution, dense product and pooling in the form that each backend runs fastest.

`conv.conv_general_dilated` and `dense.dot_general` take the place of lax' own in Flax' layers, with
the same arguments. `winograd`, `stem` and `strided` are forms that conv.py chooses from on CPUs.
"""
