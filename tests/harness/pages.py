"""The pages of an index of a stopped server, for tests that damage them."""

import struct

PAGE, HEADER, START, SPECIAL = 8192, 24, 32, 32
KINDS = {1: "meta", 2: "mean", 3: "posting", 4: "sketch", 5: "code", 6: "free"}
# Fields of the page header (but the LSN and the checksum) and of the special area, with their places.
HEADER_FIELDS = {"flags": ("<H", 10), "lower": ("<H", 12), "upper": ("<H", 14), "special": ("<H", 16), "version": ("<H", 18),
                 "prune_xid": ("<I", 20)}
SPECIAL_FIELDS = {"next": ("<I", -32), "list": ("<I", -28), "epoch": ("<I", -24), "insert_at": ("<I", -20), "used": ("<H", -16),
                  "kind": ("<B", -14), "level": ("<B", -13), "refs": ("<H", -12), "flags of its own": ("<H", -10),
                  "head": ("<I", -8), "magic": ("<H", -4), "format": ("<H", -2)}
# Fields of the meta page.
META_BYTES = 1744  # its checksum is behind them, then what is not covered by that
META_FIELDS = {"last_list": ("<I", START + 44), "epoch": ("<I", START + 1608)}


def checksum(data):
    """In 32 bits, as on the meta page and on pages of the mean."""
    words = struct.unpack(f"<{len(data) // 4}I", data[:len(data) // 4 * 4])
    total = sum(word * ((1 + 0x9E3779B8 * i) % 2**32) for i, word in enumerate((*words, *data[len(data) // 4 * 4:])))
    product = total % 2**64 * 0x9FB21C651E98DF25 % 2**64
    return (product ^ product >> 32) >> 32


class Pages:
    """A file of pages, to be changed in memory."""

    def __init__(self, data):
        self.data = bytearray(data)

    def __len__(self):
        return len(self.data) // PAGE

    def get(self, page, field):
        layout, at = field
        return struct.unpack_from(layout, self.data, page * PAGE + at % PAGE)[0]

    def put(self, page, field, value):
        layout, at = field
        struct.pack_into(layout, self.data, page * PAGE + at % PAGE, value % 256 ** struct.calcsize(layout))

    def kind(self, page):
        """Name of the page's kind; None for a page that was never written."""
        return KINDS.get(self.get(page, SPECIAL_FIELDS["kind"]))

    def of_kind(self, kind):
        return [page for page in range(len(self)) if self.kind(page) == kind]

    def seal(self, page):
        """Gives a page of the meta data or the mean the checksum that it would have if it had been written so."""
        start, lower = page * PAGE + START, page * PAGE + self.get(page, HEADER_FIELDS["lower"])
        if self.kind(page) == "meta":
            end = start + META_BYTES
            struct.pack_into("<I", self.data, end, checksum(self.data[start:end]))
        else:
            struct.pack_into("<I", self.data, start, checksum(self.data[start + 4:lower]))
