"""Why a disk did not take a checkpoint, in a sentence, and what helps."""

from __future__ import annotations

import errno

_FREE = "Free some space there."
_FAILING = "Look into the system's log (dmesg) and copy what matters to another disk: this one may be about to fail."
_REASONS = {
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("your disk quota is used up", "Free some of your files there, or ask for a larger quota."),
    errno.EFBIG: (
        "a file would be larger than this process or this disk allows",
        "Raise the limit on file sizes (ulimit -f) where the run is started; a FAT disk takes no file over 4 GiB.",
    ),
    errno.EROFS: (
        "the disk is read-only",
        "A disk that was writable becomes so after errors: look into the system's log (dmesg), then remount it.",
    ),
    errno.EIO: ("the disk reported an error", _FAILING),
    errno.EACCES: ("you may not write there", "Give the folder back to the user who runs this."),
    errno.EPERM: ("you may not write there", "Give the folder back to the user who runs this."),
    errno.ENOENT: ("the run's folder is gone", "Leave the folder of a run in its place while it goes on."),
    errno.ESTALE: ("the network disk lost the folder", "Mount it again, then resume."),
    errno.EMFILE: ("too many files are open", "Raise the limit on open files (ulimit -n) where the run is started."),
    errno.ENFILE: ("too many files are open on this machine", "End what holds them, or raise fs.file-max."),
}


def refusal(error: Exception) -> tuple[str, str]:
    """What went wrong with a save, and what to do. `error` is an OSError, or the DamagedError of what was read back."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return _REASONS.get(error.errno or 0, (f"the disk refused it ({reason})", "Correct that, then resume."))
    return f"read back from the disk, {error}", _FAILING
