"""A certificate for trying out: signed by itself, for a phone on the same network."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from megdt.errors import MissingExtraError, OutputError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID
except ImportError:
    raise MissingExtraError(
        "a certificate needs cryptography; pip install 'megdt[serve]'"
    ) from None

DAYS = 30


def write_certificate(folder: Path, hosts: tuple[str, ...]) -> tuple[Path, Path]:
    """Make a key and a certificate of it that browsers take after a warning.

    Args:
        folder: Where both go, readable for its owner alone.
        hosts: Names and addresses that it is for.

    Returns:
        Paths of certificate and key, as PEM.

    Raises:
        OutputError: If they cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "megdt, for trying out")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    contents = (
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    try:
        for path, content in zip(paths, contents, strict=True):
            path.touch(0o600)
            path.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"cannot write {error.filename} ({error.strerror}); take another folder"
        ) from error
    return paths


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
