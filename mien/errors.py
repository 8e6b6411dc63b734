"""The domain errors of both ends.

Every class has a stable `code`: one word of a bounded set, which goes to the wire
(`ItemError.code`) and into metric labels. Messages say what was expected, what came, and what to
do. Which gRPC status an error becomes is the recognizer's business, not theirs.
"""

from typing import ClassVar, Final

# Whose words `code` holds, where google.rpc's ErrorInfo says it on the wire.
ERROR_DOMAIN: Final = "mien"


class MienError(Exception):
    """Root of everything that mien raises on purpose."""

    code: ClassVar[str] = "mien"


class BitstreamError(MienError):
    """A payload cannot be decoded."""

    code = "bitstream"


class TruncatedError(BitstreamError):
    """The payload is shorter than its header."""

    code = "truncated"


class ChecksumError(BitstreamError):
    """The payload's bytes are not those that were sent."""

    code = "checksum_mismatch"


class VersionError(BitstreamError):
    """The payload is written in a version that is not read here."""

    code = "unsupported_version"


class WrongBundleError(BitstreamError):
    """The payload was coded with another bundle."""

    code = "wrong_bundle"


class LimitError(BitstreamError):
    """The payload is, or declares itself, larger than is allowed."""

    code = "limit_exceeded"


class MalformedError(BitstreamError):
    """The checksum holds and yet no encoder wrote this payload."""

    code = "malformed"


class EncodeError(MienError, ValueError):
    """Faces that no chunk can carry were given to the encoder."""

    code = "not_encodable"


class SymbolRangeError(EncodeError):
    """A symbol lies beyond what an escape can carry."""

    code = "symbol_range"


class BundleError(MienError):
    """A bundle cannot be used."""

    code = "bundle"


class ManifestError(BundleError):
    """The manifest, or a file whose form it fixes, is not as it must be."""

    code = "bad_manifest"


class TablesError(BundleError):
    """The integer CDF tables are not valid."""

    code = "bad_tables"


class BundleHashError(BundleError):
    """A file is missing or is not the one that the manifest names."""

    code = "bundle_hash_mismatch"


class IncompleteBundleError(BundleHashError):
    """A file is missing or shorter than the manifest says: the folder may still be being copied."""

    code = "bundle_incomplete"


class BundleSignatureError(BundleError):
    """No trusted key vouches for the bundle."""

    code = "bundle_signature"


class UnsignedBundleError(BundleSignatureError):
    """Trusted keys are configured, and nobody has signed the bundle."""

    code = "bundle_unsigned"


class RolloutError(BundleError):
    """rollout.json of a repository cannot be read, or what it was asked to say makes no sense."""

    code = "bad_rollout"


class UnknownBundleError(BundleError):
    """No bundle of that id is here."""

    code = "unknown_bundle"


class ProbeError(BundleError):
    """The bundle does not do on this machine what it did where it was made."""

    code = "probe_failed"


class ProtocolError(MienError):
    """The other side broke the stream contract."""

    code = "protocol"


class SupersededError(MienError):
    """A newer stream of the same device and epoch has taken over."""

    code = "superseded"


class OverloadedError(MienError):
    """More came than was granted or than there is room for."""

    code = "overloaded"


class ShareTakenError(OverloadedError):
    """One caller has as much open as one may, whatever room there is for others."""

    code = "share_taken"


class RateLimitedError(OverloadedError):
    """A device sends more than the operator allows one. `retry_after_s`: seconds to wait."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnauthenticatedError(MienError):
    """Neither a certificate nor a token says who calls."""

    code = "unauthenticated"


class WrongRoleError(MienError):
    """Who calls is known, and has no business with this RPC."""

    code = "wrong_role"


class WrongDeviceError(MienError):
    """A device says another id than its certificate does."""

    code = "wrong_device"


class DeadlineExceededError(MienError):
    """It was not worth recognising any more when its turn came."""

    code = "deadline_exceeded"


class ReconstructionDisabledError(MienError):
    """Viewable images were asked for, and the operator has not allowed them."""

    code = "reconstruction_disabled"


class PolicyError(MienError):
    """What was declared, or left undeclared, is not allowed by the recognizer's policy.

    rule: which part of it; context: the word that was declared. Both of a bounded set.
    """

    code = "policy_refused"

    def __init__(self, message: str, rule: str = "", context: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.context = context


class ResumeLostError(MienError):
    """A watcher cannot go on where it was: what it has missed is not known here any more."""

    code = "resume_lost"


class LabelsDisabledError(MienError):
    """People's labels were reported, and the operator remembers no answers to compare them with."""

    code = "labels_disabled"


class UnknownFaceError(MienError):
    """A label is for a face that was not answered here, or too long ago, or has one already."""

    code = "unknown_face"


class UnknownExpressionError(MienError):
    """A label is no expression of the bundle that has answered."""

    code = "unknown_expression"


class UnavailableError(MienError):
    """A service cannot be reached."""

    code = "unavailable"


class LayersMissingError(UnavailableError):
    """No chunk with enhancement layers came in time from the device that was asked for them."""

    code = "layers_missing"


class IdentityExpiredError(UnavailableError):
    """The certificate or token that a call was opened with has expired since."""

    code = "identity_expired"


class AuditError(UnavailableError):
    """What must be written to the audit log cannot be, so nothing is shown."""

    code = "audit_failed"


class ConfigError(MienError, ValueError):
    """A setting is wrong; the message names the field."""

    code = "bad_config"


class CertificateError(ConfigError):
    """A certificate, key or authority cannot be used."""

    code = "certificate"


class SourceError(MienError):
    """Frames cannot be read from the source."""

    code = "source"


class SourceLostError(SourceError):
    """A live source has failed; it is opened again."""

    code = "source_lost"


class SourceOpenError(SourceLostError):
    """Nothing answers where the source should be, or not in time."""

    code = "source_open"


class SourceEndedError(SourceLostError):
    """A stream that should not end has ended."""

    code = "source_ended"


class SourceTimeoutError(SourceLostError):
    """An open source sent no frame within the time that its decoder was given."""

    code = "source_timeout"


class SourceStalledError(SourceLostError):
    """A call into the source's decoder does not return."""

    code = "source_stalled"


class SourceFrozenError(SourceLostError):
    """A source sends one and the same picture all the time."""

    code = "source_frozen"


class SpoolError(MienError):
    """The chunks that wait on disk cannot be read."""

    code = "spool"
