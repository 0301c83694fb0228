"""Every error edgekd raises, in one tree.

EdgekdError                      exit code 1
├── UsageError                   2   the request cannot be met as it was asked
│   ├── ImageError               2   an input image cannot be used
│   ├── RecipeError              2   a recipe file has a wrong, missing or unknown key
│   ├── DataError                2   a data set cannot be read
│   ├── WeightsError             2   a weights file is missing, damaged or does not fit
│   ├── ClosedError              2   a detector or session was used after close()
│   └── BundleError              2   a bundle cannot be used
│       ├── NotABundleError      2   the file is something else
│       ├── BundleVersionError   2   written by a newer edgekd
│       ├── CorruptBundleError   2   truncated, bit-flipped or inconsistent
│       └── SignatureError       2   unsigned or wrongly signed where a key is required
├── GateError                    3   an accuracy, parity or golden gate failed
├── HostError                    4   this machine lacks something
│   ├── MissingPackageError      4   a Python package (the message says what to type)
│   └── TargetUnavailableError   4   a target cannot run or build here
└── DeviceError                  5   a device or a vendor runtime failed
    ├── SessionError             5   a started engine failed
    ├── DeadlineError            5   no result within the time that was given
    └── BuildError               5   a vendor compiler refused the graph

A message names what was got, what is possible and what to type. Errors of vendor SDKs never leak:
they are re-raised as one of these, ``from`` the original.
"""

from __future__ import annotations


class EdgekdError(Exception):
    """Base of every error edgekd raises; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(EdgekdError):
    """The request cannot be met as it was asked."""

    exit_code = 2


class ImageError(UsageError):
    """An input image cannot be used."""


class RecipeError(UsageError):
    """A recipe file has a wrong, missing or unknown key."""


class DataError(UsageError):
    """A data set cannot be read."""


class WeightsError(UsageError):
    """A weights file is missing, damaged or does not fit the network."""


class ClosedError(UsageError):
    """A detector or session was used after close()."""


class BundleError(UsageError):
    """A bundle cannot be used."""


class NotABundleError(BundleError):
    """The file is not an edgekd bundle."""


class BundleVersionError(BundleError):
    """The bundle was written by a newer edgekd."""


class CorruptBundleError(BundleError):
    """The bundle is truncated, damaged or inconsistent."""


class SignatureError(BundleError):
    """The bundle is unsigned, or signed by a key that is not trusted."""


class GateError(EdgekdError):
    """An accuracy, parity or golden gate failed."""

    exit_code = 3


class HostError(EdgekdError):
    """This machine lacks something."""

    exit_code = 4


class MissingPackageError(HostError):
    """A Python package is missing; the message says what to type."""


class TargetUnavailableError(HostError):
    """A target cannot run or build on this machine."""


class DeviceError(EdgekdError):
    """A device or a vendor runtime failed."""

    exit_code = 5


class SessionError(DeviceError):
    """A started engine failed."""


class DeadlineError(DeviceError):
    """A call had no result within the time that it was given."""


class BuildError(DeviceError):
    """A vendor compiler refused the graph."""
