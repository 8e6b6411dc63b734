"""Who calls, and until when what proves it is valid."""

from dataclasses import dataclass

from mien.errors import IdentityExpiredError, WrongDeviceError
from mien.identity import Identity


@dataclass(frozen=True)
class Caller:
    """identity: as a certificate or token says. ends_unix_s: when that one expires."""

    identity: Identity
    ends_unix_s: float

    def check_device(self, device_id: str) -> None:
        """Raise WrongDeviceError for another id than the certificate's; its role is known."""
        if self.identity.name != device_id:
            raise WrongDeviceError(
                "the device id of Hello must be that of the device's certificate "
                "(spiffe://mien/device/ID): correct device_id, or get a certificate for it"
            )


def expired() -> IdentityExpiredError:
    """What a call ends with that would outlive what it began with."""
    return IdentityExpiredError(
        "the certificate or token that says who calls has expired: come again with its successor"
    )
