"""What a run leaves in its workdir: checkpoints, curves, summary, and whose the folder is."""
