"""What the authorization server puts into the audit trail; app.py says how."""

from typing import Protocol


class Audit(Protocol):
    """Called for each request at the authorization server, before its answer goes out.

    `event` is one of `authorize`, `consent`, `launch`, `token`, `introspect`, `revoke`, `withdraw`, `keys`; `client_id` the
    client if known (proven, where it has to be); `detail` the scopes, or why it was refused; `user` the login name of the person,
    if one acts.
    """

    async def __call__(self, event: str, granted: bool, client_id: str | None, detail: str, user: str | None = None) -> None: ...
