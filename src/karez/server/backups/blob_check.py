"""Re-hashes all blobs, and repairs what is damaged or lost where a backup has it."""

import hashlib
from collections.abc import Mapping, Sequence

from karez.core.artifacts import Artifact
from karez.core.backups import BlobCheck, DamagedBlob
from karez.core.errors import BrokenArtifact, NotFound
from karez.core.ports import Blobs
from karez.server.backups.folder import Say, reported

_CHUNK = 1 << 20


def check_blobs(
    blobs: Blobs, artifacts: Sequence[Artifact], backup: Blobs | None, *, repair: bool, say: Say
) -> BlobCheck:
    """Compare each blob with its digest.

    Args:
        blobs: The blob store.
        artifacts: All artifacts; what they name should be there.
        backup: Blobs of a backup, which damaged and lost ones are copied from.
        repair: Move damaged blobs aside: then an upload of the same bytes is not taken for
            unnecessary.
        say: Told how far it is.
    """
    users = _users(artifacts)
    stored = list(blobs.digests())
    broken = [digest for digest in reported("blobs", stored, say) if not _is_sound(blobs, digest)]
    lost = sorted(set(users) - set(stored))
    found = []
    for digest in (*broken, *lost):
        is_lost = digest not in broken
        if repair and not is_lost:
            blobs.set_aside(digest)
        is_repaired = repair and backup is not None and _copy(backup, blobs, digest)
        found.append(
            DamagedBlob(
                digest=digest,
                is_lost=is_lost,
                is_repaired=is_repaired,
                artifacts=tuple(users.get(digest, ())),
            )
        )
    return BlobCheck(blobs=len(stored), damaged=tuple(found))


def _users(artifacts: Sequence[Artifact]) -> Mapping[str, list[str]]:
    """Digest -> names of the artifacts with it."""
    users: dict[str, list[str]] = {}
    for artifact in artifacts:
        for digest in {file.sha256 for file in artifact.spec.files}:
            users.setdefault(digest, []).append(f"{artifact.spec.name} ({artifact.id})")
    return users


def _is_sound(blobs: Blobs, digest: str) -> bool:
    try:
        seen = hashlib.sha256()
        with blobs.open(digest) as file:
            while chunk := file.read(_CHUNK):
                seen.update(chunk)
        return seen.hexdigest() == digest
    except NotFound:  # it was removed meanwhile
        return True
    except OSError:  # the disk cannot read it
        return False


def _copy(source: Blobs, target: Blobs, digest: str) -> bool:
    try:
        with source.open(digest) as file:
            target.put(file, expect=digest)
    except (NotFound, BrokenArtifact, OSError):
        return False
    return True
