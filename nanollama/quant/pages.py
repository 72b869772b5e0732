"""Giving mapped pages back: what a process holds of a file counts as its memory, though the file's cache has it anyway.

Only a mapping can do this, of its own pages, and only where nobody has written: a written page is a private copy, and giving it
back would lose what was written. The next access maps the page again, from the file's cache or the file itself.
"""

import mmap

from torch import Tensor


class Pages:
    """The part of a private file mapping that lies under one tensor.

    memory: the mapping. start: the tensor's first byte in it. tensor: what `torch.frombuffer` made of these bytes; its version
    counter, which its views share, tells whether anyone has written through torch. (Numpy's view of it does not count.)
    """

    def __init__(self, memory: mmap.mmap, start: int, tensor: Tensor) -> None:
        page = mmap.PAGESIZE
        self.memory, self.tensor = memory, tensor
        self.start = -(-start // page) * page  # whole pages only: a neighbour shares the others
        self.length = (start + tensor.nbytes) // page * page - self.start
        self.version = None if tensor.is_inference() else tensor._version

    def give_back(self) -> bool:
        """Give the pages back; False where there is nothing to give, or it can't be done safely on this system."""
        if self.version is None or self.length <= 0 or self.tensor._version != self.version:
            return False
        if not hasattr(self.memory, "madvise"):  # Windows
            return False
        self.memory.madvise(mmap.MADV_DONTNEED, self.start, self.length)
        return True

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Copied or pickled it is None: a copy's bytes are not the file's."""
        return type(None), ()
