"""What all scripts share: the run folder, atomic file writes, the user error, command lines.

Nothing here imports torch, or a package of this project.
"""
