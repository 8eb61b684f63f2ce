"""What is wrong with this installation and machine? Looks at everything before torch or fairseq2 is needed.

Nothing here imports torch, fairseq2 or any other package at the top, since what is missing or broken may be just that.
Whatever may end the process is done by another one, see ``children.py``.
"""
