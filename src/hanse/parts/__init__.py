"""Model files as parts that follow their tensors: split, encode against an ancestor, decode.

Bytes in, bytes out, nothing kept: a caller maps its files and stores what comes back.
"""
