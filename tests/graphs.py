"""What a graph's operations wait for."""

from __future__ import annotations


def ancestors(op):
    """All operations that are done before `op` is."""
    waiting, found = [op], set()
    while waiting:
        op = waiting.pop()
        new = {*(tensor.op for tensor in op.inputs), *op.control_inputs} - found
        found |= new
        waiting += new
    return found
