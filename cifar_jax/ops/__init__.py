"""Convolution, dense product and pooling in the form that each platform runs fastest.

`conv.conv_general_dilated` and `dense.dot_general` replace the functions of the same names in
`jax.lax` in Flax's layers and take the same arguments. The form is selected when a program is
lowered: a network can be traced on one platform and lowered for another.
"""
