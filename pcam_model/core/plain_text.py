"""Text of others as it may be shown: addresses without their secrets, names without control characters."""

import re
from unicodedata import category

USER = re.compile(r"(?<=://)[^/\s?#]*@")
QUERY = re.compile(r"([?&][^\s=&#?]+=)[^\s&#\"']+?(?=[,.;:)]*(?:[\s&#\"']|$))")  # not a sentence's mark behind it
HIDDEN = "***"


def hide_secrets(text: str) -> str:
    """An address, or text with addresses in it, without user names, passwords and the values of queries.

    As in `https://***@host/file?token=***`.
    """
    if "://" not in text and "?" not in text:
        return text
    return QUERY.sub(rf"\1{HIDDEN}", USER.sub(f"{HIDDEN}@", text))


def plain(text: str) -> str:
    """Text of others on one line; control and format characters are written as codes, which no terminal obeys."""
    return "".join(char if category(char)[0] != "C" else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
