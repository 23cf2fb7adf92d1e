"""Kaggle's own client, signed in with the user's credentials."""

import contextlib
import io
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from tasks.kaggle.credentials import require_credentials
from tasks.kaggle.errors import refusal

TIMEOUTS_S = (30.0, 300.0)  # for a connection, and for the next bytes


class TimeoutAdapter(HTTPAdapter):
    """Sets a timeout where Kaggle's client gives none: it would wait for ever for a silent server."""

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """Send as requests does, with a timeout."""
        return super().send(request, stream, timeout or TIMEOUTS_S, verify, cert, proxies)


def sign_in() -> Any:
    """Kaggle's client with the user's credentials. Raises SourceError where there are none that Kaggle accepts."""
    require_credentials()
    # The import itself signs in, and prints a help text where it cannot.
    with contextlib.redirect_stdout(io.StringIO()):
        from kaggle.api.kaggle_api_extended import KaggleApi
        from kagglesdk import KaggleClient
        from kagglesdk.kaggle_env import get_env

    class Client(KaggleApi):  # type: ignore[misc]
        """Kaggle's client, which obeys KAGGLE_API_ENVIRONMENT as its own SDK does."""

        def build_kaggle_client(self) -> KaggleClient:
            values = self.config_values
            client = KaggleClient(
                env=get_env(),
                username=values.get(self.CONFIG_NAME_USER),
                password=values.get(self.CONFIG_NAME_KEY),
                api_token=values.get(self.CONFIG_NAME_TOKEN),
                response_processor=self.get_response_processor(),
            )
            http = client.http_client()
            http._init_session()
            for scheme in ("http://", "https://"):
                http._session.mount(scheme, TimeoutAdapter())
            return client

    client = Client()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            client.authenticate()
    except SystemExit:
        raise refusal(401) from None
    return client
