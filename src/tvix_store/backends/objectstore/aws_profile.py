"""The profiles of AWS's files: `~/.aws/credentials` and `~/.aws/config`. `obstore` does not read them."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

from tvix_store.errors import InvalidError

_TAKEN = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url")


def profile_options(name: str) -> dict[str, str]:
    """The options of S3 in a profile: keys that stand there, a region and an endpoint.

    Raises:
        InvalidError: a file cannot be read, there is no such profile, or it has no keys of its own.
    """
    options: dict[str, str] = {}
    files = (("AWS_CONFIG_FILE", "config", f"profile {name}"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name))
    for variable, file, section in files:
        path = Path(os.environ.get(variable) or Path.home() / ".aws" / file)
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except (configparser.Error, OSError, UnicodeDecodeError):
            raise InvalidError(f"the AWS profile {name!r}: {path} cannot be read") from None
        for each in (section, name):
            if parser.has_section(each):
                options |= {key.removeprefix("aws_"): value for key, value in parser.items(each) if key in _TAKEN}
    if "access_key_id" not in options:
        raise InvalidError(
            f"the AWS profile {name!r} has no aws_access_key_id; sign in, and export AWS_ACCESS_KEY_ID and the others"
        )
    return options
