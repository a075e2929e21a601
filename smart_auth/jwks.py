"""The public keys that a client registers (RFC 7517), and finding the one that signed an assertion."""

import contextlib
import json
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, RSAKey

# SMART App Launch 2.2, "Client authentication: asymmetric": the two signatures, by the type of key that makes them.
ALGORITHMS = {"RSA": "RS384", "EC": "ES384"}
_KEY_TYPES: dict[str, type[RSAKey] | type[ECKey]] = {"RSA": RSAKey, "EC": ECKey}
_KEY_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}
_CURVES = ("P-384", "P-256")
_RSA_BITS = range(2048, 8192 + 1)
_PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_KEPT_MEMBERS = ("kty", "kid", "use", "key_ops", "alg")
_MOST_KEYS = 20
_MOST_BYTES = 65536


class JwksError(ValueError):
    """The key set can't be registered; the text says why."""


def public_keys(jwks: Mapping[str, Any] | str | bytes) -> list[dict[str, Any]]:
    """The keys of a JWK Set (parsed, or its JSON text), checked: all public, strong, one a `kid`, one of use to us or more."""
    if isinstance(jwks, str | bytes):
        jwks = _parsed(jwks)
    if not isinstance(jwks, Mapping) or not isinstance(jwks.get("keys"), list):
        raise JwksError('a JWK Set is expected: a JSON object {"keys": [...]}')
    found = jwks["keys"]
    if not 0 < len(found) <= _MOST_KEYS:
        raise JwksError(f"the JWK Set holds {len(found)} keys; 1 to {_MOST_KEYS} are allowed")
    keys = [_public_key(key, f"key {number} of the JWK Set") for number, key in enumerate(found, 1)]
    kids = [key["kid"] for key in keys]
    for kid in kids:
        if kids.count(kid) > 1:
            raise JwksError(f"two keys of the JWK Set have the kid {kid!r}")
    if not any(map(_signs, keys)):
        raise JwksError("no key of the JWK Set can be used for RS384 (RSA) or ES384 (EC P-384) signatures")
    return keys


def published_keys(text: bytes) -> list[dict[str, Any]]:
    """The keys of a JWK Set that a client publishes, without those that are none for us: it may be for others, too."""
    jwks = _parsed(text)
    found = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(found, list) or len(found) > _MOST_KEYS:
        raise JwksError(f"a JWK Set of at most {_MOST_KEYS} keys is expected")
    keys = []
    for key in found:
        with contextlib.suppress(JwksError):
            keys.append(_public_key(key, "a key"))
    return keys


def find_key(keys: Iterable[Mapping[str, Any]], kid: str, algorithm: str) -> RSAKey | ECKey | None:
    """The one key with this `kid` and the key type of this algorithm; None when there is none, or more than one."""
    found = [key for key in keys if key["kid"] == kid and ALGORITHMS.get(key["kty"]) == algorithm and _signs(key)]
    return _imported(found[0]) if len(found) == 1 else None


def _parsed(text: str | bytes) -> Any:
    if len(text) > _MOST_BYTES:
        raise JwksError(f"the JWK Set is larger than {_MOST_BYTES} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JwksError("the JWK Set is not JSON") from error


def _public_key(key: Any, name: str) -> dict[str, Any]:
    if not isinstance(key, dict):
        raise JwksError(f"{name} is not a JSON object")
    private = [member for member in _PRIVATE_MEMBERS if member in key]
    if private or key.get("kty") == "oct":
        kind = "symmetric" if key.get("kty") == "oct" else "private"
        raise JwksError(f"{name} is a {kind} key: register public keys only, and replace this key, which is a secret no more")
    if key.get("kty") not in _KEY_TYPES:
        raise JwksError(f"{name} has the key type {key.get('kty')!r}; RSA and EC are supported")
    if not isinstance(key.get("kid"), str) or not key["kid"]:
        raise JwksError(f"{name} has no kid")
    if key["kty"] == "EC" and key.get("crv") not in _CURVES:
        raise JwksError(f"{name} is on the curve {key.get('crv')!r}; {' and '.join(_CURVES)} are supported")
    kept = {member: key[member] for member in (*_KEY_MEMBERS[key["kty"]], *_KEPT_MEMBERS) if member in key}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # short keys are refused below, in our own words
            imported = _imported(kept)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise JwksError(f"{name} is not a valid {key['kty']} key") from error
    if isinstance(imported, RSAKey) and imported.raw_value.key_size not in _RSA_BITS:
        raise JwksError(f"{name} has {imported.raw_value.key_size} bits; {_RSA_BITS[0]} to {_RSA_BITS[-1]} are allowed")
    return kept


def _imported(key: Mapping[str, Any]) -> RSAKey | ECKey:
    return _import(key["kty"], *((member, key[member]) for member in _KEY_MEMBERS[key["kty"]]))


@lru_cache(maxsize=256)
def _import(key_type: str, *members: tuple[str, str]) -> RSAKey | ECKey:
    return _KEY_TYPES[key_type].import_key({"kty": key_type, **dict(members)})


def _signs(key: Mapping[str, Any]) -> bool:
    """Whether the key verifies RS384 or ES384 signatures, by its curve and what it says of its own use (RFC 7517 4.2-4.4)."""
    return (
        key.get("crv", "P-384") == "P-384"
        and key.get("use", "sig") == "sig"
        and key.get("alg", ALGORITHMS[key["kty"]]) == ALGORITHMS[key["kty"]]
        and "verify" in key.get("key_ops", ("verify",))
    )
