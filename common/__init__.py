"""What all scripts share: the run folder, files written whole, the user error, command lines.

Nothing here imports torch, or a package of this project.
"""
