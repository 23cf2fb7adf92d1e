"""Names of users, on machines where some have none."""

import getpass
import os
import pwd


def user_name(uid: int) -> str:
    """The name of a user; `uid 1234` where the system has none for the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def login_name() -> str:
    """The name of this process's user, by LOGNAME or USER where they are set."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return user_name(os.getuid())
