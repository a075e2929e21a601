"""Password hashing that takes a millisecond: for tests in which people log in, and hashing is not the matter."""

import functools
from typing import Any

from argon2 import PasswordHasher

from smart_auth import passwords, people

QuickPasswords = functools.partial(passwords.Passwords, PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
pages: Any = people
pages.Passwords = QuickPasswords
