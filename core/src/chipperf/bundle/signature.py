"""Signatures of bundles with ssh keys, made and verified by ``ssh-keygen -Y`` over the manifest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from chipperf.errors import CheckFailed, UsageError

SIGNATURE: Final = "manifest.json.sig"
"""Name of the signature in the archive, after the checksums."""

_NAMESPACE: Final = ("-n", "chipperf")


def sign(content: bytes, key: Path) -> bytes:
    """Return the signature of a manifest.

    Raises:
        UsageError: There is no ssh-keygen, or the key cannot sign.
    """
    if key.exists() and not key.is_file():
        raise UsageError(f"cannot sign with {key}: it is not a regular file", hint="name a private ssh key")
    signature, problem = _ssh_keygen("sign", "-q", "-f", str(key), *_NAMESPACE, content=content)
    if problem:
        raise UsageError(
            f"cannot sign with {key}: {problem}",
            hint=f"name a private ssh key; if it has a passphrase, first add it to an agent: ssh-add {key}",
        )
    return signature


def require_signers(signers: Path) -> None:
    """Raise a :class:`UsageError` if there is no file of allowed signers."""
    if not signers.is_file():
        raise UsageError(f"there is no file {signers}", hint="name a file of lines as: lab@example.com ssh-ed25519 …")


def verify(content: bytes, signature: bytes, signers: Path, bundle: Path) -> str:
    """Return who signed a manifest, as a file of allowed signers (see ``man ssh-keygen``) names them.

    Raises:
        UsageError: There is no ssh-keygen.
        CheckFailed: None of the signers signed this manifest.
    """
    with TemporaryDirectory(prefix="chipperf-signature-") as temporary:
        file = Path(temporary) / SIGNATURE
        file.write_bytes(signature)
        options = ("-f", str(signers), "-s", str(file))
        found, problem = _ssh_keygen("find-principals", *options, content=b"")
        if problem:
            hint = "ask the sender for the public key, and make sure that it is theirs"
            raise CheckFailed(f"{bundle} was not signed by one of {signers}: {problem}", hint=hint)
        signer = found.decode(errors="replace").splitlines()[0]
        _, problem = _ssh_keygen("verify", *options, "-I", signer, *_NAMESPACE, content=content)
    if problem:
        raise CheckFailed(f"{bundle} is not what {signer} signed: {problem}", hint="ask for the bundle again")
    return signer


def _ssh_keygen(action: str, *options: str, content: bytes) -> tuple[bytes, str]:
    """Run ssh-keygen, which cannot ask for a passphrase. Return its output and its problem, empty if it succeeded."""
    command = ["ssh-keygen", "-Y", action, *options]
    environment = os.environ | {"SSH_ASKPASS": "false", "SSH_ASKPASS_REQUIRE": "force"}
    try:
        done = subprocess.run(command, input=content, capture_output=True, start_new_session=True, env=environment)
    except OSError as error:
        raise UsageError(f"ssh-keygen cannot be run: {error}", hint="install OpenSSH's client") from error
    lines = done.stderr.decode(errors="replace").splitlines()
    problem = " ".join(line for line in map(str.strip, lines) if line and not line.startswith("@"))
    return done.stdout, (problem or f"exit code {done.returncode}") if done.returncode else ""
