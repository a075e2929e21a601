"""The logical ids that we give."""

import secrets
import time


def new_id() -> str:
    """48 bits of the time in milliseconds and 80 random ones, in hexadecimal: ids sort in the order of their making.

    So what is new goes to the same few pages of an index, however large it is (the idea of UUID version 7, RFC 9562 5.7), and
    a search without `_sort` shows resources as they were made.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
