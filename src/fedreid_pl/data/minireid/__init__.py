"""MiniReID, the embedded synthetic benchmark: drawn pedestrians in the folders and names of Market-1501.

`ensure_minireid` returns the folder of the whole benchmark; `write_benchmark` draws selected or small domains for
tests. The benchmark contains no real person, downloads nothing, and this package does not import torch.
"""

from fedreid_pl.data.minireid.contact_sheet import contact_sheet
from fedreid_pl.data.minireid.domains import DOMAINS, PUBLIC, Domain, domains_of
from fedreid_pl.data.minireid.store import cache_folder, check_complete, ensure_minireid, is_drawn, verify
from fedreid_pl.data.minireid.streams import VERSION, VERSIONS
from fedreid_pl.data.minireid.writer import write_benchmark

__all__ = [
    "DOMAINS",
    "PUBLIC",
    "VERSION",
    "VERSIONS",
    "Domain",
    "cache_folder",
    "check_complete",
    "contact_sheet",
    "domains_of",
    "ensure_minireid",
    "is_drawn",
    "verify",
    "write_benchmark",
]
