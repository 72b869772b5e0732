"""Block formats, one file per kind: how many values are stored in how many bytes, and the way there and back.

Imports torch and `errors` alone; kernels import this room.
"""
