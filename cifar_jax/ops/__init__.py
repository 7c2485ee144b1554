"""Convolution, dense product and pooling in the form that each backend runs fastest.

`conv.conv_general_dilated` and `dense.dot_general` replace the functions of the same names in
`jax.lax` in Flax's layers and take the same arguments. conv.py chooses among `winograd`, `stem` and
`strided` on CPUs.
"""
