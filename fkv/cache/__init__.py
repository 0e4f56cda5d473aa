"""Paged storage of keys and values. Storage only: policies decide which pages stay, head roles which head is which.

Keys are stored after RoPE, so their order in memory does not matter to attention. The K and V of a head group in one
layer share one preallocated buffer, which the group's page table describes (`fkv.pages`). A chunk is written straight
into free pages, once per pass; evicting pages changes the page table alone. Occupied pages form a prefix of the buffer
while a chunk is generated, so attention reads a plain view: nothing is gathered, rolled or concatenated. After a fork
that shares pages, a group also reads **runs**: pages in buffers that are frozen since.

Where few pages stay, the chunk lies **apart**: every layer in turn has its slots in one area, to which its pages are
copied. The buffers then have room for what stays between chunks alone, and the chunk's last pass fills them (`settle`).
Attention reads the same keys in the same order either way.

| module | |
|-|-|
| `kv_cache` | `KVCache`: the life of a chunk, and the content of pages |
| `group` | one head group: its page table, its buffers, and the pages that it shares |
| `area` | where chunks lie apart |
| `reading` | what passes read, where a policy says so |
| `regroup` | a cache in other head groups, page sizes or types |
| `rotation` | keys at other positions in time |
"""

from .group import GROWTH, MOST_RUNS, HeadGroup, PageTable
from .kv_cache import KVCache, pinned_bytes, unique_bytes
from .regroup import regrouped

__all__ = ["GROWTH", "MOST_RUNS", "HeadGroup", "KVCache", "PageTable", "pinned_bytes", "regrouped", "unique_bytes"]
