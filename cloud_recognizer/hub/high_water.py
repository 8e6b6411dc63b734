"""How far each epoch of a device was published, by whichever recognizer."""

from collections import OrderedDict


class HighWaterMarks:
    """The highest published seq of at most `capacity` epochs; the one quiet for longest goes.

    An epoch's results are published in the order of their seqs, so what is at or below its mark was
    published, or was settled without a result. With a capacity of as many epochs as the stream
    holds messages, none is forgotten that the stream still holds.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._marks: OrderedDict[tuple[str, int], int] = OrderedDict()

    def note(self, device_id: str, epoch: int, seq: int) -> None:
        """A result was published."""
        key = (device_id, epoch)
        self._marks[key] = max(seq, self._marks.get(key, 0))
        self._marks.move_to_end(key)
        if len(self._marks) > self._capacity:
            self._marks.popitem(last=False)

    def of(self, device_id: str, epoch: int) -> int:
        """The highest seq that was published, 0 when none is known."""
        return self._marks.get((device_id, epoch), 0)

    def clear(self) -> None:
        """Forget everything."""
        self._marks.clear()
