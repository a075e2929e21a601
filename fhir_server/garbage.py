"""Python's cyclic garbage collector, set for a process that holds large tables and makes many short-lived dicts.

Its default is to look at everything every few hundred new objects and now and then at all there are: a fifth of the time when
resources come by the thousand. What makes cycles here are exceptions and tasks, and they can wait.
"""

import gc

_NEW_OBJECTS = 50_000  # between two looks at what is new


def spare_tables() -> None:
    """Call once, when everything that stays has been made: it is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 100)
