"""The URLs of the authorization server, as the outside world calls them."""

from dataclasses import dataclass

AUTHORIZE_PATH = "/oauth/authorize"
TOKEN_PATH = "/oauth/token"  # noqa: S105 - a path, not a password
REVOKE_PATH = "/oauth/revoke"
INTROSPECT_PATH = "/oauth/introspect"
JWKS_PATH = "/oauth/jwks"
LAUNCH_PATH = "/launch"
MANAGE_PATH = "/account/apps"
FHIR_PATH = "/fhir"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Absolute URLs under `issuer`, which is the public base URL of the server, without a slash at the end."""

    issuer: str

    @classmethod
    def under(cls, base_url: str) -> "Endpoints":
        return cls(base_url.rstrip("/"))

    @property
    def authorize(self) -> str:
        return self.issuer + AUTHORIZE_PATH

    @property
    def token(self) -> str:
        return self.issuer + TOKEN_PATH

    @property
    def revoke(self) -> str:
        return self.issuer + REVOKE_PATH

    @property
    def introspect(self) -> str:
        return self.issuer + INTROSPECT_PATH

    @property
    def jwks(self) -> str:
        return self.issuer + JWKS_PATH

    @property
    def manage(self) -> str:
        return self.issuer + MANAGE_PATH

    @property
    def fhir(self) -> str:
        return self.issuer + FHIR_PATH
