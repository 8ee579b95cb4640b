"""Kubeflow Pipelines, reached through kfp's client.

=========================  ==================================================
``KF_PIPELINES_ENDPOINT``  address of the API; without it the cluster's own
                           (in a pod), or the one of the kubeconfig
``KF_PIPELINES_UI_ENDPOINT``  address of the UI, for links; the API's by default
``TOKIWA_KFP_TOKEN``       bearer token
``TOKIWA_KFP_COOKIE``      cookie of a Dex session, ``name=value``
``KF_PIPELINES_SA_TOKEN_PATH``  file of a service account's token; in a pod,
                           kfp knows where it lies
``SSL_CERT_FILE``          certificates to trust, where the API has one of its own
=========================  ==================================================
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from components.errors import BackendError, BadInput, Unauthorised
from components.settings import digest_of

MARK = "Kept by Tokiwa"
"""Begins the description of everything that Tokiwa makes, so that it touches nothing else."""
PAGE_ROWS = 100
PATIENCE_S = (10, 60)
"""To be let in, and for an answer; kfp's client itself waits for ever."""
_SA_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_NEEDED = "Tokiwa needs Kubeflow Pipelines 2.0 or newer"


class _Garbled(Exception):
    """An answer that cannot be read."""


class _Api(kfp_server_api.ApiClient):
    """What kfp's client asks with: it waits so long and no longer, and believes only JSON.

    A proxy's login page answers 200 like the API does, and kfp would read an empty list out of
    it, or out of an answer that broke off.
    """

    def request(self, *given: Any, **named: Any) -> Any:
        """Send a request."""
        return super().request(*given, **named | {"_request_timeout": PATIENCE_S})

    def deserialize(self, response: Any, response_type: str) -> Any:
        """Return an answer as kfp's model of it."""
        try:
            content = json.loads(response.data)
        except ValueError as error:
            if response.data.lstrip()[:1] in ("{", "["):
                raise _Garbled("it broke off") from error
            raise Unauthorised("it answers with a page for browsers, a login perhaps") from error
        if not isinstance(content, dict):
            raise _Garbled(f"it holds no {response_type}")
        return super().deserialize(response, response_type)


class _Client(kfp.Client):
    """kfp's client, without long waits for a server that says no, and without a file of state."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Return what the server says of itself, asked once.

        It is the first thing that kfp's client asks; all its services share one ``ApiClient``.
        """
        self._healthz_api.api_client.__class__ = _Api
        return self._healthz_api.healthz_service_get_healthz()

    def set_user_namespace(self, namespace: str) -> None:
        """Remember the namespace for as long as this client lives."""
        self._context_setting["namespace"] = namespace


class Backend:
    """What Tokiwa asks of Kubeflow Pipelines; every error is one line."""

    def __init__(self, client: kfp.Client, namespace: str, place: str) -> None:
        """Wrap a client.

        Args:
            client: kfp's.
            namespace: of the profile, empty where there is one user only.
            place: where the API is, for messages and links.
        """
        self._client, self._namespace, self._place = client, namespace, place

    @classmethod
    def connect(cls, namespace: str) -> Backend:
        """Reach Kubeflow Pipelines with what the environment gives.

        Raises:
            BadInput: it has profiles and no namespace is given, or the other way round; or its
                address or a credential cannot be one.
            Unauthorised: it does not accept the credentials.
            BackendError: it cannot be reached, or is too old.
        """
        place = _endpoint()
        token_file = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", _SA_TOKEN))
        credentials = None
        if place and token_file.is_file():
            credentials = ServiceAccountTokenVolumeCredentials(str(token_file))
        said = io.StringIO()
        with _told(public(place) or "the cluster"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that it is not kfp 1
            warnings.simplefilter("ignore", UserWarning)  # of an address without https
            try:
                with contextlib.redirect_stdout(said):
                    # kfp looks for its server in the namespace that it is given.
                    client = _Client(
                        host=place,
                        existing_token=_credential("TOKIWA_KFP_TOKEN"),
                        cookies=_credential("TOKIWA_KFP_COOKIE"),
                        credentials=credentials,
                        ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
                    )
                several_users = client.get_kfp_healthz().multi_user
            except urllib3.exceptions.HTTPError as error:
                if "Failed to load kube config" not in said.getvalue():
                    raise
                raise BackendError(
                    "no Kubeflow Pipelines is known here: set KF_PIPELINES_ENDPOINT, or forward "
                    "its port with kubectl port-forward -n kubeflow svc/ml-pipeline 8888 and set "
                    "KF_PIPELINES_ENDPOINT=http://localhost:8888"
                ) from error
        place = public(place or client._existing_config.host)
        if several_users is True and not namespace:
            raise BadInput(
                f"{place} has a profile for each team: say in cluster.namespace which one is yours"
            )
        if several_users is False and namespace:
            raise BadInput(
                f"{place} has one user and no profiles: leave cluster.namespace ({namespace}) out"
            )
        client.set_user_namespace(namespace)
        return cls(client, namespace, place)

    def link(self, kind: str, identity: str) -> str:
        """Return where the UI shows something, such as ``runs``."""
        ui = public(os.environ.get("KF_PIPELINES_UI_ENDPOINT", self._place)).rstrip("/")
        return f"{ui}/#/{kind}/details/{identity}"

    def experiment(self, name: str, *, make: bool = True) -> str:
        """Return the id of an experiment, made if there is none; empty if it may not be made."""
        if make:
            return _found_or_made(
                lambda: self.experiment(name, make=False), lambda: self._made_experiment(name)
            )
        with self._asking():
            found = self._client.list_experiments(
                filter=_named(name), namespace=self._namespace or None
            ).experiments
        return str(found[0].experiment_id) if found else ""

    def pipeline(self, name: str) -> str:
        """Return the id of a pipeline of ours, empty if there is none.

        Raises:
            BadInput: there is one, and somebody else made it.
        """
        with self._asking():
            found = self._client.list_pipelines(
                filter=_named(name), namespace=self._namespace or None
            ).pipelines
        if not found:
            return ""
        if not (found[0].description or "").startswith(MARK):
            raise BadInput(
                f"{self._place} has a pipeline called {name} that Tokiwa did not upload; "
                "rename it there, or the project"
            )
        return str(found[0].pipeline_id)

    def versions(self, pipeline: str) -> dict[str, str]:
        """Return the names of a pipeline's versions by id."""
        if not pipeline:
            return {}
        found = self._all(
            lambda token: self._client.list_pipeline_versions(
                pipeline, page_token=token, page_size=PAGE_ROWS
            ),
            "pipeline_versions",
        )
        return {str(each.pipeline_version_id): str(each.display_name) for each in found}

    def upload(self, name: str, package: Path) -> tuple[str, str]:
        """Upload a compiled graph as a version named by its digest, unless it is there.

        Args:
            name: of the pipeline, made if there is none.
            package: the IR YAML.

        Returns:
            The ids of the pipeline and of its version.
        """
        pipeline = _found_or_made(lambda: self.pipeline(name), lambda: self._made_pipeline(name))
        version = version_of(package)

        def found() -> str:
            known = self.versions(pipeline).items()
            return next((identity for identity, called in known if called == version), "")

        def made() -> str:
            with self._asking():
                uploaded = self._client.upload_pipeline_version(
                    str(package), version, pipeline_id=pipeline, description=f"{MARK}."
                )
            return self._known(uploaded.pipeline_version_id, "a pipeline version")

        return pipeline, _found_or_made(found, made)

    def _made_experiment(self, name: str) -> str:
        with self._asking():
            made = self._client.create_experiment(
                name, description=f"{MARK}.", namespace=self._namespace or None
            )
        return self._known(made.experiment_id, "an experiment")

    def _made_pipeline(self, name: str) -> str:
        body = kfp_server_api.V2beta1Pipeline(
            name=name,
            display_name=name,
            description=f"{MARK}, a version for each change of the project.",
            namespace=self._namespace or None,
        )
        with self._asking():
            made = self._client.pipelines.pipeline_service_create_pipeline(pipeline=body)
        return self._known(made.pipeline_id, "a pipeline")

    def start(
        self,
        name: str,
        experiment: str,
        uploaded: tuple[str, str],
        given: dict[str, str],
        account: str,
    ) -> str:
        """Start a run and return its id."""
        pipeline, version = uploaded
        with self._asking():
            run = self._client.run_pipeline(
                experiment,
                name,
                params=given,
                pipeline_id=pipeline,
                version_id=version,
                service_account=account or None,
            )
        return self._known(run.run_id, "a run")

    def run(self, identity: str) -> Any:
        """Return a run, kfp's ``V2beta1Run``.

        Raises:
            Away: this may pass.
            BackendError: there is no such run any more.
        """
        with self._asking():
            return self._client.get_run(identity)

    def runs(self, experiment: str, most: int) -> list[Any]:
        """Return the newest runs of an experiment, newest first, kfp's ``V2beta1Run``."""
        with self._asking():
            found = self._client.list_runs(
                experiment_id=experiment, page_size=most, sort_by="created_at desc"
            ).runs
        return list(found or [])

    def schedules(self) -> list[Any]:
        """Return all recurring runs that may be seen, kfp's ``V2beta1RecurringRun``."""
        return self._all(
            lambda token: self._client.list_recurring_runs(
                page_token=token, page_size=PAGE_ROWS, namespace=self._namespace or None
            ),
            "recurring_runs",
        )

    def schedule(self, **given: Any) -> Any:
        """Create a recurring run, see ``kfp.Client.create_recurring_run``, and return it."""
        with self._asking():
            made = self._client.create_recurring_run(**given)
        self._known(made.recurring_run_id, "a recurring run")
        return made

    def unschedule(self, identity: str) -> None:
        """Delete a recurring run; one that is gone already is fine."""
        with self._asking():
            try:
                self._client.delete_recurring_run(identity)
            except kfp_server_api.ApiException as error:
                if error.status != 404:
                    raise

    def _all(self, page: Callable[[str], Any], field: str) -> list[Any]:
        """Return the rows of all pages of a listing."""
        rows: list[Any] = []
        token = ""
        while True:
            with self._asking():
                answer = page(token)
            rows += getattr(answer, field) or []
            token = answer.next_page_token or ""
            if not token:
                return rows

    def _known(self, identity: str | None, what: str) -> str:
        if not identity:
            raise BackendError(f"{self._place} made {what} without an id; {_NEEDED}")
        return str(identity)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with _told(self._place), contextlib.redirect_stdout(io.StringIO()):
            yield  # kfp prints links meant for notebooks


class Away(BackendError):
    """It cannot be reached, or is not well: asking later may help."""


class _Exists(BackendError):
    """Somebody else was quicker to make it."""


def _found_or_made(find: Callable[[], str], make: Callable[[], str]) -> str:
    """Return the id of what there is, or of what is made because there is none."""
    if found := find():
        return found
    try:
        return make()
    except _Exists:
        if found := find():
            return found
        raise


def _endpoint() -> str:
    """Return the address that the environment gives, empty for none."""
    given = os.environ.get("KF_PIPELINES_ENDPOINT", "").strip()
    if given and not re.match(r"https?://[\w.\[-]", given):
        raise BadInput(
            "KF_PIPELINES_ENDPOINT is no address that begins with http:// or https://, "
            "such as http://localhost:8888"
        )
    return given


def _credential(variable: str) -> str | None:
    """Return what goes into a header, None if it is not set."""
    value = os.environ.get(variable, "").strip()
    if not (value.isascii() and value.isprintable()):
        raise BadInput(
            f"{variable} holds a line break or a letter beyond ASCII, which no header can: "
            "copy it once more"
        )
    return value or None


def public(address: str) -> str:
    """Return an address as it may be shown: without a user and a password.

    >>> public("https://me:secret@kubeflow.example/pipeline")
    'https://kubeflow.example/pipeline'
    """
    return re.sub(r"(?<=//)[^/]*@", "", address, count=1)


def version_of(package: Path) -> str:
    """Return what the version of a compiled graph is called: the digest of its content."""
    return digest_of(package.read_text(encoding="utf-8"))[:12]


def _named(name: str) -> str:
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Turn what kfp's client raises into one line."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        raise _explained(error, place) from error
    except Unauthorised as error:
        raise Unauthorised(f"{place}: {error}; {_CREDENTIALS}") from error
    except _Garbled as error:
        raise Away(f"the answer of {place} cannot be read: {error}; try again") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Away(
            f"cannot reach Kubeflow Pipelines at {place}: {public(_cause(error))}; set "
            "KF_PIPELINES_ENDPOINT, or forward its port: "
            "kubectl port-forward -n kubeflow svc/ml-pipeline 8888"
        ) from error


_CREDENTIALS = (
    "set TOKIWA_KFP_TOKEN to a bearer token, or TOKIWA_KFP_COOKIE to the cookie of a session, "
    "such as oauth2_proxy_kubeflow=…"
)


def _explained(error: Any, place: str) -> BackendError | Unauthorised:
    said = _said(error)
    if error.status in (401, 403):
        return Unauthorised(f"{place} refuses ({error.status} {said}); {_CREDENTIALS}")
    if error.status in (404, 405, 501) and "not found" not in said.lower().replace(
        "404 page not found", ""
    ):
        return BackendError(f"{place} does not know what is asked of it ({said}); {_NEEDED}")
    is_away = error.status == 429 or error.status >= 500
    kind = _Exists if error.status == 409 else Away if is_away else BackendError
    return kind(f"{place} refuses ({error.status} {said})")


def _said(error: Any) -> str:
    """Return the first line of what a server said for a reason."""
    try:
        body = json.loads(error.body)
        text = body.get("error_details") or body.get("message") or body.get("error_message") or ""
    except (TypeError, ValueError, AttributeError):
        text = str(error.body or "") if len(str(error.body or "")) < 200 else ""
    return (str(text).strip().splitlines() or [str(error.reason)])[0][:300]


def _cause(error: BaseException) -> str:
    """Return the innermost reason of an error of the network, without its addresses."""
    for inner in (getattr(error, "reason", None), *error.args[-1:]):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return str(error).rpartition(": ")[2]
