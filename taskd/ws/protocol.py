"""The protocol of `websockets` on the server's side, where it is less strict, or stricter, than RFC 6455."""

from __future__ import annotations

import codecs

from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

_Utf8 = codecs.getincrementaldecoder("utf-8")


class SocketProtocol(ServerProtocol):
    """Frames in, frames out, without I/O; texts of which it hands out the last fragment are UTF-8.

    Judged here and not by whoever joins the fragments, since here nothing that came behind a fault has been read yet:
    a close in the same segment would else be answered as if all had been well.
    """

    _utf8: codecs.IncrementalDecoder | None = None
    """Reads along with a text; None outside of one."""

    @property
    def buffered(self) -> int:
        """Bytes of a frame that has not come whole."""
        return len(self.reader.buffer)

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame; as the original, what it raises fails the connection."""
        if frame.opcode is Opcode.CLOSE:
            # RFC 6455 5.4: control frames may come in the middle of a fragmented message; a close is one (5.5.1).
            self.current_size = None
        starts = frame.opcode is Opcode.TEXT and self.current_size is None
        if starts:
            self._utf8 = _Utf8()
        if self._utf8 is not None and (starts or frame.opcode is Opcode.CONT):
            # RFC 6455 8.1, with the fragment that is at fault and not with the last one; answered with 1007.
            self._utf8.decode(frame.data, frame.fin)
            if frame.fin:
                self._utf8 = None
        super().recv_frame(frame)
