"""A trained network: from a workdir, to and from a safetensors file, as a StableHLO program."""
