"""Reads trained networks from workdirs and safetensors files, and exports them."""
